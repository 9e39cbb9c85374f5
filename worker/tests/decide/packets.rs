//! Packets built byte by byte, and checked without the code under test.

use std::net::IpAddr;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

pub(crate) const FIN: u8 = 1;
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 16;

/// An address and a port.
pub(crate) type End<'a> = (&'a str, u16);

fn octets(address: &str) -> Vec<u8> {
    match address.parse().expect("address") {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(crate) fn is_v4(address: &str) -> bool {
    !address.contains(':')
}

/// The protocol number of ICMP in an address's family.
pub(crate) fn icmp_of(address: &str) -> u8 {
    if is_v4(address) { 1 } else { 58 }
}

/// The sum of RFC 1071, one 16-bit word after the other.
pub(crate) fn plain(parts: &[&[u8]]) -> u16 {
    let mut total = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
        }
    }
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).expect("folded")
}

pub(crate) fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn short(length: usize) -> u16 {
    u16::try_from(length).expect("short")
}

fn pseudo_header(from: &[u8], to: &[u8], protocol: u8, length: usize) -> Vec<u8> {
    [from, to, &[0, protocol], &short(length).to_be_bytes()].concat()
}

fn checksum_at(protocol: u8) -> Option<usize> {
    match protocol {
        TCP => Some(16),
        UDP => Some(6),
        1 | 58 => Some(2),
        _ => None,
    }
}

/// An IP packet around an upper layer, whose checksum is filled in.
pub(crate) fn ip(from: &str, to: &str, protocol: u8, mut upper: Vec<u8>) -> Vec<u8> {
    let (source, destination) = (octets(from), octets(to));
    if let Some(at) = checksum_at(protocol).filter(|at| upper.len() >= at + 2) {
        put(&mut upper, at, 0);
        let pseudo = pseudo_header(&source, &destination, protocol, upper.len());
        let sum = if protocol == 1 { plain(&[&upper]) } else { plain(&[&pseudo, &upper]) };
        put(&mut upper, at, if protocol == UDP && sum == 0xffff { sum } else { !sum });
    }
    let mut bytes = match source.len() {
        4 => vec![0x45, 0, 0, 0, 0x12, 0x34, 0x40, 0, 64, protocol, 0, 0],
        _ => vec![0x60, 0, 0, 0, 0, 0, protocol, 64],
    };
    bytes.extend([source.as_slice(), &destination].concat());
    if source.len() == 4 {
        put(&mut bytes, 2, 20 + short(upper.len()));
        let sum = plain(&[&bytes]);
        put(&mut bytes, 10, !sum);
    } else {
        put(&mut bytes, 4, short(upper.len()));
    }
    bytes.extend(upper);
    bytes
}

/// Where each segment of [`tcp`] ends, of whichever side, but for a FIN, which comes after.
const END: u32 = 0x1234_fffe;

/// A segment that acknowledges what the other side has sent last, if it acknowledges anything, and comes where that waits.
pub(crate) fn tcp(from: End<'_>, to: End<'_>, flags: u8) -> Vec<u8> {
    tcp_that_ends(from, to, flags, END)
}

/// The same, after a FIN of the other side, which it acknowledges.
pub(crate) fn tcp_after_fin(from: End<'_>, to: End<'_>, flags: u8) -> Vec<u8> {
    segment(from, to, flags, (END, END.wrapping_add(1)), b"")
}

/// A segment of a sender who has to guess both numbers, and is wrong by one bit in each half of them.
pub(crate) fn guessed(from: End<'_>, to: End<'_>, flags: u8, bit: u32) -> Vec<u8> {
    tcp_that_ends(from, to, flags, END ^ 0x1_0001 << bit)
}

fn tcp_that_ends(from: End<'_>, to: End<'_>, flags: u8, number: u32) -> Vec<u8> {
    let numbers = 4 + u32::from(flags & SYN != 0);
    let acknowledged = if flags & ACK == 0 { 0 } else { number };
    segment(from, to, flags, (number.wrapping_sub(numbers), acknowledged), b"data")
}

/// A segment with this sequence number, and the one that it acknowledges.
pub(crate) fn segment(from: End<'_>, to: End<'_>, flags: u8, numbers: (u32, u32), data: &[u8]) -> Vec<u8> {
    let mut upper = vec![0; 20];
    put(&mut upper, 0, from.1);
    put(&mut upper, 2, to.1);
    upper[4..8].copy_from_slice(&numbers.0.to_be_bytes());
    upper[8..12].copy_from_slice(&numbers.1.to_be_bytes());
    upper[12] = 5 << 4;
    upper[13] = flags;
    upper.extend(data);
    ip(from.0, to.0, TCP, upper)
}

pub(crate) fn udp(from: End<'_>, to: End<'_>) -> Vec<u8> {
    let mut upper = vec![0, 0, 0, 0, 0, 13, 0, 0, b'd', b'a', b't', b'a', b'!'];
    put(&mut upper, 0, from.1);
    put(&mut upper, 2, to.1);
    ip(from.0, to.0, UDP, upper)
}

/// SCTP with a whole checksum.
pub(crate) fn sctp(from: End<'_>, to: End<'_>) -> Vec<u8> {
    sctp_tagged(from, to, *b"tag!")
}

