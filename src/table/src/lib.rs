//! Flow and affinity tables over shared memory.
//!
//! Each worker has one [`FlowTable`] and one [`AffinityTable`], each in a memfd that the supervisor keeps. The worker
//! may be killed at any instruction; the next one maps the same memory and finds every entry that was complete. What
//! it finds is judged, not believed: [`FlowTable::open`] drops every slot whose check does not hold.
//!
//! - [`shm`] is the only file with unsafe code: memfd, mmap, and a view of the memory as atomics, so that not even a
//!   second process writing the same pages can cause undefined behaviour.
//! - `layout` says where each byte lies. A change there is a change of [`LAYOUT_VERSION`].
//! - `map` (over `bucket`) is the hash map: two candidate buckets of eight ways, nothing ever moves, nothing ever grows, every
//!   operation touches at most two buckets.
//! - [`export`] carries what is in them over to a binary with another layout.
//! - [`flow`] and [`affinity`] give the map its two meanings, and decide what may be thrown out when it is full; [`QuotaTracker`]
//!   bounds how much of that one source prefix can keep from happening.
//!
//! There is no clock and no random source in here: the time (seconds of a monotonic clock) and the hash key are
//! passed in. No function allocates after `open`.
#![deny(unsafe_code)]

pub mod affinity;
mod bucket;
mod error;
pub mod export;
pub mod flow;
mod layout;
mod map;
mod quota;
pub mod shm;
mod state;
mod timeouts;

pub use affinity::{AffinityKey, AffinityTable, Assigned, Client};
pub use error::{Error, TableFull};
pub use flow::{Flow, FlowKey, FlowTable, Inserted};
pub use layout::{LAYOUT_VERSION, MAX_CAPACITY};
pub use map::{Hashed, Slot};
pub use quota::QuotaTracker;
pub use shm::{CounterReader, Counters, Region};
pub use state::FlowState;
pub use timeouts::Timeouts;
