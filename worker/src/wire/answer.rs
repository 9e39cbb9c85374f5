//! Answers: a held packet becomes, in place, the packet that refuses it. The answer goes from the packet's destination to its
//! source, has no IP options or extension headers, and all its checksums are complete: a packet with new bytes becomes
//! `CHECKSUM_NONE` (`nfqnl_mangle`, net/netfilter/nfnetlink_queue.c).

use super::address::{Address, Family, is_mapped};
use super::checksum::{add, pseudo_header, sum};
use super::packet::{ICMP_HEADER, Kind, ParsedPacket, protocol};
use std::net::{Ipv4Addr, Ipv6Addr};

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const TCP_HEADER: usize = 20;
/// As in Linux's own packets (RFC 1700's default).
const HOP_LIMIT: u8 = 64;
/// An ICMP error has at most this many bytes (RFC 1812 §4.3.2.3).
const LONGEST_ICMP: usize = 576;
/// An ICMPv6 error fits the smallest MTU there is (RFC 4443 §2.4 (c)).
const LONGEST_ICMP6: usize = 1280;

/// Bytes by which an answer can be longer than the packet it answers: an ICMPv6 error puts 40 bytes of IP header and 8 of
/// its own before what it quotes, an ICMP error 20 and 8.
pub const SPARE: usize = IPV6_HEADER + ICMP_HEADER;

const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Turns a TCP packet into the RST with which a host without that connection answers (RFC 9293 §3.10.7.1), and returns its
/// length: 40 bytes in IPv4, 60 in IPv6, never more than the packet had. `space` begins with the packet's bytes, and `packet`
/// must be what [`super::parse()`] made of them.
///
/// `None`, with nothing changed, if it is not TCP, is an RST, or one of the addresses is not that of a single host (RFC 9293
/// §3.9.2.3).
pub fn reset(space: &mut [u8], packet: &ParsedPacket) -> Option<usize> {
    let Kind::Tcp(told) = packet.kind else { return None };
    if told.resets() {
        return None;
    }
    let (from, to) = told.ports;
    if !(is_one_host(&packet.source) && is_one_host(&packet.destination)) {
        return None;
    }
    let segment = space.get(packet.transport..)?.first_chunk::<TCP_HEADER>()?;
    let (sequence, acknowledgement) = (word(segment, 4), word(segment, 8));
    let data = packet.transport + usize::from(segment[12] >> 4) * 4;
    // By the IP header, since the packet may be cut short. At most 65,575.
    let length = u32::try_from(header_says_length(space, packet.family)?.saturating_sub(data)).ok()?;

    let (sequence, acknowledgement, flags) = if told.acknowledges() {
        (acknowledgement, 0, RST)
    } else {
        // SYN and FIN take one sequence number each. Without ACK, what opens is the SYN.
        let next = sequence.wrapping_add(length + u32::from(told.opens()) + u32::from(told.finishes()));
        (0, next, RST | ACK)
    };
    let mut answer = [0; TCP_HEADER];
    answer[0..2].copy_from_slice(&to.to_be_bytes());
    answer[2..4].copy_from_slice(&from.to_be_bytes());
    answer[4..8].copy_from_slice(&sequence.to_be_bytes());
    answer[8..12].copy_from_slice(&acknowledgement.to_be_bytes());
    answer[12] = 5 << 4;
    answer[13] = flags;
    let checksum = !add(pseudo(packet, protocol::TCP, TCP_HEADER), sum(&answer));
    answer[16..18].copy_from_slice(&checksum.to_be_bytes());

    let head = header_length(packet.family);
    let whole = head + TCP_HEADER;
    space.get_mut(head..whole)?.copy_from_slice(&answer);
    put_header(space, packet, protocol::TCP, whole)?;
    Some(whole)
}

