//! Packets made by hand, valid or not.

use std::net::IpAddr;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const GRE: u8 = 47;
pub(crate) const ESP: u8 = 50;
pub(crate) const ICMP6: u8 = 58;
pub(crate) const SCTP: u8 = 132;
pub(crate) const FRAGMENT: u8 = 44;

/// A simple random generator, the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.word() >> 16).unwrap() % limit
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.word().to_be_bytes()[2]
    }

    pub(crate) fn bytes(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest + 1)).map(|_| self.byte()).collect()
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// A packet with a valid IP header.
pub(crate) fn ip(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x45, 0, length[0], length[1], 0, 1, 0, 0, 64, protocol, 0, 0];
            packet.extend(from.octets().into_iter().chain(to.octets()));
            packet.extend_from_slice(payload);
            seal(&mut packet);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], protocol, 64];
            packet.extend(from.octets().into_iter().chain(to.octets()));
            packet.extend_from_slice(payload);
            packet
        }
        _ => panic!("{from} and {to} are of two families"),
    }
}

/// Recomputes an IPv4 header's checksum, whatever the header's length, as far as it is there.
pub(crate) fn seal(packet: &mut [u8]) {
    let length = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
    packet[10..12].fill(0);
    let sum = checksum(&packet[..length]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = pairs.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// Offset and protocol of the upper layer, in a whole packet without extension headers.
pub(crate) fn upper(packet: &[u8]) -> (usize, u8) {
    if packet[0] >> 4 == 4 { (usize::from(packet[0] & 15) * 4, packet[9]) } else { (40, packet[6]) }
}

/// Where an IP packet goes.
pub(crate) fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(16..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(24..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Whether every checksum of a whole packet of TCP, UDP or ICMP is right, made anew.
pub(crate) fn sound(packet: &[u8]) -> bool {
    let (at, protocol) = upper(packet);
    let v4 = packet[0] >> 4 == 4;
    let body = &packet[at..];
    let pseudo = match protocol {
        ICMP => Vec::new(),
        // UDP over IPv4 may go without one.
        UDP if v4 && body[6..8] == [0, 0] => return checksum(&packet[..at]) == 0,
        _ => {
            let addresses = if v4 { &packet[12..20] } else { &packet[8..40] };
            let length = u32::try_from(body.len()).unwrap().to_be_bytes();
            [addresses, &length, &[0, 0, 0, protocol]].concat()
        }
    };
    (!v4 || checksum(&packet[..at]) == 0) && checksum(&[&pseudo[..], body].concat()) == 0
}

/// A TCP header that begins a connection; its checksum is not right.
pub(crate) fn syn(from: u16, to: u16) -> Vec<u8> {
    let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
    [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]].concat()
}

/// A UDP header that says what is asked of it, without a checksum.
pub(crate) fn udp(from: u16, to: u16, length: u16, payload: &[u8]) -> Vec<u8> {
    let header = [from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    [&header, payload].concat()
}

/// Fills in the checksum of TCP or UDP.
pub(crate) fn complete(mut packet: Vec<u8>) -> Vec<u8> {
    let (at, protocol) = upper(&packet);
    let v4 = packet[0] >> 4 == 4;
    let addresses = if v4 { &packet[12..20] } else { &packet[8..40] };
    let length = u32::try_from(packet.len() - at).unwrap().to_be_bytes();
    let pseudo = [addresses, &length, &[0, 0, 0, protocol]].concat();
    // A UDP checksum of zero would mean none (RFC 768).
    let sum = match checksum(&[&pseudo, &packet[at..]].concat()) {
        0 => 0xffff,
        sum => sum,
    };
    packet[at + checksum_at(protocol)..][..2].copy_from_slice(&sum.to_be_bytes());
    if v4 {
        seal(&mut packet);
    }
    packet
}

/// Where in the upper layer the checksum is.
pub(crate) fn checksum_at(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

/// An extension header of IPv6 with this length field, which counts in units of 8 after the first 8.
pub(crate) fn extension(next: u8, length: u8, body: &[u8]) -> Vec<u8> {
    [&[next, length], body].concat()
}

/// An ICMP message with a right checksum; `quote` follows the first 8 bytes.
pub(crate) fn icmp(kind: u8, code: u8, rest: [u8; 4], quote: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0], &rest[..], quote].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// What a host says of a packet to a port where nobody listens; `quote` is that packet.
pub(crate) fn port_unreachable(from: IpAddr, to: IpAddr, quote: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (from, to) else {
        return ip(from, to, ICMP, &icmp(3, 3, [0; 4], quote));
    };
    // RFC 4443 §3.1. The checksum covers the addresses, too.
    let mut message = [&[1, 4, 0, 0, 0, 0, 0, 0], quote].concat();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let pseudo = [&source.octets()[..], &destination.octets(), &length, &[0, 0, 0, ICMP6]].concat();
    let sum = checksum(&[&pseudo[..], &message].concat());
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ip(from, to, ICMP6, &message)
}
