//! Connections that another balancer has begun, where the backend speaks first.

use super::packets::{ACK, End, FIN, RST, SYN, ends, ports, sctp, sctp_init, tcp, udp};
use super::world::{AFFINITY, POLICY, SIDES, Service, Side, World, index_of};
use loaded_ipc::{BackendCounter, OnBackendDown, Outcome, Policy, Protocol, Strategy};

/// Two buckets of eight ways.
const PLACES: u16 = 16;

fn adopting(protocol: Protocol) -> Service {
    let policy = Policy { adopt: true, ..POLICY };
    Service { protocol, strategy: Strategy::Maglev { seed: 5 }, ports: vec![80], policy, ..Service::default() }
}

fn packet(protocol: Protocol, from: End<'_>, to: End<'_>, flags: u8) -> Vec<u8> {
    if protocol == Protocol::Udp { udp(from, to) } else { tcp(from, to, flags) }
}

/// The backend that the strategy gives a client.
fn chosen(service: &Service, side: &Side, client: &str) -> String {
    let syn = packet(service.protocol, (client, 4001), (side.vip, 80), SYN);
    World::new(std::slice::from_ref(service)).forward(syn, Outcome::ForwardedNew)
}

#[test]
fn a_connection_of_another_balancer_goes_on_whoever_speaks_first() {
    for side in SIDES {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (affinity, backend_port) in [(Some(AFFINITY), None), (None, None), (Some(AFFINITY), Some(8080))] {
                let backend_ports = [backend_port; 6];
                let service = Service { affinity, backend_ports, ..adopting(protocol) };
                let (mut a, mut b) = (World::new(std::slice::from_ref(&service)), World::new(&[service]));
                let (client, vip) = ((side.client, 4001), (side.vip, 80));
                let backend = match protocol {
                    Protocol::Udp => a.talk(client, vip),
                    _ => a.open(client, vip),
                };
                let port = backend_port.unwrap_or(80);
                b.answer(packet(protocol, (&backend, port), client, ACK));
                assert_eq!((ends(&b.sent).0.as_str(), ports(&b.sent)), (side.vip, (80, 4001)));
                // The client's next packet opens it: it outlives what is not open.
                assert_eq!(b.forward(packet(protocol, client, vip, ACK), Outcome::Forwarded), backend);
                b.now += 100;
                b.answer(packet(protocol, (&backend, port), client, ACK));
                assert_eq!(b.decider.held().0, 1);
            }
        }
    }
}

/// In the middle of an association every packet has a verification tag, and the first one has none.
#[test]
fn an_association_of_another_balancer_goes_on_and_a_backends_own_passes() {
    for side in SIDES {
        for backend_port in [None, Some(8080)] {
            let services = [Service { backend_ports: [backend_port; 6], ..adopting(Protocol::Sctp) }];
            let (client, vip, port) = ((side.client, 4001), (side.vip, 80), backend_port.unwrap_or(80));
            let backend = World::new(&services).forward(sctp_init(client, vip), Outcome::ForwardedNew);
            let mut world = World::new(&services);
            for other in side.backends.into_iter().filter(|other| *other != backend) {
                world.unchanged(sctp((other, port), client), Outcome::DroppedOrphan);
            }
            world.answer(sctp((&backend, port), client));
            assert_eq!((ends(&world.sent).0.as_str(), ports(&world.sent)), (side.vip, (80, 4001)));
            assert_eq!(world.forward(sctp(client, vip), Outcome::Forwarded), backend);
            world.now += 100;
            world.answer(sctp((&backend, port), client));
            for (opener, other) in [((side.backends[0], port), client), (client, (side.backends[0], port))] {
                let mut world = World::new(&services);
                for (from, to, bytes) in [
                    (opener, other, sctp_init as fn(End<'_>, End<'_>) -> Vec<u8>),
                    (other, opener, sctp),
                    (opener, other, sctp),
                    (other, opener, sctp),
                ] {
                    world.unchanged(bytes(from, to), Outcome::PassedOwn);
                }
                assert_eq!(world.count(BackendCounter::Flows, index_of(0, 0)), 0, "no client has it");
            }
        }
    }
}

