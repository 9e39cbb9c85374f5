//! Why there is no plan.

use super::mistake::Mistake;
use std::io;
use std::path::PathBuf;

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
    /// Something in the files is wrong: whatever is, in the order of the files. Never empty.
    #[error("{}", lines(mistakes))]
    Invalid {
        /// The first hundred.
        mistakes: Vec<Mistake>,
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

impl ConfigError {
    /// For a terminal: one text for each mistake, which shows the line that is wrong.
    #[must_use]
    pub fn reports(&self) -> Vec<String> {
        match self {
            Self::Invalid { mistakes } => mistakes.iter().map(Mistake::report).collect(),
            other => vec![other.to_string()],
        }
    }
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
