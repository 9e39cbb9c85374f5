//! Connections that another balancer has begun, where the backend speaks first.

use super::packets::{ACK, End, FIN, RST, SYN, ends, ports, tcp, udp};
use super::world::{AFFINITY, POLICY, SIDES, Service, Side, World};
use loaded_ipc::{Outcome, Policy, Protocol, Strategy};

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

#[test]
fn nothing_else_begins_a_flow() {
    for side in SIDES {
        let service = adopting(Protocol::Tcp);
        let backend = chosen(&service, &side, side.client);
        let client = (side.client, 4001);
        let passes = |services: &[Service], bytes: Vec<u8>| {
            let mut world = World::new(services);
            world.unchanged(bytes, Outcome::PassedOwn);
            assert_eq!(world.decider.held(), (0, 0));
        };
        let one = std::slice::from_ref(&service);
        for other in side.backends.into_iter().filter(|other| *other != backend) {
            passes(one, tcp((other, 80), client, ACK));
        }
        // The backend's own connections, from the served port too; other ports and protocols.
        for flags in [SYN, 0, FIN] {
            passes(one, tcp((&backend, 80), client, flags));
        }
        passes(one, tcp((&backend, 81), client, ACK));
        passes(one, udp((&backend, 80), client));
        // Two VIPs, and nothing says which the client has asked.
        passes(&[Service { vips: vec![0, 1, 2, 3], ..service.clone() }], tcp((&backend, 80), client, ACK));
        passes(&[Service { policy: POLICY, ..service }], tcp((&backend, 80), client, ACK));
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
                    let mut bytes = tcp((backend, 80), (&side.client(n), 5001), ACK);
                    world.send(&mut bytes);
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
        world.unchanged(tcp((&first, 80), client, ACK), Outcome::PassedOwn);
        assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
    }
}
