//! The configuration as a worker uses it, built from the messages of the supervisor's transaction. All memory that
//! decisions need is allocated here, before the sandbox closes. Pure: no I/O, no clock.
//!
//! Things are named by indices that may have gaps, because an index keeps its meaning from one configuration to the next:
//! each table has a slot for every index up to the largest. A backend's index belongs to one service; the same address may
//! have several, in one service with different ports. So replies are recognised by their address, and the flow says which
//! backend it was.
//!
//! - `assembly` takes the messages one by one and judges them; `commit` judges the whole, and makes the setup
//! - `model` is what comes of them, with the questions decisions ask of it; `ports` answers those about ports,
//!   `choice` those about the choice of a backend
//! - `flow_timeouts` and `affinity_timeout`: how long flows and clients are remembered

mod affinity_timeout;
mod assembly;
mod choice;
mod commit;
mod flow_timeouts;
mod model;
mod ports;

pub(crate) use affinity_timeout::AffinityTimeouts;
pub use assembly::{Assembly, OutOfStep};
pub use flow_timeouts::flow_timeouts;
pub use model::{Backend, Service, ServicePool, Setup};
