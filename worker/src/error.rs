//! Why a worker ends.

use crate::setup::OutOfStep;
use loaded_ipc::{LinkError, VERSION};
use loaded_sandbox::SandboxError;

/// Why a worker cannot run. The supervisor gets the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    #[error("link to the supervisor: {0}")]
    Link(#[from] LinkError),
    #[error("{0}")]
    OutOfStep(#[from] OutOfStep),
    #[error("link to the supervisor: set O_NONBLOCK: {0}")]
    Unblock(nix::errno::Errno),
    #[error("tables: {0}")]
    Table(#[from] loaded_table::Error),
    #[error("{0}")]
    FastPath(#[from] loaded_fastpath::Error),
    #[error("queue: {0}")]
    Queue(#[from] std::io::Error),
    #[error("the kernel has mseal, but the verdict templates could not be sealed with it")]
    Unsealed,
    #[error("pin to core {0}: {1}")]
    Pin(u16, nix::errno::Errno),
    #[error("the supervisor speaks version {0} of the messages, this worker speaks {VERSION}")]
    Version(u16),
}
