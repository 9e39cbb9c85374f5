//! NFQUEUE, in two halves that no process holds both of: the supervisor's [`Owner`] binds, configures and keeps
//! a queue; the worker's [`QueueSocket`] receives its packets and can send nothing but verdicts.
//!
//! It knows packet ids, verdicts and the kernel's queues. It never looks inside a packet, and knows nothing of
//! backends, rules, messages or configuration.
//!
//! ```text
//!  owner      binds and configures a queue, releases a dead worker's packets; never answers a worker's packet
//!  held       who owns which queue, read from /proc; never touches a queue
//!  xtables    whether the rules of iptables-legacy have changed; changes none
//!  trial      whether this kernel repeats packets; uses a packet of its own, never a client's
//!  socket     receives in batches, answers each packet once; knows no queue but its own
//!  arena      the memory packets arrive in and are answered from; knows no verdict
//!  template   the sealed messages seccomp allows; knows no packet
//!  layout     what lies where, and which template answers which packets; touches no memory
//!  netlink    the messages as bytes; knows no socket
//! ```

mod arena;
mod held;
mod layout;
mod netlink;
mod owner;
mod socket;
mod template;
mod trial;
mod xtables;

pub use held::{ListError, QueueState, parse_queues, queue_holders, queue_owner, queue_owners};
pub use layout::{BATCH, SPARE};
pub use owner::{Orphans, Overflow, Owner, OwnerError, RECEIVE_TIMEOUT_MS, is_port, receive_buffer};
pub use socket::{Faults, Held, Meta, Packet, QueueSocket, Release, Verdict};
pub use trial::{RepeatSupport, try_repeat};
pub use xtables::legacy_tables;
