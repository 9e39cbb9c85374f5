//! What was changed at run time, written into the file, with the file's comments and layout: the text that the file needs so
//! that a restart serves the same. Nothing is written here.

use super::amendment::{Amended, Amendment};
use super::error::ConfigError;
use super::location::Source;
use super::plan::{Plan, diff, written};
use super::{Overrides, parse, parse_amended};
use std::net::IpAddr;
use std::path::PathBuf;
use toml_edit::{Array, ArrayOfTables, Decor, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value};

/// A file as it is and as it has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub path: PathBuf,
    /// What it held when it was read.
    pub before: String,
    /// The same with what was changed at run time.
    pub after: String,
}

/// Why what was changed at run time cannot be written into the file.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The format has no place for it.
    #[error(
        "{}: the classic format knows neither weights nor backends of one service; loaded config show prints what is in force as \
         TOML, to be saved as a file of its own", .0.display()
    )]
    Classic(PathBuf),
    /// It is in a file that another program may write.
    #[error("{what}: it stands in {}, which the configuration includes: change it there", path.display())]
    Included {
        /// What was changed.
        what: String,
        /// The included file.
        path: PathBuf,
    },
    /// The text would not say what is in force.
    #[error("{}: it cannot be changed so that it says what is in force: {what}; loaded config show prints that", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Where they differ.
        what: String,
    },
}

/// The file that has to be changed, if any has. `sources` and `amendments` are in force; a configuration of included files is
/// changed in the including one alone.
///
/// # Errors
/// There is no place for a change, or it is elsewhere.
pub fn saved(sources: &[Source], overrides: &Overrides, amendments: &[Amendment]) -> Result<Option<Saved>, SaveError> {
    let (Some((main, included)), false) = (sources.split_first(), amendments.is_empty()) else { return Ok(None) };
    let path = || main.path().to_owned();
    if !main.is_toml() {
        return Err(SaveError::Classic(path()));
    }
    let unfit = |what: String| SaveError::Unfit { path: path(), what };
    let mut document: DocumentMut = main.text().parse().map_err(|_| unfit("it is no TOML".to_owned()))?;
    for amendment in amendments {
        if write(&mut document, amendment).is_none() {
            let holder = included.iter().find(|source| has(source, amendment));
            let holder = holder.ok_or_else(|| unfit(amendment.to_string()))?;
            return Err(SaveError::Included { what: amendment.to_string(), path: holder.path().to_owned() });
        }
    }
    let after = document.to_string();
    let texts = [&[Source::new(main.path(), after.as_str())], included].concat();
    let bad = |error: ConfigError| unfit(error.to_string());
    let in_force = parse_amended(sources, overrides, amendments).map_err(bad)?.plan;
    let then = parse(&texts, overrides).map_err(bad)?.plan;
    match diff(&in_force, &then).first() {
        Some(change) => Err(unfit(change.to_string())),
        None => Ok(Some(Saved { path: path(), before: main.text().to_owned(), after })),
    }
}

/// The plan as a TOML file with every key, and a comment at whatever was changed at run time.
#[must_use]
pub fn marked(plan: &Plan, amendments: &[Amendment]) -> String {
    let text = written(plan);
    let (Ok(mut document), false) = (text.parse::<DocumentMut>(), amendments.is_empty()) else { return text };
    let mut head = "# Changed at run time, and in no file; loaded config show --save writes it there:\n".to_owned();
    for amendment in amendments {
        head += &format!("#   {amendment}\n");
        let service = service_mut(&mut document, &amendment.service);
        let list = service.and_then(|service| service.get_mut("backend"));
        let place = list.as_ref().and_then(|list| place(list, amendment, None));
        if let (Some(Item::ArrayOfTables(tables)), Some(place)) = (list, place)
            && let Some(table) = tables.get_mut(place)
        {
            table.decor_mut().set_prefix(format!("\n# {}\n", amendment.what));
        }
    }
    format!("{head}\n{document}")
}

