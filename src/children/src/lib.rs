//! The children as the supervisor sees them: workers, the prober and the exporter, started, told, listened to, ended, and
//! started again; the memory that workers work in, and what it takes to adopt those of a killed supervisor. It never knows why a
//! child is started, nor what an operator wants.
#![forbid(unsafe_code)]

pub mod adoption;
mod briefing;
mod child;
mod error;
pub mod exporter;
mod family;
mod heartbeat;
mod late;
mod lives;
pub mod memory;
pub mod notices;
pub mod prober;
pub mod worker;

pub use briefing::{Briefing, MAX_MARKED, briefing, to_worker};
pub use child::{ChildSpec, DeathReport, START_DEADLINE, dup};
pub use error::Error;
pub use family::{ChildSpecs, Children};
pub use late::LateChecks;
pub use lives::Lives;
