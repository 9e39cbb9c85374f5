//! Floods from countless sources, and from one client that uses all its ports: clients that are served stay served, and new
//! ones get in.

use super::packets::{ACK, SCTP, SYN, ip, put, tcp, udp};
use super::world::{AFFINITY, BARE, SIDES, Service, Side, World};
use loaded_ipc::{Mode, Outcome, Pressure, Quota};

const QUOTA: Quota = Quota { prefix4: 24, prefix6: 48, percent: 25 };

/// Enough for `8 * promised / 4` slots or more.
fn small(promised: usize, service: Service) -> World {
    World::sized(&[service], promised, 64)
}

fn spread() -> Service {
    Service { vips: vec![0, 1], ..BARE }
}

fn pressure(world: &World, what: Pressure) -> u64 {
    world.decider.counters().get(what.index()).expect("a counter")
}

/// A packet of a protocol whose flows behave like those of UDP.
fn datagram(protocol: u8, from: (&str, u16), to: (&str, u16)) -> Vec<u8> {
    match protocol {
        17 => udp(from, to),
        SCTP => {
            let mut upper = vec![0; 12];
            put(&mut upper, 0, from.1);
            put(&mut upper, 2, to.1);
            ip(from.0, to.0, SCTP, upper)
        }
        other => ip(from.0, to.0, other, vec![7; 8]),
    }
}

/// Spoofed sources whose first packets backends answer: a SYN with SYN and ACK, a datagram with another.
fn spoof(world: &mut World, side: &Side, clients: std::ops::Range<u16>, protocol: Option<u8>) {
    for n in clients {
        let (address, vip) = (side.client(n), (side.vip, 80));
        let client = (&*address, 4001);
        match protocol {
            None => {
                let backend = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
                world.answer(tcp((&backend, 80), client, SYN | ACK));
            }
            Some(protocol) => {
                let backend = world.forward(datagram(protocol, client, vip), Outcome::ForwardedNew);
                world.answer(datagram(protocol, (&backend, 80), client));
            }
        }
    }
}

#[test]
fn answered_spoofed_sources_keep_no_client_out() {
    for side in SIDES {
        for flood in [None, Some(17), Some(SCTP), Some(47)] {
            let mut world = small(8, spread());
            let (vip, client) = ((side.vip, 80), side.client);
            let web = world.open((client, 1), vip);
            let dns = world.talk((client, 2), vip);
            spoof(&mut world, &side, 0..300, flood);
            assert_eq!(world.decider.held().0, 16, "full");
            assert!(pressure(&world, Pressure::Evicted) >= 200);
            // Clients that were there still are; new ones get in, whatever their protocol, and are answered before they are evicted.
            assert_eq!(world.forward(tcp((client, 1), vip, ACK), Outcome::Forwarded), web);
            assert_eq!(world.forward(udp((client, 2), vip), Outcome::Forwarded), dns);
            for n in 0..3 {
                world.open((client, 10 + n), vip);
                world.talk((client, 20 + n), vip);
            }
            world.now += 3;
            spoof(&mut world, &side, 300..600, flood);
            for n in 0..3 {
                world.forward(tcp((client, 10 + n), vip, ACK), Outcome::Forwarded);
                world.forward(udp((client, 20 + n), vip), Outcome::Forwarded);
            }
        }
    }
}

/// As long as no other flow needs its slot, a second answer may come late.
#[test]
fn a_datagram_that_is_answered_once_is_remembered_as_long_as_others() {
    for side in SIDES {
        let mut world = World::new(&[spread()]);
        let backend = world.ask((side.client, 2), (side.vip, 80));
        world.now += 180;
        world.answer(udp((&backend, 80), (side.client, 2)));
        world.now += 181;
        world.sweep();
        assert_eq!(world.decider.held().0, 0);
    }
}