/// Writes an amendment into a document; `None` if what it changes is not there.
fn write(document: &mut DocumentMut, amendment: &Amendment) -> Option<()> {
    let service = service_mut(document, &amendment.service)?;
    let port = number(service.get("port"));
    if let Amended::Added { weight, backup } = amendment.what {
        add(service, amendment, port, weight, backup);
        return Some(());
    }
    let list = service.get_mut("backend")?;
    let place = place(list, amendment, port)?;
    if let Amended::Weight { weight, .. } = amendment.what {
        set_weight(member_mut(list, place)?, weight);
    } else if remove(list, place) == 0 {
        service.remove("backend");
    }
    Some(())
}

fn set_weight(member: &mut dyn TableLike, weight: u16) {
    let mut new = Value::from(i64::from(weight));
    match member.get_mut("weight") {
        Some(Item::Value(old)) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        _ => drop(member.insert("weight", Item::Value(new))),
    }
}

/// Adds a backend at the end of a service, written as its others are.
fn add(service: &mut dyn TableLike, amendment: &Amendment, port: Option<u16>, weight: u16, backup: bool) {
    if service.get("backend").is_none() {
        service.insert("backend", Item::ArrayOfTables(ArrayOfTables::new()));
    }
    let address = Value::from(amendment.backend.address.to_string());
    let port = amendment.backend.port.filter(|own| Some(*own) != port).map(|port| Value::from(i64::from(port)));
    let weight = (weight != 1).then(|| Value::from(i64::from(weight)));
    let keys =
        [("address", Some(address)), ("port", port), ("weight", weight), ("backup", backup.then(|| Value::from(true)))];
    let keys = keys.into_iter().filter_map(|(key, value)| Some((key, value?)));
    match service.get_mut("backend") {
        Some(Item::ArrayOfTables(tables)) => push_table(tables, keys),
        Some(Item::Value(Value::Array(array))) => push_inline(array, keys.collect()),
        _ => {}
    }
}

fn push_table(tables: &mut ArrayOfTables, keys: impl Iterator<Item = (&'static str, Value)>) {
    let mut table = Table::new();
    for (key, value) in keys {
        table.insert(key, Item::Value(value));
    }
    if let Some(last) = tables.len().checked_sub(1).and_then(|last| tables.get(last)) {
        let before = prefix(last.decor());
        let gap = if before.starts_with(['\n', '\r']) { "\n" } else { "" };
        table.decor_mut().set_prefix(format!("{gap}{}", indent(&before)));
        let keys = last.key("address").map(|key| indent(&prefix(key.leaf_decor()))).unwrap_or_default();
        table.iter_mut().for_each(|(mut key, _)| key.leaf_decor_mut().set_prefix(keys.as_str()));
    }
    tables.push(table);
}

fn push_inline(array: &mut Array, keys: InlineTable) {
    let mut new = Value::InlineTable(keys);
    let last = array.len().checked_sub(1);
    if let Some(last) = last.and_then(|last| array.get_mut(last)) {
        let before = prefix(last.decor());
        let gap = if before.contains('\n') { format!("\n{}", indent(&before)) } else { " ".to_owned() };
        new.decor_mut().set_prefix(gap);
        // What follows the last element without a comma, but for a comment, follows the new one.
        let after = last.decor().suffix().and_then(RawString::as_str).unwrap_or_default().to_owned();
        if !after.contains('#') {
            last.decor_mut().set_suffix("");
            new.decor_mut().set_suffix(after);
        }
    }
    array.push_formatted(new);
}

/// Removes a backend, with the comment right above it; one that a blank line parts from it stays. Returns how many are left.
fn remove(list: &mut Item, place: usize) -> usize {
    match list {
        Item::ArrayOfTables(tables) => {
            let before = tables.get(place).map(|table| prefix(table.decor())).unwrap_or_default();
            let stays = before.rfind("\n\n").map_or("", |blank| &before[..blank + 1]);
            tables.remove(place);
            if let Some(next) = tables.get_mut(place).filter(|_| stays.contains('#')) {
                let own = prefix(next.decor());
                next.decor_mut().set_prefix(format!("{stays}{own}"));
            }
        }
        Item::Value(Value::Array(array)) => drop(array.remove(place)),
        _ => {}
    }
    count(list)
}

/// Whether an included file has what was changed, or the service that it was added to.
fn has(source: &Source, amendment: &Amendment) -> bool {
    let Ok(mut document) = source.text().parse::<DocumentMut>() else { return false };
    let is_its = |member: &dyn TableLike| text(member.get("service")) == Some(amendment.service.as_str());
    if let Some(list) = document.get("backend")
        && (0..count(list)).any(|at| member(list, at).is_some_and(|m| is_its(m) && is_at(m, amendment)))
    {
        return true;
    }
    let Some(service) = service_mut(&mut document, &amendment.service) else { return false };
    let is_added = matches!(amendment.what, Amended::Added { .. });
    let port = number(service.get("port"));
    is_added || service.get("backend").is_some_and(|list| place(list, amendment, port).is_some())
}

/// The table of a service.
fn service_mut<'d>(document: &'d mut DocumentMut, name: &str) -> Option<&'d mut dyn TableLike> {
    let list = document.get_mut("service")?;
    let place =
        (0..count(list)).find(|at| member(list, *at).and_then(|table| text(table.get("name"))) == Some(name))?;
    member_mut(list, place)
}

