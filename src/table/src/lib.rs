//! Flow and affinity tables over shared memory.
//!
//! Each worker has one [`FlowTable`] and one [`AffinityTable`], each in a memfd that the supervisor keeps. A worker may be
//! killed at any instruction; the next one maps the same memory and finds every entry that was complete. It checks what it
//! finds: [`FlowTable::open`] removes every entry whose check fails. Capacity and hash key are the opener's word
//! ([`TableSpec`]); a region that says otherwise is damaged, and formatted anew.
//!
//! - [`shm`] knows memfds and mappings, and gives a view of them as atomics, so that not even a second process that writes the
//!   same pages can cause undefined behaviour. It is the only file with unsafe code, and knows no table.
//! - `layout` knows where each byte lies. A change there is a change of [`LAYOUT_VERSION`].
//! - `bucket` and `map` know the hash map: two candidate buckets of eight ways, nothing moves, nothing grows, no operation
//!   touches more than two buckets. They never know what an entry means.
//! - [`flow`] and [`affinity`] give entries their two meanings, and decide which one is evicted when the map is full. They know
//!   neither packets nor configurations: services and backends are numbers.
//! - `state` names the states of a flow, `timeouts` how long each may be idle, and `quota` how many protected flows a source
//!   prefix may have.
//! - `reader` reads a flow table that another process writes.
//! - [`facts`] tells the kernel program of `src/fastpath` where it finds what.
//! - [`export`] carries what the tables hold to a binary with another layout.
//!
//! There is no clock and no random source here: the time, in seconds of a monotonic clock, and the hash key are passed in.
//! Nothing allocates after `open`.
#![deny(unsafe_code)]

pub mod affinity;
mod bucket;
mod error;
pub mod export;
pub mod facts;
pub mod flow;
mod layout;
mod map;
mod quota;
mod reader;
pub mod shm;
mod spec;
mod state;
mod timeouts;

pub use affinity::{AffinityKey, AffinityTable, Assigned, Client};
pub use error::{Damage, Error, TableFull};
pub use flow::{Flow, FlowKey, FlowTable, Inserted};
pub use layout::{LAYOUT_VERSION, MAX_CAPACITY};
pub use map::{Hashed, Slot};
pub use quota::QuotaTracker;
pub use reader::{FlowReader, Since};
pub use shm::{CounterReader, Counters, Region};
pub use spec::TableSpec;
pub use state::FlowState;
pub use timeouts::Timeouts;
