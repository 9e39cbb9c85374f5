//! The exporter: answers scrapers and browsers by HTTP with documents that the supervisor has made.
//!
//! It may accept connections on the one socket it was given, read a request, send an answer, and ask the supervisor for a
//! document. It may do nothing else (its policy is in `loaded_sandbox`), and what it says is what the supervisor has sent:
//! it knows no service, no backend, no counter and no configuration.
//!
//! ```text
//!  run         the life of the process: descriptors, rights, sandbox, Go
//!  sandbox     what the sandbox must leave open
//!  exporter    the loop: waits, accepts, moves connections along, hears the supervisor
//!  connection  one connection: a request in, an answer out; knows no other connection
//!  request     what a request asks for, or why it is refused; knows no socket
//!  answer      the head of an answer; knows no request
//!  shelf       the documents there are, and who is still reading an older one
//!  clock       monotonic microseconds
//!  hostile/    for tests: a compromised exporter; in no release
//! ```
//!
//! One thread, and all memory is allocated before the sandbox is entered: nothing that anybody sends makes it grow.

#![forbid(unsafe_code)]

mod answer;
mod clock;
mod connection;
mod exporter;
#[cfg_attr(not(feature = "hostile"), path = "hostile/none.rs")]
mod hostile;
mod request;
mod run;
mod sandbox;
mod shelf;

pub use request::judge;
pub use run::{Arguments, run};
