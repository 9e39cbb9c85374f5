//! Nothing breaks a decision, whatever packets come and whatever the tables hold.

use super::packets::{ACK, FIN, RST, SYN, echo, ip, sound, tcp, udp, unreachable};
use super::world::{AFFINITY, BACKENDS, SIDES, Service, Side, World, only_requests_name_backends};
use loaded_ipc::{Affinity, Outcome, Protocol, Strategy as Choice};
use loaded_queue::Verdict;
use loaded_worker::verdict::verdict;
use loaded_worker::wire::{ChecksumState, PacketFacts};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use std::os::unix::fs::FileExt;

/// An event in the life of a worker.
#[derive(Debug, Clone)]
enum Event {
    /// A packet, with some of its bytes changed.
    Packet {
        bytes: Vec<u8>,
        garble: Vec<(Index, u8)>,
        facts: PacketFacts,
    },
    /// Time passes.
    Later(u32),
    Sweep,
    Respawn,
    /// Someone writes into the tables.
    Scribble {
        flows: bool,
        at: Index,
        bytes: Vec<u8>,
    },
}

/// A packet between few addresses and ports, so that flows meet often.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let flags = select(&[SYN, SYN, ACK, ACK, SYN | ACK, FIN | ACK, RST, 0, 0xff][..]);
    let ends = (select(&SIDES[..]), 0..12_usize, 0..3_usize, 1..3_u16, select(&[80, 53, 8080][..]));
    (ends, flags, 0..10_u8, 0..64_usize).prop_map(|((side, pair, n, port, service), flags, kind, length)| {
        let Side { vip, second_vip, backends, client, router } = side;
        let backend = backends[n];
        let (request, reply) = ((client, vip), (backend, client));
        let others = [(client, second_vip), (router, vip), (vip, client), (backend, vip), (client, router)];
        let (from, to) = match pair {
            0..=3 => request,
            4..=6 => reply,
            other => others[other - 7],
        };
        let ports = if from == client { (port, service) } else { (service, port) };
        let (source, destination) = ((from, ports.0), (to, ports.1));
        // What errors quote: a packet of the client to a backend, or of the VIP to the client.
        let got = |tcp_like: bool, from, to| if tcp_like { tcp(from, to, flags) } else { udp(from, to) };
        let witness = [client, router, backend][length % 3];
        match kind {
            0..=3 => tcp(source, destination, flags),
            4 => udp(source, destination),
            5 => echo(from, to, flags & 1 == 0, port),
            6 | 7 => unreachable(witness, client, &got(kind == 6, (client, port), (backend, service)), length),
            8 => unreachable(witness, vip, &got(flags == ACK, (vip, service), (client, port)), length),
            _ => ip(from, to, [47, 132, 44, 0, 60][length % 5], vec![flags; length]),
        }
    })
}

fn facts() -> impl Strategy<Value = PacketFacts> {
    (prop::bool::weighted(0.1), any::<bool>(), any::<bool>())
        .prop_map(|(cut, partial, gso)| PacketFacts { cut, checksum: ChecksumState::new(partial, gso) })
}

fn event() -> impl Strategy<Value = Event> {
    let garble = prop_oneof![3 => Just(vec![]), 1 => vec(any::<(Index, u8)>(), 1..4)];
    let real = (packet(), garble, prop_oneof![2 => Just(PacketFacts::WHOLE), 1 => facts()]);
    let random = (vec(any::<u8>(), 0..100), facts());
    let scribble = (any::<bool>(), any::<Index>(), vec(any::<u8>(), 1..40));
    prop_oneof![
        40 => real.prop_map(|(bytes, garble, facts)| Event::Packet { bytes, garble, facts }),
        4 => random.prop_map(|(bytes, facts)| Event::Packet { bytes, garble: vec![], facts }),
        4 => prop_oneof![0..40_u32, any::<u32>()].prop_map(Event::Later),
        2 => Just(Event::Sweep),
        1 => Just(Event::Respawn),
        1 => scribble.prop_map(|(flows, at, bytes)| Event::Scribble { flows, at, bytes }),
    ]
}

fn services() -> impl Strategy<Value = Vec<Service>> {
    let strategy = prop_oneof![Just(Choice::RoundRobin), Just(Choice::Weighted), Just(Choice::Maglev { seed: 3 })];
    let affinity = prop_oneof![
        Just(None),
        (1..=32_u8, 1..=128_u8, 1..100_u32)
            .prop_map(|(prefix4, prefix6, timeout)| { Some(Affinity { prefix4, prefix6, timeout }) })
    ];
    let other = prop_oneof![Just(None), Just(Some(80)), Just(Some(53)), Just(Some(8080))];
    (strategy, affinity, any::<bool>(), proptest::array::uniform6(other)).prop_map(
        |(strategy, affinity, any, other)| {
            let service = Service { strategy, affinity, vips: vec![0, 1, 2, 3], ..Service::default() };
            match any {
                true => vec![service],
                false => vec![
                    Service { protocol: Protocol::Tcp, ports: vec![53, 80], backend_ports: other, ..service.clone() },
                    Service { protocol: Protocol::Udp, ports: vec![53], affinity: Some(AFFINITY), ..service },
                ],
            }
        },
    )
}

