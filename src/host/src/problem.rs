//! A problem with this host's configuration.

use std::fmt;

/// How serious a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing would be balanced: refuse to start.
    Fatal,
    /// Something may not work.
    Warning,
}

/// Something on this host that keeps packets from being balanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How serious a problem is.
    pub severity: Severity,
    /// What is wrong, what it causes, and the command that fixes it.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Fatal { "fatal" } else { "warning" };
        write!(f, "{severity}: {}", self.text)
    }
}

impl Problem {
    /// A fatal problem.
    pub(crate) fn fatal(text: &str) -> Self {
        Self { severity: Severity::Fatal, text: text.to_owned() }
    }
}
