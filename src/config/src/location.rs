//! Where something is in a configuration file, and the error that points there.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// One configuration file: its name and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    path: PathBuf,
    text: String,
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

/// Why there is no plan. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file was named, and there is none in the usual places.
    #[error("no configuration found, tried {}; name one with -c FILE", listed(tried))]
    NotFound {
        /// The places, in order.
        tried: Vec<PathBuf>,
    },
    /// The file cannot be opened or read.
    #[error("{}: cannot read the configuration: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file was opened, but must not be used.
    #[error("{}: refused: {reason}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// Something in a file is wrong: a parse error or a semantic one.
    #[error("{at}: {message}")]
    Invalid {
        /// File, line and column.
        at: Location,
        /// What, and what to do.
        message: String,
    },
    /// A command line option is wrong, by itself or with these files.
    #[error("{option}: {message}")]
    Option {
        /// The option, as typed: `-Q`.
        option: &'static str,
        /// What, and what to do.
        message: String,
    },
}

/// A byte in one of the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) source: usize,
    pub(super) offset: usize,
}

/// A value and where it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) mark: Mark,
}

/// What is wrong, and where; becomes a [`ConfigError`] once the sources are at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flaw {
    mark: Mark,
    message: String,
    see: Option<Mark>,
}

impl Source {
    /// `path` is for messages and for the choice of the format; nothing is opened.
    pub fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The file's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file holds.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Is it TOML? A name ending in `.toml` says so; everything else is the classic format.
    pub fn is_toml(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
    }

    /// The place of a byte. An offset past the end is the end; one inside a character is that character.
    fn location(&self, offset: usize) -> Location {
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
    pub(super) fn flaw(self, message: impl Into<String>) -> Flaw {
        Flaw { mark: self, message: message.into(), see: None }
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

    /// Turns marks into places an editor can jump to.
    pub(super) fn resolve(self, sources: &[Source]) -> ConfigError {
        let place = |mark: Mark| match sources.get(mark.source) {
            Some(source) => source.location(mark.offset),
            None => Location { path: PathBuf::new(), line: 1, column: 1 },
        };
        let message = match self.see {
            Some(other) => format!("{} (see {})", self.message, place(other)),
            None => self.message,
        };
        ConfigError::Invalid { at: place(self.mark), message }
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
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

    #[test]
    fn a_flaw_names_both_places() {
        let sources = [Source::new("a", "x\ny"), Source::new("b", "z")];
        let flaw = Mark { source: 0, offset: 2 }.flaw("twice").see(Mark { source: 1, offset: 0 });
        assert_eq!(flaw.resolve(&sources).to_string(), "a:2:1: twice (see b:1:1)");
    }
}
