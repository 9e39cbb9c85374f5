//! Backends on other ports than their service.

use super::fragments::{datagram, part, sealed, together};
use super::packets::{ACK, End, RST, SYN, ends, ports, put, quoted, sctp, sound, tcp, udp, unreachable};
use super::world::{AFFINITY, BACKENDS, BARE, POLICY, SIDES, Service, Side, World, index_of};
use loaded_ipc::{
    Admin, AllDown, BackendCounter, BackendIndex, Cause, ChoiceReason, Idle, Outcome, Passive, Policy, Pressure,
    Protocol, Question,
};
use loaded_table::{Flow, FlowKey, FlowState, FlowTable, Region};
use loaded_worker::setup::flow_timeouts;
use loaded_worker::wire::{ChecksumState, PacketFacts};

/// A packet of the client, and the answer to it.
type Exchange = fn(End<'_>, End<'_>) -> [Vec<u8>; 2];
const KINDS: [(Protocol, Exchange); 3] = [
    (Protocol::Tcp, |client, service| [tcp(client, service, SYN), tcp(service, client, SYN | ACK)]),
    (Protocol::Udp, |client, service| [udp(client, service), udp(service, client)]),
    (Protocol::Sctp, |client, service| [sctp(client, service), sctp(service, client)]),
];

/// Ports 80 and 443, on backends at 8080.
fn web(protocol: Protocol) -> Service {
    Service { protocol, ports: vec![80, 443], backend_ports: [Some(8080); 6], ..Service::default() }
}

fn place(backend: &str) -> usize {
    BACKENDS.iter().position(|known| *known == backend).expect("a backend")
}

#[test]
fn the_port_changes_with_the_address_both_ways() {
    for side in SIDES {
        for (protocol, exchange) in KINDS {
            let mut world = World::new(&[web(protocol)]);
            for (n, port) in [(4001, 80), (4002, 443), (4003, 80)] {
                let (client, vip) = ((side.client, n), (side.vip, port));
                let [request, reply] = exchange(client, vip);
                let backend = world.forward(request.clone(), Outcome::ForwardedNew);
                assert_eq!(world.sent, exchange(client, (&backend, 8080))[0], "{protocol}");
                world.answer(exchange(client, (&backend, 8080))[1].clone());
                assert_eq!(world.sent, reply);
                assert_eq!(world.forward(request, Outcome::Forwarded), backend);
                // What comes from another port is no answer.
                for port in [80, 443, 8081] {
                    world.unchanged(exchange(client, (&backend, port))[1].clone(), Outcome::PassedOwn);
                }
            }
        }
    }
}

/// The pseudo header has no ports: with the checksum left to the card, the field changes by the address alone.
#[test]
fn a_checksum_that_the_card_is_to_make_comes_out_right() {
    let partial = PacketFacts { cut: false, checksum: ChecksumState::Partial };
    for side in SIDES {
        for (protocol, exchange) in KINDS {
            let mut world = World::new(&[web(protocol)]);
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let [mut request, _] = exchange(client, vip);
            let whole = request.clone();
            let field = request.len() - if protocol == Protocol::Sctp { 9 } else { 7 };
            put(&mut request, field, 0x55aa);
            assert_eq!(world.send_as(&mut request, partial), Outcome::ForwardedNew);
            let backend = ends(&request).1;
            let expected = exchange(client, (&backend, 8080))[0].clone();
            let different = whole.iter().zip(&expected).filter(|(a, b)| a != b).count();
            assert!(sound(&request) && different > 0, "{protocol}");
        }
    }
}

#[test]
fn errors_quote_what_their_receiver_has_sent() {
    for side in SIDES {
        for ((protocol, exchange), length) in KINDS.into_iter().flat_map(|kind| [(kind, 8), (kind, 100)]) {
            let mut world = World::new(&[web(protocol)]);
            let client = (side.client, 4001);
            let [sent, seen] = exchange(client, (side.vip, 443));
            let backend = world.forward(sent.clone(), Outcome::ForwardedNew);
            let [arrived, answered] = exchange(client, (&backend, 8080));
            for from in [side.router, &backend] {
                let mut bytes = unreachable(from, side.client, &arrived, length);
                assert!(matches!(world.send(&mut bytes), Outcome::ErrorReturned | Outcome::ErrorRelayed));
                assert_eq!(ports(quoted(&bytes)), (4001, 443), "{protocol}");
                // The CRC of quoted SCTP is that of the packet at the backend: seldom all of it is quoted.
                if protocol != Protocol::Sctp || length == 8 {
                    assert_eq!(bytes, unreachable(side.vip, side.client, &sent, length));
                }
                assert!(sound(&bytes));
            }
            let mut bytes = unreachable(side.router, side.vip, &seen, length);
            assert_eq!(world.send(&mut bytes), Outcome::ErrorForwarded);
            assert_eq!(ports(quoted(&bytes)), (8080, 4001));
            if protocol != Protocol::Sctp || length == 8 {
                assert_eq!(bytes, unreachable(side.router, &backend, &answered, length));
            }
            // About a port that the client did not speak to.
            let other = exchange(client, (side.vip, 80))[1].clone();
            world.unchanged(unreachable(side.client, side.vip, &other, length), Outcome::DroppedStrayError);
            let own = exchange(client, (&backend, 443))[0].clone();
            world.unchanged(unreachable(side.router, side.client, &own, length), Outcome::PassedOwn);
        }
    }
}

