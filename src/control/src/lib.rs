//! The operator's socket: a Unix socket on which a running instance answers questions and takes commands, and the client for
//! it that `loaded status` and the other commands use. Knows what an operator asks and is told; never knows how it came about.
//!
//! A group may ask too, by a socket of its own beside it, but only what changes nothing. One request per connection: one line of
//! JSON, answered by one line of JSON. [`Control`] is the instance's side and runs in the supervisor's poll loop without ever
//! blocking it; [`ask`] is the client's side.
//!
//! - [`Request`], [`Reply`], [`Status`]: the messages, shared by both sides.
//! - [`History`]: the last changes of membership.
//! - [`explain`]: what would become of a packet; [`flows`]: the flows there are.
//! - `socket`: where the socket is; `server`, `connection`: answering; `client`: asking.
//! - [`process`]: what the kernel reports about a process; [`text`], [`metrics`], [`page`]: a status for people, for
//!   Prometheus, and for a browser; [`live`]: what changes from one status to the next.

#![forbid(unsafe_code)]

mod checks;
mod client;
mod connection;
pub mod explain;
mod figures;
pub mod flows;
mod health;
mod history;
pub mod live;
mod message;
pub mod metrics;
pub mod page;
mod policy;
pub mod process;
mod server;
mod socket;
pub mod status;
pub mod text;

pub use checks::{BOUNDS, CheckFigures};
pub use client::{AskError, ask, ask_within};
pub use connection::{ANSWER_DEADLINE, Answer, CHANGE_DEADLINE, REQUEST_DEADLINE, TAKE_DEADLINE};
pub use explain::{Explanation, Tuple};
pub use flows::{EndedFlows, FlowLine, FlowList, FlowQuery, MAX_FLOWS};
pub use health::{ConditionStatus, Effect, Health, InstanceVerdict, ServiceHealth};
pub use history::{By, Event, HISTORY, History, unix_ms};
pub use message::{Action, AmendAction, FileChange, Reply, Request};
pub use policy::PolicyStatus;
pub use server::{Control, MAX_CONNECTIONS, MAX_MONITORS};
pub use socket::{ControlError, DIRECTORY, default_path, group_named, in_group, monitor_path};
pub use status::Status;

/// Longest request, bytes, without the newline that ends it.
pub const MAX_REQUEST: usize = 16 * 1024;

/// Longest answer, bytes: 4096 backends of 64 workers take about 4 MB. Bounds what one slow reader costs.
pub const MAX_ANSWER: usize = 16 << 20;
