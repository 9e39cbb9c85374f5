//! The supervisor: the one privileged process. It reads the configuration, opens the queues, installs the rules,
//! starts workers and starts them again when they die. It never looks into a packet, never waits for a child, and
//! trusts no length or index a child sends.
//!
//! - [`config`] and [`plan`]: from text to desired state.
//! - [`rules`]: netfilter rules and steering; what belongs to others in netfilter.
//! - `roster`: what runs now: numbers that stay, health, what is leaving. Pure.
//! - [`run`]: the start; `preflight`: what is looked at before; `instance`: the running loop, with reloads.
//! - `worker`, `prober` (over `child`), `memory`, `push`: the children, their memory, what they are told. `audit`: what a
//!   child was killed for.
//! - [`control`]: the operator's socket: status, history, drain.
//! - [`doctor`]: what on this host stands in the way.
//! - [`trial`]: whether this kernel repeats packets, tried at every start.
//! - [`daemon`], `output`, `signals`, `report`: detaching, the log, signals, counters as text.
#![forbid(unsafe_code)]

mod adopt;
mod audit;
mod child;
pub mod config;
pub mod control;
pub mod daemon;
pub mod doctor;
mod error;
mod instance;
mod journal;
mod memory;
mod monotonic;
pub mod network;
mod output;
pub mod plan;
mod predecessor;
mod preflight;
mod prober;
mod push;
mod report;
mod roster;
mod routes;
pub mod rules;
pub mod run;
mod signals;
pub mod trial;
mod worker;

pub use error::Error;
pub use predecessor::SUCCESSOR;
pub use push::{Briefing, briefing};
