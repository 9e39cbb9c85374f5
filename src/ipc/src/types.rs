//! The values that travel between processes, each with its range.

use bincode::{Decode, Encode};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The number of a backend of one service, below [`MAX_BACKEND_INDEX`]; the same address in another service is another
/// backend. It keeps its meaning as long as a flow that names it can live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BackendIndex(pub u16);

/// A service's number. It keeps its meaning as long as a flow that names it can live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ServiceIndex(pub u16);

/// Backend numbers are below this: twice as many as a configuration may have, so that new backends find numbers beside
/// those that are leaving.
pub const MAX_BACKEND_INDEX: u16 = 8192;

/// The key of a table's hash. Secret: whoever knows it can aim entries at one place.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TableKey(pub [u8; 16]);

impl fmt::Debug for TableKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TableKey(..)")
    }
}

/// The hash keys of a worker's two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TableKeys {
    /// Of the flow table.
    pub flows: TableKey,
    /// Of the affinity table.
    pub clients: TableKey,
}

/// Where packets to a backend go, which is also its name for operators: `198.51.100.11`, `198.51.100.11:8080`,
/// `[2001:db8::11]:8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Destination {
    /// The backend's address.
    pub address: IpAddr,
    /// The port that packets get, host byte order, never 0; `None`: they keep the one they came to.
    pub port: Option<u16>,
}

/// What a service balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Protocol {
    /// TCP segments to the service's ports.
    Tcp,
    /// UDP datagrams to the service's ports.
    Udp,
    /// SCTP packets to the service's ports.
    Sctp,
    /// Everything to the virtual IP: TCP, UDP and SCTP by ports, ICMP echo by its identifier, any other protocol by
    /// address alone.
    Any,
}

/// How a packet gets to its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Mode {
    /// It is rewritten to the backend's address; replies come back through the worker and are rewritten to the virtual IP.
    #[default]
    Nat,
    /// Direct server return: it is marked, and routed to the backend unchanged by that mark. The backend has the virtual IP
    /// too and answers the client itself.
    Dsr,
}

/// How a new client (or, without affinity, a new flow) gets its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Strategy {
    /// Smooth weighted round robin.
    RoundRobin,
    /// The backend with the fewest clients for its weight.
    Weighted,
    /// Maglev consistent hashing. Balancers with the same seed and backends make the same choice.
    Maglev {
        /// Seeds the permutations and the hash of the client.
        seed: u64,
    },
}

/// How long a client stays with its backend, and what a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Affinity {
    /// Leading bits of an IPv4 address that identify a client: 1..=32.
    pub prefix4: u8,
    /// Leading bits of an IPv6 address that identify a client: 1..=128.
    pub prefix6: u8,
    /// Seconds without a packet after which the client is forgotten: 1..=31_536_000.
    pub timeout: u32,
}

/// How many of a worker's flows one source prefix can have protected from eviction when the table is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Quota {
    /// Leading bits of an IPv4 address that are counted together: 1..=32.
    pub prefix4: u8,
    /// Leading bits of an IPv6 address: 1..=128.
    pub prefix6: u8,
    /// Percent of the flows that a worker can hold: 1..=100.
    pub percent: u8,
}

/// What the operator wants of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Admin {
    /// Use it as the checks say.
    Enabled,
    /// No new flows; those it has go on.
    Draining,
    /// No flows: those it has are treated as if it were down, even with [`crate::OnBackendDown::Drain`].
    Disabled,
}

/// What becomes of packets to a virtual IP that no service serves there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Unserved {
    /// They go on to the host.
    Pass,
    /// Dropped and counted, except for neighbour discovery, which the link needs.
    Drop,
}

/// What becomes of a packet that cannot be decided about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnFailure {
    /// Dropped: fail closed.
    Drop,
    /// It goes on unchanged and unbalanced: fail open.
    Pass,
}

/// An inclusive range of ports, host byte order, `low <= high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PortRange {
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
}

impl fmt::Display for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
        })
    }
}

impl fmt::Display for Unserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
        })
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drop => "drop",
            Self::Pass => "pass",
        })
    }
}

impl fmt::Display for BackendIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {}", self.0)
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.address, port)),
            None => write!(f, "{}", self.address),
        }
    }
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = || text.parse::<SocketAddr>().ok().filter(|whole| whole.port() > 0);
        let wrong = || {
            format!("{text:?} does not name a backend; write 198.51.100.11, 198.51.100.11:8080 or [2001:db8::11]:8080")
        };
        match text.parse() {
            Ok(address) => Ok(Self { address, port: None }),
            Err(_) => whole().map(|w| Self { address: w.ip(), port: Some(w.port()) }).ok_or_else(wrong),
        }
    }
}

impl fmt::Display for ServiceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}", self.0)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Any => "any",
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nat => "nat",
            Self::Dsr => "dsr",
        })
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RoundRobin => f.write_str("rr"),
            Self::Weighted => f.write_str("weighted"),
            Self::Maglev { seed } => write!(f, "maglev (seed {seed})"),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high { write!(f, "{}", self.low) } else { write!(f, "{}-{}", self.low, self.high) }
    }
}

/// Flows of one kind: what is `None` does not matter, and one thing at least does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct FlowsMeant {
    /// An address of the clients' network, and the number of leading bits that count: at most 32, or 128.
    pub client: Option<(IpAddr, u8)>,
    /// The backend's address.
    pub backend: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
    /// The service.
    pub service: Option<ServiceIndex>,
    /// The number of the state in the flow table.
    pub state: Option<u8>,
}

impl FlowsMeant {
    /// Whether it says anything, and nothing absurd.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let Self { client, backend, port, service, state } = self;
        let says = client.is_some() || backend.is_some() || port.is_some() || service.is_some() || state.is_some();
        says && client.is_none_or(|(address, length)| length <= if address.is_ipv4() { 32 } else { 128 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destination_has_one_name() {
        for name in ["198.51.100.11", "198.51.100.11:8080", "2001:db8::11", "[2001:db8::11]:65535"] {
            assert_eq!(name.parse::<Destination>().expect(name).to_string(), name);
        }
        for wrong in
            ["", "198.51.100.11:0", "198.51.100.11:", "2001:db8::11:", "host:80", "[2001:db8::11]", "1.2.3.4:65536"]
        {
            assert!(wrong.parse::<Destination>().is_err(), "{wrong:?}");
        }
    }
}
