//! The children as the supervisor sees them: workers, the prober, the exporter, and the operator's program that is told of
//! changes. How they are started, told, listened to, ended and started again; the memory that workers work in; whether
//! workers of a killed supervisor could be adopted. It never decides when a child is needed, and never sees a request of an
//! operator.
#![forbid(unsafe_code)]

pub mod adoption;
mod briefing;
mod child;
mod error;
pub mod exporter;
mod family;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#[path = "../../config/tests/smallest/mod.rs"]
mod fixture;
mod heartbeat;
mod late;
pub mod memory;
pub mod notices;
pub mod prober;
mod restarts;
pub mod worker;

pub use briefing::{Briefing, briefing, to_worker};
pub use child::{ChildSpec, DeathReport, START_DEADLINE, dup};
pub use error::Error;
pub use family::{ChildSpecs, Children};
pub use late::LateChecks;
pub use restarts::Lives;
