//! A problem with this host's configuration.

use std::fmt;

/// How serious a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Nothing would be balanced: refuse to start.
    Fatal,
    /// Some packets are lost.
    Impairing,
    /// Something may not work.
    Warning,
}

/// Something on this host that keeps packets from being balanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How serious a problem is.
    pub severity: Severity,
    /// 4 or 6: the family whose packets it is about; `None`: both, or one that is not known.
    pub family: Option<u8>,
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
        Self { severity: Severity::Fatal, family: None, text: text.to_owned() }
    }

    /// The same, of one family.
    pub(crate) fn of_family(self, family: u8) -> Self {
        Self { family: Some(family), ..self }
    }
}
