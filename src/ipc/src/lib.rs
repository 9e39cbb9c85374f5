//! What the supervisor and the workers say to each other: the messages, and the typed ends of a link.
//!
//! A message that is unknown, short, long or out of state ends the link and the child with it: a peer that is
//! out of step is treated as hostile.
#![forbid(unsafe_code)]

mod counter;
mod descriptor;
mod link;
mod message;
mod types;

pub use counter::{COUNTERS, Fault, Outcome, RECEIVED};
pub use descriptor::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, LINK_FD, QUEUE_FD};
pub use link::{Link, LinkError, clip, decode};
pub use message::{FromWorker, MAX_FRAME, MAX_TEXT, ToWorker, VERSION};
pub use types::{Affinity, BackendIndex, PortRange, Protocol, ServiceIndex, Strategy};

/// The supervisor's end of a link to a worker.
pub type WorkerLink = Link<FromWorker, ToWorker>;

/// A worker's end of its link to the supervisor.
pub type SupervisorLink = Link<ToWorker, FromWorker>;
