//! Packets from any number of spoofed sources, as fast as the kernel takes them.

use crate::rig::net::Family;
use crate::rig::packet::{TCP, UDP, checksum_at, complete, ip, syn, udp, upper};
use crate::rig::wire::{HEADER, Sender};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Frames sent by one system call.
pub(crate) const BATCH: usize = 64;
/// Payload of the datagrams.
const PAYLOAD: &[u8] = b"flood";

/// One kind of packet to a virtual IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Syn(u16),
    Datagram(u16),
}

/// Which end of a packet a spoofed address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// Prepared frames of one kind and family; three bytes of a spoofed address, and the checksums, are patched in.
pub(crate) struct Source {
    /// Where in a frame those three bytes are, and the checksums: of IPv4's header, and of the upper layer.
    places: (usize, Option<usize>, usize),
    /// The sums without those bytes, not complemented yet.
    sums: (u32, u32),
    frames: Vec<Vec<u8>>,
}

/// The n-th spoofed source: of 10.0.0.0/8, or of the n-th /48 of fd00::/8.
pub(crate) fn spoofed(family: Family, n: u32) -> IpAddr {
    assert!(n < 1 << 24, "{n}: there are no more of them");
    match family {
        Family::V4 => Ipv4Addr::from(10 << 24 | n).into(),
        Family::V6 => Ipv6Addr::from(0xfd << 120 | u128::from(n) << 80 | 1).into(),
    }
}

impl Source {
    pub(super) fn new(sender: &Sender, family: Family, kind: Kind) -> Self {
        let first = spoofed(family, 0);
        let packet = match kind {
            Kind::Syn(port) => ip(first, family.vip(), TCP, &syn(40_000, port)),
            Kind::Datagram(port) => {
                let length = u16::try_from(8 + PAYLOAD.len()).unwrap();
                ip(first, family.vip(), UDP, &udp(40_000, port, length, PAYLOAD))
            }
        };
        Self::of(sender, Side::Source, &complete(packet))
    }

    /// Of a whole packet that [`spoofed`] source 0 is this side of. Checksums keep what is right or wrong about them.
    pub(crate) fn of(sender: &Sender, side: Side, packet: &[u8]) -> Self {
        let (at, protocol) = upper(packet);
        let v4 = packet[0] >> 4 == 4;
        let sum = |at: usize| u32::from(!u16::from_be_bytes([packet[at], packet[at + 1]]));
        let source = match (side, v4) {
            (Side::Source, true) => 13,
            (Side::Destination, true) => 17,
            (Side::Source, false) => 11,
            (Side::Destination, false) => 27,
        };
        let header = v4.then_some(10);
        let sums = (header.map_or(0, sum), sum(at + checksum_at(protocol)));
        let places = (HEADER + source, header.map(|at| HEADER + at), HEADER + at + checksum_at(protocol));
        Self { places, sums, frames: vec![sender.frame(packet); BATCH] }
    }

    /// Sends from the next sources, `first` and those after it; returns how many.
    pub(crate) fn send(&mut self, sender: &Sender, first: u32) -> u32 {
        let (source, header, field) = self.places;
        let mut n = first;
        // Written for a build that is not optimized.
        for frame in &mut self.frames {
            let [_, high, middle, low] = n.to_be_bytes();
            (frame[source], frame[source + 1], frame[source + 2]) = (high, middle, low);
            let added = u32::from(high) + (n & 0xffff);
            if let Some(at) = header {
                let [high, low] = folded(self.sums.0 + added).to_be_bytes();
                (frame[at], frame[at + 1]) = (high, low);
            }
            let [high, low] = folded(self.sums.1 + added).to_be_bytes();
            (frame[field], frame[field + 1]) = (high, low);
            n += 1;
        }
        sender.send_all(&self.frames);
        n - first
    }
}

/// RFC 1071. UDP's zero, which would mean none, is written as its other form (RFC 768).
fn folded(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    match !((once & 0xffff) + (once >> 16)) & 0xffff {
        0 => 0xffff,
        sum => u16::try_from(sum).unwrap(),
    }
}

/// Patched packets are the same as packets made from scratch.
#[test]
fn patched_packets_are_sound() {
    let sums = |family, kind, n: u32| {
        let whole = match kind {
            Kind::Syn(port) => ip(spoofed(family, n), family.vip(), TCP, &syn(40_000, port)),
            Kind::Datagram(port) => ip(spoofed(family, n), family.vip(), UDP, &udp(40_000, port, 13, PAYLOAD)),
        };
        complete(whole)
    };
    let Some(lab) = crate::rig::lab::Lab::up() else { return };
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for family in Family::BOTH {
        for kind in [Kind::Syn(80), Kind::Datagram(7007)] {
            let mut source = Source::new(&sender, family, kind);
            for first in [0, 0xffe0, 0x12_3456, 0xff_ff00] {
                source.send(&sender, first);
                for (n, frame) in (first..).zip(&source.frames) {
                    assert_eq!(frame[HEADER..], sums(family, kind, n), "{family:?} {kind:?} {n}");
                    assert!(crate::rig::packet::sound(&frame[HEADER..]));
                }
            }
        }
    }
}
