//! The worker: the process that reads packets. It may receive packets of its own queue, give each one verdict, and hear from
//! the supervisor and the prober. It may open nothing, start nothing and send nothing else.
//!
//! Pure modules, without I/O, clock, random source or knowledge of the queue; the same code runs in `loaded replay`, in fuzzers
//! and in benchmarks:
//!
//! - [`wire`] knows packets: parse, rewrite, answer. Never flows or backends.
//! - [`balance`] knows the strategies: which backend gets a new client. Never packets or tables.
//! - [`setup`] knows the configuration, built from the supervisor's messages. Never where the messages come from.
//! - [`membership`] knows which backends take new flows and which keep theirs. Never packets, only what they have shown.
//! - [`decide`] knows what becomes of a packet, and the tables. Never a verdict, a queue or a socket.
//! - [`time`] is the time, passed in.
//!
//! Around them, the edges:
//!
//! - [`mod@run`] knows the order of the worker's life, `forward` its loop. Never why a packet goes where it goes.
//! - `orders` and `inbox` know the links to the supervisor and from the prober; `pending_fragments` knows the packets that wait
//!   in the kernel; `clock` reads the time; [`verdict`] knows the verdict of each outcome.
//! - [`sandbox`] knows the two stages of entering it; [`selftest`] tries to get out of it.
//! - [`replay`] decides about recorded packets. It knows no kernel.
#![forbid(unsafe_code)]

pub mod balance;
mod clock;
pub mod decide;
mod error;
mod forward;
#[cfg_attr(not(feature = "hostile"), path = "hostile/none.rs")]
mod hostile;
mod inbox;
pub mod membership;
mod orders;
mod pending_fragments;
pub mod replay;
pub mod run;
pub mod sandbox;
pub mod selftest;
pub mod setup;
pub mod time;
pub mod verdict;
pub mod wire;

pub use run::run;
