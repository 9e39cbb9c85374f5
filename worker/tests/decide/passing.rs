//! Packets that are not ours, not complete, or not balanced.

use super::packets::{ACK, SCTP, SYN, echo, ends, icmp_of, ip, is_v4, piece, put, sound, tcp, udp, unreachable};
use super::world::{SIDES, Service, World};
use loaded_ipc::{Mode, OnFailure, Outcome, Protocol, Unserved};
use loaded_worker::wire::{ChecksumState, PacketFacts};

/// The kernel has left the checksum to the network card.
const PARTIAL: PacketFacts = PacketFacts { checksum: ChecksumState::Partial, ..PacketFacts::WHOLE };

const GRE: u8 = 47;

fn web() -> Service {
    Service { protocol: Protocol::Tcp, ports: vec![80, 443], ..Service::default() }
}

#[test]
fn packets_to_a_vip_without_a_service_pass() {
    for side in SIDES {
        let mut world = World::new(&[web()]);
        world.forward(tcp((side.client, 4001), (side.vip, 443), SYN), Outcome::ForwardedNew);
        for bytes in [
            tcp((side.client, 4001), (side.vip, 22), SYN),
            tcp((side.client, 4001), (side.vip, 444), ACK),
            udp((side.client, 4001), (side.vip, 80)),
            echo(side.client, side.vip, true, 1),
            echo(side.client, side.vip, false, 1),
            ip(side.client, side.vip, SCTP, vec![0; 12]),
            tcp((side.client, 4001), (side.second_vip, 80), SYN),
        ] {
            world.unchanged(bytes, Outcome::PassedUnserved);
        }
        assert_eq!(world.decider.held().0, 1);
    }
}

#[test]
fn packets_from_and_to_unknown_addresses_pass() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        world.unchanged(tcp((side.client, 4001), (side.router, 80), SYN), Outcome::PassedForeign);
        world.unchanged(udp((side.client, 4001), (side.backends[0], 80)), Outcome::PassedForeign);
        world.unchanged(ip(side.client, side.router, GRE, vec![0; 12]), Outcome::PassedForeign);
        world.unchanged(ip(side.backends[1], side.client, GRE, vec![0; 12]), Outcome::PassedOwn);
    }
}

/// Defect 1 of the original: other protocols got no verdict. They are balanced by address alone, both ways, with errors about
/// them.
#[test]
fn other_protocols_to_a_vip_that_is_balanced_as_a_whole_are_balanced() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        for protocol in [SCTP, GRE, 50, 51, 59, 253].into_iter().filter(|p| is_v4(side.vip) || *p != 51) {
            let upper = vec![protocol; 12];
            let mut request = ip(side.client, side.vip, protocol, upper.clone());
            assert_eq!(world.send(&mut request), Outcome::ForwardedNew, "{protocol}");
            let (_, backend) = ends(&request);
            assert_eq!(request, ip(side.client, &backend, protocol, upper.clone()));
            let mut again = ip(side.client, side.vip, protocol, upper.clone());
            assert_eq!((world.send(&mut again), again), (Outcome::Forwarded, request.clone()));

            let mut reply = ip(&backend, side.client, protocol, upper.clone());
            assert_eq!(world.send(&mut reply), Outcome::Returned);
            assert_eq!(reply, ip(side.vip, side.client, protocol, upper.clone()));

            let mut error = unreachable(&backend, side.client, &request, 8);
            assert_eq!(world.send(&mut error), Outcome::ErrorReturned);
            assert_eq!(
                error,
                unreachable(side.vip, side.client, &ip(side.client, side.vip, protocol, upper.clone()), 8)
            );
            let mut error = unreachable(side.router, side.vip, &reply, 8);
            assert_eq!(world.send(&mut error), Outcome::ErrorForwarded);
            assert_eq!(error, unreachable(side.router, &backend, &ip(&backend, side.client, protocol, upper), 8));
        }
    }
}

/// Where only ports are balanced, the configuration says what becomes of the rest.
#[test]
fn unserved_packets_pass_or_are_dropped() {
    for (unserved, outcome) in [(Unserved::Pass, Outcome::PassedUnserved), (Unserved::Drop, Outcome::DroppedUnserved)] {
        for side in SIDES {
            let mut world = World::new(&[Service { unserved, ..web() }]);
            world.unchanged(ip(side.client, side.vip, SCTP, vec![0; 12]), outcome);
            world.unchanged(tcp((side.client, 4001), (side.vip, 81), SYN), outcome);
            world.unchanged(udp((side.client, 4001), (side.vip, 80)), outcome);
        }
    }
}

/// RFC 8200 §8.1; but a field that holds only a sum may be zero.
#[test]
fn udp_over_ipv6_without_a_checksum_is_refused() {
    let mut world = World::new(&[Service::default()]);
    let [_, v6] = SIDES;
    let mut bytes = udp((v6.client, 4001), (v6.vip, 80));
    put(&mut bytes, 46, 0);
    world.unchanged(bytes.clone(), Outcome::DroppedMalformed);
    assert_eq!(world.send_as(&mut bytes, PARTIAL), Outcome::ForwardedNew);
}

#[test]
fn fragments_of_foreign_datagrams_pass() {
    let mut world = World::new(&[Service::default()]);
    for side in SIDES {
        for (more, offset) in [(true, 0), (false, 10), (true, 10)] {
            world.unchanged(piece(udp((side.client, 4001), (side.router, 80)), more, offset), Outcome::PassedForeign);
        }
    }
}

