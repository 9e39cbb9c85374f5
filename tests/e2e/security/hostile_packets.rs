//! Packets that no well-behaved host sends. Each gets a verdict, and the next valid one is served.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use crate::rig::packet::{Dice, ESP, FRAGMENT, GRE, ICMP, ICMP6, SCTP, TCP, UDP, extension, icmp, ip, seal, syn, udp};
use crate::rig::requests::places;
use crate::rig::wire::Sender;
use std::net::IpAddr;
use std::time::Duration;

const PACKETS: usize = 2000;

/// Extension headers of IPv6: hop-by-hop, routing, fragment, ESP, authentication, destination, mobility, HIP, shim6.
const EXTENSIONS: [u8; 9] = [0, 43, FRAGMENT, ESP, 51, 60, 135, 139, 140];

struct Hostile {
    family: Family,
    dice: Dice,
    to: IpAddr,
}

impl Hostile {
    fn packet(&mut self) -> Vec<u8> {
        match self.dice.below(10) {
            0 => self.other_protocol(),
            1 => self.cut_short(),
            2 => self.wrong_length(),
            3 => self.fragment(),
            4 => self.icmp_error(),
            5 => self.echo_of_sorts(),
            6 => self.odd_header(),
            7 => self.zero_length_option(),
            8 => self.bits_flipped(),
            _ => self.garbage(),
        }
    }

    fn from(&mut self) -> IpAddr {
        // Most are the client's own addresses, so that answers find somebody; some are nobody's.
        let n = if self.dice.below(8) == 0 { 200 + self.dice.below(50) } else { 10 + self.dice.below(40) };
        self.family.client(u16::try_from(n).unwrap())
    }

    fn port(&mut self) -> u16 {
        // 80 and 7007 are open; a low byte of 0 was what the original hung on.
        let any = u16::from_be_bytes([self.dice.byte(), self.dice.byte()]);
        self.dice.one_of(&[80, 7007, 0, 0x5000, any])
    }

    fn ip(&mut self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        ip(self.from(), self.to, protocol, payload)
    }

    fn other_protocol(&mut self) -> Vec<u8> {
        // SCTP, GRE, ESP, AH, IPIP, 6in4, DCCP, UDP-Lite, IGMP, EGP, no next header, reserved
        let protocol = self.dice.one_of(&[SCTP, GRE, ESP, 51, 4, 41, 33, 136, 2, 8, 59, 255]);
        let payload = self.dice.bytes(100);
        self.ip(protocol, &payload)
    }

    /// Less than a header of TCP, UDP or ICMP.
    fn cut_short(&mut self) -> Vec<u8> {
        let (from, to) = (self.port(), self.port());
        let (protocol, header) = match self.dice.below(3) {
            0 => (TCP, syn(from, to)),
            1 => (UDP, udp(from, to, 8, &[])),
            _ => (self.icmp_protocol(), icmp(8, 0, [0, 1, 0, 1], &[])),
        };
        let length = self.dice.below(header.len());
        self.ip(protocol, &header[..length])
    }

    /// Lengths in IP, UDP and TCP headers that are not those of the packet.
    fn wrong_length(&mut self) -> Vec<u8> {
        let (from, to) = (self.port(), self.port());
        let wrong = self.dice.one_of(&[0, 1, 7, 9, 20, 27, 100, 0x7fff, 0xffff]);
        let payload = self.dice.bytes(40);
        match self.dice.below(3) {
            0 => self.ip(UDP, &udp(from, to, wrong, &payload)),
            1 => {
                let mut header = syn(from, to);
                header[12] = self.dice.byte() & 0xf0;
                self.ip(TCP, &[header, payload].concat())
            }
            _ => {
                let mut packet = self.ip(UDP, &udp(from, to, 8 + u16::try_from(payload.len()).unwrap(), &payload));
                let field = if self.family == Family::V4 { 2..4 } else { 4..6 };
                packet[field].copy_from_slice(&wrong.to_be_bytes());
                self.sealed(packet)
            }
        }
    }

    /// Fragments without a first one, without a last one, or overlapping.
    fn fragment(&mut self) -> Vec<u8> {
        let payload = self.dice.bytes(64);
        let protocol = self.dice.one_of(&[TCP, UDP, SCTP]);
        let offset = u16::try_from(self.dice.below(0x2000)).unwrap() * u16::from(self.dice.below(4) > 0);
        let more = self.dice.below(2) == 0;
        let number = self.dice.byte() & 3;
        match self.family {
            Family::V4 => {
                let mut packet = self.ip(protocol, &payload);
                packet[5] = number;
                packet[6..8].copy_from_slice(&(offset & 0x1fff | u16::from(more) << 13).to_be_bytes());
                self.sealed(packet)
            }
            Family::V6 => {
                let place = (offset << 3 | u16::from(more)).to_be_bytes();
                let header = [protocol, 0, place[0], place[1], 0, 0, 0, number];
                self.ip(FRAGMENT, &[&header, &payload[..]].concat())
            }
        }
    }

