//! How grave a line of the log must be to be written.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How grave a line of the log is, as syslog has it (RFC 5424 §6.2.1); as a setting: the least grave that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Something does not work.
    Error = 3,
    /// Something may not work, or will not for long.
    Warning = 4,
    /// What the history keeps too: a change of the verdict, of a service or a backend, of the configuration.
    Notice = 5,
    /// What else is good to know: the default.
    #[default]
    Info = 6,
    /// What is asked, run and said within: for whoever looks for a mistake.
    Debug = 7,
}

impl LogLevel {
    /// All of them, the gravest first.
    pub const ALL: [Self; 5] = [Self::Error, Self::Warning, Self::Notice, Self::Info, Self::Debug];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    /// Reads one.
    ///
    /// # Errors
    /// What to write instead.
    pub fn read(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|level| level.name() == text);
        known.ok_or_else(|| format!("log_level cannot be {text:?}; write error, warning, notice, info or debug"))
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
