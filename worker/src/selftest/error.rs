//! Why the self-test could not be run.

use loaded_ipc::LinkError;
use loaded_queue::OwnerError;
use loaded_sandbox::SandboxError;

/// Why the self-test could not be run. Not the same as red: nothing is known then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces, a queue and sacrificed children need root.
    #[error("must be started as root: it sets up namespaces with a queue of its own and drops from root in there")]
    NotRoot,
    /// The sandbox said no.
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    /// The queue could not be had.
    #[error("{0}")]
    Queue(#[from] OwnerError),
    /// The link could not be had.
    #[error("link: {0}")]
    Link(#[from] LinkError),
    /// The tables could not be had.
    #[error("tables: {0}")]
    Table(#[from] loaded_table::Error),
    /// Anything else the operating system refused.
    #[error("{act}: {source}")]
    Os {
        /// What was tried.
        act: &'static str,
        /// What it said.
        source: std::io::Error,
    },
    /// A tool is missing or failed.
    #[error("{tool}: {problem}")]
    Tool {
        /// Name of the tool.
        tool: &'static str,
        /// Its own words.
        problem: String,
    },
    /// The testbed does not have what its watcher should miss.
    #[error("the testbed is not as it was set up: {0}")]
    Testbed(&'static str),
}

/// Names the operation that failed.
pub(super) fn os(act: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::Os { act, source }
}
