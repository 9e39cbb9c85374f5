//! Packets of backends that belong to no flow: adopted where this balancer would have chosen alike, else dropped; and what a
//! backend opens itself is its own.

use super::packets::{ACK, End, FIN, RST, SYN, ends, sctp, tcp, udp, unreachable};
use super::world::{AFFINITY, BARE, SIDES, Service, Side, World};
use loaded_ipc::{Affinity, BackendCounter, Outcome, Pressure, Protocol, Strategy};
use loaded_worker::wire::PacketFacts;

/// What two balancers that are to agree have.
const MAGLEV: Strategy = Strategy::Maglev { seed: 3 };

/// A first packet of a client, and what a backend says in the middle.
type Talk = (Protocol, fn(End<'_>, End<'_>) -> Vec<u8>, Vec<fn(End<'_>, End<'_>) -> Vec<u8>>);

fn talks() -> [Talk; 3] {
    [
        (
            Protocol::Tcp,
            |a, b| tcp(a, b, ACK),
            vec![
                |a, b| tcp(a, b, ACK),
                |a, b| tcp(a, b, SYN | ACK),
                |a, b| tcp(a, b, FIN | ACK),
                |a, b| tcp(a, b, RST),
                |a, b| tcp(a, b, RST | ACK),
            ],
        ),
        (Protocol::Udp, |a, b| udp(a, b), vec![|a, b| udp(a, b)]),
        (Protocol::Sctp, |a, b| sctp(a, b), vec![|a, b| sctp(a, b)]),
    ]
}

/// A service on one VIP a family.
fn at(protocol: Protocol, strategy: Strategy, affinity: Option<Affinity>, port: Option<u16>) -> Service {
    Service { protocol, strategy, affinity, vips: vec![0, 1], ports: vec![80], backend_ports: [port; 6], ..BARE }
}

fn flows(world: &World) -> usize {
    world.decider.held().0
}

/// The backends that are not this one.
fn others<'s>(side: &'s Side, backend: &'s str) -> impl Iterator<Item = &'static str> + 's {
    side.backends.into_iter().filter(move |other| *other != backend)
}

#[test]
fn a_reply_is_adopted_by_the_balancer_that_would_have_chosen_alike() {
    for side in SIDES {
        for (protocol, request, replies) in talks() {
            for (affinity, port) in
                [(None, None), (Some(AFFINITY), None), (None, Some(8080)), (Some(AFFINITY), Some(8080))]
            {
                let service = at(protocol, MAGLEV, affinity, port);
                let mut first = World::new(&[service.clone()]);
                let mut second = World::new(&[service]);
                for n in 4001..4031 {
                    let (client, at_backend) = ((side.client, n), port.unwrap_or(80));
                    let backend = first.forward(request(client, (side.vip, 80)), Outcome::ForwardedNew);
                    for reply in &replies {
                        second.answer(reply((&backend, at_backend), client));
                        assert_eq!(second.sent, reply((side.vip, 80), client), "byte for byte what the VIP would send");
                        for other in others(&side, &backend) {
                            second.unchanged(reply((other, at_backend), client), Outcome::DroppedOrphan);
                        }
                        assert_eq!(second.decider.held(), (0, 0), "nothing is remembered");
                    }
                }
                // What the client says next begins its flow, and meets the same backend.
                let backend = first.forward(request((side.client, 4001), (side.vip, 80)), Outcome::Forwarded);
                let moved = second.forward(request((side.client, 4001), (side.vip, 80)), Outcome::ForwardedNew);
                assert_eq!((moved, flows(&second)), (backend, 1));
            }
        }
    }
}

