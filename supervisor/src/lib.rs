//! The supervisor: the one privileged process. It reads the configuration, opens the queues, installs the rules,
//! starts workers and starts them again when they die. It never looks into a packet, never waits for a child, and
//! trusts no length or index a child sends.
//!
//! | Module | What it knows |
//! |---|---|
//! | [`run`], `options`, `preflight` | from the command line to the end: what is checked, the three ways to start |
//! | [`conditions`] | what on this host keeps packets from being balanced |
//! | `instance` | a running instance: its phase, the loop, reload, upgrade, what the operator asks for |
//! | `children` | workers and the prober: starting, telling, hearing, ending them; their memory; what they died of |
//! | `handover` | the journal, and how a supervisor takes over from a predecessor or from a killed one |
//! | `process` | detaching, PID file, signals, the log, how this process was started |
//! | `settings` | settings of this host that are written for the instance's sake, and put back |
//! | `hops` | the next hop of each backend of mode "dsr" |
#![forbid(unsafe_code)]

mod children;
pub mod conditions;
mod error;
mod fastpath;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod fixture;
mod handover;
mod hops;
mod instance;
mod notices;
mod options;
mod preflight;
mod process;
pub mod run;
mod settings;

pub use children::briefing::{Briefing, briefing};
pub use error::Error;
pub use handover::predecessor::SUCCESSOR;
pub use notices::NOTICE_LIMIT;
pub use process::daemon;
pub use process::output::last_words;

use loaded_roster as roster;
