//! How backends are checked, and what a check can say.

use bincode::{Decode, Encode};
use std::fmt;
use std::net::SocketAddr;

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
    /// By how much an interval may be shorter, so that checks spread, percent, 0..=50.
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
        /// Where a checker listens that makes the request of the backend, by TLS or however it likes, and answers as the backend has;
        /// `None`: the backend itself is asked. Port 1..=65535.
        #[cfg_attr(feature = "serde", serde(default))]
        via: Option<SocketAddr>,
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

impl CheckKind {
    /// Whether it begins with an echo request.
    #[must_use]
    pub fn pings(&self) -> bool {
        match self {
            Self::Icmp | Self::IcmpTcp { .. } => true,
            Self::Tcp { .. } | Self::Http { .. } | Self::Udp { .. } | Self::Dns { .. } => false,
        }
    }

    /// The TCP port it connects to.
    #[must_use]
    pub fn tcp_port(&self) -> Option<u16> {
        match self {
            Self::Tcp { port } | Self::IcmpTcp { port } | Self::Http { port, .. } => Some(*port),
            Self::Icmp | Self::Udp { .. } | Self::Dns { .. } => None,
        }
    }

    /// The UDP port it sends to.
    #[must_use]
    pub fn udp_port(&self) -> Option<u16> {
        match self {
            Self::Udp { port, .. } | Self::Dns { port, .. } => Some(*port),
            Self::Icmp | Self::Tcp { .. } | Self::IcmpTcp { .. } | Self::Http { .. } => None,
        }
    }

    /// Where a checker listens that is asked in the backend's place.
    #[must_use]
    pub fn via(&self) -> Option<SocketAddr> {
        if let Self::Http { via, .. } = self { *via } else { None }
    }

    /// The port it uses; `None` for ping alone.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.tcp_port().or(self.udp_port())
    }
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
