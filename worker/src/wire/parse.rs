//! Reads what a packet is, once. etherparse does the slicing, and is used nowhere else.

use super::address::{Address, Family, is_mapped, mapped};
use super::segment::{TcpSegment, low_half, segment_end};
use etherparse::{IpAuthHeaderSlice, Ipv4HeaderSlice, Ipv6FragmentHeaderSlice, Ipv6HeaderSlice, Ipv6RawExtHeaderSlice};
use etherparse::{TcpHeaderSlice, UdpHeaderSlice};

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

/// Maximum number of extension headers; no sane packet has as many. A hostile packet must not cost more time than this.
const MAX_EXTENSIONS: usize = 8;
/// An ICMP error quotes the packet it is about after its own 8 bytes (RFC 792, RFC 4443 §3).
pub(super) const ICMP_HEADER: usize = 8;
/// Ports, verification tag and checksum (RFC 9260 §3.1).
const SCTP_HEADER: usize = 12;

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

/// Reads a packet. With `cut` the bytes may be fewer than the header says.
///
/// # Errors
/// [`Malformed`], never a panic.
#[inline]
pub fn parse(bytes: &[u8], cut: bool) -> Result<ParsedPacket, Malformed> {
    let ip = network(bytes).ok_or(Malformed::Header)?;
    if ip.length != bytes.len() && !(cut && ip.length > bytes.len()) {
        return Err(Malformed::Length);
    }
    let Ip { family, source, destination, .. } = ip;
    let (protocol, transport, part) = match family {
        Family::V4 => (ip.next, ip.header, ip.part),
        Family::V6 => extensions(bytes, ip.next, ip.header)?,
    };
    let kind = if part != FragmentPart::Whole {
        Kind::Fragment
    } else {
        upper(bytes, ip.length, family, protocol, transport)?
    };
    Ok(ParsedPacket { family, source, destination, protocol, transport, kind })
}

/// Reads the upper layer of the first fragment of a datagram. Its header must be complete there (RFC 8200 §4.5, RFC 7112);
/// the lengths in it are those of the whole datagram. `packet` must be what [`parse`] made of the same bytes.
///
/// # Errors
/// [`Malformed`].
pub fn parse_first(bytes: &[u8], packet: &ParsedPacket) -> Result<ParsedPacket, Malformed> {
    let ParsedPacket { family, mut protocol, mut transport, .. } = *packet;
    if family == Family::V6 {
        let part;
        (protocol, transport, part) = extensions(bytes, protocol, transport)?;
        if part != FragmentPart::Whole {
            return Err(Malformed::Extension);
        }
    }
    let kind = upper(bytes, transport + usize::from(u16::MAX), family, protocol, transport)?;
    Ok(ParsedPacket { protocol, transport, kind, ..*packet })
}

/// Whether a packet is UDP over IPv6 without a checksum: the field is zero, which a checksum never is. Do not ask if
/// the field holds only the sum of the pseudo header, which may be zero.
#[must_use]
#[inline]
pub fn lacks_checksum(bytes: &[u8], packet: &ParsedPacket) -> bool {
    let field = || bytes.get(packet.transport + 6..packet.transport + 8);
    packet.family == Family::V6 && matches!(packet.kind, Kind::Udp { .. }) && field() == Some(&[0, 0])
}

/// What an IP header says.
struct Ip {
    family: Family,
    source: Address,
    destination: Address,
    next: u8,
    /// Bytes of the header, without extensions.
    header: usize,
    /// Bytes of the whole packet.
    length: usize,
    part: FragmentPart,
}

/// Which part of a datagram a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FragmentPart {
    Whole,
    /// The fragment that begins with the upper layer's header.
    First,
    Later,
}

impl FragmentPart {
    fn of(more: bool, offset: u16) -> Self {
        match (more, offset) {
            (false, 0) => Self::Whole,
            (true, 0) => Self::First,
            _ => Self::Later,
        }
    }
}

/// Always inlined: else the result would be written to memory in small parts and read back in large ones, which stalls.
#[inline(always)]
fn network(bytes: &[u8]) -> Option<Ip> {
    match bytes.first()? >> 4 {
        4 => {
            let h = Ipv4HeaderSlice::from_slice(bytes).ok()?;
            Some(Ip {
                family: Family::V4,
                source: mapped(h.source()),
                destination: mapped(h.destination()),
                next: h.protocol().0,
                header: h.slice().len(),
                length: usize::from(h.total_len()),
                part: FragmentPart::of(h.more_fragments(), h.fragments_offset().value()),
            })
        }
        6 => {
            let h = Ipv6HeaderSlice::from_slice(bytes).ok()?;
            // Never sent by honest hosts (RFC 4291 means them for use within a host), and here they would look like IPv4.
            if is_mapped(&h.source()) || is_mapped(&h.destination()) {
                return None;
            }
            Some(Ip {
                family: Family::V6,
                source: h.source(),
                destination: h.destination(),
                next: h.next_header().0,
                header: h.slice().len(),
                length: h.slice().len() + usize::from(h.payload_length()),
                part: FragmentPart::Whole,
            })
        }
        _ => None,
    }
}

