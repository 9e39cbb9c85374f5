//! The child processes as the supervisor sees them: started, told, listened to, ended, and started again.

pub(crate) mod briefing;
pub(crate) mod child;
pub(crate) mod exporter;
mod family;
mod heartbeat;
pub(crate) mod late;
pub(crate) mod lives;
pub(crate) mod memory;
pub(crate) mod prober;
pub(crate) mod worker;

pub(crate) use family::{ChildSpecs, Children};
