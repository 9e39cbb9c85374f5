//! The supervisor: the one privileged process. It reads the configuration, opens the queues, installs the rules,
//! starts workers and starts them again when they die. It never looks into a packet, never waits for a child, and
//! trusts no length or index a child sends.
//!
//! - [`config`] and [`plan`]: from text to desired state.
//! - [`rules`]: netfilter rules and steering; what belongs to others in netfilter.
//! - [`run`]: its life; `preflight`: what is looked at before; `worker`, `memory`, `push`: one child, its memory, what it is told.
//! - [`daemon`], `output`, `signals`, `report`: detaching, the log, signals, counters as text.
#![forbid(unsafe_code)]

pub mod config;
pub mod daemon;
mod error;
mod memory;
mod output;
pub mod plan;
mod preflight;
mod push;
mod report;
pub mod rules;
pub mod run;
mod signals;
mod worker;

pub use error::Error;
