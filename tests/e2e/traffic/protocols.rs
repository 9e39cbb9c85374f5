//! What is neither TCP nor UDP, and what stands between IP and them: by ports where there are some, else by address, with
//! nothing but the address changed; and what becomes of it where no service wants it.

use super::fragments::datagram;
use crate::rig::lab::{BACKENDS, Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use crate::rig::packet::{ESP, FRAGMENT, GRE, SCTP, UDP, extension, ip, seal};
use crate::rig::wire::{Sender, capture};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

const NO_NEXT: u8 = 59;
/// Extension headers of IPv6.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;
/// A client address that no host has, so that no kernel answers for it.
const NOBODY: u16 = 150;

/// One service with each flow balanced by itself, and pieces left as they are.
pub(crate) fn text(service: &str, top: &str) -> String {
    let vips = Family::BOTH.map(|f| format!("\"{}\"", f.vip())).join(", ");
    let backends: String = Family::BOTH
        .iter()
        .flat_map(|family| (1..=3).map(|n| family.backend(n)))
        .map(|address| format!("[[service.backend]]\naddress = \"{address}\"\n"))
        .collect();
    format!(
        "cores = \"0-1\"\ndefragment = false\n{top}\n[[service]]\nname = \"all\"\nvip = [{vips}]\n{service}\n\
         affinity = \"none\"\n{backends}"
    )
}

const ANY: &str = "protocol = \"any\"";

/// Builds a payload between two addresses and names its protocol. `n` varies what may differ within a flow.
type Make = fn(IpAddr, IpAddr, u8) -> (u8, Vec<u8>);

/// Flows that are told apart by address alone.
const PORTLESS: [(&str, Make); 3] = [
    // Security parameters index, sequence number, and what is secret (RFC 4303 §2).
    ("ESP", |_, _, n| (ESP, [&[0, 0, n, 1, 0, 0, 0, n][..], &[0x5a; 40]].concat())),
    ("GRE", |_, _, n| (GRE, [&[0x20, 0, 8, 0, 0, 0, 0, n][..], &[0x45; 32]].concat())),
    ("no next header", |_, _, n| (NO_NEXT, vec![n; 4])),
];

/// A datagram behind extension headers, IPv6 only. The checksum is made for the two ends.
const EXTENDED: [(&str, Make); 6] = [
    ("hop by hop", |from, to, _| (HOP_BY_HOP, [padding(UDP), asked(from, to)].concat())),
    ("routing", |from, to, _| (ROUTING, [routing(UDP), asked(from, to)].concat())),
    ("destination options", |from, to, _| (DESTINATION, [padding(UDP), asked(from, to)].concat())),
    ("fragment", |from, to, _| (FRAGMENT, [fragment(UDP), asked(from, to)].concat())),
    ("authentication", |from, to, _| (AUTHENTICATION, [authentication(UDP), asked(from, to)].concat())),
    ("all of them", |from, to, _| {
        let headers = [padding(DESTINATION), padding(ROUTING), routing(FRAGMENT), fragment(AUTHENTICATION)];
        let rest = [authentication(DESTINATION), padding(UDP), asked(from, to)];
        (HOP_BY_HOP, [headers.concat(), rest.concat()].concat())
    }),
];

/// An options header that holds only padding, PadN (RFC 8200 §4.2).
fn padding(next: u8) -> Vec<u8> {
    extension(next, 0, &[1, 4, 0, 0, 0, 0])
}

/// Of an experimental type (RFC 4727 §3.4), at its last segment.
fn routing(next: u8) -> Vec<u8> {
    extension(next, 0, &[253, 0, 0, 0, 0, 0])
}

/// Of a packet that is whole (RFC 6946).
fn fragment(next: u8) -> Vec<u8> {
    extension(next, 0, &[0, 0, 0, 0, 0, 9])
}

/// Its length counts in units of 4 bytes, less 2 (RFC 4302 §2.2): here 24 bytes.
fn authentication(next: u8) -> Vec<u8> {
    extension(next, 4, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7])
}

