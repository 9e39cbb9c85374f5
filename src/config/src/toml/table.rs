//! TOML's values with their places, and tables that know their keys.

use crate::address::address;
use crate::duration;
use crate::location::{At, Flaw, Mark};
use crate::mistake::{Mistakes, Unread};
use crate::near::nearest;
use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};
use std::cell::RefCell;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// The keys of one kind of table.
pub(crate) struct KnownKeys {
    /// What messages call the table.
    pub(crate) table: &'static str,
    /// The keys it may have, in groups.
    pub(crate) known: &'static [&'static [&'static str]],
    /// What belongs to later versions: refused, because a key that does nothing would be a broken promise.
    pub(crate) later: &'static [&'static str],
    /// Keys that belong elsewhere, and where.
    pub(crate) elsewhere: &'static [(&'static [&'static str], &'static str)],
}

/// A table whose keys have been looked at: those that it cannot have are told.
pub(crate) struct Table<'t> {
    entries: &'t DeTable<'t>,
    /// Where the table starts.
    pub(crate) mark: Mark,
    pub(crate) mistakes: &'t Mistakes,
    unread: RefCell<Unread>,
}

/// A value, the key it was found under, and its place.
#[derive(Clone, Copy)]
pub(crate) struct Item<'t> {
    pub(crate) key: &'static str,
    value: &'t DeValue<'t>,
    pub(crate) mark: Mark,
    pub(crate) mistakes: &'t Mistakes,
}

impl<'t> Table<'t> {
    pub(crate) fn open(entries: &'t DeTable<'t>, mark: Mark, keys: &KnownKeys, mistakes: &'t Mistakes) -> Self {
        let mut unread = Unread::default();
        for key in entries.keys() {
            if let Err((message, meant)) = check_key(key.get_ref(), keys) {
                mistakes.add(mark.at(key.span()).flaw(message));
                unread.0.extend(meant);
            }
        }
        Self { entries, mark, mistakes, unread: RefCell::new(unread) }
    }

    pub(crate) fn get(&self, key: &'static str) -> Option<Item<'t>> {
        let (_, value) = self.entries.iter().find(|(written, _)| written.get_ref() == key)?;
        Some(Item { key, value: value.get_ref(), mark: self.mark.at(value.span()), mistakes: self.mistakes })
    }

    /// Where a key is; the table's place if the key is missing.
    pub(crate) fn key_mark(&self, key: &str) -> Mark {
        self.entries.keys().find(|written| written.get_ref() == key).map_or(self.mark, |key| self.mark.at(key.span()))
    }

    /// What a key says: `None` if it is not there, or cannot be read, which is told.
    pub(crate) fn optional<T>(&self, key: &'static str, read: impl FnOnce(Item<'t>) -> Result<T, Flaw>) -> Option<T> {
        let item = self.get(key)?;
        let before = self.mistakes.count();
        let value = self.mistakes.take(read(item));
        if self.mistakes.count() > before {
            self.unread.borrow_mut().0.push(key);
        }
        value
    }

