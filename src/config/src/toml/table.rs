//! TOML's values with their places, and tables that know their keys.

use crate::duration;
use crate::location::{At, Flaw, Mark};
use crate::near::nearest;
use ::toml::Spanned;
use ::toml::de::{DeTable, DeValue};
use std::fmt::Display;
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

/// A table all of whose keys are known.
pub(crate) struct Table<'t> {
    entries: &'t DeTable<'t>,
    /// Where the table starts.
    pub(crate) mark: Mark,
}

/// A value, the key it was found under, and its place.
#[derive(Clone, Copy)]
pub(crate) struct Item<'t> {
    pub(crate) key: &'static str,
    value: &'t DeValue<'t>,
    pub(crate) mark: Mark,
}

impl<'t> Table<'t> {
    pub(crate) fn open(entries: &'t DeTable<'t>, mark: Mark, keys: &KnownKeys) -> Result<Self, Flaw> {
        let mut written: Vec<_> = entries.keys().collect();
        written.sort_by_key(|key| key.span().start);
        for key in written {
            check_key(key.get_ref(), keys).map_err(|message| mark_of(key).flaw(message))?;
        }
        Ok(Self { entries, mark })
    }

    pub(crate) fn get(&self, key: &'static str) -> Option<Item<'t>> {
        let (_, value) = self.entries.iter().find(|(written, _)| written.get_ref() == key)?;
        Some(Item { key, value: value.get_ref(), mark: mark_of(value) })
    }

    /// Where a key is; the table's place if the key is missing.
    pub(crate) fn key_mark(&self, key: &str) -> Mark {
        self.entries.keys().find(|written| written.get_ref() == key).map_or(self.mark, mark_of)
    }

    pub(crate) fn require(&self, key: &'static str, hint: &str) -> Result<Item<'t>, Flaw> {
        self.get(key).ok_or_else(|| self.mark.flaw(format!("{key} is missing; {hint}")))
    }

    /// An optional number.
    pub(crate) fn number<T>(&self, key: &'static str, range: RangeInclusive<T>) -> Result<Option<T>, Flaw>
    where
        T: TryFrom<i128> + PartialOrd + Display,
    {
        self.get(key).map(|item| item.number(range)).transpose()
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
            self.mark.flaw(format!("{} is not within {least} and {most}", self.key))
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
        let item = |value: &'t Spanned<DeValue<'t>>| Item { value: value.get_ref(), mark: mark_of(value), ..self };
        Ok(array.iter().map(item).collect())
    }

    pub(crate) fn table(self, keys: &KnownKeys) -> Result<Table<'t>, Flaw> {
        match self.value {
            DeValue::Table(entries) => Table::open(entries, self.mark, keys),
            _ => Err(self.not("a table")),
        }
    }

    /// The tables of `[[key]]`.
    pub(crate) fn tables(self, keys: &KnownKeys) -> Result<Vec<Table<'t>>, Flaw> {
        match self.value {
            DeValue::Table(_) => Err(self.mark.flaw(format!("there may be several; write {} in [[ ]]", keys.table))),
            _ => self.list()?.into_iter().map(|item| item.table(keys)).collect(),
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
        self.mark.flaw(format!("{} is of type {}; write {wanted}", self.key, self.value.type_str()))
    }
}

/// The only file's byte where this starts.
pub(crate) fn mark_of<T>(value: &Spanned<T>) -> Mark {
    Mark { source: 0, offset: value.span().start }
}

pub(crate) fn boolean(item: Item<'_>) -> Result<bool, Flaw> {
    item.boolean().ok_or_else(|| item.not("true or false"))
}

/// A duration in seconds.
pub(crate) fn seconds(item: Item<'_>, range: RangeInclusive<u32>) -> Result<u32, Flaw> {
    read(item, |text| duration::seconds(text, range.clone())).map(|seconds| seconds.value)
}

/// An optional text.
pub(crate) fn text_or(
    table: &Table<'_>,
    key: &'static str,
    default: &str,
    parse: impl Fn(&str) -> Result<String, String>,
) -> Result<String, Flaw> {
    match table.get(key) {
        Some(item) => read(item, parse).map(|text| text.value),
        None => Ok(default.to_owned()),
    }
}

pub(crate) fn read<T>(item: Item<'_>, parse: impl Fn(&str) -> Result<T, String>) -> Result<At<T>, Flaw> {
    item.string()?.read(|text| parse(text))
}

fn check_key(name: &str, keys: &KnownKeys) -> Result<(), String> {
    let known = keys.known.concat();
    if known.contains(&name) {
        return Ok(());
    }
    if keys.later.contains(&name) {
        return Err(format!("{name} is not part of this version; remove it"));
    }
    if let Some((_, place)) = keys.elsewhere.iter().find(|(names, _)| names.contains(&name)) {
        return Err(format!("{name} has no place in {}; it belongs {place}", keys.table));
    }
    match nearest(name, &known).or_else(|| nearest(name, keys.later)) {
        Some(meant) => Err(format!("unknown key {name:?} in {}; did you mean {meant}?", keys.table)),
        None => Err(format!("unknown key {name:?} in {}; it takes {}", keys.table, known.join(", "))),
    }
}
