//! The worker: the process that reads packets. It may receive packets of its queue, answer each with one verdict,
//! and read its configuration from the supervisor. It may open nothing, start nothing and send nothing else.
//!
//! [`wire`], [`balance`], [`setup`] and [`decide`] are pure: no I/O, no clock, no random source. [`run`] is the loop
//! around them, [`fence`] what closes before it begins; [`replay`] is the other loop, over a capture.
#![forbid(unsafe_code)]

pub mod balance;
mod clock;
pub mod decide;
mod early;
mod error;
pub mod fence;
mod inbox;
pub mod membership;
mod orders;
pub mod outcome;
mod passive;
pub mod replay;
pub mod run;
pub mod selftest;
pub mod setup;
#[cfg(feature = "taken")]
mod taken;
pub mod wire;

pub use run::run;
