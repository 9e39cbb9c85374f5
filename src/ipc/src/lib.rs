//! What the supervisor, the workers and the prober say to each other.
#![forbid(unsafe_code)]

mod types;

pub use types::{Affinity, BackendIndex, PortRange, Protocol, ServiceIndex, Strategy};