fn asked(from: IpAddr, to: IpAddr) -> Vec<u8> {
    datagram(SocketAddr::new(from, 20_001), SocketAddr::new(to, 7007), b"behind headers")
}

/// An INIT chunk, and the CRC32c of it all in the order of RFC 9260 §6.8.
fn sctp(from: u16, to: u16) -> Vec<u8> {
    let header = [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8]].concat();
    let init = [1, 0, 0, 20, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let mut message = [&header[..], &init].concat();
    let sum = crc32c(&message).to_le_bytes();
    message[8..12].copy_from_slice(&sum);
    message
}

/// Castagnoli's polynomial, bit by bit, reflected.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// The packet as one router leaves it.
fn hopped(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        seal(&mut packet);
    } else {
        packet[7] -= 1;
    }
    packet
}

/// The backends, by number, at which exactly this packet arrives, if `made` is what it must be there.
#[track_caller]
fn arrives(lab: &Lab, sender: &Sender, from: IpAddr, family: Family, make: impl Fn(IpAddr) -> (u8, Vec<u8>)) -> u16 {
    let made = |to: IpAddr| {
        let (protocol, payload) = make(to);
        ip(from, to, protocol, &payload)
    };
    let ((), seen) = capture(lab, "sw", || sender.send(&made(family.vip())));
    let there = |n: &u16| seen.contains(&hopped(made(family.backend(*n))));
    let at: Vec<_> = (1..=3).filter(there).collect();
    assert_eq!(at.len(), 1, "{family:?}: it arrives at {at:?} of {seen:02x?}");
    at[0]
}

#[test]
fn what_has_no_ports_goes_by_address_with_nothing_else_changed() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(ANY, ""));
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for family in Family::BOTH {
        let mut all = BTreeSet::<u16>::new();
        for (name, make) in PORTLESS {
            for client in [20, 21, 22] {
                let from = family.client(client);
                let to: BTreeSet<_> =
                    (0..3).map(|n| arrives(&lab, &sender, from, family, |to| make(from, to, n))).collect();
                assert_eq!(to.len(), 1, "{name}: {from} does not stay with its backend: {to:?}");
                all.extend(&to);

                // And back, from the VIP.
                let (protocol, payload) = make(from, from, 9);
                let n = to.first().copied().unwrap();
                let answer = |from_: IpAddr| ip(from_, from, protocol, &payload);
                let back = Sender::to_balancer(&lab, BACKENDS[usize::from(n) - 1], "eth1");
                let ((), seen) = capture(&lab, "client", || back.send(&answer(family.backend(n))));
                assert!(seen.contains(&hopped(answer(family.vip()))), "{name}: {from} hears {seen:02x?}");
            }
        }
        assert_eq!(all.len(), 3, "{family:?}: nine flows go to {all:?} alone");
    }
    for (name, make) in EXTENDED {
        let from = Family::V6.client(23);
        let to: BTreeSet<_> =
            (0..3).map(|n| arrives(&lab, &sender, from, Family::V6, |to| make(from, to, n))).collect();
        assert_eq!(to.len(), 1, "{name}: one flow goes to {to:?}");
    }
    assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "{}", lab.queues());
    loaded.stop();
}

#[test]
fn sctp_goes_by_its_ports_and_keeps_its_checksum() {
    let Some(lab) = Lab::up() else { return };
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32/ISCSI");
    let loaded = Loaded::toml(&lab, &text(ANY, ""));
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for family in Family::BOTH {
        let from = family.client(NOBODY);
        let mut all = BTreeSet::<u16>::new();
        for port in 5000..5006 {
            let to: BTreeSet<_> =
                (0..2).map(|_| arrives(&lab, &sender, from, family, |_| (SCTP, sctp(port, 36412)))).collect();
            assert_eq!(to.len(), 1, "{family:?}: port {port} goes to {to:?}");
            all.extend(to);
        }
        assert_eq!(all.len(), 3, "{family:?}: six ports go to {all:?} alone");
    }
    assert_eq!(loaded.count("forwarded_new"), 12);
    loaded.stop();
}

