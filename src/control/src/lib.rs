//! The operator's view: a Unix socket on which a running instance answers questions and takes orders, and the other side
//! of it, which `loaded status` and its like are.
//!
//! One request a connection: a line of JSON, answered by a line of JSON. [`Control`] is the instance's side and lives in
//! the supervisor's poll loop, which it never holds up; [`ask`] is the client's.
//!
//! - [`Request`], [`Reply`], [`Status`]: what is said. Both sides use the same types.
//! - [`History`]: the last changes of membership.
//! - [`explain`]: what would become of a packet.
//! - `socket`: where the socket is; `server`, `connection`: answering; `client`: asking.
//! - [`process`]: what the kernel says of a process; [`text`], [`metrics`]: a status for people and for Prometheus.

#![forbid(unsafe_code)]

mod client;
mod connection;
pub mod explain;
mod figures;
mod history;
mod message;
pub mod metrics;
pub mod process;
mod server;
mod socket;
pub mod status;
pub mod text;

pub use client::{AskError, ask};
pub use connection::{ANSWER_DEADLINE, Answer, REQUEST_DEADLINE, TAKE_DEADLINE};
pub use explain::{Explanation, Tuple};
pub use history::{By, Event, HISTORY, History, unix_ms};
pub use message::{Action, Reply, Request};
pub use server::{Control, MAX_CONNECTIONS};
pub use socket::{ControlError, DIRECTORY, default_path};
pub use status::Status;

/// Longest request, bytes, without the newline that ends it.
pub const MAX_REQUEST: usize = 16 * 1024;

/// Longest answer, bytes: 4096 backends of 64 workers take about 4 MB. Bounds what one slow reader costs.
pub const MAX_ANSWER: usize = 16 << 20;
