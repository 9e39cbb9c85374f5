//! What stands in the way on this host.

use std::fmt;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing would be balanced.
    Fatal,
    /// Something may not work.
    Warning,
}

/// Something on this host that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// What it is, what it does and the command that mends it.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Fatal { "fatal" } else { "warning" };
        write!(f, "{severity}: {}", self.text)
    }
}

impl Problem {
    /// One that lets nothing be balanced.
    pub(crate) fn fatal(text: &str) -> Self {
        Self { severity: Severity::Fatal, text: text.to_owned() }
    }
}
