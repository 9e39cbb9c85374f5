//! The supervisor: the one privileged process. It reads the configuration, opens the queues, installs the rules,
//! starts workers and starts them again when they die. It never looks into a packet, never waits for a child, and
//! trusts no length or index a child sends.
//!
//! - [`config`] and [`plan`]: from text to desired state.
//! - [`rules`]: netfilter rules and steering; what belongs to others in netfilter.
//! - `roster`: what runs now: numbers that stay, health, what is leaving. Pure.
//! - [`run`]: the start; `preflight`: what is checked before; `instance`: the running loop, with reloads and upgrades.
//! - `children`: workers and prober, their memory, what they are told, what they were killed for.
//! - `handover`: the journal, and how the next supervisor takes over from this one, alive or killed.
//! - `process`: detaching, PID file, signals, the log.
//! - [`control`]: the operator's socket: status, history, drain.
//! - [`doctor`]: what on this host stands in the way.
//! - [`trial`]: whether this kernel repeats packets, tried at every start.
#![forbid(unsafe_code)]

mod children;
pub mod config;
pub mod control;
pub mod doctor;
mod error;
mod handover;
mod instance;
pub mod network;
pub mod plan;
mod preflight;
mod process;
mod roster;
mod routes;
pub mod rules;
pub mod run;
pub mod trial;

pub use children::briefing::{Briefing, briefing};
pub use error::Error;
pub use handover::predecessor::SUCCESSOR;
pub use process::daemon;