/// The refusal bears the port that its receiver has spoken to.
#[test]
fn refusals_name_the_ports_of_their_receiver() {
    for side in SIDES {
        let policy = Policy { all_down: AllDown::Reject, ..POLICY };
        let mut world = World::new(&[Service { policy, ..web(Protocol::Tcp) }]);
        let (client, vip) = ((side.client, 4001), (side.vip, 443));
        let backend = world.open(client, vip);
        world.check(place(&backend), false);
        let mut ack = tcp(client, vip, ACK);
        assert_eq!(world.send(&mut ack), Outcome::AnsweredReset);
        assert_eq!((ends(&ack).0, ports(&ack)), (side.vip.to_owned(), (443, 4001)));
        let mut data = tcp((&backend, 8080), client, ACK);
        assert_eq!(world.send(&mut data), Outcome::AnsweredBackend);
        assert_eq!((ends(&data), ports(&data)), ((side.client.to_owned(), backend), (4001, 8080)));
        (0..6).for_each(|n| world.check(n, false));
        let mut syn = tcp((side.client, 4002), vip, SYN);
        assert_eq!(world.send(&mut syn), Outcome::RefusedReset);
        assert_eq!(ports(&syn), (443, 4002));
    }
}

#[test]
fn the_first_fragment_gets_the_port_and_the_others_follow() {
    for side in SIDES {
        let mut world = World::new(&[web(Protocol::Udp)]);
        let client = (side.client, 4001);
        let whole = datagram(client, (side.vip, 80), 2000);
        let (mut first, mut later) = (part(&whole, 0, 1400), part(&whole, 1400, 608));
        world.unchanged(later.clone(), Outcome::RepeatedFragment);
        assert_eq!(world.send(&mut first), Outcome::ForwardedNew);
        let backend = ends(&first).1;
        assert_eq!(world.send(&mut later), Outcome::Forwarded);
        assert!(is_upper(&sealed(together(&[first, later])), &datagram(client, (&backend, 8080), 2000)));
        let answer = datagram((&backend, 8080), client, 2000);
        let mut pieces = [part(&answer, 0, 1400), part(&answer, 1400, 608)];
        for piece in &mut pieces {
            assert_eq!(world.send(piece), Outcome::Returned);
        }
        assert!(is_upper(&sealed(together(&pieces)), &datagram((side.vip, 80), client, 2000)));

        // SCTP has one checksum over all, so its pieces go nowhere.
        let mut world = World::new(&[web(Protocol::Sctp)]);
        let whole = sctp(client, (side.vip, 80));
        for piece in [part(&whole, 0, 16), part(&whole, 16, 1)] {
            world.unchanged(piece, Outcome::DroppedFragment);
        }
    }
}

/// Whether two packets have the same ends and the same after the header, byte by byte.
fn is_upper(one: &[u8], other: &[u8]) -> bool {
    let upper = |bytes: &[u8]| bytes[if bytes[0] >> 4 == 4 { 20 } else { 40 }..].to_vec();
    sound(one) && ends(one) == ends(other) && upper(one) == upper(other)
}

