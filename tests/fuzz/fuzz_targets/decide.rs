//! A worker's life: packets of few hosts that meet again, time, the operator, the checks, and others that write into its
//! tables. Each packet has one end, and one that goes on changed has right checksums if it had them before.
#![no_main]

#[allow(dead_code, reason = "the worker's own tests use the rest")]
#[path = "../../../worker/tests/decide/packets.rs"]
mod packets;
#[allow(dead_code, reason = "the worker's own tests use the rest")]
#[path = "../../../worker/tests/decide/world.rs"]
mod world;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use loaded_fuzz::judge::{sound, walk};
use loaded_ipc::{
    Admin, Affinity, AllDown, Idle, Mode, OnBackendDown, OnFailure, Outcome, Passive, Policy, Protocol, Quota,
    Strategy, Unserved,
};
use loaded_queue::Verdict;
use loaded_worker::replay::Replay;
use loaded_worker::verdict::verdict;
use loaded_worker::wire::{ChecksumState, PacketFacts, SPARE};
use packets::{echo, ip, piece, tcp, udp, unreachable};
use std::os::unix::fs::FileExt;
use std::time::Duration;
use world::{SIDES, Service, Side, World, messages, only_requests_name_backends};

/// A life is no longer than this, or few are had.
const MOST: usize = 64;
/// Seconds of a clock that no machine comes to: a worker adds to its milliseconds.
const END: u32 = u32::MAX / 2;

#[derive(Debug, Arbitrary)]
struct Input<'b> {
    /// Over a record instead, as `loaded replay` decides.
    replay: bool,
    tiny: bool,
    services: [Wish; 2],
    events: Vec<Event<'b>>,
}

/// What a service is to be.
#[derive(Debug, Clone, Copy, Arbitrary)]
struct Wish {
    bits: u16,
    strategy: u8,
    protocol: u8,
    prefixes: (u8, u8),
    seconds: u8,
    threshold: u8,
    weights: [u8; 6],
    admin: u16,
    down: u8,
    backups: u8,
    ports: u8,
}

#[derive(Debug, Arbitrary)]
enum Event<'b> {
    Packet { shape: Shape, garble: Vec<(u8, u8)>, facts: u8 },
    Raw { bytes: &'b [u8], facts: u8 },
    Seconds(u8),
    Long(u32),
    Millis(u8),
    Sweep,
    Respawn,
    Check { backend: u8, up: bool },
    Admin { backend: u8, to: u8 },
    Scribble { flows: bool, at: u16, bytes: &'b [u8] },
}

#[derive(Debug, Clone, Copy, Arbitrary)]
struct Shape {
    ends: u8,
    ports: u8,
    kind: u8,
    flags: u8,
    length: u8,
    piece: u8,
}

fn service(place: u8, wish: &Wish) -> Service {
    let bit = |n: u16| wish.bits >> n & 1 == 1;
    let affinity = Affinity {
        prefix4: wish.prefixes.0 % 32 + 1,
        prefix6: wish.prefixes.1 % 128 + 1,
        timeout: wish.seconds.max(1).into(),
    };
    let passive = Passive {
        fails: wish.threshold % 4 + 1,
        timeout: 50 + u32::from(wish.seconds) * 10,
        hold: u32::from(wish.seconds) + 1,
        port: bit(0).then_some(80),
    };
    let idle = |n: u32| 1 + u32::from(wish.seconds) * n % 300;
    let policy = Policy {
        on_backend_down: [OnBackendDown::Reset, OnBackendDown::Rehash, OnBackendDown::Drain]
            [usize::from(wish.protocol / 16 % 3)],
        all_down: [AllDown::Reject, AllDown::Drop, AllDown::Last][usize::from(wish.protocol / 64 % 3)],
        panic_threshold: wish.threshold % 101,
        slow_start: if bit(1) { wish.seconds.into() } else { 0 },
        idle: match bit(7) {
            false => Idle::STANDARD,
            true => Idle { tcp: idle(7), half_open: idle(1), closing: idle(2), udp: idle(3), echo: idle(5) },
        },
        passive: bit(2).then_some(passive),
        adopt: bit(9),
        ..Policy::STANDARD
    };
    let mut weights = wish.weights.map(u16::from);
    // One of each family at least.
    (weights[0], weights[3]) = (weights[0] + 1, weights[3] + 1);
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Any, Protocol::Sctp][usize::from(wish.protocol % 4)];
    // A packet that is not rewritten keeps its port, and of some protocols it has none.
    let other = |n: usize| (wish.ports >> (n % 6) & 1 == 1).then_some(if n.is_multiple_of(2) { 8080 } else { 53 });
    let changes = protocol != Protocol::Any && !bit(3);
    let chosen = |bits: u8| (0..6_usize).filter(|n| bits >> n & 1 == 1).collect::<Vec<_>>();
    Service {
        protocol,
        mode: if bit(3) { Mode::Dsr } else { Mode::Nat },
        strategy: match wish.strategy % 3 {
            0 => Strategy::RoundRobin,
            1 => Strategy::Weighted,
            _ => Strategy::Maglev { seed: wish.seconds.into() },
        },
        affinity: bit(4).then_some(affinity),
        // A VIP and a protocol with all ports are one service's.
        vips: if place == 0 { vec![0, 1] } else { vec![2, 3] },
        ports: if protocol == Protocol::Any { vec![] } else { vec![53, 80] },
        weights,
        backend_ports: if changes { std::array::from_fn(other) } else { [None; 6] },
        more: Vec::new(),
        policy,
        // Not the first ones: something must be there to be a backup of.
        backups: chosen(wish.backups & 0b11_0110),
        down: chosen(wish.down),
        // Some that no check has passed yet.
        found: chosen(wish.down & wish.backups),
        admin: std::array::from_fn(|n| {
            [Admin::Enabled, Admin::Enabled, Admin::Draining, Admin::Disabled][usize::from(wish.admin >> (n * 2) & 3)]
        }),
        age: if bit(5) { wish.seconds.into() } else { u32::MAX },
        index: None,
        unserved: if bit(6) { Unserved::Drop } else { Unserved::Pass },
        malformed: if bit(7) { OnFailure::Pass } else { OnFailure::Drop },
        quota: bit(8).then_some(Quota { prefix4: 24, prefix6: 48, percent: 2 }),
    }
}

