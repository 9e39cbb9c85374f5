//! The messages: one enum per direction of one link. Configuration travels as a transaction:
//! `Begin`, items, `Commit`; the worker swaps only on `Commit`.

use crate::{Affinity, BackendIndex, PortRange, Protocol, ServiceIndex, Strategy};
use bincode::{Decode, Encode};
use std::net::IpAddr;

/// Version of the messages below. Bump it with any change to them.
pub const VERSION: u16 = 1;

/// Largest frame either side accepts, bytes.
pub const MAX_FRAME: usize = 512;

/// Longest text in a message, bytes: what is left of a frame beside its tag and length, rounded down.
pub const MAX_TEXT: usize = 480;

/// Supervisor to worker.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToWorker {
    /// First message. The worker ends if it does not know `version`.
    Hello {
        /// [`VERSION`] of the sender.
        version: u16,
        /// Position of this worker among the workers, from 0.
        worker: u16,
        /// The queue it answers.
        queue: u16,
    },
    /// Starts a transaction.
    Begin {
        /// Number of the configuration, rising.
        generation: u64,
    },
    /// One virtual IP. Indices rise from 0 without gaps; so do those of the items below.
    Vip {
        /// Its index.
        index: u16,
        /// Its address.
        address: IpAddr,
    },
    /// One backend.
    Backend {
        /// Its index.
        index: BackendIndex,
        /// Its address.
        address: IpAddr,
    },
    /// One service; what follows until the next `Service` belongs to it.
    Service {
        /// Its index.
        index: ServiceIndex,
        /// What it balances.
        protocol: Protocol,
        /// How a new client gets its backend.
        strategy: Strategy,
        /// Whether and how a client stays with its backend.
        affinity: Option<Affinity>,
    },
    /// The last service answers on this virtual IP.
    Listen {
        /// Index of a [`ToWorker::Vip`].
        vip: u16,
    },
    /// The last service answers on these ports. A service without any answers on all.
    Port(PortRange),
    /// The last service may use this backend.
    Member {
        /// Index of a [`ToWorker::Backend`].
        backend: BackendIndex,
        /// Its share, 1..=256.
        weight: u16,
    },
    /// Ends the transaction: the items are complete.
    Commit,
}

/// Worker to supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromWorker {
    /// The fence is closed and the configuration stands; packets may come.
    Ready {
        /// Of the transaction it answers.
        generation: u64,
    },
    /// The worker ends, and says why. At most [`MAX_TEXT`] bytes.
    Failed(String),
}
