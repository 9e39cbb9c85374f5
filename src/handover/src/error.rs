//! Why a supervisor cannot take over from another, or give way to one.

use std::io;

/// An error of a hand-over, or of the journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process answers the packets of the queue.
    #[error(
        "queue {queue} belongs to {owner}: stop it, or give this instance other queues (--queue-base, or FIRST_CORE and \
         LAST_CORE)"
    )]
    QueueBusy {
        /// Number of the queue.
        queue: u16,
        /// The process that answers it, in words.
        owner: String,
    },
    /// A queue that was handed over is not what it should be.
    #[error("{0}")]
    Queue(loaded_queue::OwnerError),
    /// The kernel's list of queues cannot be read.
    #[error("{0}")]
    Queues(#[from] loaded_queue::ListError),
    /// A descriptor that should be handed over is missing.
    #[error("{0}")]
    Sandbox(#[from] loaded_sandbox::SandboxError),
    /// What a worker works in.
    #[error("{0}")]
    Children(#[from] loaded_children::Error),
    /// There is no memory for the journal.
    #[error("journal: {0}")]
    Memory(#[from] loaded_table::Error),
    /// The link to the other supervisor fails.
    #[error("link to the other supervisor: {0}")]
    Link(#[from] loaded_ipc::LinkError),
    /// The control socket cannot be taken over.
    #[error("{0}")]
    Control(#[from] loaded_control::ControlError),
    /// A worker has ended while it was taken over.
    #[error("a worker has ended while it was taken over; start again")]
    WorkerEnded,
    /// This process cannot take the place of the running supervisor, or another binary cannot take ours.
    #[error("take over from the running supervisor: {0}")]
    Succession(String),
    /// The kernel has refused something else.
    #[error("{act}: {source}")]
    Start {
        /// What was tried.
        act: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}