/// What fits no place, or more than one, reaches nobody under the backend's own address.
#[test]
fn nothing_else_begins_a_flow() {
    for side in SIDES {
        let service = adopting(Protocol::Tcp);
        let backend = chosen(&service, &side, side.client);
        let client = (side.client, 4001);
        let ends = |services: &[Service], bytes: Vec<u8>, outcome: Outcome| {
            let mut world = World::new(services);
            world.unchanged(bytes, outcome);
            assert_eq!(world.decider.held(), (0, 0));
        };
        let one = std::slice::from_ref(&service);
        for other in side.backends.into_iter().filter(|other| *other != backend) {
            for flags in [ACK, SYN | ACK, RST, FIN | ACK] {
                ends(one, tcp((other, 80), client, flags), Outcome::DroppedOrphan);
            }
        }
        for flags in [0, FIN] {
            ends(one, tcp((&backend, 80), client, flags), Outcome::DroppedOrphan);
        }
        // What the service has nothing to do with.
        ends(one, tcp((&backend, 81), client, ACK), Outcome::PassedOwn);
        ends(one, udp((&backend, 80), client), Outcome::PassedOwn);
        // Two VIPs, and nothing says which the client has asked; the second may be one of another service, which adopts nothing.
        let two = Service { vips: vec![0, 1, 2, 3], ..service.clone() };
        ends(&[two], tcp((&backend, 80), client, ACK), Outcome::DroppedOrphan);
        for strategy in [Strategy::Maglev { seed: 5 }, Strategy::RoundRobin] {
            let second =
                Service { vips: vec![2, 3], strategy, ports: vec![], protocol: Protocol::Any, ..service.clone() };
            let second = Service { policy: POLICY, ..second };
            ends(&[service.clone(), second], tcp((&backend, 80), client, ACK), Outcome::DroppedOrphan);
        }
        ends(&[Service { policy: POLICY, ..service.clone() }], tcp((&backend, 80), client, ACK), Outcome::PassedOwn);
        // A service of all ports: backends may speak on their own behalf from any.
        let all = Service { ports: vec![], ..service };
        ends(&[all], tcp((&backend, 80), client, ACK), Outcome::PassedOwn);
    }
}

/// Whose turn it is says nothing, but a client that is known has its backend.
#[test]
fn where_the_strategy_cannot_tell_a_client_that_is_known_goes_on() {
    for side in SIDES {
        for strategy in [Strategy::RoundRobin, Strategy::Weighted] {
            let service = Service { strategy, ..adopting(Protocol::Udp) };
            let mut world = World::new(&[service]);
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            for backend in side.backends {
                world.unchanged(udp((backend, 80), client), Outcome::DroppedOrphan);
            }
            let backend = world.talk(client, vip);
            world.now += 181;
            world.sweep();
            assert_eq!(world.decider.held(), (0, 1), "the flow is forgotten, the client is not");
            for other in side.backends.into_iter().filter(|other| *other != backend) {
                world.unchanged(udp((other, 80), client), Outcome::DroppedOrphan);
            }
            world.answer(udp((&backend, 80), client));
        }
    }
}

/// After `rehash` the first backend still has the old connection: its side ends too.
#[test]
fn a_late_reply_of_a_backend_that_has_lost_its_client_is_answered() {
    for side in SIDES {
        let policy = Policy { on_backend_down: OnBackendDown::Rehash, adopt: true, ..POLICY };
        let mut world = World::new(&[Service { policy, ..adopting(Protocol::Tcp) }]);
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let first = world.open(client, vip);
        let n = super::world::BACKENDS.iter().position(|address| *address == first).expect("a backend");
        world.check(n, false);
        assert_ne!(world.forward(tcp(client, vip, ACK), Outcome::ForwardedNew), first);
        for up in [false, true] {
            world.check(n, up);
            assert_eq!(world.send(&mut tcp((&first, 80), client, ACK)), Outcome::AnsweredBackend);
            assert_eq!((ends(&world.sent), ports(&world.sent)), ((side.client.to_owned(), first.clone()), (4001, 80)));
            world.unchanged(tcp((&first, 80), client, RST), Outcome::DroppedOrphan);
        }
    }
}

