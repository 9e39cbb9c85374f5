//! From one supervisor to the next: what it writes down for its successor, and how a successor takes over from a
//! predecessor that gives way, or from one that was killed. It never knows what a supervisor does in between.
#![forbid(unsafe_code)]

mod descriptors;
mod error;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#[path = "../../config/tests/smallest/mod.rs"]
mod fixture;
pub mod inheritance;
pub mod journal;
mod kernel_path;
pub mod orphans;
pub mod predecessor;
pub mod snapshot;
pub mod successor;

pub use descriptors::Descriptor;
pub use error::Error;
pub use kernel_path::PathHandover;
