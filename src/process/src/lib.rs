//! The supervisor as a Unix process: detaching, PID file, signals, orphans, where its log goes, how it was started. It never
//! knows what it serves.

#![forbid(unsafe_code)]

pub mod daemon;
pub mod invocation;
mod journal;
pub mod orphans;
pub mod output;
pub mod signals;

use loaded_sandbox::SandboxError;
use std::io;
use std::path::PathBuf;

/// Why this process cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A descriptor that should be open is not, or one cannot be closed.
    #[error("{0}")]
    Descriptor(#[from] SandboxError),
    /// The PID file cannot be written.
    #[error("pid file {}: {source}", path.display())]
    PidFile {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Anything else.
    #[error("{act}: {source}")]
    Start {
        /// What was tried.
        act: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}
