//! Reads what a packet is, once. etherparse does the slicing; it is used here, in `ip` and in `segment`, and nowhere else.

use super::address::Family;
use super::ip::{FragmentPart, Ip, extensions, network};
use super::packet::{ICMP_HEADER, Kind, Malformed, ParsedPacket, Quoted, protocol};
use super::segment::{TcpSegment, low_half, segment_end};
use etherparse::{TcpHeaderSlice, UdpHeaderSlice};

/// Ports, verification tag and checksum (RFC 9260 §3.1).
const SCTP_HEADER: usize = 12;

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
