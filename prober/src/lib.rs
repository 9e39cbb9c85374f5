//! The prober: checks backends, tells the supervisor what it found, and every worker which backends are up.
//!
//! *What this process may do:* open TCP and UDP sockets to the checked ports, ping by the sockets it was given, say "up" or
//! "down" of backends it was told of. *What it may not:* everything else; see its policy in `loaded_sandbox`.
//!
//! ```text
//!  run        the life: descriptors, rights, transaction, sandbox, Go
//!  prober     the loop: one ppoll over the link, the checks in flight and the ping sockets
//!  setup      the transaction, checked                health      rise and fall, pure
//!  schedule   who is checked when                     check/*     one check: tcp, http, udp, dns, or a ping first
//!  ping       the two ping sockets, echo messages     discovery   looks for nodes, and who answered
//!  report     what the supervisor is still owed       membership  what the workers are still owed
//! ```
//!
//! One thread, and all memory before the sandbox is entered: nothing that a backend or a worker does makes it grow.
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

/// Checks that are under way at the same time, at most. Others wait for their turn.
pub const MAX_FLIGHTS: usize = 256;

/// Sockets with marks, at most: each takes the place of a check that could be under way.
pub const MAX_MARKED: usize = 128;

/// Workers that a prober can talk to, at most.
pub const MAX_WORKERS: usize = 256;