/// `rr` and `weighted` place by what the balancer has seen. What a client's affinity says holds with them, too.
#[test]
fn with_another_strategy_only_the_clients_affinity_tells() {
    for side in SIDES {
        for strategy in [Strategy::RoundRobin, Strategy::Weighted] {
            let mut world = World::new(&[at(Protocol::Tcp, strategy, None, None)]);
            for backend in side.backends {
                world.unchanged(tcp((backend, 80), (side.client, 4001), ACK), Outcome::DroppedOrphan);
            }
            let mut world = World::new(&[at(Protocol::Tcp, strategy, Some(AFFINITY), None)]);
            let backend = world.open((side.client, 4001), (side.vip, 80));
            world.answer(tcp((&backend, 80), (side.client, 4002), ACK));
            for other in others(&side, &backend) {
                world.unchanged(tcp((other, 80), (side.client, 4002), ACK), Outcome::DroppedOrphan);
            }
        }
    }
}

/// After idle time-out, too, a client sees no backend's address.
#[test]
fn what_comes_after_a_flow_was_forgotten_comes_from_the_vip_or_not_at_all() {
    for side in SIDES {
        for (strategy, outcome) in [(MAGLEV, Outcome::Returned), (Strategy::RoundRobin, Outcome::DroppedOrphan)] {
            let mut world = World::new(&[at(Protocol::Tcp, strategy, None, None)]);
            let client = (side.client, 4001);
            let backend = world.open(client, (side.vip, 80));
            world.now += 7441;
            world.sweep();
            let mut late = tcp((&backend, 80), client, ACK);
            assert_eq!(world.send(&mut late), outcome);
            if outcome == Outcome::Returned {
                assert_eq!(ends(&late).0, side.vip);
            }
        }
    }
}

#[test]
fn what_two_places_or_another_backend_may_have_sent_is_dropped() {
    for side in SIDES {
        let (client, ack) = ((side.client, 4001), |backend| tcp((backend, 80), (side.client, 4001), ACK));
        // Two VIPs of the family.
        let two = Service { vips: vec![0, 1, 2, 3], ..at(Protocol::Tcp, MAGLEV, None, None) };
        // Two ports that become one.
        let wide = Service { ports: vec![80, 81], ..at(Protocol::Tcp, MAGLEV, None, Some(80)) };
        for service in [two, wide] {
            let mut world = World::new(&[service]);
            side.backends.into_iter().for_each(|backend| world.unchanged(ack(backend), Outcome::DroppedOrphan));
        }
        // The client has its connection at another backend.
        let mut world = World::new(&[at(Protocol::Tcp, MAGLEV, None, None)]);
        let first = world.open(client, (side.vip, 80));
        let place = super::world::BACKENDS.iter().position(|b| *b == first).expect("a backend");
        world.check(place, false);
        assert_eq!(world.send(&mut tcp(client, (side.vip, 80), ACK)), Outcome::AnsweredReset, "as the policy says");
        for other in others(&side, &first) {
            // It need not repeat it for minutes: it is told.
            assert_eq!(world.send(&mut ack(other)), Outcome::AnsweredBackend);
            assert_eq!(ends(&world.sent), (side.client.to_owned(), other.to_owned()));
            world.unchanged(tcp((other, 80), client, RST), Outcome::DroppedOrphan);
        }
    }
}

/// By its port nothing is known of a service for all protocols, or of a port that no service has.
#[test]
fn where_no_port_is_served_everything_is_the_backends_own() {
    for side in SIDES {
        let any = Service { strategy: MAGLEV, ..Service::default() };
        let web = at(Protocol::Tcp, MAGLEV, None, None);
        let mut worlds = [World::new(&[any.clone()]), World::new(&[web.clone()])];
        for backend in side.backends {
            worlds[0].unchanged(tcp((backend, 80), (side.client, 4001), ACK), Outcome::PassedOwn);
            worlds[1].unchanged(tcp((backend, 8080), (side.client, 4001), ACK), Outcome::PassedOwn);
            worlds[1].unchanged(udp((backend, 80), (side.client, 4001)), Outcome::PassedOwn);
        }
        // Both at one backend: what is known by its port is not known at all.
        let mut world = World::new(&[web, Service { vips: vec![2, 3], ..any }]);
        world.unchanged(tcp((side.backends[0], 80), (side.client, 4001), ACK), Outcome::PassedOwn);
    }
}