/// Walks IPv6 extension headers: upper protocol, its offset, and whether this is a fragment (RFC 8200 §4).
fn extensions(bytes: &[u8], mut next: u8, mut at: usize) -> Result<(u8, usize, FragmentPart), Malformed> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    for _ in 0..MAX_EXTENSIONS {
        let rest = bytes.get(at..).ok_or(Malformed::Extension)?;
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let h = Ipv6RawExtHeaderSlice::from_slice(rest).map_err(|_| Malformed::Extension)?;
                // With segments left the packet is to be routed on to another address, which its checksum covers.
                if next == ROUTING && h.payload().get(1) != Some(&0) {
                    return Err(Malformed::Extension);
                }
                (next, at) = (h.next_header().0, at + h.slice().len());
            }
            FRAGMENT => {
                let h = Ipv6FragmentHeaderSlice::from_slice(rest).map_err(|_| Malformed::Extension)?;
                (next, at) = (h.next_header().0, at + h.slice().len());
                let header = h.to_header();
                let part = FragmentPart::of(header.more_fragments, header.fragment_offset.value());
                if part != FragmentPart::Whole {
                    return Ok((next, at, part));
                }
            }
            AUTHENTICATION => {
                let h = IpAuthHeaderSlice::from_slice(rest).map_err(|_| Malformed::Extension)?;
                (next, at) = (h.next_header().0, at + h.slice().len());
            }
            _ => return Ok((next, at, FragmentPart::Whole)),
        }
    }
    Err(Malformed::Extension)
}

/// `length` is that of the whole packet; `bytes` may be only its beginning.
#[inline(always)]
fn upper(bytes: &[u8], length: usize, family: Family, protocol: u8, at: usize) -> Result<Kind, Malformed> {
    let rest = bytes.get(at..).ok_or(Malformed::Transport)?;
    match (protocol, family) {
        (protocol::TCP, _) => {
            let h = TcpHeaderSlice::from_slice(rest).map_err(|_| Malformed::Transport)?;
            Ok(Kind::Tcp(TcpSegment::new(&h, length.wrapping_sub(at))))
        }
        (protocol::UDP, _) => {
            let h = UdpHeaderSlice::from_slice(rest).map_err(|_| Malformed::Transport)?;
            if usize::from(h.length()) < h.slice().len() || usize::from(h.length()) > length - at {
                return Err(Malformed::Transport);
            }
            Ok(Kind::Udp { ports: (h.source_port(), h.destination_port()) })
        }
        (protocol::SCTP, _) => {
            let header = rest.first_chunk::<SCTP_HEADER>().ok_or(Malformed::Transport)?;
            let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
            Ok(Kind::Sctp { ports: (port(0), port(2)), opens: header[4..8] == [0; 4] })
        }
        (protocol::ICMP, Family::V4) | (protocol::ICMP6, Family::V6) => {
            let header = rest.get(..ICMP_HEADER).ok_or(Malformed::Transport)?;
            Ok(icmp(bytes, family, header, at))
        }
        _ => Ok(Kind::Other),
    }
}

fn icmp(bytes: &[u8], family: Family, header: &[u8], at: usize) -> Kind {
    let id = u16::from_be_bytes([header[4], header[5]]);
    match (family, header[0]) {
        // RFC 792; RFC 4443 §4.
        (Family::V4, 8) | (Family::V6, 128) => Kind::Echo { request: true, id },
        (Family::V4, 0) | (Family::V6, 129) => Kind::Echo { request: false, id },
        // Destination unreachable, time exceeded, parameter problem; every type below 128 of ICMPv6 is an error.
        (Family::V4, 3 | 11 | 12) | (Family::V6, 0..=127) => {
            quoted(bytes, family, at + ICMP_HEADER).map_or(Kind::OtherIcmp, Kind::Error)
        }
        // Neighbour discovery (RFC 4861 §4) and multicast listener discovery (RFC 2710, RFC 3810).
        (Family::V6, 130..=137 | 143) => Kind::Neighbour,
        _ => Kind::OtherIcmp,
    }
}

/// Reads the quoted packet, of whose upper layer only 8 bytes need to be there. Routers quote what they saw, which may be the
/// first fragment.
fn quoted(bytes: &[u8], family: Family, at: usize) -> Option<Quoted> {
    let inner = bytes.get(at..)?;
    let ip = network(inner).filter(|ip| ip.family == family && ip.part != FragmentPart::Later)?;
    let (protocol, offset) = match family {
        Family::V4 => (ip.next, ip.header),
        Family::V6 => match extensions(inner, ip.next, ip.header) {
            Ok((protocol, offset, FragmentPart::Whole | FragmentPart::First)) => (protocol, offset),
            _ => return None,
        },
    };
    let upper = inner.get(offset..).unwrap_or(&[]).first_chunk::<8>();
    let word = |upper: &[u8; 8], i: usize| u16::from_be_bytes([upper[i], upper[i + 1]]);
    let ports = match (protocol, upper) {
        (protocol::TCP | protocol::UDP | protocol::SCTP, Some(upper)) => (word(upper, 0), word(upper, 2)),
        (protocol::ICMP, Some(upper @ [8, ..])) | (protocol::ICMP6, Some(upper @ [128, ..])) => (word(upper, 4), 0),
        (protocol::ICMP, Some(upper @ [0, ..])) | (protocol::ICMP6, Some(upper @ [129, ..])) => (0, word(upper, 4)),
        // An ICMP error is never about another one, and a protocol with ports must show them.
        (protocol::TCP | protocol::UDP | protocol::SCTP | protocol::ICMP | protocol::ICMP6, _) => return None,
        _ => (0, 0),
    };
    let end = match (protocol, upper) {
        (protocol::TCP, Some(upper)) => match TcpHeaderSlice::from_slice(inner.get(offset..)?) {
            Ok(h) => low_half(segment_end(&h, ip.length.wrapping_sub(offset))),
            Err(_) => word(upper, 6).wrapping_add(1),
        },
        _ => 0,
    };
    Some(Quoted { source: ip.source, destination: ip.destination, protocol, ports, transport: at + offset, end })
}
