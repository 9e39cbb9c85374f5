//! Included files: services, and backends for services of other files. Membership that another program writes, a template engine
//! or a script, is kept apart so from what an operator writes.

use super::keys::{INCLUDED, INCLUDED_BACKEND, SERVICE, TOP};
use super::service;
use super::table::{Item, Table, read};
use crate::draft::{Draft, DraftMember};
use crate::location::{At, Flaw, Mark};
use crate::mistake::Mistakes;
use crate::near::nearest;
use ::toml::Spanned;
use ::toml::de::DeTable;
use std::collections::HashMap;

/// The patterns of the key `include`: one, or an array of them.
pub(super) fn patterns(item: Item<'_>) -> Result<Vec<At<String>>, Flaw> {
    let pattern = |item: Item<'_>| {
        let text = item.string()?;
        glob::Pattern::new(text.value)
            .map_err(|error| text.flaw(format!("include is {:?}, no pattern of file names: {error}", text.value)))?;
        Ok(text.with(text.value.to_owned()))
    };
    match item.is_array() {
        true => item.each(pattern),
        false => Ok(vec![pattern(item)?]),
    }
}

/// The patterns of a file. None if it cannot be read, which is told when it is read as a whole.
pub(crate) fn patterns_of(text: &str) -> Vec<At<String>> {
    let (document, _) = DeTable::parse_recoverable(text);
    let mistakes = Mistakes::default();
    let top = Table::open(document.get_ref(), Mark::START, &TOP, &mistakes);
    top.optional("include", patterns).unwrap_or_default()
}

/// Adds what included documents hold: the sources from the second on.
pub(super) fn merge(documents: &[Spanned<DeTable<'_>>], draft: &mut Draft, mistakes: &Mistakes) {
    let mut members = Vec::new();
    for (document, source) in documents.iter().zip(1..) {
        let top = Table::open(document.get_ref(), Mark::start_of(source).at(document.span()), &INCLUDED, mistakes);
        let services = top.optional("service", |item| item.tables(&SERVICE)).unwrap_or_default();
        draft.services.extend(services.iter().map(|table| service::service(table, true)));
        let backends = top.optional("backend", |item| item.tables(&INCLUDED_BACKEND)).unwrap_or_default();
        members.extend(backends.iter().filter_map(member));
        draft.unread.0.extend(top.unread().0);
    }
    join(members, draft, mistakes);
}

fn member(table: &Table<'_>) -> Option<(At<String>, DraftMember)> {
    let hint = "write service = \"…\", the name of the service that it is a backend of";
    let service = table.required("service", hint, |item| read(item, service::service_name));
    let member = service::member(table)?;
    Some((service?, member))
}

/// Gives each backend to the service that it names.
fn join(members: Vec<(At<String>, DraftMember)>, draft: &mut Draft, mistakes: &Mistakes) {
    let are_known = draft.unread.spares(&["service"]) && draft.services.iter().all(|service| service.knows(&["name"]));
    let names: Vec<_> = draft.services.iter().map(|service| service.name.value.clone()).collect();
    let mut by_name: HashMap<_, _> = names.iter().zip(draft.services.iter_mut()).collect();
    for (service, member) in members {
        match by_name.get_mut(&service.value) {
            Some(found) => found.members.push(member),
            None if are_known => mistakes.add(unknown_service(&service, &names)),
            None => {}
        }
    }
}

/// There is no service of this name; there are `names`.
pub(crate) fn unknown_service(service: &At<String>, names: &[String]) -> Flaw {
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let hint = match nearest(&service.value, &names) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("there is {}", names.join(", ")),
    };
    service.flaw(format!("there is no service {:?}; {hint}", service.value))
}
