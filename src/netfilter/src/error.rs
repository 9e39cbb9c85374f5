//! Why rules cannot be read or changed. Each text names the object and the act.

use crate::Family;
use std::path::PathBuf;
use std::process::ExitStatus;

/// Why a command or a change of the rules failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program was not found in the directories searched.
    #[error("{name} not found; install the package iptables")]
    ToolMissing {
        /// Its file name.
        name: &'static str,
    },
    /// A program could not be run.
    #[error("{}: cannot {act}: {source}", program.display())]
    Run {
        /// Path of the program.
        program: PathBuf,
        /// What was attempted.
        act: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// A program failed; nothing has changed, because each call is one transaction.
    #[error("{command}: {status}: {said}")]
    Failed {
        /// Path and arguments.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// What it wrote to stderr.
        said: String,
    },
    /// A program did not end in time.
    #[error("{}: no end within {seconds} s, killed; does another program hold /run/xtables.lock?", program.display())]
    Timeout {
        /// Path of the program.
        program: PathBuf,
        /// How long it was given.
        seconds: u64,
    },
    /// Each time between reading the rules and writing them another program has changed them.
    #[error("another program has changed them {tries} times in a row between our look and our write")]
    Contested {
        /// How often it was tried.
        tries: u32,
    },
    /// A family's rules could not be changed.
    #[error("{family} rules: cannot {act}: {source}")]
    Rules {
        /// Which family.
        family: Family,
        /// install, remove …
        act: &'static str,
        /// The cause.
        source: Box<Error>,
    },
}

pub(crate) fn wrap(family: Family, act: &'static str, source: Error) -> Error {
    Error::Rules { family, act, source: Box::new(source) }
}