/// A service for SCTP, with backends elsewhere: the port changes, and with it the checksum over all.
#[test]
fn sctp_gets_another_port_and_the_checksum_that_goes_with_it() {
    const ASKED: u16 = 36412;
    let Some(lab) = Lab::up() else { return };
    // The kernel puts pieces together: of one piece alone no checksum over all can be made.
    let elsewhere = text(&format!("protocol = \"sctp\"\nports = [{ASKED}]\nport = 5000"), "");
    let loaded = Loaded::toml(&lab, &elsewhere.replace("defragment = false\n", ""));
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for family in Family::BOTH {
        let from = family.client(20);
        let request = |to: IpAddr| (SCTP, sctp(4000, if to == family.vip() { ASKED } else { 5000 }));
        let n = arrives(&lab, &sender, from, family, request);
        assert_eq!(arrives(&lab, &sender, from, family, request), n, "{family:?}: it stays there");
        let back = Sender::to_balancer(&lab, BACKENDS[usize::from(n) - 1], "eth1");
        let answer = |who: IpAddr, port| ip(who, from, SCTP, &sctp(port, 4000));
        let ((), seen) = capture(&lab, "client", || back.send(&answer(family.backend(n), 5000)));
        assert!(seen.contains(&hopped(answer(family.vip(), ASKED))), "{family:?}: {from} hears {seen:02x?}");
    }
    assert_eq!((loaded.count("forwarded_new"), loaded.count("returned")), (2, 2));
    loaded.stop();
}

/// Packets for no service pass by the rules alone, or are dropped and counted once, as configured.
#[test]
fn what_no_service_wants_is_passed_or_dropped_as_it_is_said() {
    let Some(lab) = Lab::up() else { return };
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    for (top, dropped) in [("unserved = \"pass\"", 0), ("unserved = \"drop\"", 1)] {
        let loaded = Loaded::toml(&lab, &text("protocol = \"udp\"\nports = [7007]", top));
        for family in Family::BOTH {
            let from = family.client(NOBODY);
            let sctp: (&str, Make) = ("SCTP", |_, _, n| (SCTP, sctp(5000 + u16::from(n), 80)));
            for (name, make) in PORTLESS.into_iter().chain([sctp]) {
                let before = loaded.count("dropped_unserved");
                let (protocol, payload) = make(from, family.vip(), 1);
                let packet = ip(from, family.vip(), protocol, &payload);
                let ((), seen) = capture(&lab, "sw", || sender.send(&packet));
                let theirs = seen.iter().filter(|seen| seen.ends_with(&payload)).count();
                assert_eq!(theirs, 0, "{top}: {name} of {from} reaches a backend");
                let counted = loaded.count("dropped_unserved") - before;
                assert_eq!(counted, dropped, "{top}: {name} of {from}: {:?}", loaded.counters());
            }
        }
        for worker in loaded.counters() {
            assert_eq!(worker.outcomes(), worker.received, "{worker:?}");
        }
        loaded.stop();
    }
}

/// UDP may go without a checksum over IPv4 (RFC 768), over IPv6 it may not (RFC 8200 §8.1).
#[test]
fn a_datagram_without_checksum_is_kept_so_or_refused() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text(ANY, ""));
    let sender = Sender::to_balancer(&lab, "client", "eth0");
    let bare = crate::rig::packet::udp(20_002, 7007, 8 + 4, b"bare");
    arrives(&lab, &sender, Family::V4.client(NOBODY), Family::V4, |_| (UDP, bare.clone()));
    let (from, vip) = (Family::V6.client(NOBODY), Family::V6.vip());
    let ((), seen) = capture(&lab, "sw", || sender.send(&ip(from, vip, UDP, &bare)));
    assert!(!seen.iter().any(|packet| packet.ends_with(&bare)), "IPv6: {seen:02x?}");
    assert_eq!(loaded.count("dropped_malformed"), 1, "{:?}", loaded.counters());
    loaded.stop();
}
