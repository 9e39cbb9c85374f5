//! The supervisor: the one privileged process. It reads the configuration, opens the queues, installs the rules,
//! starts workers and starts them again when they die. It never looks into a packet, never waits for a child, and
//! trusts no length or index a child sends.
//!
//! - `roster`: what runs now: numbers that stay, health, what is leaving. Pure.
//! - [`run`]: the start; `preflight`: what is checked before; `instance`: the running loop, with reloads and upgrades.
//! - `children`: workers and prober, their memory, what they are told, what they were killed for.
//! - `handover`: the journal, and how the next supervisor takes over from this one, alive or killed.
//! - `process`: detaching, PID file, signals, the log.
#![forbid(unsafe_code)]

mod children;
mod error;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod fixture;
mod handover;
mod hops;
mod instance;
mod preflight;
mod process;
mod roster;
pub mod run;

pub use children::briefing::{Briefing, briefing};
pub use error::Error;
pub use handover::predecessor::SUCCESSOR;
pub use process::daemon;
