//! The supervisor as a Unix process: detaching, PID file, signals, where its log goes.

pub mod daemon;
pub(crate) mod output;
pub(crate) mod signals;
