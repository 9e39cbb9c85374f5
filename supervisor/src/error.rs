//! Why the supervisor cannot serve. Each text names the object and the act.

use loaded_config::ConfigError;
use loaded_config::plan::CoresError;
use loaded_ipc::LinkError;
use loaded_queue::OwnerError;
use loaded_sandbox::SandboxError;
use std::io;
use std::path::PathBuf;

/// An error of the supervisor.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Started by another user.
    #[error("loaded must be started as root: it opens queues, installs rules and starts workers as another user")]
    NotRoot,
    /// The configuration is wrong.
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The cores are not there.
    #[error("{0}")]
    Cores(#[from] CoresError),
    /// The host is not set up. One line for each reason.
    #[error("{0}")]
    Host(String),
    /// The sandbox, or what it needs.
    #[error("{0}")]
    Jail(#[from] SandboxError),
    /// Another process answers the queue.
    #[error(
        "queue {queue} belongs to {owner}: stop it, or give this instance other queues (--queue-base, or FIRST_CORE and \
         LAST_CORE)"
    )]
    QueueBusy {
        /// Which queue.
        queue: u16,
        /// Who has it.
        owner: String,
    },
    /// A queue cannot be had.
    #[error("{0}")]
    Queue(OwnerError),
    /// The kernel's list of queues.
    #[error("{0}")]
    Queues(#[from] loaded_queue::ListError),
    /// Netfilter rules.
    #[error("{0}")]
    Rules(#[from] loaded_netfilter::Error),
    /// Routes by mark.
    #[error("{0}")]
    Routes(#[from] loaded_netfilter::routes::Error),
    /// Memory for the tables.
    #[error("tables: {0}; smaller `flows` and `clients` need less memory")]
    Memory(#[from] loaded_table::Error),
    /// A link to a child.
    #[error("link to a child: {0}")]
    Link(#[from] LinkError),
    /// A child ended before it served.
    #[error("{0}")]
    ChildFailed(String),
    /// A reload wants what only a restart can do.
    #[error("{0}")]
    Immutable(String),
    /// A reload wants more at once than there are numbers.
    #[error("{0}")]
    Full(String),
    /// The control socket.
    #[error("{0}")]
    Control(#[from] loaded_control::ControlError),
    /// The pid file.
    #[error("pid file {}: {source}", path.display())]
    PidFile {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A new binary and the supervisor that runs do not come together.
    #[error("take over from the supervisor that runs: {0}")]
    Succession(String),
    /// Told to end while starting.
    #[error("ended by a signal while starting")]
    Interrupted,
    /// Something the kernel refused.
    #[error("{act}: {source}")]
    Start {
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

impl From<crate::roster::Full> for Error {
    fn from(full: crate::roster::Full) -> Self {
        Self::Full(full.to_string())
    }
}