fn build(shape: Shape) -> Vec<u8> {
    let Side { vip, second_vip, backends, client, router } = SIDES[usize::from(shape.ends & 1)];
    let backend = backends[usize::from(shape.ends >> 1 & 3).min(2)];
    let vip = if shape.ports & 0x80 == 0 { vip } else { second_vip };
    let (from, to) = match shape.ends >> 3 & 15 {
        0..=3 => (client, vip),
        4 => (client, backend),
        5..=9 => (backend, client),
        10 => (router, vip),
        11 => (vip, client),
        12 => (backend, vip),
        13 => (client, router),
        14 => (backend, router),
        _ => (vip, backend),
    };
    let (port, service) = (u16::from(shape.ports & 3) + 1, [80, 53, 8080, 80][usize::from(shape.ports >> 2 & 3)]);
    let ports = if from == client || from == router { (port, service) } else { (service, port) };
    let (source, destination, length) = ((from, ports.0), (to, ports.1), usize::from(shape.length));
    let got = |n: u8, from: (&str, u16), to: (&str, u16)| match n % 4 {
        0 | 1 => tcp(from, to, shape.flags),
        2 => udp(from, to),
        _ => echo(from.0, to.0, shape.flags & 1 == 0, port),
    };
    let witness = [client, router, backend][usize::from(shape.flags % 3)];
    let bytes = match shape.kind % 16 {
        0..=5 => tcp(source, destination, shape.flags),
        6..=7 => udp(source, destination),
        8 => echo(from, to, shape.flags & 1 == 0, port),
        9..=10 => unreachable(witness, client, &got(shape.kind >> 4, (client, port), (backend, service)), length),
        11..=12 => unreachable(witness, vip, &got(shape.kind >> 4, (vip, service), (client, port)), length),
        13 => unreachable(from, to, &got(shape.kind >> 4, destination, source), length),
        _ => ip(
            from,
            to,
            [47, 132, 44, 0, 60, 50, 51, 43][usize::from(shape.flags % 8)],
            vec![shape.length; length % 80],
        ),
    };
    match shape.piece {
        0..=31 => piece(bytes, shape.piece & 1 == 1, u16::from(shape.piece >> 1 & 3)),
        _ => bytes,
    }
}

fn facts(bits: u8) -> PacketFacts {
    PacketFacts { cut: bits % 16 == 1, checksum: ChecksumState::new(bits & 32 != 0, bits & 64 != 0) }
}

/// What must hold of every packet's end. `ours`: nobody has garbled the packet or the tables.
fn check(before: &[u8], after: &[u8], facts: PacketFacts, ours: bool, outcome: Outcome, direct: bool) {
    if direct || !matches!(verdict(outcome), Verdict::Rewrite | Verdict::Repeat) || outcome == Outcome::RepeatedFragment
    {
        assert_eq!(before, after, "{outcome:?} changes nothing");
        return;
    }
    if is_answer(outcome) {
        // Complete in itself, whatever the kernel has said of the packet.
        assert!(after.len() <= before.len() + SPARE && sound(after), "{outcome:?} {after:02x?}");
        return;
    }
    assert!(!facts.cut, "{outcome:?} of a packet that is not whole");
    assert_eq!(before.len(), after.len());
    let error = matches!(outcome, Outcome::ErrorForwarded | Outcome::ErrorReturned | Outcome::ErrorRelayed);
    // A wrong checksum stays wrong, but where the kernel says that the field holds something else.
    if sound(before) && facts.checksum == ChecksumState::Complete {
        assert!(sound(after), "{outcome:?}: {before:02x?} became {after:02x?}");
    }
    if facts.checksum == ChecksumState::Partial && !error {
        let upper = |bytes| walk(bytes).filter(|packet| !packet.piece).and_then(|packet| packet.upper(bytes));
        assert!(upper(after).is_none_or(|sum| sum == 0xffff), "{outcome:?}: {after:02x?}");
    }
    if ours {
        only_requests_name_backends(after, outcome);
    }
}

