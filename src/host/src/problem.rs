//! A problem with this host's configuration.

use std::fmt;

/// How serious a problem is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nothing would be balanced.
    Fatal,
    /// No instance can start so. One that runs goes on, and lacks something.
    NoStart,
    /// Some packets are lost.
    Impairing,
    /// Something may not work.
    Warning,
    /// It cannot be told whether something does not work.
    Unknown,
}

/// Something on this host that keeps packets from being balanced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What was looked at, in one word.
    pub kind: &'static str,
    /// How serious it is.
    pub severity: Severity,
    /// The service it is about; `None`: every one.
    pub service: Option<String>,
    /// 4 or 6: the family whose packets it is about; `None`: both, or one that is not known.
    pub family: Option<u8>,
    /// What is wrong, and what it causes.
    pub text: String,
    /// The command that mends it, if there is one.
    pub mend: Option<String>,
}

impl fmt::Display for Problem {
    /// The text and the command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.mend.iter().try_for_each(|mend| write!(f, ": {mend}"))
    }
}

impl Problem {
    /// A problem of both families and every service.
    #[must_use]
    pub fn new(kind: &'static str, severity: Severity, text: impl Into<String>) -> Self {
        Self { kind, severity, service: None, family: None, text: text.into(), mend: None }
    }

    /// The same, of one family.
    #[must_use]
    pub fn of_family(self, family: u8) -> Self {
        Self { family: Some(family), ..self }
    }

    /// The same, with the command that mends it.
    #[must_use]
    pub fn mended_by(self, command: impl Into<String>) -> Self {
        Self { mend: Some(command.into()), ..self }
    }
}