/// The first packet of an association: it has no verification tag yet.
pub(crate) fn sctp_init(from: End<'_>, to: End<'_>) -> Vec<u8> {
    sctp_tagged(from, to, [0; 4])
}

fn sctp_tagged(from: End<'_>, to: End<'_>, tag: [u8; 4]) -> Vec<u8> {
    let mut upper = b"....tag!....data!".to_vec();
    upper[4..8].copy_from_slice(&tag);
    put(&mut upper, 0, from.1);
    put(&mut upper, 2, to.1);
    let sum = crc_of(&upper);
    upper[8..12].copy_from_slice(&sum.to_le_bytes());
    ip(from.0, to.0, SCTP, upper)
}

/// The CRC32c of an SCTP packet, bit by bit, with the field taken as 0 (RFC 9260 Appendix A).
fn crc_of(upper: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    let taken = |(at, byte): (usize, &u8)| if (8..12).contains(&at) { 0 } else { u32::from(*byte) };
    !upper.iter().enumerate().map(taken).fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ byte, |crc, _| step(crc)))
}

pub(crate) fn echo(from: &str, to: &str, request: bool, id: u16) -> Vec<u8> {
    let kind = match (is_v4(from), request) {
        (true, true) => 8,
        (true, false) => 0,
        (false, true) => 128,
        (false, false) => 129,
    };
    let mut upper = vec![kind, 0, 0, 0, 0, 0, 0, 1, b'p', b'i', b'n', b'g'];
    put(&mut upper, 4, id);
    ip(from, to, icmp_of(from), upper)
}

/// A fragment that contains a whole packet's upper layer, at an offset given in units of 8 bytes. At 0 and without `more` it is
/// no fragment; in IPv6 it then has a fragment header all the same.
pub(crate) fn piece(mut whole: Vec<u8>, more: bool, offset: u16) -> Vec<u8> {
    let more = u16::from(more);
    if whole[0] >> 4 == 4 {
        put(&mut whole, 6, more << 13 | offset);
        put(&mut whole, 10, 0);
        let sum = plain(&[&whole[..20]]);
        put(&mut whole, 10, !sum);
    } else {
        let mut header = [whole[6], 0, 0, 0, 0, 0, 0, 9];
        put(&mut header, 2, offset << 3 | more);
        whole[6] = 44;
        let upper = whole.split_off(40);
        put(&mut whole, 4, short(header.len() + upper.len()));
        whole.extend([&header, &upper[..]].concat());
    }
    whole
}

/// "Port unreachable" from a host to the sender of `about`, of which it quotes the header and `quoted` bytes more.
pub(crate) fn unreachable(from: &str, to: &str, about: &[u8], quoted: usize) -> Vec<u8> {
    let header = header_of(about);
    let kind = if is_v4(from) { [3, 3, 0, 0, 0, 0, 0, 0] } else { [1, 4, 0, 0, 0, 0, 0, 0] };
    let upper = [&kind[..], &about[..about.len().min(header + quoted)]].concat();
    ip(from, to, icmp_of(from), upper)
}

fn header_of(bytes: &[u8]) -> usize {
    if bytes[0] >> 4 == 4 { 20 } else { 40 }
}

/// Source and destination of a packet, or of the packet quoted after the header of an ICMP error.
pub(crate) fn ends(bytes: &[u8]) -> (String, String) {
    let text = |b: &[u8]| match b.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(b).expect("4")).to_string(),
        _ => IpAddr::from(<[u8; 16]>::try_from(b).expect("16")).to_string(),
    };
    match bytes[0] >> 4 {
        4 => (text(&bytes[12..16]), text(&bytes[16..20])),
        _ => (text(&bytes[8..24]), text(&bytes[24..40])),
    }
}

/// Source and destination port of a packet that has them.
pub(crate) fn ports(bytes: &[u8]) -> (u16, u16) {
    let upper = &bytes[header_of(bytes)..];
    (u16::from_be_bytes([upper[0], upper[1]]), u16::from_be_bytes([upper[2], upper[3]]))
}

/// The packet quoted by an ICMP error.
pub(crate) fn quoted(bytes: &[u8]) -> &[u8] {
    &bytes[header_of(bytes) + 8..]
}

/// Whether every checksum of a packet without options or extension headers is right, computed from scratch.
pub(crate) fn sound(bytes: &[u8]) -> bool {
    let (header, upper) = bytes.split_at(header_of(bytes));
    let (protocol, addresses) = if header.len() == 20 { (header[9], &header[12..]) } else { (header[6], &header[8..]) };
    let half = addresses.len() / 2;
    let pseudo = pseudo_header(&addresses[..half], &addresses[half..], protocol, upper.len());
    let outer = header.len() == 40 || plain(&[header]) == 0xffff;
    outer
        && match protocol {
            1 => plain(&[upper]) == 0xffff,
            UDP if upper[6..8] == [0, 0] => true,
            TCP | UDP | 58 => plain(&[&pseudo, upper]) == 0xffff,
            SCTP if upper.len() >= 12 && upper[8..12] != [0; 4] => upper[8..12] == crc_of(upper).to_le_bytes(),
            _ => true,
        }
}
