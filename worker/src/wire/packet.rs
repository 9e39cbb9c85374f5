//! What a packet is, as far as balancing needs to know it.

use super::address::{Address, Family};
use super::segment::TcpSegment;

/// IANA protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMP for IPv6.
    pub const ICMP6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;

    /// Whether its header begins with a source and a destination port.
    #[must_use]
    pub const fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | SCTP)
    }
}

/// An ICMP error quotes the packet it is about after its own 8 bytes (RFC 792, RFC 4443 §3).
pub(super) const ICMP_HEADER: usize = 8;

/// A packet, as far as balancing needs to know it. Offsets refer to the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedPacket {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its source address.
    pub source: Address,
    /// Its destination address.
    pub destination: Address,
    /// The upper-layer protocol, after all extension headers.
    pub protocol: u8,
    /// Offset of the upper layer, bytes.
    pub transport: usize,
    /// What the upper layer is.
    pub kind: Kind,
}

/// The upper layer. Ports are in host byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP.
    Tcp(TcpSegment),
    /// UDP.
    Udp {
        /// Source and destination port.
        ports: (u16, u16),
    },
    /// SCTP. Its checksum does not cover addresses (RFC 9260 §3.1).
    Sctp {
        /// Source and destination port.
        ports: (u16, u16),
        /// Whether it opens an association: only a packet with an INIT has a verification tag of 0 (RFC 9260 §8.5.1).
        opens: bool,
    },
    /// ICMP echo, by its identifier.
    Echo {
        /// A request, or a reply.
        request: bool,
        /// The identifier.
        id: u16,
    },
    /// An ICMP error about another packet.
    Error(Quoted),
    /// IPv6 neighbour discovery or multicast listener discovery: the network's own business.
    Neighbour,
    /// Any other ICMP, or an error about something that cannot be balanced.
    OtherIcmp,
    /// A fragment.
    Fragment,
    /// A protocol of which we know neither ports nor identifiers: ESP, GRE, "no next header" (RFC 8200 §4.7), or any other.
    /// Also AH in IPv4, which does not survive a change of addresses.
    Other,
}

impl Kind {
    /// Source and destination port, if it has ports and they are here.
    #[must_use]
    #[inline]
    pub fn ports(&self) -> Option<(u16, u16)> {
        match *self {
            Self::Tcp(TcpSegment { ports, .. }) | Self::Udp { ports } | Self::Sctp { ports, .. } => Some(ports),
            _ => None,
        }
    }
}

/// The packet that an ICMP error quotes. Addresses and ports are as its sender wrote them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quoted {
    /// Its source address.
    pub source: Address,
    /// Its destination address.
    pub destination: Address,
    /// Its upper-layer protocol.
    pub protocol: u8,
    /// Its source and destination port; for an ICMP echo request the identifier and 0, for an echo reply 0 and the identifier;
    /// 0 and 0 if it has neither.
    pub ports: (u16, u16),
    /// Offset of its upper layer in the whole packet.
    pub transport: usize,
    /// For TCP, the lower half of what [`TcpSegment`] calls its end; if only 8 bytes are quoted, of the end of a SYN without data.
    pub end: u16,
}

/// Why bytes are no valid packet. Rare, since the kernel has checked the IP header of what it queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// Neither version 4 nor 6, an incomplete IP header, or IPv4 addresses in an IPv6 header.
    Header,
    /// The length in the IP header is wrong.
    Length,
    /// Extension headers are incomplete, too many, or ask for routing.
    Extension,
    /// The upper-layer header is incomplete.
    Transport,
    /// UDP over IPv6 without a checksum, which receivers must discard (RFC 8200 §8.1).
    Checksum,
}