/// What must hold for every packet that was decided. `ours`: neither the packet nor the tables were garbled.
fn check(before: &[u8], after: &[u8], facts: PacketFacts, ours: bool, outcome: Outcome) {
    let rewritten = matches!(verdict(outcome), Verdict::Rewrite | Verdict::Repeat);
    if !rewritten {
        assert_eq!(before, after, "{outcome:?} changes nothing");
        return;
    }
    assert!(!facts.cut, "{outcome:?} of a packet that is not whole");
    // An answer takes the place of the packet, and is shorter or longer.
    let answers = matches!(outcome, Outcome::RefusedClash | Outcome::RefusedReset | Outcome::RefusedUnreachable);
    assert!(answers || before.len() == after.len(), "{outcome:?}: {before:02x?} became {after:02x?}");
    if outcome == Outcome::RepeatedFragment {
        assert_eq!(before, after, "it waits unchanged");
        return;
    }
    // A later fragment has no checksum.
    let ours = ours && !(before[0] >> 4 == 4 && (before[6] & 0x1f, before[7]) != (0, 0));
    // A wrong checksum stays wrong, unless the kernel says that the field holds something else.
    let error = matches!(outcome, Outcome::ErrorForwarded | Outcome::ErrorReturned | Outcome::ErrorRelayed);
    if !ours || !(sound(before) || facts.checksum != ChecksumState::Complete && !error) {
        return;
    }
    assert!(
        facts.checksum == ChecksumState::PartialGso || sound(after),
        "{outcome:?}: {before:02x?} became {after:02x?}"
    );
    only_requests_name_backends(after, outcome);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_breaks_the_decision(services in services(), tiny: bool, events in vec(event(), 1..80)) {
        let room = if tiny { 4 } else { 200 };
        let mut world = World::sized(&services, room, room);
        let mut trusted = true;
        for event in events {
            match event {
                Event::Packet { mut bytes, garble, facts } => {
                    let ours = trusted && garble.is_empty() && matches!(bytes.first(), Some(0x45 | 0x60));
                    for (at, byte) in garble {
                        let at = at.index(bytes.len().min(100));
                        bytes[at] = byte;
                    }
                    if facts.cut && bytes.len() > 1 {
                        bytes.truncate(bytes.len() - 1);
                    }
                    let before = bytes.clone();
                    let outcome = world.send_as(&mut bytes, facts);
                    check(&before, &world.sent, facts, ours, outcome);
                }
                Event::Later(seconds) => world.now = world.now.wrapping_add(seconds),
                Event::Sweep => world.sweep(),
                Event::Respawn => world.respawn(),
                Event::Scribble { flows, at, bytes } => {
                    let file = if flows { &world.flows } else { &world.clients };
                    // The header is read only once, at the start. Anything after it may be overwritten.
                    let room = usize::try_from(file.metadata().expect("stat").len()).expect("small") - 128 - bytes.len();
                    file.write_all_at(&bytes, 128 + at.index(room) as u64).expect("write");
                    trusted = false;
                }
            }
        }
    }

    #[test]
    fn requests_and_replies_come_round(
        side in select(&SIDES[..]), client: [u8; 16], port: u16, service: u16, datagram: bool, affinity: bool,
        backend_ports in proptest::array::uniform6(prop::option::of(1..=u16::MAX)), one: bool,
    ) {
        let from = if side.vip.contains(':') {
            std::net::Ipv6Addr::from(client).to_string()
        } else {
            std::net::Ipv4Addr::new(client[0], client[1], client[2], client[3]).to_string()
        };
        prop_assume!(!BACKENDS.contains(&&*from) && !from.starts_with("::ffff:"));
        let build = |from, to, flags| if datagram { udp(from, to) } else { tcp(from, to, flags) };
        let any = Service { affinity: affinity.then_some(AFFINITY), ..Service::default() };
        let protocol = if datagram { Protocol::Udp } else { Protocol::Tcp };
        let mut world = World::new(&[if one { any } else { Service { protocol, backend_ports, ..any } }]);
        let (client, vip) = ((&*from, port), (side.vip, service));
        let backend = world.forward(build(client, vip, SYN), Outcome::ForwardedNew);
        let mut request = build(client, vip, ACK);
        prop_assert_eq!(world.send(&mut request), Outcome::Forwarded);
        let place = BACKENDS.iter().position(|b| *b == backend).expect("a backend");
        let there = backend_ports[place].filter(|_| !one).unwrap_or(service);
        prop_assert_eq!(request, build(client, (&backend, there), ACK));
        let mut reply = build((&backend, there), client, ACK);
        prop_assert_eq!(world.send(&mut reply), Outcome::Returned);
        prop_assert_eq!(reply, build(vip, client, ACK));
    }
}
