//! The supervisor: the one privileged process. It reads the configuration, opens the queues, installs the rules,
//! starts workers and starts them again when they die. It never looks into a packet, never waits for a child, and
//! trusts no length or index a child sends.
//!
//! What it starts is in `loaded_children`, what it leaves to the next one in `loaded_handover`, what makes it a Unix process in
//! `loaded_process`.
//!
//! | Module | What it knows |
//! |---|---|
//! | [`run`], `options`, `preflight` | from the command line to the end: what is checked, the three ways to start |
//! | [`conditions`] | what on this host keeps packets from being balanced |
//! | `instance` | a running instance: its phase, the loop, reload, upgrade, what the operator asks for |
//! | `fastpath` | which programs, backends and VIPs the kernel path has |
//! | `hops` | the next hop of each backend of mode "dsr" |
#![forbid(unsafe_code)]

pub mod conditions;
mod error;
mod fastpath;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
#[path = "../../src/config/tests/smallest/mod.rs"]
mod fixture;
mod hops;
mod instance;
mod options;
mod preflight;
pub mod run;

pub use children::notices::NOTICE_LIMIT;
pub use children::{Briefing, briefing};
pub use error::Error;
pub use handover::predecessor::SUCCESSOR;
pub use process::daemon;
pub use process::output::last_words;

use loaded_children as children;
use loaded_handover as handover;
use loaded_process as process;
use loaded_roster as roster;
