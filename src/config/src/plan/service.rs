//! A service of the plan, its backends, and where more of them are looked for.

use crate::network::Network;
use loaded_ipc::{Affinity, Check, Destination, Mode, Policy, PortRange, Protocol, Strategy};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One balanced service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Unique; shown in logs and status.
    pub name: String,
    /// At least one, at most 256, none twice. No other service has the same VIP, protocol and port;
    /// [`Protocol::Any`] has all of its VIPs. For each family present here there is at least one
    /// backend of that family that is no backup, or a place of `discover`, and nothing of a family that is absent.
    pub vips: Vec<IpAddr>,
    /// What is balanced.
    pub protocol: Protocol,
    /// Sorted, not overlapping, at most 256. Empty means every port; always empty for [`Protocol::Any`].
    pub ports: Vec<PortRange>,
    /// The port that packets to discovered backends get; `None`: they keep the one they came to. Always `None` without
    /// `discover`.
    #[serde(default)]
    pub port: Option<u16>,
    /// How its packets get to their backends.
    pub mode: Mode,
    /// How a new client gets its backend.
    pub strategy: Strategy,
    /// `None`: each flow is balanced by itself.
    pub affinity: Option<Affinity>,
    /// What happens when backends fail.
    pub policy: Policy,
    /// How backends are checked; `None`: not at all, and all count as up.
    pub check: Option<Check>,
    /// Backends have different ports and the check names none: each is checked at its own. The check's port is then that of
    /// one of them.
    #[serde(default)]
    pub checks_own_ports: bool,
    /// Where to look for more backends.
    pub discover: Option<Discover>,
    /// In the order of the configuration, no address twice with one port. May be empty with `discover`.
    pub backends: Vec<Backend>,
}

impl Service {
    /// Where a check of a backend connects or sends; `None` for ping alone. `port`: the one that packets to the backend get.
    #[must_use]
    pub fn check_port(&self, port: Option<u16>) -> Option<u16> {
        let checked = self.check.as_ref()?.kind.port()?;
        Some(port.filter(|_| self.checks_own_ports).unwrap_or(checked))
    }
}

/// A backend of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its address. Never a VIP of the plan.
    pub address: IpAddr,
    /// The port that packets to it get, never 0; `None`: they keep the one they came to. `None` in mode "dsr" and for
    /// [`Protocol::Any`].
    #[serde(default)]
    pub port: Option<u16>,
    /// Share relative to the other backends of the service, 1..=256.
    pub weight: u16,
    /// Used only when no other backend is available.
    pub backup: bool,
}

impl Backend {
    /// Where its packets go.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { address: self.address, port: self.port }
    }
}

/// Where to discover nodes that become backends of a service. Requires a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discover {
    /// Where to ask, and who may answer. At least one.
    pub places: Vec<Place>,
    /// Maximum number of backends to add, 1..=1024.
    pub limit: u16,
    /// Milliseconds between two searches, 1000..=86_400_000.
    pub interval: u32,
}

/// One network to search for nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Only answers from within it count.
    pub network: Network,
    /// Where echo requests go: a broadcast address in the network, or ff02::1.
    pub to: IpAddr,
    /// The interface to the network; required for IPv6.
    pub interface: Option<String>,
}
