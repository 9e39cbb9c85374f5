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
//!  prober      the loop: starts what is due, reports, waits, handles what has arrived
//!  wait        one ppoll over the link, checks and ping sockets; nothing else in the process blocks
//!  schedule    what is checked when; never what a check found
//!  flights     the checks under way; never why
//!  check/      one check: tcp, http, udp or dns, after a ping or not; knows no other check
//!  ping        echo messages on the two ping sockets; knows no backend
//!  discovery   sweeps networks for nodes and remembers who answered; never adds a backend
//!  health      rise and fall: when results change the state; knows no clock and no socket
//!  target      what is checked, the backends that share the check, and what is known of them
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
mod flights;
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
mod wait;

pub use flights::Flights;
pub use ping::Pings;
pub use prober::Prober;
pub use run::{Arguments, run};
pub use setup::{Assembly, MAX_CHECKS, MAX_SWEEPS, MAX_TARGETS, OutOfStep, Setup};

/// Maximum number of sockets with marks; each takes the place of a check that could be under way.
pub const MAX_MARKED: usize = 128;

/// Maximum number of workers a prober can talk to.
pub const MAX_WORKERS: usize = 256;
