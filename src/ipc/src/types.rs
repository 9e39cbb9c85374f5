//! The values that travel between processes, each with its range.

use bincode::{Decode, Encode};
use std::fmt;

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

/// What a service balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Protocol {
    /// TCP segments to the service's ports.
    Tcp,
    /// UDP datagrams to the service's ports.
    Udp,
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
    /// No flows: those it has are treated as if it were down, even with [`OnBackendDown::Drain`].
    Disabled,
}

/// What a service does with its flows, and when its backends fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Policy {
    /// What becomes of the flows of a backend that is down.
    pub on_backend_down: OnBackendDown,
    /// What becomes of new flows when no backend is up.
    pub all_down: AllDown,
    /// If fewer than this percentage of the backends (without backups) are up, the checks are not believed and all backends
    /// are used. 0..=100; 0: never.
    pub panic_threshold: u8,
    /// Seconds until a backend that came up gets its full share. 0..=3600.
    pub slow_start: u32,
    /// How long its flows may be idle.
    pub idle: Idle,
    /// Whether, and how, workers judge backends by the packets they see.
    pub passive: Option<Passive>,
}

impl Policy {
    /// What a service has where the configuration says nothing (scripts/loaded.toml); with checks workers judge as well.
    pub const STANDARD: Self = Self {
        on_backend_down: OnBackendDown::Reset,
        all_down: AllDown::Reject,
        panic_threshold: 0,
        slow_start: 0,
        idle: Idle::STANDARD,
        passive: None,
    };
}

/// Seconds after which flows without packets are forgotten. Each 1..=[`MAX_IDLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Idle {
    /// TCP, open.
    pub tcp: u32,
    /// Any protocol but echo, until both sides have spoken.
    pub half_open: u32,
    /// TCP, after both FINs.
    pub closing: u32,
    /// UDP, and protocols known by their addresses alone, once both sides have spoken.
    pub udp: u32,
    /// ICMP echo.
    pub echo: u32,
}

/// Seven days.
pub const MAX_IDLE: u32 = 7 * 24 * 3600;

impl Idle {
    /// The defaults. `tcp`: 2 h 4 min, the least RFC 5382 REQ-5 allows: two hours until the first
    /// keep-alive, and 4 min. `half_open`: longer than the 16 s between a client's fourth and fifth SYN, so its retries
    /// meet the same backend; short because each costs an attacker one packet. `closing`: a peer's retransmitted FINs
    /// (200 ms doubled seven times is 25 s) still find their flow. `udp`: RFC 4787 REQ-5 wants 2 min or more; 3 are what
    /// Linux conntrack gives. `echo`: the least RFC 5508 REQ-2 allows.
    pub const STANDARD: Self = Self { tcp: 2 * 3600 + 4 * 60, half_open: 30, closing: 30, udp: 180, echo: 60 };

    /// After a reset: 4 min, the least RFC 5382 REQ-5 allows for what is not open, since the reset may be a forgery that both
    /// sides ignore; but no longer than an open connection.
    #[must_use]
    pub fn reset(&self) -> u32 {
        self.tcp.min(240)
    }

    /// Whether each value is within its range.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        [self.tcp, self.half_open, self.closing, self.udp, self.echo].iter().all(|idle| (1..=MAX_IDLE).contains(idle))
    }
}

/// What becomes of the flows of a backend that is down (not of one that drains).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnBackendDown {
    /// The client's next packet is answered: TCP by a reset, UDP by port unreachable.
    Reset,
    /// The next packet goes to another backend.
    Rehash,
    /// TCP still goes to the backend, come what may; packets of other protocols go to another one.
    Drain,
}

/// What becomes of new flows when no backend can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AllDown {
    /// Answered: TCP by a reset, UDP by port unreachable; an echo request is dropped.
    Reject,
    /// Dropped.
    Drop,
    /// Sent to the backend that was the last to go down.
    Last,
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

