//! The plan: what the configuration asks for, checked and complete. Both formats give one; nothing below
//! this type knows which format it came from.

use loaded_ipc::{Affinity, BackendIndex, PortRange, Protocol, Strategy};
use std::net::IpAddr;

/// Desired state. Every invariant named on a field holds: the parsers refuse what would break it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The account workers run as. Never root. Resolved when the supervisor starts.
    pub user: String,
    /// First and last core for workers, inclusive; `None` is every core this process may use.
    pub cores: Option<(u16, u16)>,
    /// Worker on core `n` answers queue `queue_base + n`.
    pub queue_base: u16,
    /// Packets that may wait in one kernel queue (`NFQA_CFG_QUEUE_MAXLEN`), 1..=10_485_760.
    pub queue_len: u32,
    /// Flows one worker can hold, 1024..=67_108_864.
    pub flows: u32,
    /// Clients (affinity entries) one worker can hold, 1024..=67_108_864.
    pub clients: u32,
    /// Name servers: port 53 from and to them is never balanced (key NS of the classic format).
    pub nameservers: Vec<IpAddr>,
    /// At least one, at most 256.
    pub services: Vec<Service>,
    /// Distinct addresses; the position is the [`BackendIndex`]. At least one, at most 4096. None is a VIP.
    pub backends: Vec<IpAddr>,
}

/// One balanced service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Unique; shown in logs and status.
    pub name: String,
    /// At least one. For each family present here there is at least one member of that family, and none
    /// of a family that is absent.
    pub vips: Vec<IpAddr>,
    /// What is balanced.
    pub protocol: Protocol,
    /// Sorted, not overlapping. Empty means every port; always empty for [`Protocol::Any`].
    pub ports: Vec<PortRange>,
    /// How a new client gets its backend.
    pub strategy: Strategy,
    /// `None`: each flow is balanced by itself.
    pub affinity: Option<Affinity>,
    /// In the order of the configuration, no backend twice.
    pub members: Vec<Member>,
}

/// A backend's part in a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Which backend.
    pub backend: BackendIndex,
    /// Share relative to the other members, 1..=256.
    pub weight: u16,
}
