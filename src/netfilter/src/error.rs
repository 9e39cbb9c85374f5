//! Why rules cannot be read or changed. Each text names the object and the act.

use crate::Family;
use std::path::PathBuf;
use std::process::ExitStatus;

/// What went wrong with the rules.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program is not in any of the directories that are searched.
    #[error("{name} not found; install the package iptables")]
    ToolMissing {
        /// Its file name.
        name: &'static str,
    },
    /// The operating system would not run a program.
    #[error("{}: cannot {act}: {source}", program.display())]
    Run {
        /// Path of the program.
        program: PathBuf,
        /// What was tried.
        act: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A program ended with an error; nothing has changed, for each call is one transaction.
    #[error("{command}: {status}: {said}")]
    Failed {
        /// Path and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to stderr.
        said: String,
    },
    /// A program did not end.
    #[error("{}: no end within {seconds} s, killed; does another program hold /run/xtables.lock?", program.display())]
    Timeout {
        /// Path of the program.
        program: PathBuf,
        /// The patience it had.
        seconds: u64,
    },
    /// A family's rules could not be changed.
    #[error("{family} rules: cannot {act}: {source}")]
    Rules {
        /// Which family.
        family: Family,
        /// install, remove …
        act: &'static str,
        /// Why not.
        source: Box<Error>,
    },
}
