//! `loaded.toml`: several services, each with its VIPs, ports, strategy, affinity and weighted backends.
//! `scripts/loaded.toml` shows every key. Unknown keys are refused, and so are keys of later versions.

#[cfg(test)]
mod documented;
pub(crate) mod include;
mod keys;
mod probe;
mod service;
pub(crate) mod table;

use super::draft::{Draft, DraftFailures};
use super::invisible;
use super::location::{At, Flaw, Mark, Source};
use super::mistake::Mistakes;
use super::{QUOTA, value};
use crate::plan::{Fast, HostPolicy, LogLevel, MAX_DRAIN, MAX_STOP_HOLD, MetricsAddress, QUEUE_LENS, TABLE_ENTRIES};
use ::toml::Spanned;
use ::toml::de::DeTable;
use keys::{ON_FAILURE, SERVICE, TOP};
use loaded_ipc::{OnFailure, Quota, Unserved};
use service::service;
use std::ops::Range;
use std::path::Path;
use table::{Item, Table, addresses, boolean, read, seconds};

/// Words of a program's command line.
const MAX_WORDS: usize = 32;

/// Reads a document and those that it includes; what cannot be read is told. `None` if one is no TOML.
pub(super) fn draft(main: &str, included: &[Source], mistakes: &Mistakes) -> Option<Draft> {
    let documents: Vec<_> =
        included.iter().enumerate().map(|(at, source)| document(source.text(), at + 1, mistakes)).collect();
    let main = document(main, 0, mistakes)?;
    let parts = documents.into_iter().collect::<Option<Vec<_>>>()?;
    let mut draft = of_main(&main, mistakes);
    include::merge(&parts, &mut draft, mistakes);
    Some(draft)
}

fn document<'t>(text: &'t str, source: usize, mistakes: &Mistakes) -> Option<Spanned<DeTable<'t>>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    // What else is wrong in a broken text is anybody's guess.
    errors.iter().for_each(|error| mistakes.add(syntax(error, text, source)));
    errors.is_empty().then_some(document)
}

fn of_main(document: &Spanned<DeTable<'_>>, mistakes: &Mistakes) -> Draft {
    let top = Table::open(document.get_ref(), Mark::START.at(document.span()), &TOP, mistakes);
    let includes = top.optional("include", include::patterns).is_some();
    let services = match includes {
        true => top.optional("service", |item| item.tables(&SERVICE)),
        false => top.required("service", "write a [[service]]", |item| item.tables(&SERVICE)),
    };
    Draft {
        user: top.text("user", value::user).map(|user| user.value),
        cores: top.optional("cores", cores),
        queue_base: top.number("queue_base", 0..=u16::MAX),
        queue_len: top.number("queue_len", QUEUE_LENS),
        flows: top.number("flows", TABLE_ENTRIES),
        clients: top.number("clients", TABLE_ENTRIES),
        quota: top.optional("quota", quota),
        unserved: top.text("unserved", unserved).map(|unserved| unserved.value),
        on_failure: top.optional("on_failure", on_failure).unwrap_or_default(),
        nameservers: top.optional("nameservers", addresses).unwrap_or_default(),
        gateways: Vec::new(),
        drain: top.optional("drain", |item| seconds(item, 1..=MAX_DRAIN)),
        stop_hold: top.optional("stop_hold", |item| seconds(item, 0..=MAX_STOP_HOLD)),
        defragment: top.optional("defragment", boolean),
        linger: top.optional("linger", boolean),
        fast: top.text("fast", Fast::read).map(|fast| fast.value),
        host: top.text("host", HostPolicy::read).map(|host| host.value),
        log_level: top.text("log_level", LogLevel::read).map(|level| level.value),
        metrics: top.text("metrics", MetricsAddress::read),
        monitor_group: top.text("monitor_group", value::group).map(|group| group.value),
        notify: top.optional("notify", program).unwrap_or_default(),
        notify_user: top.text("notify_user", value::user).map(|user| user.value),
        services: services.unwrap_or_default().iter().map(|table| service(table, includes)).collect(),
        unread: top.unread(),
    }
}

/// A program with its arguments.
fn program(item: Item<'_>) -> Result<Vec<String>, Flaw> {
    let words = item.list()?;
    if let Some(word) = words.get(MAX_WORDS) {
        return Err(word.mark.flaw(format!("{} has more than {MAX_WORDS} words", item.key)));
    }
    let mut program = Vec::new();
    for word in words {
        let text = word.string()?;
        if program.is_empty() && !Path::new(text.value).is_absolute() {
            return Err(text.flaw(format!(
                "{:?} is no absolute path of a program; write one such as /usr/local/sbin/tell",
                text.value
            )));
        }
        if text.value.contains('\0') {
            return Err(text.flaw("no argument of a program can have a zero byte"));
        }
        program.push(text.value.to_owned());
    }
    Ok(program)
}

fn syntax(error: &::toml::de::Error, text: &str, source: usize) -> Flaw {
    let Range { start, end } = error.span().unwrap_or_default();
    let message = error.message().lines().map(str::trim).collect::<Vec<_>>().join("; ");
    // What nobody sees: without its name the message would point at nothing.
    let unseen = text.get(start..).and_then(|rest| rest.chars().next()).filter(|c| invisible::is_invisible(*c));
    let unseen = unseen.map(|c| format!("; {} is there, which no editor shows: take it out", invisible::name(c)));
    Mark::start_of(source).at(start..end.max(start)).flaw(format!("not TOML: {message}{}", unseen.unwrap_or_default()))
}

fn quota(item: Item<'_>) -> Result<Quota, Flaw> {
    let table = item.table(&keys::QUOTA)?;
    Ok(Quota {
        prefix4: table.number("prefix4", 1..=32).unwrap_or(QUOTA.prefix4),
        prefix6: table.number("prefix6", 1..=128).unwrap_or(QUOTA.prefix6),
        percent: table.number("percent", 1..=100).unwrap_or(QUOTA.percent),
    })
}

fn unserved(text: &str) -> Result<Unserved, String> {
    match text {
        "pass" => Ok(Unserved::Pass),
        "drop" => Ok(Unserved::Drop),
        _ => Err(format!("unserved cannot be {text:?}; write pass or drop")),
    }
}

fn on_failure(item: Item<'_>) -> Result<DraftFailures, Flaw> {
    let table = item.table(&ON_FAILURE)?;
    let way = |key: &'static str| {
        let parse = |text: &str| match text {
            "drop" => Ok(OnFailure::Drop),
            "pass" => Ok(OnFailure::Pass),
            _ => Err(format!("{key} cannot be {text:?}; write drop or pass")),
        };
        table.text(key, parse)
    };
    Ok(DraftFailures {
        no_worker: way("no_worker"),
        queue_full: way("queue_full"),
        receive_overrun: way("receive_overrun"),
        parse_error: way("parse_error"),
    })
}

fn cores(item: Item<'_>) -> Result<At<(u16, u16)>, Flaw> {
    if item.is_integer() {
        let core = item.number(0..=u16::MAX)?;
        return Ok(At { value: (core, core), mark: item.mark });
    }
    read(item, value::cores)
}