/// From the served port: opened by the backend, or by somebody at its own address. Whole, and with an hour of silence after which the
/// backend speaks first.
#[test]
fn a_backends_own_connections_pass_both_ways() {
    for side in SIDES {
        for backend_port in [None, Some(80)] {
            let service = Service { backend_ports: [backend_port; 6], ..adopting(Protocol::Tcp) };
            for backend in side.backends {
                for by_backend in [true, false] {
                    let mut world = World::new(std::slice::from_ref(&service));
                    let (here, there) = ((backend, 80), (side.client, 4001));
                    let (opener, other) = if by_backend { (here, there) } else { (there, here) };
                    let mut pass = |from, to, flags| world.unchanged(tcp(from, to, flags), Outcome::PassedOwn);
                    pass(opener, other, SYN);
                    pass(other, opener, SYN | ACK);
                    pass(opener, other, ACK);
                    pass(here, there, ACK);
                    world.now += 3600;
                    world.sweep();
                    world.respawn();
                    world.unchanged(tcp(here, there, ACK), Outcome::PassedOwn);
                    world.unchanged(tcp(there, here, ACK), Outcome::PassedOwn);
                    assert_eq!(world.count(BackendCounter::Flows, index_of(0, 0)), 0, "no client has it");
                    // Over, and the same ports again.
                    for (from, to) in [(opener, other), (other, opener)] {
                        world.unchanged(tcp(from, to, FIN | ACK), Outcome::PassedOwn);
                    }
                    for (from, to, flags) in [(opener, other, SYN), (other, opener, SYN | ACK), (opener, other, ACK)] {
                        world.unchanged(tcp(from, to, flags), Outcome::PassedOwn);
                    }
                    world.now += 3600;
                    world.sweep();
                    world.unchanged(tcp(here, there, ACK), Outcome::PassedOwn);
                }
            }
        }
    }
}

/// Another balancer has seen it begin: as soon as the other side speaks, it is known here too.
#[test]
fn a_connection_to_a_backends_own_address_goes_on_when_its_client_speaks() {
    for side in SIDES {
        let mut world = World::new(&[adopting(Protocol::Tcp), adopting(Protocol::Udp)]);
        for backend in side.backends {
            let (here, there) = ((backend, 80), (side.client, 4001));
            world.unchanged(tcp(there, here, ACK), Outcome::PassedOwn);
            world.unchanged(tcp(here, there, ACK), Outcome::PassedOwn);
            world.unchanged(udp(there, here), Outcome::PassedOwn);
            world.unchanged(udp(here, there), Outcome::PassedOwn);
        }
        let stranger = (side.router, 80);
        world.unchanged(tcp((side.client, 4001), stranger, ACK), Outcome::PassedForeign);
    }
}

/// One port of a client, or of two backends, is in several connections at once: none takes another's place.
#[test]
fn connections_from_one_port_to_two_backends_live_beside_each_other() {
    for side in SIDES {
        let mut world = World::new(&[adopting(Protocol::Tcp)]);
        let there = (side.client, 4001);
        let mut pass = |from, to, flags| world.unchanged(tcp(from, to, flags), Outcome::PassedOwn);
        for backend in side.backends {
            for (from, to, flags) in [(there, (backend, 80), SYN), ((backend, 80), there, SYN | ACK)] {
                pass(from, to, flags);
            }
            pass(there, (backend, 80), ACK);
        }
        for backend in side.backends {
            pass((backend, 80), there, ACK);
        }
    }
}

/// A database that is served has clients that are backends of another service, and asks by its own address.
#[test]
fn what_backends_have_among_themselves_passes() {
    for side in SIDES {
        for port in [80, 45_000] {
            let mut world = World::new(&[adopting(Protocol::Tcp), adopting(Protocol::Udp)]);
            let [here, there] = [(side.backends[0], port), (side.backends[1], 80)];
            for (from, to, flags) in
                [(here, there, SYN), (there, here, SYN | ACK), (here, there, ACK), (there, here, ACK)]
            {
                world.unchanged(tcp(from, to, flags), Outcome::PassedOwn);
            }
            world.unchanged(udp(here, there), Outcome::PassedOwn);
            world.unchanged(udp(there, here), Outcome::PassedOwn);
        }
    }
}