/// Through two ports of a service, or of two, to one port of a backend: it could not tell them apart.
#[test]
fn flows_that_would_meet_at_one_port_have_two_backends() {
    for side in SIDES {
        let one = web(Protocol::Tcp);
        let apart = |port, index, other| Service {
            ports: vec![port],
            index: Some(index),
            backend_ports: [other; 6],
            ..web(Protocol::Tcp)
        };
        for services in [
            vec![one],
            vec![apart(80, 0, Some(8080)), apart(443, 1, Some(8080))],
            // One comes there by its port, the other as it is.
            vec![apart(80, 0, Some(443)), apart(443, 1, None)],
            vec![apart(443, 0, None), apart(80, 1, Some(443))],
        ] {
            let mut world = World::new(&services);
            for n in 1000..1100 {
                let client = (side.client, n);
                let ask = |vip_port| Question {
                    protocol: 6,
                    client: side.client.parse().expect("address"),
                    client_port: n,
                    vip: side.vip.parse().expect("address"),
                    vip_port,
                };
                let first = world.open(client, (side.vip, 80));
                let said = world.decider.explain(&ask(443), world.time()).chosen.expect("a backend");
                let second = world.open(client, (side.vip, 443));
                assert_ne!(first, second);
                let reason =
                    |is: &ChoiceReason| matches!(is, ChoiceReason::Clash { .. } | ChoiceReason::Strategy { .. });
                assert!(reason(&said.reason) || matches!(said.reason, ChoiceReason::Client { .. }), "{said:?}");
                for (backend, vip) in [(&first, (side.vip, 80)), (&second, (side.vip, 443))] {
                    assert_eq!(&world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
                    let port = ports(&world.sent).1;
                    world.answer(tcp((backend, port), client, ACK));
                    assert_eq!((ends(&world.sent).0, ports(&world.sent).0), (vip.0.to_owned(), vip.1));
                }
            }
            assert!(world.decider.counters().get(Pressure::ClashAvoided.index()).expect("a counter") > 0);
        }
    }
}

/// One backend is there: the second flow is refused, and nothing else is.
#[test]
fn where_no_other_backend_is_the_client_is_refused() {
    for side in SIDES {
        let mut world = World::new(&[Service { weights: [1, 0, 0, 1, 0, 0], ..web(Protocol::Tcp) }]);
        world.open((side.client, 4001), (side.vip, 80));
        let mut syn = tcp((side.client, 4001), (side.vip, 443), SYN);
        assert_eq!(world.send(&mut syn), Outcome::RefusedClash);
        assert_eq!(ports(&syn), (443, 4001));
        world.open((side.client, 4002), (side.vip, 443));
        // Different ports of one address are different places.
        let more = [0, 3].map(|n| (index_of(5, n), n, Some(8443))).to_vec();
        let mut world = World::new(&[Service { weights: [1, 0, 0, 1, 0, 0], more, ..web(Protocol::Tcp) }]);
        let first = world.open((side.client, 4001), (side.vip, 80));
        let port = world.port_at_backend((side.client, 4001), (side.vip, 80));
        assert_eq!(world.open((side.client, 4001), (side.vip, 443)), first, "the same address");
        assert_ne!(world.port_at_backend((side.client, 4001), (side.vip, 443)), port);
    }
}

/// The same address twice in a service: both get flows, each answers for itself, and each goes down by itself.
#[test]
fn an_address_with_two_ports_is_two_backends() {
    for side in SIDES {
        let more = (0..6).map(|n| (index_of(5, n), n, Some(8081))).collect();
        let mut world = World::new(&[Service { more, affinity: None, ..web(Protocol::Tcp) }]);
        let open = |world: &mut World, n: u16| {
            let backend = world.open((side.client, n), (side.vip, 80));
            (backend, world.port_at_backend((side.client, n), (side.vip, 80)))
        };
        let all: std::collections::BTreeSet<_> = (1000..1060).map(|n| open(&mut world, n)).collect();
        assert_eq!(all.len(), 6, "{all:?}");
        let there = side.backends[0];
        world.check(place(there), false);
        let left: std::collections::BTreeSet<_> = (2000..2060).map(|n| open(&mut world, n)).collect();
        assert!(!left.contains(&(there.to_owned(), 8080)) && left.contains(&(there.to_owned(), 8081)), "{left:?}");
    }
}

/// Counted by the flow's port at the VIP, whatever the backend's is.
#[test]
fn packets_judge_by_the_port_that_clients_open() {
    let side = SIDES[0];
    let passive = |port| Passive { fails: 3, timeout: 500, hold: 10, port };
    for (judged, ejected) in [(None, true), (Some(443), true), (Some(80), false)] {
        let policy = Policy { passive: Some(passive(judged)), ..POLICY };
        let mut world = World::new(&[Service { policy, affinity: None, ..web(Protocol::Tcp) }]);
        for n in 0..30 {
            let client = (side.client, 5000 + n);
            let backend = world.forward(tcp(client, (side.vip, 443), SYN), Outcome::ForwardedNew);
            let flags = if backend == side.backends[1] { RST | ACK } else { SYN | ACK };
            let mut reply = tcp((&backend, 8080), client, flags);
            assert_eq!(world.send(&mut reply), Outcome::Returned);
        }
        assert_eq!(world.view(1).ejected, ejected, "{judged:?}");
        assert!(!ejected || world.view(1).cause == Some(Cause::Refused));
    }
}

/// Ports 1 to 16 of the first VIPs, which become 8001 at one backend, and 8002 to 8007 at all.
fn many() -> Service {
    let at = |n: u16| (0..6).map(move |place| (index_of(3 + n, place), place, Some(8002 + n)));
    let mut one = [Some(8007); 6];
    (one[0], one[3]) = (Some(8001), Some(8001));
    let (backend_ports, more) = (one, (0..5).flat_map(at).collect());
    Service { ports: (1..=16).collect(), backend_ports, more, affinity: None, ..web(Protocol::Tcp) }
}

/// All of its flows share two buckets. It may use all of that room, until somebody else needs some.
#[test]
fn one_port_of_a_client_keeps_nobody_out() {
    for side in SIDES {
        let mut world = World::sized(&[many()], 8, 64);
        let client = (side.client, 4001);
        let first = world.open(client, (side.vip, 1));
        for port in 2..=16 {
            world.open(client, (side.vip, port));
        }
        assert_eq!(world.decider.held().0, 16);
        assert!(world.decider.counters().get(Pressure::Unprotected.index()).expect("a counter") >= 12);
        for n in 0..12 {
            world.now += 2;
            world.open((&side.client(n), 4001), (side.vip, 1));
        }
        assert_eq!(world.forward(tcp(client, (side.vip, 1), ACK), Outcome::Forwarded), first, "its own stay protected");
    }
}

/// Nothing is known of what cannot be noted, so no backend is known to be free.
#[test]
fn where_more_may_clash_than_can_be_noted_the_client_is_refused() {
    for side in SIDES {
        let same = Service { index: Some(20), vips: vec![0, 1, 2, 3], ports: vec![8001], ..web(Protocol::Tcp) };
        let mut world = World::new(&[many(), Service { backend_ports: [None; 6], affinity: None, ..same }]);
        let client = (side.client, 4001);
        for port in 1..=16 {
            world.open(client, (side.vip, port));
        }
        world.open(client, (side.vip, 8001));
        let mut syn = tcp(client, (side.second_vip, 8001), SYN);
        assert_eq!(world.send(&mut syn), Outcome::RefusedClash);
        // Another port of the client meets none of them.
        world.open((side.client, 4002), (side.second_vip, 8001));
    }
}

/// The backends of a service that a reload has moved to another port: the old ones leave with their flows.
fn moved(before: &Service, from: Option<u16>, to: Option<u16>) -> Service {
    let more = (0..6).map(|n| (index_of(5, n), n, to)).collect();
    Service { more, backend_ports: [from; 6], admin: [Admin::Draining; 6], ..before.clone() }
}

#[test]
fn a_reload_that_changes_the_port_moves_no_flow() {
    for side in SIDES {
        for (from, to) in [(None, Some(8080)), (Some(8080), Some(8081)), (Some(8080), None)] {
            let before = Service { backend_ports: [from; 6], ..web(Protocol::Tcp) };
            let mut world = World::new(std::slice::from_ref(&before));
            let flow = |n: u16| ((side.client, 4000 + n), (side.vip, if n.is_multiple_of(2) { 80 } else { 443 }));
            let went: Vec<_> = (0..40)
                .map(|n| {
                    let backend = world.open(flow(n).0, flow(n).1);
                    (backend, world.port_at_backend(flow(n).0, flow(n).1))
                })
                .collect();
            world.services = vec![moved(&before, from, to)];
            world.respawn();
            assert_eq!(world.decider.held().0, 40);
            for (n, (backend, port)) in (0..).zip(&went) {
                let (client, vip) = flow(n);
                assert_eq!(&world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
                assert_eq!(ports(&world.sent).1, *port);
                world.answer(tcp((backend, *port), client, ACK));
                assert_eq!(ports(&world.sent).0, vip.1);
            }
            // New ones go to the new port.
            for n in 100..120 {
                let (client, vip) = flow(n);
                world.open(client, vip);
                assert_eq!(world.port_at_backend(client, vip), to.unwrap_or(vip.1));
            }
            // The old ones are disabled in the end: their flows are reset both ways, the new ones go on.
            world.services[0].admin = [Admin::Disabled; 6];
            world.respawn();
            for (n, (backend, port)) in (0..).zip(&went) {
                let (client, vip) = flow(n);
                assert_eq!(world.send(&mut tcp(client, vip, ACK)), Outcome::AnsweredReset);
                let mut data = tcp((backend, *port), client, ACK);
                assert_eq!(world.send(&mut data), Outcome::AnsweredBackend);
            }
            for n in 100..120 {
                let (client, vip) = flow(n);
                world.forward(tcp(client, vip, ACK), Outcome::Forwarded);
            }
        }
    }
}

/// A connection that begins on the ports of one at the old port leaves nothing of that one behind.
#[test]
fn a_flow_that_moves_to_another_kind_of_backend_leaves_no_second_entry() {
    for side in SIDES {
        for (from, to) in [(None, Some(8080)), (Some(8080), None)] {
            let policy = Policy { on_backend_down: loaded_ipc::OnBackendDown::Rehash, ..POLICY };
            let before = Service { backend_ports: [from; 6], policy, ..web(Protocol::Tcp) };
            let mut world = World::new(std::slice::from_ref(&before));
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            world.open(client, vip);
            world.services = vec![moved(&before, from, to)];
            world.services[0].admin = [Admin::Disabled; 6];
            world.respawn();
            world.forward(tcp(client, vip, ACK), Outcome::ForwardedNew);
            assert_eq!(ports(&world.sent).1, to.unwrap_or(80));
            assert_eq!(world.decider.held().0, 1);
            let flows: u64 = [0, 5]
                .iter()
                .flat_map(|index| (0..6).map(move |n| index_of(*index, n)))
                .map(|index| world.count(BackendCounter::Flows, index))
                .sum();
            assert_eq!(flows, 1);
        }
    }
}

/// A service that the configuration no longer has, or a port that moves to a service of the other kind.
#[test]
fn flows_of_what_is_leaving_are_found_by_either_key() {
    for side in SIDES {
        for (old, new) in [(None, Some(8080)), (Some(8080), None)] {
            let of = |index, other| Service { index: Some(index), backend_ports: [other; 6], ..web(Protocol::Tcp) };
            let mut world = World::new(&[of(3, old)]);
            let (client, vip) = ((side.client, 4001), (side.vip, 443));
            let backend = world.open(client, vip);
            let port = world.port_at_backend(client, vip);
            let leaving = Service { vips: vec![], admin: [Admin::Draining; 6], ..of(3, old) };
            for services in [vec![leaving.clone(), of(9, new)], vec![leaving]] {
                world.services = services;
                world.respawn();
                assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
                assert_eq!(ports(&world.sent).1, port);
                world.answer(tcp((&backend, port), client, ACK));
            }
        }
    }
}

/// Entries whose key does not go with their backend are not those of an honest worker.
#[test]
fn an_entry_with_the_wrong_key_is_removed() {
    let mut world = World::new(&[web(Protocol::Tcp), Service { vips: vec![2, 3], index: Some(1), ..BARE }]);
    let key = |service_port| FlowKey { protocol: 6, client: mapped(), client_port: 7, service_port };
    {
        let region = Region::map(&world.flows).expect("map");
        let mut table = FlowTable::open(region, world.specs[0], flow_timeouts(&Idle::STANDARD)).expect("open");
        let mut put = |port, vip_port, backend: BackendIndex| {
            let flow = Flow { vip: 0, vip_port, backend: backend.0, state: FlowState::Established };
            table.insert(&table.prepare(&key(port)), &key(port), flow, world.now).expect("room");
        };
        // Right: a changed port, a kept one. Wrong: the other way round, and another port.
        put(0, 80, index_of(0, 0));
        put(443, 443, index_of(1, 0));
        put(80, 80, index_of(0, 1));
        put(0, 443, index_of(1, 1));
        put(444, 443, index_of(1, 2));
    }
    world.respawn();
    assert_eq!(world.decider.held().0, 2);
}

fn mapped() -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 9]
}

/// Without affinity the port that the client came to chooses with the rest; with it, it does not.
#[test]
fn affinity_does_not_ask_for_ports() {
    let side: Side = SIDES[0];
    let mut world = World::new(&[Service { affinity: Some(AFFINITY), ..web(Protocol::Tcp) }]);
    let home = world.open((side.client, 1), (side.vip, 80));
    for n in 2..20 {
        assert_eq!(world.open((side.client, n), (side.vip, 443)), home);
    }
}
