//! Packets from as many sources as wanted, each from another one, as fast as the kernel takes them.

use crate::net::Family;
use crate::packet::{TCP, UDP, checksum, ip, seal, syn, udp, upper};
use crate::wire::{HEADER, Sender};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Frames of one call.
const BATCH: usize = 64;
/// What the datagrams say.
const PAYLOAD: &[u8] = b"flood";

/// One kind of packet to a virtual IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Syn(u16),
    Datagram(u16),
}

/// Frames of one kind and family that lie ready, but for their sources.
pub(super) struct Source {
    family: Family,
    /// Of the whole packet without a source: its header's sum, and its upper layer's, neither complemented yet.
    sums: [u32; 2],
    frames: Vec<Vec<u8>>,
}

/// The n-th spoofed source: of 10.0.0.0/8, or of the n-th /48 of fd00::/8.
pub(super) fn spoofed(family: Family, n: u32) -> IpAddr {
    assert!(n < 1 << 24, "{n}: there are no more of them");
    match family {
        Family::V4 => Ipv4Addr::from(10 << 24 | n).into(),
        Family::V6 => Ipv6Addr::from(0xfd << 120 | u128::from(n) << 80 | 1).into(),
    }
}

impl Source {
    pub(super) fn new(sender: &Sender, family: Family, kind: Kind) -> Self {
        let nobody: IpAddr = match family {
            Family::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Family::V6 => Ipv6Addr::UNSPECIFIED.into(),
        };
        let packet = match kind {
            Kind::Syn(port) => ip(nobody, family.vip(), TCP, &syn(40_000, port)),
            Kind::Datagram(port) => {
                let length = u16::try_from(8 + PAYLOAD.len()).unwrap();
                ip(nobody, family.vip(), UDP, &udp(40_000, port, length, PAYLOAD))
            }
        };
        let frame = sender.frame(&complete(packet));
        let (at, protocol) = upper(&frame[HEADER..]);
        let sum = |at: usize| u32::from(!u16::from_be_bytes([frame[HEADER + at], frame[HEADER + at + 1]]));
        let sums = [sum(10), sum(at + field(protocol))];
        Self { family, sums, frames: vec![frame; BATCH] }
    }

    /// Sends from the next sources, `first` and those after it; returns how many.
    pub(super) fn send(&mut self, sender: &Sender, first: u32) -> u32 {
        for (n, frame) in (first..).zip(&mut self.frames) {
            let packet = &mut frame[HEADER..];
            let (at, protocol) = upper(packet);
            let field = at + field(protocol);
            let added = match spoofed(self.family, n) {
                IpAddr::V4(source) => {
                    packet[12..16].copy_from_slice(&source.octets());
                    let added = words(&source.octets());
                    packet[10..12].copy_from_slice(&folded(self.sums[0] + added).to_be_bytes());
                    added
                }
                IpAddr::V6(source) => {
                    packet[8..24].copy_from_slice(&source.octets());
                    words(&source.octets())
                }
            };
            packet[field..field + 2].copy_from_slice(&folded(self.sums[1] + added).to_be_bytes());
        }
        sender.send_all(&self.frames);
        u32::try_from(BATCH).unwrap()
    }
}

/// Fills in the checksum of TCP or UDP.
pub(super) fn complete(mut packet: Vec<u8>) -> Vec<u8> {
    let (at, protocol) = upper(&packet);
    let v4 = packet[0] >> 4 == 4;
    let addresses = if v4 { &packet[12..20] } else { &packet[8..40] };
    let length = u32::try_from(packet.len() - at).unwrap().to_be_bytes();
    let pseudo = [addresses, &length, &[0, 0, 0, protocol]].concat();
    let sum = checksum(&[&pseudo, &packet[at..]].concat());
    packet[at + field(protocol)..][..2].copy_from_slice(&sum.to_be_bytes());
    if v4 {
        seal(&mut packet);
    }
    packet
}

/// Where in the upper layer the checksum is.
fn field(protocol: u8) -> usize {
    if protocol == TCP { 16 } else { 6 }
}

fn words(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum()
}

/// RFC 1071. UDP's zero, which would mean none, is written as its other form (RFC 768).
fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    match !u16::try_from((once & 0xffff) + (once >> 16)).unwrap() {
        0 => 0xffff,
        sum => sum,
    }
}
