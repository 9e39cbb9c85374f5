//! Why a child cannot be started, or told what it has to know.

use std::io;
use std::net::SocketAddr;

/// An error about a child.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A marked socket for the prober cannot be opened.
    #[error("{0}")]
    Sandbox(#[from] loaded_sandbox::SandboxError),
    /// The kernel's list of queues cannot be read.
    #[error("{0}")]
    Queues(#[from] loaded_queue::ListError),
    /// There is not enough memory for the tables, or it is not what it should be.
    #[error("tables: {0}; smaller `flows` and `clients` need less memory")]
    Memory(#[from] loaded_table::Error),
    /// The maps of the kernel path.
    #[error("{0}")]
    FastPath(#[from] loaded_fastpath::Error),
    /// A link to a child fails.
    #[error("link to a child: {0}")]
    Link(#[from] loaded_ipc::LinkError),
    /// The configuration asks for more at once than there are numbers.
    #[error("{0}")]
    Full(#[from] loaded_roster::NumbersExhausted),
    /// What a predecessor has exported is not tables.
    #[error("take over from the running supervisor: its export of the tables is not valid")]
    Export,
    /// Nobody can listen where metrics are to be served.
    #[error("metrics: listen on {address}: {source}; {}", cure(address, source))]
    Metrics {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel has refused something else.
    #[error("{act}: {source}")]
    Start {
        /// What was tried.
        act: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

/// What helps where nobody can listen.
fn cure(address: &str, error: &io::Error) -> &'static str {
    let is_low = address.parse().is_ok_and(|address: SocketAddr| address.port() < LOW_PORTS);
    match is_low && error.kind() == io::ErrorKind::PermissionDenied {
        true => {
            "ports below 1024 need CAP_NET_BIND_SERVICE, which only a start can have: start anew with it, or name another \
             address (metrics, --metrics)"
        }
        false => "stop what listens there, or name another address (metrics, --metrics)",
    }
}

/// Ports that need CAP_NET_BIND_SERVICE, which is given up after the start (capabilities(7)).
const LOW_PORTS: u16 = 1024;
