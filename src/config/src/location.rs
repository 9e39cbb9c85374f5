//! Where something is in a configuration file, and what is wrong there.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One configuration file: its name and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    text: Arc<str>,
    is_included: bool,
}

/// A place in a file, as an editor counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters (a tab is one), from 1.
    pub column: usize,
}

/// A stretch of bytes in one of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) source: usize,
    pub(super) offset: usize,
    /// 0 where something is missing.
    pub(super) length: usize,
}

/// A value and where it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) mark: Mark,
}

/// What is wrong, and where; becomes a [`super::Mistake`] once the sources are at hand.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Flaw {
    pub(super) mark: Mark,
    pub(super) message: String,
    /// The other place of a conflict.
    pub(super) see: Option<Mark>,
}

impl Source {
    /// `path` is for messages and for the choice of the format; nothing is opened.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into().into(), is_included: false }
    }

    /// The same text as a part of the file before it, which includes it.
    #[must_use]
    pub fn included(self) -> Self {
        Self { is_included: true, ..self }
    }

    /// Whether another file includes it.
    pub fn is_included(&self) -> bool {
        self.is_included
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn shared_text(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }

    /// Is it TOML? A name ending in `.toml` says so; everything else is the classic format.
    pub fn is_toml(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
    }

    /// The place of a byte. An offset past the end is the end; one inside a character is that character.
    pub(super) fn location(&self, offset: usize) -> Location {
        let before = self.text.char_indices().take_while(|(at, _)| *at < offset).map(|(_, c)| c);
        let (line, column) = before.fold((1, 1), |(line, column), c| match c {
            '\n' => (line + 1, 1),
            _ => (line, column + 1),
        });
        Location { path: self.path.clone(), line, column }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

impl Mark {
    /// Where the first source begins.
    pub(super) const START: Self = Self { source: 0, offset: 0, length: 0 };

    /// The beginning of a source.
    pub(super) fn start_of(source: usize) -> Self {
        Self { source, ..Self::START }
    }

    /// Another stretch of the same source.
    pub(super) fn at(self, span: Range<usize>) -> Self {
        Self { offset: span.start, length: span.len(), ..self }
    }

    pub(super) fn flaw(self, message: impl Into<String>) -> Flaw {
        Flaw { mark: self, message: message.into(), see: None }
    }

    pub(super) fn range(self) -> Range<usize> {
        self.offset..self.offset.saturating_add(self.length)
    }
}

impl<T> At<T> {
    pub(super) fn flaw(&self, message: impl Into<String>) -> Flaw {
        self.mark.flaw(message)
    }

    /// The same place, another value.
    pub(super) fn with<U>(&self, value: U) -> At<U> {
        At { value, mark: self.mark }
    }

    /// Reads the value; an error points to the value's place.
    pub(super) fn read<U>(&self, read: impl FnOnce(&T) -> Result<U, String>) -> Result<At<U>, Flaw> {
        read(&self.value).map(|value| self.with(value)).map_err(|message| self.flaw(message))
    }
}

impl Flaw {
    /// Adds the other place of the conflict.
    pub(super) fn see(mut self, other: Mark) -> Self {
        self.see = Some(other);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let source = Source::new("f", "ab\nüx=1\n");
        let at = |offset| source.location(offset).to_string();
        assert_eq!(at(0), "f:1:1");
        assert_eq!(at(2), "f:1:3");
        assert_eq!(at(3), "f:2:1");
        assert_eq!(at(5), "f:2:2");
        assert_eq!(at(999), "f:3:1");
    }
}
