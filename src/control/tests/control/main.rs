//! The control socket from outside, and what the operator sees of a status.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod hostile;
mod instance;
mod later;
mod live;
mod metrics;
mod page;
mod sample;
mod socket;
mod text;
