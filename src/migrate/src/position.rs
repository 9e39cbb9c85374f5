//! Where something stands in a file.

use loaded_config::{ConfigError, Source};
use std::fmt;
use std::rc::Rc;

/// A position in a file, as an editor counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    file: Rc<str>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// Why a text cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Position {
    pub(crate) fn start(source: &Source) -> Self {
        Self { file: source.path().display().to_string().into(), line: 1, column: 1 }
    }

    pub(crate) fn at(&self, line: usize, column: usize) -> Self {
        Self { file: Rc::clone(&self.file), line, column }
    }

    pub(crate) fn unreadable(&self, why: impl fmt::Display) -> Unreadable {
        Unreadable(format!("{self}: {why}"))
    }
}

impl Unreadable {
    pub(crate) fn plain(text: String) -> Self {
        Self(text)
    }
}

impl From<ConfigError> for Unreadable {
    fn from(error: ConfigError) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The characters of a text, each with its position.
pub(crate) struct Letters<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
    here: Position,
}

impl<'t> Letters<'t> {
    pub(crate) fn of(source: &'t Source) -> Self {
        Self { rest: source.text().chars().peekable(), here: Position::start(source) }
    }

    /// The next one, which stays.
    pub(crate) fn peek(&mut self) -> Option<char> {
        self.rest.peek().copied()
    }

    /// Where the next one is.
    pub(crate) fn position(&self) -> Position {
        self.here.clone()
    }

    /// Passes the rest of the line, but for its end.
    pub(crate) fn skip_line(&mut self) {
        while self.peek().is_some_and(|c| c != '\n') {
            self.next();
        }
    }
}

impl Iterator for Letters<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let letter = self.rest.next()?;
        (self.here.line, self.here.column) = match letter {
            '\n' => (self.here.line + 1, 1),
            _ => (self.here.line, self.here.column + 1),
        };
        Some(letter)
    }
}
