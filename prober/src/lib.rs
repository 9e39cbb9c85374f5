//! The prober: checks backends, reports to the supervisor, and tells every worker which backends are up.
//!
//! It may open TCP and UDP sockets to the checked ports, ping through the sockets it was given, and say "up" or "down"
//! of the backends it was told of. It may do nothing else (its policy is in `loaded_sandbox`), and it knows no packet
//! of a client, no rule, no queue and no configuration file.
//!
//! ```text
//!  run         the life of the process: descriptors, rights, setup, sandbox, Go; knows no check
//!  sandbox     what the sandbox must leave open; knows no backend's address
//!  setup       the configuration, validated message by message; never applies half of one
//!  prober      the loop: one ppoll over the link, checks and ping sockets; never blocks anywhere else
//!  schedule    which backend is checked when; never what a check found
//!  check/      one check: tcp, http, udp or dns, after a ping or not; knows no other check
//!  ping        echo messages on the two ping sockets; knows no backend
//!  discovery   sweeps networks for nodes and remembers who answered; never adds a backend
//!  health      rise and fall: when results change the state; knows no clock and no socket
//!  target      a backend and what is known of it
//!  report      what the supervisor is still owed; never queues old news
//!  membership  what the workers are still owed; never reads a word from them
//!  pending     a set of indices, served in turn; does not know what they stand for
//!  clock       monotonic microseconds                random      random numbers without a system call
//!  hostile/    for tests: a compromised prober; in no release
//! ```
//!
//! One thread, and all memory is allocated before the sandbox is entered: nothing a backend or a worker does makes it
//! grow.

#![forbid(unsafe_code)]

mod check;
mod clock;
mod discovery;
pub mod health;
#[cfg_attr(not(feature = "hostile"), path = "hostile/none.rs")]
mod hostile;
mod membership;
mod pending;
mod ping;
mod prober;
mod random;
mod report;
mod run;
mod sandbox;
mod schedule;
mod setup;
mod target;

pub use ping::Pings;
pub use prober::Prober;
pub use run::{Arguments, run};
pub use setup::{Assembly, MAX_CHECKS, MAX_SWEEPS, MAX_TARGETS, OutOfStep, Setup};

/// Maximum number of checks under way at the same time; others wait for their turn.
pub const MAX_FLIGHTS: usize = 256;

/// Maximum number of sockets with marks; each takes the place of a check that could be under way.
pub const MAX_MARKED: usize = 128;

/// Maximum number of workers a prober can talk to.
pub const MAX_WORKERS: usize = 256;