/// Whether another packet takes the place of the one that came.
fn is_answer(outcome: Outcome) -> bool {
    use Outcome as O;
    matches!(
        outcome,
        O::AnsweredReset
            | O::AnsweredUnreachable
            | O::AnsweredBackend
            | O::RefusedReset
            | O::RefusedUnreachable
            | O::RefusedClash
    )
}

/// The bytes of a packet event, and whether they are as they were built.
fn packet(event: &Event<'_>) -> Option<(Vec<u8>, PacketFacts, bool)> {
    let (mut bytes, facts, ours) = match event {
        Event::Packet { shape, garble, facts: bits } => {
            let mut bytes = build(*shape);
            let end = bytes.len().min(100);
            for (at, byte) in garble.iter().take(4) {
                bytes[usize::from(*at) % end] = *byte;
            }
            (bytes, facts(*bits), garble.is_empty())
        }
        Event::Raw { bytes, facts: bits } => (bytes.to_vec(), facts(*bits), false),
        _ => return None,
    };
    if facts.cut && bytes.len() > 1 {
        bytes.pop();
    }
    // Addresses of packets with options are looked for elsewhere.
    let plain = matches!(bytes.first(), Some(0x45 | 0x60));
    Some((bytes, facts, ours && plain))
}

fn live(input: &Input<'_>, services: &[Service]) {
    let room = if input.tiny { 4 } else { 200 };
    let mut world = World::sized(services, room, room);
    let mut trusted = true;
    let (mut sent, mut ended) = (0_u64, 0_u64);
    for event in input.events.iter().take(MOST) {
        if let Some((mut bytes, facts, ours)) = packet(event) {
            let before = bytes.clone();
            sent += 1;
            let outcome = world.send_as(&mut bytes, facts);
            ended += u64::from(Outcome::ALL.contains(&outcome));
            check(&before, &world.sent, facts, ours && trusted, outcome, world.direct.is_some());
            continue;
        }
        let index = |backend: u8| world::index_of(u16::from(backend & 1), usize::from(backend >> 1) % 6);
        match event {
            Event::Packet { .. } | Event::Raw { .. } => {}
            Event::Seconds(n) => world.now = (world.now + u32::from(*n)).min(END),
            Event::Long(n) => world.now = world.now.saturating_add(*n).min(END),
            Event::Millis(n) => world.wait((*n).into()),
            Event::Sweep => world.sweep(),
            Event::Respawn => world.respawn(),
            Event::Check { backend, up } => {
                let now = world.time();
                let _ = world.decider.set_up(index(*backend), *up, now);
            }
            Event::Admin { backend, to } => {
                let (now, to) = (world.time(), [Admin::Enabled, Admin::Draining, Admin::Disabled][usize::from(to % 3)]);
                let _ = world.decider.set_admin(index(*backend), to, now);
            }
            Event::Scribble { flows, at, bytes } => {
                let file = if *flows { &world.flows } else { &world.clients };
                let bytes = &bytes[..bytes.len().min(64)];
                // The header is read once, at the start: beyond it anything may be overwritten.
                let room = file.metadata().expect("stat").len() - 128 - bytes.len() as u64;
                file.write_all_at(bytes, 128 + u64::from(*at) % room).expect("write");
                trusted = false;
            }
        }
    }
    assert_eq!(sent, ended);
}

fn replay(input: &Input<'_>, services: &[Service]) {
    let room = if input.tiny { 4 } else { 200 };
    let mut replay = Replay::new(messages(services), room, room).expect("a configuration");
    let (mut at, mut sent) = (Duration::ZERO, 0);
    for event in input.events.iter().take(MOST) {
        match event {
            Event::Seconds(n) => at += Duration::from_secs(u64::from(*n)),
            Event::Long(n) => at += Duration::from_secs(u64::from(*n)),
            Event::Millis(n) => at = at.saturating_sub(Duration::from_millis(u64::from(*n))),
            _ => {}
        }
        let Some((bytes, facts, ours)) = packet(event) else { continue };
        sent += 1;
        let fate = replay.decide(&bytes, usize::from(facts.cut), at);
        let whole = PacketFacts { cut: fate.cut, ..PacketFacts::WHOLE };
        check(fate.before, fate.after.unwrap_or(fate.before), whole, ours, fate.outcome, fate.mark.is_some());
        assert!(fate.mark.is_none() || fate.verdict == Verdict::Accept || fate.after.is_none());
    }
    assert_eq!(replay.counts().map(|(_, count)| count).sum::<u64>(), sent);
}

fuzz_target!(|input: Input<'_>| {
    let services = [service(0, &input.services[0]), service(1, &input.services[1])];
    if input.replay { replay(&input, &services) } else { live(&input, &services) }
});
