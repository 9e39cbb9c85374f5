//! The supervisor as a Unix process: detaching, PID file, signals, where its log goes, how it was started.

pub mod daemon;
pub(crate) mod invocation;
pub(crate) mod output;
pub(crate) mod signals;