/// Turns a TCP or UDP packet of `length` bytes into the ICMP error "port unreachable" about it (RFC 792 type 3 code 3, RFC
/// 4443 §3.1 type 1 code 4), and returns its length. The error quotes as much of the packet as it may have (576 bytes in IPv4,
/// 1280 in IPv6) and as fits into `space`, for which the packet's length and [`SPARE`] are enough. `packet` must be what
/// [`super::parse()`] made of the packet.
///
/// The packet is quoted as it came. If its transport checksum is partial, it is so in the quote: the sender left it to the
/// network card and has never seen the complete one, and hosts find the socket by addresses and ports alone
/// (`__udp4_lib_err`, net/ipv4/udp.c).
///
/// `None`, with nothing changed, if it has no ports (as ICMP errors and fragments), is an RST, or one of the addresses is not
/// that of a single host (RFC 1122 §3.2.2, RFC 4443 §2.4 (e)).
pub fn unreachable(space: &mut [u8], length: usize, packet: &ParsedPacket) -> Option<usize> {
    let has_sender = match packet.kind {
        Kind::Tcp(segment) => !segment.resets(),
        kind => matches!(kind, Kind::Udp { .. }),
    };
    if !has_sender || !is_one_host(&packet.source) || !is_one_host(&packet.destination) {
        return None;
    }
    let head = header_length(packet.family);
    let (icmp, kind, code, longest) = match packet.family {
        Family::V4 => (protocol::ICMP, 3, 3, LONGEST_ICMP),
        Family::V6 => (protocol::ICMP6, 1, 4, LONGEST_ICMP6),
    };
    let whole = (head + ICMP_HEADER).checked_add(length)?.min(longest).min(space.len());
    // An error that does not quote the ports is of no use to the sender (RFC 792: the header and 8 bytes).
    if whole < head + ICMP_HEADER + (packet.transport + 8).min(longest - head - ICMP_HEADER) {
        return None;
    }
    space.copy_within(..whole - head - ICMP_HEADER, head + ICMP_HEADER);
    let error = space.get_mut(head..whole)?;
    error[..ICMP_HEADER].copy_from_slice(&[kind, code, 0, 0, 0, 0, 0, 0]);
    let pseudo = match packet.family {
        Family::V4 => 0,
        Family::V6 => pseudo(packet, icmp, error.len()),
    };
    let checksum = !add(pseudo, sum(error));
    error[2..4].copy_from_slice(&checksum.to_be_bytes());
    put_header(space, packet, icmp, whole)?;
    Some(whole)
}

/// Whether an address can be that of a single host: not unspecified, multicast, loopback, IPv4's broadcast or its class E. The
/// broadcast addresses of subnets are known to routing alone.
fn is_one_host(address: &Address) -> bool {
    if is_mapped(address) {
        let [.., a, b, c, d] = *address;
        let address = Ipv4Addr::new(a, b, c, d);
        a != 0 && a < 240 && !address.is_multicast() && !address.is_loopback()
    } else {
        let address = Ipv6Addr::from(*address);
        !address.is_unspecified() && !address.is_multicast() && !address.is_loopback()
    }
}

fn header_length(family: Family) -> usize {
    match family {
        Family::V4 => IPV4_HEADER,
        Family::V6 => IPV6_HEADER,
    }
}

/// The packet's length by its own header, bytes.
fn header_says_length(bytes: &[u8], family: Family) -> Option<usize> {
    let (at, more) = match family {
        Family::V4 => (2, 0),
        Family::V6 => (4, IPV6_HEADER),
    };
    let said = bytes.get(at..at + 2)?;
    Some(usize::from(u16::from_be_bytes([said[0], said[1]])) + more)
}

/// Puts a header before an answer of `whole` bytes to `packet`.
fn put_header(space: &mut [u8], packet: &ParsedPacket, protocol: u8, whole: usize) -> Option<()> {
    let (source, destination) = (&packet.destination, &packet.source);
    match packet.family {
        Family::V4 => {
            let header = space.first_chunk_mut::<IPV4_HEADER>()?;
            let length = u16::try_from(whole).ok()?.to_be_bytes();
            // Never fragmented on its way, so it needs no identification (RFC 6864 §4.1).
            let dont_fragment = 0x40;
            *header = [0; IPV4_HEADER];
            header[0] = 4 << 4 | 5;
            header[2..4].copy_from_slice(&length);
            header[6] = dont_fragment;
            header[8] = HOP_LIMIT;
            header[9] = protocol;
            header[12..16].copy_from_slice(&source[12..]);
            header[16..20].copy_from_slice(&destination[12..]);
            let checksum = !sum(header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        Family::V6 => {
            let header = space.first_chunk_mut::<IPV6_HEADER>()?;
            let length = u16::try_from(whole.checked_sub(IPV6_HEADER)?).ok()?.to_be_bytes();
            header[..4].copy_from_slice(&[6 << 4, 0, 0, 0]);
            header[4..6].copy_from_slice(&length);
            header[6] = protocol;
            header[7] = HOP_LIMIT;
            header[8..24].copy_from_slice(source);
            header[24..40].copy_from_slice(destination);
        }
    }
    Some(())
}

/// Sum of the answer's pseudo header. The mapped form of an IPv4 address adds 0xffff to its sum, which is zero in ones'
/// complement.
fn pseudo(packet: &ParsedPacket, protocol: u8, length: usize) -> u16 {
    pseudo_header(&packet.source, &packet.destination, protocol, length)
}

fn word(bytes: &[u8; TCP_HEADER], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests;