#[test]
fn a_backends_own_connection_from_a_served_port_passes_until_it_has_been_idle() {
    for side in SIDES {
        for port in [None, Some(80)] {
            let mut world = World::new(&[at(Protocol::Tcp, MAGLEV, None, port)]);
            let far = (side.client, 4001);
            for backend in side.backends {
                world.unchanged(tcp((backend, 80), far, SYN), Outcome::PassedOwn);
            }
            // The worker may die, and the connection may be idle for as long as any.
            world.respawn();
            for _ in 0..2 {
                world.now += 7440;
                world.sweep();
                for backend in side.backends {
                    world.unchanged(tcp((backend, 80), far, ACK), Outcome::PassedOwn);
                }
            }
            // A client with the same address and port gets its flow all the same, and its replies.
            let backend = world.open(far, (side.vip, 80));
            world.answer(tcp((&backend, 80), far, ACK));
            for other in others(&side, &backend) {
                world.unchanged(tcp((other, 80), far, ACK), Outcome::PassedOwn);
            }
            assert_eq!(world.decider.counters().get(Pressure::ClashAvoided.index()), Some(0));
            world.now += 7441;
            world.sweep();
            assert_eq!(flows(&world), 0);
            let counted: u64 = (0..6).map(|n| world.count(BackendCounter::Flows, super::world::index_of(0, n))).sum();
            assert_eq!(counted, 0, "only clients' flows are counted");
            let passed =
                |world: &mut World, backend| world.send(&mut tcp((backend, 80), far, ACK)) == Outcome::PassedOwn;
            assert!(side.backends.into_iter().all(|backend| !passed(&mut world, backend)), "forgotten");
        }
    }
}

/// SCTP opens with INIT.
#[test]
fn a_backends_own_association_passes() {
    for side in SIDES {
        let mut world = World::new(&[at(Protocol::Sctp, MAGLEV, None, None)]);
        for backend in side.backends {
            let mut init = sctp((backend, 80), (side.client, 4001));
            let chunk = init.len() - sctp_chunk();
            init[chunk] = 1;
            world.unchanged(init, Outcome::PassedOwn);
            world.unchanged(sctp((backend, 80), (side.client, 4001)), Outcome::PassedOwn);
        }
    }
}

/// Bytes from the first chunk to the end of what [`sctp`] makes.
fn sctp_chunk() -> usize {
    sctp((SIDES[0].backends[0], 80), (SIDES[0].client, 1)).len() - 20 - 12
}

#[test]
fn what_is_cut_or_an_error_is_judged_alike() {
    let cut = PacketFacts { cut: true, ..PacketFacts::WHOLE };
    for side in SIDES {
        let service = at(Protocol::Udp, MAGLEV, None, Some(8080));
        let (client, mut first) = ((side.client, 4001), World::new(&[service.clone()]));
        let backend = first.forward(udp(client, (side.vip, 80)), Outcome::ForwardedNew);
        let mut world = World::new(&[service]);
        for from in side.backends {
            let own = from == backend;
            let mut reply = udp((from, 8080), client);
            let outcome = world.send_as(&mut reply, cut);
            assert_eq!(outcome, if own { Outcome::DroppedCut } else { Outcome::DroppedOrphan });
            // What the backend says about a request it got from the other balancer.
            let mut error = unreachable(from, side.client, &udp(client, (from, 8080)), 28);
            let before = error.clone();
            let outcome = world.send(&mut error);
            match own {
                true => {
                    assert_eq!((outcome, ends(&error).0.as_str()), (Outcome::ErrorReturned, side.vip));
                    assert_eq!(error, unreachable(side.vip, side.client, &udp(client, (side.vip, 80)), 28));
                }
                false => assert_eq!((outcome, error), (Outcome::DroppedOrphan, before)),
            }
        }
        assert_eq!(flows(&world), 0);
    }
}

