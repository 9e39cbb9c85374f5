//! A backend: its health, what the operator wants of it, and what has passed to and from it.

use loaded_ipc::Destination;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// A backend of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Where it is.
    pub address: IpAddr,
    /// The port that its packets get; `None`: they keep the one they came to.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its number; the same after a reload.
    pub index: u16,
    /// Its weight: its share relative to the others.
    pub weight: u16,
    /// Only used when no other can be.
    pub backup: bool,
    /// Found by discovery, not in the configuration.
    pub discovered: bool,
    /// It is in the configuration, or a check has passed. Until then a discovered node gets no clients and does not
    /// count.
    #[serde(default = "confirmed")]
    pub confirmed: bool,
    /// What the operator wants of it.
    pub admin: AdminState,
    /// Its health by the checks.
    pub state: BackendState,
    /// When it entered this state.
    pub since: u64,
    /// What the last check said.
    pub cause: String,
    /// Microseconds the last check took.
    pub latency_us: Option<u32>,
    /// Seconds it may still keep its flows, if it drains or leaves.
    pub drain_left: Option<u32>,
    /// Seconds until it gets its full share, if it came up a short while ago.
    pub slow_start_left: Option<u32>,
    /// Flows it has now.
    pub flows: u64,
    /// Flows assigned to it so far.
    pub new_flows: u64,
    /// Packets sent to it.
    pub packets_to: u64,
    /// Bytes sent to it, with IP headers.
    pub bytes_to: u64,
    /// Packets it sent.
    pub packets_from: u64,
    /// Bytes it sent.
    pub bytes_from: u64,
    /// Workers that have ejected it for a while, by passive observation.
    pub ejected_by: Vec<Ejection>,
}

/// The value for a status of an older version, which lacks the field.
fn confirmed() -> bool {
    true
}

impl BackendStatus {
    /// Where its packets go: its name.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { address: self.address, port: self.port }
    }

    /// Whether new flows could go to it, as far as checks say.
    #[must_use]
    pub fn counts_as_up(&self) -> bool {
        matches!(self.state, BackendState::Up | BackendState::Unchecked)
    }
}

/// What the operator wants of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// Use it as the checks say.
    Enabled,
    /// No new flows.
    Draining,
    /// No flows.
    Disabled,
}

impl From<loaded_ipc::Admin> for AdminState {
    fn from(admin: loaded_ipc::Admin) -> Self {
        match admin {
            loaded_ipc::Admin::Enabled => Self::Enabled,
            loaded_ipc::Admin::Draining => Self::Draining,
            loaded_ipc::Admin::Disabled => Self::Disabled,
        }
    }
}

/// A backend's health by its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// It may get new flows.
    Up,
    /// It may not get new flows.
    Down,
    /// Not checked, or no result yet: counts as up.
    Unchecked,
    /// Removed from the configuration: no new flows.
    Leaving,
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
            Self::Leaving => "leaving",
        })
    }
}

/// One worker's passive judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// Position of the worker.
    pub worker: u16,
    /// What it saw.
    pub cause: String,
}
