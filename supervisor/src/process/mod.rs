//! The supervisor as a Unix process: detaching, PID file, signals, orphans, where its log goes, how it was started.

pub mod daemon;
pub(crate) mod invocation;
mod journal;
pub(crate) mod orphans;
pub(crate) mod output;
pub(crate) mod signals;