#[test]
fn malformed_packets_are_dropped() {
    let mut world = World::new(&[Service::default()]);
    for side in SIDES {
        let whole = tcp((side.client, 4001), (side.vip, 80), SYN);
        for length in 0..whole.len() {
            world.unchanged(whole[..length].to_vec(), Outcome::DroppedMalformed);
        }
        world.unchanged([&whole[..], &[0]].concat(), Outcome::DroppedMalformed);
        world.unchanged(ip(side.client, side.vip, icmp_of(side.vip), vec![8, 0, 0]), Outcome::DroppedMalformed);
        // A TCP header whose length is more than the packet's.
        let mut long = whole.clone();
        let at = whole.len() - 24 + 12;
        long[at] = 15 << 4;
        world.unchanged(long, Outcome::DroppedMalformed);
        // Version 5.
        let mut odd = whole;
        odd[0] = odd[0] & 15 | 0x50;
        world.unchanged(odd, Outcome::DroppedMalformed);
    }
    assert_eq!(world.decider.held(), (0, 0));
}

/// Only where nothing is translated: elsewhere a packet that passed would reach this host itself.
#[test]
fn malformed_packets_pass_if_configured() {
    for (mode, malformed, outcome) in [
        (Mode::Dsr, OnFailure::Pass, Outcome::PassedMalformed),
        (Mode::Dsr, OnFailure::Drop, Outcome::DroppedMalformed),
        (Mode::Nat, OnFailure::Pass, Outcome::DroppedMalformed),
    ] {
        let mut world = World::new(&[Service { mode, malformed, ..Service::default() }]);
        for side in SIDES {
            let whole = tcp((side.client, 4001), (side.vip, 80), SYN);
            world.unchanged(whole[..whole.len() - 1].to_vec(), outcome);
            world.unchanged(ip(side.client, side.vip, icmp_of(side.vip), vec![8, 0, 0]), outcome);
        }
        assert_eq!(world.decider.held(), (0, 0));
    }
}

/// An IPv4 address in an IPv6 header never comes from an honest network, and must not meet flows of IPv4.
#[test]
fn mapped_addresses_on_the_wire_are_dropped() {
    let mut world = World::new(&[Service::default()]);
    let [v4, v6] = SIDES;
    let backend = world.forward(tcp((v4.client, 4001), (v4.vip, 80), SYN), Outcome::ForwardedNew);
    let mapped = |address: &str| format!("::ffff:{address}");
    for (from, to) in [
        (mapped(v4.client), mapped(v4.vip)),
        (v6.client.to_owned(), mapped(v4.vip)),
        (mapped(v4.client), v6.vip.to_owned()),
        (mapped(&backend), mapped(v4.client)),
    ] {
        world.unchanged(tcp((&from, 4001), (&to, 80), ACK), Outcome::DroppedMalformed);
    }
}

#[test]
fn neighbour_discovery_passes() {
    let mut world = World::new(&[Service::default()]);
    let side = SIDES[1];
    for kind in [130, 131, 133, 134, 135, 136, 137, 143] {
        let upper = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &[0; 16]].concat();
        world.unchanged(ip(side.client, side.vip, 58, upper), Outcome::PassedNeighbour);
    }
}

/// A packet of which only the beginning is here can pass or be dropped, but never be rewritten and sent.
#[test]
fn cut_packets_are_never_rewritten() {
    let cut = PacketFacts { cut: true, ..PacketFacts::WHOLE };
    for side in SIDES {
        let mut world =
            World::new(&[web(), Service { protocol: Protocol::Udp, ports: vec![53], ..Service::default() }]);
        let client = (side.client, 4001);
        let (syn, query) = (tcp(client, (side.vip, 80), SYN), udp(client, (side.vip, 53)));
        let web = world.forward(syn.clone(), Outcome::ForwardedNew);
        let dns = world.forward(query.clone(), Outcome::ForwardedNew);
        let known = [syn, query, tcp((&web, 80), client, ACK), udp((&dns, 53), client)];
        let held = world.decider.held();
        let own = side.backends[0];
        let cases = known.into_iter().map(|bytes| (bytes, Outcome::DroppedCut)).chain([
            (tcp((side.client, 4002), (side.vip, 80), SYN), Outcome::DroppedCut),
            (udp((side.client, 4002), (side.vip, 53)), Outcome::DroppedCut),
            (tcp((side.client, 4002), (side.vip, 22), SYN), Outcome::PassedUnserved),
            (tcp((own, 4002), (side.client, 22), SYN), Outcome::PassedOwn),
            (udp((own, 4002), (side.client, 53)), Outcome::PassedOwn),
            (udp((side.client, 4002), (side.router, 53)), Outcome::PassedForeign),
        ]);
        for (whole, outcome) in cases {
            // The last bytes are missing; the lengths in the headers are unchanged.
            let mut bytes = whole[..whole.len() - 2].to_vec();
            let before = bytes.clone();
            assert_eq!(world.send_as(&mut bytes, cut), outcome);
            assert_eq!(bytes, before);
        }
        assert_eq!(world.decider.held(), held, "a packet that is dropped makes no flow");
    }
}

/// With `CHECKSUM_PARTIAL` the field holds the sum of the pseudo header. What leaves must be a complete checksum, unless GSO
/// makes it.
#[test]
fn partial_checksums_are_completed() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        for (at, honest) in
            [(16, tcp((side.client, 4001), (side.vip, 80), SYN)), (6, udp((side.client, 4001), (side.vip, 80)))]
        {
            let mut bytes = honest;
            let transport = if bytes[0] >> 4 == 4 { 20 } else { 40 };
            put(&mut bytes, transport + at, 0x1234);
            let outcome = world.send_as(&mut bytes, PARTIAL);
            assert_eq!(outcome, Outcome::ForwardedNew);
            assert!(sound(&bytes));
            assert!(side.backends.contains(&ends(&bytes).1.as_str()));
        }
    }
}