    /// An ICMP error that quotes nothing, garbage, or a packet that nobody sent.
    fn icmp_error(&mut self) -> Vec<u8> {
        let quoted = self.dice.one_of(&[TCP, UDP, SCTP, ICMP, ICMP6]);
        let inner = ip(self.to, self.from(), quoted, &self.dice.bytes(40));
        let quote = match self.dice.below(3) {
            0 => self.dice.bytes(60),
            1 => inner[..self.dice.below(inner.len())].to_vec(),
            _ => inner,
        };
        let kind = match self.family {
            Family::V4 => self.dice.one_of(&[3, 4, 5, 11, 12]),
            Family::V6 => self.dice.one_of(&[1, 2, 3, 4, 127]),
        };
        let code = self.dice.byte() & 7;
        let protocol = self.icmp_protocol();
        self.ip(protocol, &icmp(kind, code, [0, 0, 5, 0], &quote))
    }

    fn echo_of_sorts(&mut self) -> Vec<u8> {
        let kind = self.dice.byte();
        let message = icmp(kind, self.dice.byte(), [0; 4], &self.dice.bytes(32));
        let protocol = self.dice.one_of(&[ICMP, ICMP6]);
        self.ip(protocol, &message)
    }

    /// IPv4: a header length that is too small, too large, or full of options. IPv6: chains of extension headers.
    fn odd_header(&mut self) -> Vec<u8> {
        let (from, to) = (self.port(), self.port());
        if self.family == Family::V4 {
            let mut packet = self.ip(UDP, &[vec![1; 40], udp(from, to, 8, &[])].concat());
            packet[0] = 0x40 | (self.dice.byte() & 15);
            return self.sealed(packet);
        }
        let mut payload = self.dice.one_of(&[&syn(from, to), &udp(from, to, 8, &[]), &Vec::new()]).clone();
        let mut next = self.dice.one_of(&[TCP, UDP, SCTP, 59]);
        for _ in 0..=self.dice.below(12) {
            let length = if self.dice.below(4) == 0 { self.dice.byte() } else { 0 };
            payload = [extension(next, length, &[0; 6]), payload].concat();
            next = self.dice.one_of(&EXTENSIONS);
        }
        self.ip(next, &payload)
    }

    /// The packet that hung a worker of the original loaded for ever: a header whose second byte is 0, then SCTP.
    fn zero_length_option(&mut self) -> Vec<u8> {
        let sctp = [0x12, 0x00, 0x50, 0x00, 0, 0, 0, 0, 0, 0, 0, 0];
        match self.family {
            Family::V4 => self.ip(SCTP, &sctp),
            Family::V6 => {
                let first = self.dice.one_of(&[0, 43, 60]);
                self.ip(first, &[extension(SCTP, 0, &[1, 4, 0, 0, 0, 0]), sctp.to_vec()].concat())
            }
        }
    }

    fn bits_flipped(&mut self) -> Vec<u8> {
        let (from, to) = (self.port(), self.port());
        let payload = self.dice.bytes(30);
        let mut packet = self.ip(TCP, &[syn(from, to), payload].concat());
        for _ in 0..=self.dice.below(6) {
            // Not the addresses: it shall arrive.
            let place = self.dice.one_of(&[0, 1, 2, 3, 4, 5, 6, 7, 8]);
            let place = if self.dice.below(2) == 0 { place } else { packet.len() - 1 - self.dice.below(20) };
            packet[place] ^= 1 << self.dice.below(8);
        }
        self.sealed(packet)
    }

    fn garbage(&mut self) -> Vec<u8> {
        let (protocol, payload) = (self.dice.byte(), self.dice.bytes(1400));
        self.ip(protocol, &payload)
    }

    fn icmp_protocol(&self) -> u8 {
        if self.family == Family::V4 { ICMP } else { ICMP6 }
    }

    fn sealed(&self, mut packet: Vec<u8>) -> Vec<u8> {
        if self.family == Family::V4 {
            seal(&mut packet);
        }
        packet
    }
}

/// Sends the packets and checks that everything is as before. Returns the sums of the counters.
fn endures(lab: &Lab, loaded: &Loaded, from: &str, to: impl Fn(Family) -> IpAddr, interface: &str) {
    let workers = loaded.workers();
    let sender = Sender::to_balancer(lab, from, interface);
    for family in Family::BOTH {
        let before = places(lab, family, 1);
        let mut hostile = Hostile { family, dice: Dice::new(0x6c6f_6164_6564), to: to(family) };
        for _ in 0..PACKETS {
            sender.send(&hostile.packet());
        }
        assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "packets wait for ever:\n{}", lab.queues());
        assert_eq!(places(lab, family, 1), before, "{family:?}: clients and their backends");
    }
    assert_eq!(loaded.workers(), workers, "a worker has died");
    for worker in loaded.counters() {
        assert_eq!(worker.outcomes(), worker.received, "{worker:?}");
        assert!(worker.received > 500, "few of the packets have met a worker: {worker:?}");
        for fault in ["dropped_undecided", "verdict_unknown_id", "verdict_refused", "verdict_unsent", "message_strange"]
        {
            assert_eq!(worker.of(fault), 0, "{worker:?}");
        }
    }
}

#[test]
fn hostile_clients_are_endured() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    endures(&lab, &loaded, "client", Family::vip, "eth0");
    for label in ["dropped_malformed", "dropped_stray_error"] {
        assert!(loaded.count(label) > 20, "{label}: {:?}", loaded.counters());
    }
    loaded.stop();
}

/// The same packets on the backends' side, addressed to a client: what a compromised backend may send.
#[test]
fn hostile_packets_on_the_inner_side_are_endured() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    endures(&lab, &loaded, "b1", Family::vip, "eth1");
    loaded.stop();
}