/// `LOADED_FORGED` says how many packets; a million takes a minute in a debug build.
#[test]
fn forged_replies_open_nothing_and_take_nobodys_place() {
    let count: u32 = std::env::var("LOADED_FORGED").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    for side in SIDES {
        let mut world = World::sized(&[at(Protocol::Tcp, MAGLEV, None, None)], 64, 64);
        // Open connections, and clients who have not been answered yet: the first to go.
        let open: Vec<_> = (1..20).map(|n| (n, world.open((side.client, n), (side.vip, 80)))).collect();
        let begun: Vec<_> = (100..110)
            .map(|n| (n, world.forward(tcp((side.client, n), (side.vip, 80), SYN), Outcome::ForwardedNew)))
            .collect();
        world.now += 2;
        let held = flows(&world);
        for n in 0..count / 2 {
            let [a, b, c, d] = n.wrapping_mul(2_654_435_761).to_be_bytes();
            let (stranger, port) = (side.client(u16::from_be_bytes([a, b])), u16::from_be_bytes([c, d]) | 1024);
            let backend = side.backends[n as usize % 3];
            let flags = [ACK, SYN, SYN | ACK, FIN | ACK, RST][n as usize / 3 % 5];
            let mut forged = tcp((backend, 80), (&stranger, port), flags);
            let outcome = world.send(&mut forged);
            let allowed = match flags {
                SYN => outcome == Outcome::PassedOwn,
                _ => matches!(outcome, Outcome::Returned | Outcome::DroppedOrphan | Outcome::PassedOwn),
            };
            assert!(allowed, "{outcome:?}");
        }
        assert!(flows(&world) > held, "the SYNs fill free places");
        let pressure = |what: Pressure, world: &World| world.decider.counters().get(what.index()).expect("a counter");
        assert_eq!((pressure(Pressure::Evicted, &world), pressure(Pressure::Unprotected, &world)), (0, 0));
        let counted: u64 = (0..6).map(|n| world.count(BackendCounter::Flows, super::world::index_of(0, n))).sum();
        assert_eq!(counted, held as u64, "no flow was opened");
        for (n, backend) in &open {
            assert_eq!(&world.forward(tcp((side.client, *n), (side.vip, 80), ACK), Outcome::Forwarded), backend);
        }
        for (n, backend) in &begun {
            world.answer(tcp((backend, 80), (side.client, *n), SYN | ACK));
            assert_eq!(&world.forward(tcp((side.client, *n), (side.vip, 80), ACK), Outcome::Forwarded), backend);
        }
        // New clients get the places.
        for n in 200..230 {
            world.open((side.client, n), (side.vip, 80));
        }
    }
}

/// A table in which no place is free: what a backend opens goes on, and nobody gives way.
#[test]
fn a_backends_own_connection_takes_no_living_flows_place() {
    for side in SIDES {
        let mut world = World::sized(&[at(Protocol::Tcp, MAGLEV, None, None)], 8, 64);
        let begin = |world: &mut World, n| world.send(&mut tcp((&side.client(n), 4001), (side.vip, 80), SYN));
        let begun: Vec<_> =
            (0..200).take_while(|n| flows(&world) < 16 && begin(&mut world, *n) != Outcome::Returned).collect();
        assert!(flows(&world) == 16 && begun.len() < 200, "two buckets of eight are full");
        world.now += 2;
        for n in 0..1000 {
            world.unchanged(
                tcp((side.backends[usize::from(n) % 3], 80), (side.client, n + 1024), SYN),
                Outcome::PassedOwn,
            );
        }
        for n in begun {
            assert_eq!(begin(&mut world, n), Outcome::Forwarded, "{n} has lost its place");
        }
    }
}