/// Where a backend is in a list; `port` is that of backends that name none.
fn place(list: &Item, amendment: &Amendment, port: Option<u16>) -> Option<usize> {
    let is_it = |member: &dyn TableLike| {
        is_at(member, amendment) && number(member.get("port")).or(port) == amendment.backend.port
    };
    (0..count(list)).find(|at| member(list, *at).is_some_and(is_it))
}

fn is_at(member: &dyn TableLike, amendment: &Amendment) -> bool {
    let address = text(member.get("address")).and_then(|text| text.parse::<IpAddr>().ok());
    address == Some(amendment.backend.address)
}

/// How many members a list has, whichever way it is written.
fn count(list: &Item) -> usize {
    match list {
        Item::ArrayOfTables(tables) => tables.len(),
        Item::Value(Value::Array(array)) => array.len(),
        _ => 0,
    }
}

fn member(list: &Item, place: usize) -> Option<&dyn TableLike> {
    match list {
        Item::ArrayOfTables(tables) => tables.get(place).map(|table| table as &dyn TableLike),
        Item::Value(Value::Array(array)) => array.get(place)?.as_inline_table().map(|table| table as &dyn TableLike),
        _ => None,
    }
}

fn member_mut(list: &mut Item, place: usize) -> Option<&mut dyn TableLike> {
    match list {
        Item::ArrayOfTables(tables) => tables.get_mut(place).map(|table| table as &mut dyn TableLike),
        Item::Value(Value::Array(array)) => {
            array.get_mut(place)?.as_inline_table_mut().map(|table| table as &mut dyn TableLike)
        }
        _ => None,
    }
}

fn text(item: Option<&Item>) -> Option<&str> {
    item.and_then(Item::as_str)
}

fn number(item: Option<&Item>) -> Option<u16> {
    item.and_then(Item::as_integer).and_then(|number| u16::try_from(number).ok())
}

fn prefix(decor: &Decor) -> String {
    decor.prefix().and_then(RawString::as_str).unwrap_or_default().to_owned()
}

/// The blanks of the last line.
fn indent(before: &str) -> String {
    let line = before.rsplit('\n').next().unwrap_or_default();
    line.chars().take_while(|c| matches!(c, ' ' | '\t')).collect()
}
