//! The types that travel between processes. They are here because more than one role must agree on them.

use bincode::{Decode, Encode};
use std::fmt;

/// A backend's stable number. It indexes the supervisor's list of backends and never changes its meaning
/// while a flow that names it can live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct BackendIndex(pub u16);

/// A service's number in the configuration, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ServiceIndex(pub u16);

/// What a service balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Protocol {
    /// TCP segments to the service's ports.
    Tcp,
    /// UDP datagrams to the service's ports.
    Udp,
    /// TCP, UDP and ICMP echo to the virtual IP, every port.
    Any,
}

/// How a new client (or, without affinity, a new flow) gets its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
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

/// Keeps a client with its backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Affinity {
    /// Leading bits of an IPv4 address that make a client: 1..=32.
    pub prefix4: u8,
    /// Leading bits of an IPv6 address that make a client: 1..=128.
    pub prefix6: u8,
    /// Seconds without a packet after which the client is forgotten: 1..=31_536_000.
    pub timeout: u32,
}

/// An inclusive range of ports, host byte order, `low <= high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct PortRange {
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
}

impl fmt::Display for BackendIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backend {}", self.0)
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
            Self::Any => "any",
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