/// Where no answers are seen nothing is proven: such flows live as long as others, but keep no client out.
#[test]
fn two_packets_of_a_spoofed_source_keep_no_client_out_of_a_direct_service() {
    for side in SIDES {
        let mut world = small(8, Service { mode: Mode::Dsr, ..spread() });
        for by_tcp in [true, false] {
            for n in 0..200 {
                let (address, vip) = (side.client(n), (side.vip, 80));
                let client = (&*address, 4001);
                for (flags, outcome) in [(SYN, Outcome::ForwardedNew), (ACK, Outcome::Forwarded)] {
                    let mut bytes = if by_tcp { tcp(client, vip, flags) } else { udp(client, vip) };
                    assert_eq!(world.send(&mut bytes), outcome);
                }
            }
            world.now += 1;
        }
        assert_eq!(world.decider.held().0, 16);
    }
}

/// One client that uses all its ports.
fn hog(world: &mut World, side: &Side, connections: u16) {
    for port in 1..=connections {
        world.open((side.client, port), (side.vip, 80));
    }
}

#[test]
fn a_client_that_uses_all_its_ports_keeps_no_other_client_out() {
    for side in SIDES {
        let vip = (side.vip, 80);
        let mut world = small(64, Service { quota: Some(QUOTA), ..spread() });
        hog(&mut world, &side, 400);
        assert_eq!(world.decider.held().0, 128, "full");
        // 32 are half of the table's capacity, which anyone may have.
        assert_eq!(pressure(&world, Pressure::Unprotected), 400 - 32);
        world.now += 1;
        let others: Vec<String> = (0..8).map(|n| side.client(n)).collect();
        let opened: Vec<String> = others.iter().map(|other| world.open((other, 4001), vip)).collect();
        assert_eq!(pressure(&world, Pressure::Unprotected), 400 - 32, "they are protected");
        // Whatever it does, the others stay, and its own new flows get in.
        for port in 1000..1400 {
            world.open((side.client, port), vip);
        }
        for (other, backend) in others.iter().zip(&opened) {
            assert_eq!(&world.forward(tcp((other, 4001), vip, ACK), Outcome::Forwarded), backend);
        }
        assert_eq!(world.decider.counters().get(Outcome::DroppedTableFull.index()), Some(0));

        // Without a quota no other client gets in.
        let mut world = small(64, spread());
        for port in 1..=600 {
            world.send(&mut tcp((side.client, port), vip, SYN));
            let backend = super::packets::ends(&world.sent).1;
            if side.backends.contains(&&*backend) {
                world.answer(tcp((&backend, 80), (side.client, port), SYN | ACK));
                world.forward(tcp((side.client, port), vip, ACK), Outcome::Forwarded);
            }
        }
        let refused = |other: &&String| world.send(&mut tcp((other, 4001), vip, SYN)) == Outcome::DroppedTableFull;
        assert_eq!(others.iter().filter(refused).count(), 8);
    }
}

/// The next worker counts the protected flows of each prefix again.
#[test]
fn the_next_worker_counts_what_it_finds() {
    for side in SIDES {
        let mut world = small(64, Service { quota: Some(QUOTA), ..spread() });
        hog(&mut world, &side, 128);
        let before = pressure(&world, Pressure::Unprotected);
        for port in 200..260 {
            if port % 20 == 0 {
                world.respawn();
            }
            world.open((side.client, port), (side.vip, 80));
        }
        assert_eq!(pressure(&world, Pressure::Unprotected) - before, 60, "it has its share");
        world.open((&side.client(1), 4001), (side.vip, 80));
        assert_eq!(pressure(&world, Pressure::Unprotected) - before, 60, "and others theirs");
    }
}

/// Nor do they displace the affinity of clients.
#[test]
fn spoofed_sources_do_not_displace_clients() {
    for side in SIDES {
        // The affinity table has sixteen slots.
        let affinity = Some(AFFINITY);
        let mut world = World::sized(&[Service { affinity, ..spread() }], 1000, 8);
        let real: Vec<String> = (1000..1004).map(|n| side.client(n)).collect();
        let homes: Vec<String> = real.iter().map(|client| world.open((client, 1), (side.vip, 80))).collect();
        for flood in [None, Some(17)] {
            world.now += 100;
            spoof(&mut world, &side, 0..100, flood);
            for (client, home) in real.iter().zip(&homes) {
                let port = if flood.is_none() { 2 } else { 3 };
                assert_eq!(&world.open((client, port), (side.vip, 80)), home, "{flood:?}");
            }
        }
        assert_eq!(world.decider.held().1, 16);
    }
}