/// Whoever sends one packet in a client's name to each backend's own address: the client's connection goes where it would have gone.
#[test]
fn a_forged_connection_to_a_backend_is_in_no_clients_way() {
    for side in SIDES {
        let service = adopting(Protocol::Tcp);
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let backend = chosen(&service, &side, side.client);
        let mut world = World::new(&[service]);
        for (other, flags) in side.backends.into_iter().flat_map(|other| [(other, SYN), (other, ACK)]) {
            world.unchanged(tcp(client, (other, 80), flags), Outcome::PassedOwn);
        }
        assert_eq!(world.open(client, vip), backend);
        world.answer(tcp((&backend, 80), client, ACK));
    }
}

/// Of a connection that a backend has opened nothing shows where the other side's packets come from.
#[test]
fn nobody_else_ends_what_a_backend_has_opened() {
    for side in SIDES {
        let mut world = World::new(&[adopting(Protocol::Tcp)]);
        let (here, there) = ((side.backends[0], 80), (side.client, 4001));
        for (from, to, flags) in [(here, there, SYN), (there, here, SYN | ACK), (here, there, ACK)] {
            world.unchanged(tcp(from, to, flags), Outcome::PassedOwn);
        }
        for flags in [RST, RST | ACK, SYN | ACK, FIN | ACK] {
            world.unchanged(tcp(there, here, flags), Outcome::PassedOwn);
        }
        world.now += 3600;
        world.sweep();
        world.unchanged(tcp(here, there, ACK), Outcome::PassedOwn);
    }
}

/// A reset and a SYN-ACK reach the client, too.
#[test]
fn a_reset_passes_on_and_an_answer_can_be_completed() {
    for side in SIDES {
        let service = adopting(Protocol::Tcp);
        let backend = chosen(&service, &side, side.client);
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let mut world = World::new(&[service]);
        world.answer(tcp((&backend, 80), client, RST | ACK));
        world.now += 31;
        world.sweep();
        assert_eq!(world.decider.held().0, 0, "what a reset begins is over");
        world.answer(tcp((&backend, 80), client, SYN | ACK));
        assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
    }
}

#[test]
fn forged_replies_open_nothing_and_take_nobodys_place() {
    for side in SIDES {
        let service = Service { affinity: None, ..adopting(Protocol::Tcp) };
        let forge = |world: &mut World, from: u16| {
            for n in from..from + 200 {
                for backend in side.backends {
                    let (here, there) = ((backend, 80), (side.client(n), 5001));
                    let there = (there.0.as_str(), there.1);
                    for mut bytes in [
                        tcp(here, there, ACK),
                        tcp(here, there, SYN),
                        tcp(here, there, SYN | ACK),
                        tcp(there, here, SYN),
                        tcp(there, here, ACK),
                    ] {
                        world.send(&mut bytes);
                    }
                }
            }
        };
        // Every place has a flow that gives way to any new client: none to these.
        let mut world = World::sized(std::slice::from_ref(&service), 8, 64);
        for n in 0..PLACES {
            let syn = tcp((side.client, 6000 + n), (side.vip, 80), SYN);
            world.forward(syn, Outcome::ForwardedNew);
        }
        world.now += 5;
        forge(&mut world, 0);
        for n in 0..PLACES {
            world.forward(tcp((side.client, 6000 + n), (side.vip, 80), SYN), Outcome::Forwarded);
        }
        // They fill an empty table, and give way to everybody.
        let mut world = World::sized(std::slice::from_ref(&service), 8, 64);
        forge(&mut world, 0);
        assert_eq!(world.decider.held(), (usize::from(PLACES), 0));
        for n in 0..PLACES {
            world.open((&side.client(1000 + n), 6001), (side.vip, 80));
        }
        world.now += 31;
        forge(&mut world, 300);
        world.sweep();
        assert_eq!(world.decider.held().0, usize::from(PLACES), "the open ones, and none of the others");
    }
}

#[test]
fn a_forged_reply_moves_no_flow_to_another_backend() {
    for side in SIDES {
        let service = Service { affinity: None, ..adopting(Protocol::Tcp) };
        let first = chosen(&service, &side, side.client);
        let n = super::world::BACKENDS.iter().position(|address| *address == first).expect("a backend");
        let mut world = World::new(&[Service { down: vec![n], ..service }]);
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let backend = world.open(client, vip);
        assert_ne!(backend, first);
        world.check(n, true);
        assert_eq!(world.send(&mut tcp((&first, 80), client, ACK)), Outcome::AnsweredBackend);
        assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
    }
}