/// When a worker ejects a backend because packets show that it takes no connections: for a while the backend gets no new
/// flows, and the flows it has are not touched. Never more than half of a service's backends, and never the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Passive {
    /// Consecutive refused or unanswered openings, with no answer of the backend between them. 1..=255.
    pub fails: u8,
    /// Milliseconds after which an opening counts as unanswered. 50..=60_000.
    pub timeout: u32,
    /// Seconds until it is tried again; doubled, up to eight times as long, when it fails again at once. 1..=3600.
    pub hold: u32,
    /// Only openings to this port count; `None`: to any port. A healthy backend may have closed some of many ports.
    pub port: Option<u16>,
}

/// How a backend is checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Check {
    /// What to do.
    pub kind: CheckKind,
    /// Milliseconds between two checks of a backend that is up, 100..=86_400_000.
    pub interval: u32,
    /// Milliseconds between two checks of a backend that is down, 100..=86_400_000.
    pub interval_down: u32,
    /// Milliseconds after which a check has failed, 10..=60_000.
    pub timeout: u32,
    /// By how much each interval varies, percent, 0..=50.
    pub jitter: u8,
    /// Consecutive successes that bring it up. 1..=255.
    pub rise: u8,
    /// Consecutive failures that take it down. 1..=255.
    pub fall: u8,
}

/// What a check does. Strings hold no control characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum CheckKind {
    /// An echo request is answered.
    Icmp,
    /// A connection is accepted.
    Tcp {
        /// Destination port, 1..=65535.
        port: u16,
    },
    /// An echo request is answered, and then a connection accepted, as in the original.
    IcmpTcp {
        /// Destination port, 1..=65535.
        port: u16,
    },
    /// A request of HTTP/1.1 is answered with one of these statuses.
    Http {
        /// Destination port, 1..=65535.
        port: u16,
        /// 1 to 16 bytes.
        method: String,
        /// 1 to 128 bytes.
        path: String,
        /// 1 to 128 bytes, of the Host header.
        host: String,
        /// Lowest and highest status that passes, 100..=599.
        status: (u16, u16),
    },
    /// A datagram is answered by one that begins with `expect`.
    Udp {
        /// Destination port, 1..=65535.
        port: u16,
        /// Payload to send, at most 128 bytes.
        send: Vec<u8>,
        /// How the answer must begin, at most 128 bytes; empty: any answer.
        expect: Vec<u8>,
    },
    /// A query for the IPv4 addresses (A) of a name is answered with NOERROR.
    Dns {
        /// Destination port, 1..=65535.
        port: u16,
        /// 1 to 128 bytes of letters, digits, `-`, `_` and `.`.
        name: String,
    },
}

/// Why a backend is considered up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Cause {
    /// Not checked yet.
    Unchecked,
    /// The check succeeded.
    Passed,
    /// No answer to an echo request in time.
    NoEcho,
    /// No connection in time.
    ConnectTimeout,
    /// The connection was refused.
    Refused,
    /// Host or network cannot be reached.
    Unreachable,
    /// Connected, but no complete answer in time.
    AnswerTimeout,
    /// The connection ended before the answer did.
    Closed,
    /// An unexpected HTTP status.
    Status(u16),
    /// A DNS answer with this error code.
    Rcode(u8),
    /// An answer that is not what it should be.
    WrongAnswer,
    /// The check could not be made for lack of a descriptor or of memory; it does not count.
    NotMade,
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

impl fmt::Display for OnBackendDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset",
            Self::Rehash => "rehash",
            Self::Drain => "drain",
        })
    }
}

impl fmt::Display for AllDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Last => "last",
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

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unchecked => "not checked yet",
            Self::Passed => "check passed",
            Self::NoEcho => "no answer to ping",
            Self::ConnectTimeout => "no connection in time",
            Self::Refused => "connection refused",
            Self::Unreachable => "unreachable",
            Self::AnswerTimeout => "no answer in time",
            Self::Closed => "connection closed without an answer",
            Self::Status(status) => return write!(f, "HTTP status {status}"),
            Self::Rcode(code) => return write!(f, "DNS error code {code}"),
            Self::WrongAnswer => "wrong answer",
            Self::NotMade => "check could not be made",
        })
    }
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
