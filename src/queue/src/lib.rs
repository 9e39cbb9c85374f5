//! NFQUEUE, in two halves that no process holds both of: the supervisor's [`Owner`] binds, configures and keeps
//! a queue; the worker's [`Port`] receives its packets and can send nothing but verdicts.

mod arena;
mod held;
mod layout;
mod netlink;
mod owner;
mod port;
mod template;
mod trial;

pub use held::{ListError, QueueState, parse_queues, queue_holders, queue_owner, queue_owners};
pub use layout::{BATCH, SPARE};
pub use owner::{Orphans, Overflow, Owner, OwnerError, RECEIVE_TIMEOUT_MS, is_port, receive_buffer};
pub use port::{Faults, Held, Meta, Packet, Port, Release, Verdict};
pub use trial::{Repeat, try_repeat};