    /// What a key says that must be there; `hint` is what to write.
    pub(crate) fn required<T>(
        &self,
        key: &'static str,
        hint: &str,
        read: impl FnOnce(Item<'t>) -> Result<T, Flaw>,
    ) -> Option<T> {
        if self.get(key).is_none() {
            self.miss(key, hint);
        }
        self.optional(key, read)
    }

    /// Tells that a key is missing, unless a key that cannot be read was meant to be it.
    pub(crate) fn miss(&self, key: &'static str, hint: &str) {
        if self.unread.borrow().spares(&[key]) {
            self.mistakes.add(self.mark.flaw(format!("{key} is missing; {hint}")));
            self.unread.borrow_mut().0.push(key);
        }
    }

    /// An optional number.
    pub(crate) fn number<T>(&self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        self.optional(key, |item| item.number(range))
    }

    /// An optional text.
    pub(crate) fn text<T>(&self, key: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<At<T>> {
        self.optional(key, |item| read(item, parse))
    }

    /// The keys that could not be read.
    pub(crate) fn unread(&self) -> Unread {
        self.unread.borrow().clone()
    }
}

impl KnownKeys {
    /// A table to write, with the first of its keys.
    fn example(&self) -> String {
        let first = self.known.iter().find_map(|group| group.first());
        first.map_or_else(|| "a table".to_owned(), |key| format!("a table, such as {{ {key} = … }}"))
    }
}

impl<'t> Item<'t> {
    pub(crate) fn string(self) -> Result<At<&'t str>, Flaw> {
        match self.value {
            DeValue::String(text) => Ok(At { value: text, mark: self.mark }),
            _ => Err(self.not("a string in quotes")),
        }
    }

    pub(crate) fn number<T>(self, range: RangeInclusive<T>) -> Result<T, Flaw>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        let DeValue::Integer(integer) = self.value else {
            return Err(self.not("a number without quotes"));
        };
        let value =
            i128::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|value| T::try_from(value).ok());
        value.filter(|value| range.contains(value)).ok_or_else(|| {
            let (least, most) = (range.start(), range.end());
            self.mark.flaw(format!("{} is {integer}; write a number from {least} to {most}", self.key))
        })
    }

    /// The elements of an array that is not empty.
    pub(crate) fn list(self) -> Result<Vec<Self>, Flaw> {
        let DeValue::Array(array) = self.value else {
            return Err(self.not("an array in [ ]"));
        };
        if array.is_empty() {
            return Err(self.mark.flaw(format!("{} is empty; name at least one or remove it", self.key)));
        }
        let at = |value: &Spanned<_>| self.mark.at(value.span());
        let item = |value: &'t Spanned<DeValue<'t>>| Item { value: value.get_ref(), mark: at(value), ..self };
        Ok(array.iter().map(item).collect())
    }

    /// The elements of an array that can be read; the others are told.
    pub(crate) fn each<T>(self, read: impl Fn(Item<'t>) -> Result<T, Flaw>) -> Result<Vec<T>, Flaw> {
        Ok(self.list()?.into_iter().filter_map(|item| self.mistakes.take(read(item))).collect())
    }

    pub(crate) fn table(self, keys: &KnownKeys) -> Result<Table<'t>, Flaw> {
        match self.value {
            DeValue::Table(entries) => Ok(Table::open(entries, self.mark, keys, self.mistakes)),
            _ => Err(self.not(&keys.example())),
        }
    }

    /// The tables of `[[key]]`.
    pub(crate) fn tables(self, keys: &KnownKeys) -> Result<Vec<Table<'t>>, Flaw> {
        match self.value {
            DeValue::Table(_) => Err(self.mark.flaw(format!("there may be several; write {} in [[ ]]", keys.table))),
            _ => self.each(|item| item.table(keys)),
        }
    }

    /// `None` if it is of another type.
    pub(crate) fn boolean(self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    pub(crate) fn is_array(self) -> bool {
        self.value.is_array()
    }

    pub(crate) fn is_integer(self) -> bool {
        self.value.is_integer()
    }

    pub(crate) fn is_table(self) -> bool {
        self.value.is_table()
    }

    pub(crate) fn not(self, wanted: &str) -> Flaw {
        let said = match self.value {
            DeValue::String(text) => format!("{text:?}, a string"),
            DeValue::Integer(number) => format!("{number}, a number"),
            DeValue::Float(number) => format!("{number}, a number with a fraction"),
            DeValue::Boolean(value) => value.to_string(),
            DeValue::Datetime(time) => format!("{time}, a date"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.mark.flaw(format!("{} is {said}; write {wanted}", self.key))
    }
}

pub(crate) fn boolean(item: Item<'_>) -> Result<bool, Flaw> {
    item.boolean().ok_or_else(|| item.not("true or false"))
}

/// One address, or an array of them.
pub(super) fn addresses(item: Item<'_>) -> Result<Vec<At<IpAddr>>, Flaw> {
    match item.is_array() {
        true => item.each(|item| read(item, address)),
        false => Ok(vec![read(item, address)?]),
    }
}

/// A duration in seconds.
pub(crate) fn seconds(item: Item<'_>, range: RangeInclusive<u32>) -> Result<u32, Flaw> {
    read(item, |text| duration::seconds(text, range.clone())).map(|seconds| seconds.value)
}

/// What stands in quotes. If nothing does, what would have to is part of the message.
pub(crate) fn read<T>(item: Item<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<At<T>, Flaw> {
    if let DeValue::String(_) = item.value {
        return item.string()?.read(|text| parse(text));
    }
    let said = match item.value {
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        _ => String::new(),
    };
    let why = parse(&said).err().unwrap_or_default();
    Err(match why.rsplit_once("; write ") {
        Some((_, hint)) if hint.contains('"') => item.not(hint),
        Some((_, hint)) => item.not(&format!("in quotes {hint}")),
        None => item.not("a string in quotes"),
    })
}

/// What is wrong with a key, and which one was meant.
fn check_key(name: &str, keys: &KnownKeys) -> Result<(), (String, Option<&'static str>)> {
    let known = keys.known.concat();
    if known.contains(&name) {
        return Ok(());
    }
    if keys.later.contains(&name) {
        return Err((format!("{name} is not part of this version; remove it"), None));
    }
    if let Some((_, place)) = keys.elsewhere.iter().find(|(names, _)| names.contains(&name)) {
        return Err((format!("{name} has no place in {}; it belongs {place}", keys.table), None));
    }
    let meant = nearest(name, &known);
    Err(match meant.or_else(|| nearest(name, keys.later)) {
        Some(near) => (format!("unknown key {name:?} in {}; did you mean {near}?", keys.table), meant),
        None => (format!("unknown key {name:?} in {}; it takes {}", keys.table, known.join(", ")), None),
    })
}
