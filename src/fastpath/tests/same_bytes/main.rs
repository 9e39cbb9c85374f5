//! What the program sends on, the worker would have sent on, to the byte; and the program changes no table. By
//! `BPF_PROG_TEST_RUN`: nothing is attached. As root.
#![allow(dead_code, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod captures;
mod cost;
mod garbage;
mod generated;
#[path = "../../../../worker/tests/decide/packets.rs"]
mod packets;
mod steering;
mod torn;
mod world;

use generated::{Known, Made, PROTOCOLS, Random, make, ports_of};
use loaded_fastpath::foretell::{FlowNow, Next, Sent, foretell};
use loaded_fastpath::records::Fresh;
use loaded_fastpath::{Keep, Miss, Report};
use loaded_ipc::{Idle, Outcome};
use loaded_table::FlowState;
use packets::{ACK, FIN, RST, SYN, ends, segment, sound, tcp, udp};
use world::{MISS, REDIRECT, VIPS, World, at, forwarded, now, same_flows};

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    assert!(root || std::env::var_os("LOADED_CI").is_none(), "needs root");
    if !root {
        println!("skipped: needs root");
    }
    root
}

#[test]
fn open_flows_go_on_silently_in_both_families_and_directions() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    for (client, vip) in [("203.0.113.7", VIPS[0]), ("10.1.2.3", VIPS[2]), ("2001:db8:77::7", VIPS[1])] {
        let (client, vip) = ((client, 40_000), (vip, 443));
        let backend = world.open(client, vip, now()).unwrap();
        let (said, sent) = world.try_packet(&tcp(client, vip, ACK), world.outside);
        assert_eq!((said, ends(&sent).1), (REDIRECT, backend.clone()), "{client:?}");
        assert!(sound(&sent));
        let (said, sent) = world.try_packet(&tcp(at(&backend, 443), client, ACK), world.inside);
        assert_eq!((said, ends(&sent).0.as_str()), (REDIRECT, vip.0));
        assert!(sound(&sent));
        assert_eq!(world.try_packet(&tcp(at(&backend, 443), client, ACK), world.outside).0, MISS, "another interface");
        assert_eq!(world.try_packet(&tcp(client, vip, SYN), world.outside).0, MISS);
        let client = (client.0, 40_001);
        let backend = world.talk(client, vip, 3, now()).unwrap();
        assert_eq!(world.try_packet(&udp(client, vip), world.outside).0, REDIRECT);
        assert_eq!(world.try_packet(&udp(at(&backend, 443), client), world.inside).0, REDIRECT);
        assert_eq!(world.heard(), []);
        assert_eq!(world.try_packet(&tcp((client.0, 40_000), vip, FIN | ACK), world.outside).0, REDIRECT);
        assert_eq!(world.heard().len(), 1);
    }
}

/// What `loaded explain` says beforehand, for each state, age and backend.
#[test]
fn each_state_goes_the_way_that_is_foretold() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    let Idle { tcp: open, udp: answered, half_open, closing, .. } = Idle::STANDARD;
    let fresh = Fresh::of(open, answered, half_open, closing, None);
    let (client, vip) = (("203.0.113.7", 40_000), (VIPS[0], 443));
    world.open(client, vip, now()).unwrap();
    world.talk(client, vip, 3, now()).unwrap();
    // Far from where a second more would matter.
    let states = FlowState::ALL.iter().flat_map(|state| [0, 4, 12, 27, 40].map(|age| (*state, age)));
    let mut ways = [0, 0];
    for ((state, unseen), is_kept) in states.flat_map(|case| [(case, true), (case, false)]) {
        (0..6).for_each(|n| world::keep(&world.keeping, n, if is_kept { Keep::Yes } else { Keep::No }));
        world.set_all(state, now().seconds - unseen);
        let flow = Some(FlowNow { state, unseen, fresh: Some(fresh), is_kept });
        for (next, packet) in
            [(Next::Syn, tcp(client, vip, SYN)), (Next::Ack, tcp(client, vip, ACK)), (Next::Datagram, udp(client, vip))]
        {
            let said = world.try_packet(&packet, world.outside).0;
            let told = world.heard().len();
            let seen =
                if said == MISS { None } else { Some(if told == 0 { Sent::Silently } else { Sent::WithReport }) };
            assert_eq!(foretell(next, flow).ok(), seen, "{next:?} {flow:?}");
            ways[usize::from(seen.is_some())] += 1;
        }
    }
    assert!(ways.iter().all(|ways| *ways > 20), "{ways:?}");
}

/// How many packets; LOADED_PACKETS says otherwise.
const PACKETS: u64 = 10_000;
/// After so many packets a table is full of flows, and a new one begins.
const LIFE: usize = 5_000;

/// What became of the packets.
#[derive(Debug, Default)]
struct Seen {
    silent: u64,
    told: u64,
    missed: u64,
}

#[test]
fn what_goes_on_is_what_the_worker_would_have_sent() {
    if !is_root() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (count, seed) = (number("LOADED_PACKETS").unwrap_or(PACKETS), number("LOADED_SEED").unwrap_or(20_261_128));
    let mut random = Random(seed);
    let mut seen = Seen::default();
    let mut missed = vec![0; Miss::ALL.len()];
    for first in (0..count).step_by(LIFE) {
        let mut world = World::new();
        let mut flows: Vec<Known> = (0..150).filter_map(|_| begin(&mut world, &mut random)).collect();
        let mut kept = [true; 6];
        for n in first..count.min(first + LIFE as u64) {
            if random.one_in(20)
                && let Some(new) = begin(&mut world, &mut random)
            {
                let old = random.below(flows.len());
                flows[old] = new;
            }
            if random.one_in(200) {
                let backend = random.below(6);
                let keep = *random.pick(&[Keep::No, Keep::Yes, Keep::Yes, Keep::Yes, Keep::Heard]);
                kept[backend] = keep != Keep::No;
                world::keep(&world.keeping, backend, keep);
            }
            let flow = random.pick(&flows).clone();
            let made = make(&mut random, &flow);
            let context = format!("LOADED_SEED={seed} packet {n}: {flow:?} kept {kept:?} {made:02x?}");
            judge(&mut world, &made, kept, &mut seen, &context);
        }
        Miss::ALL.iter().zip(&mut missed).for_each(|(why, sum)| *sum += world.loaded.program.missed(*why));
    }
    let missed: Vec<_> = Miss::ALL.iter().map(|why| why.label()).zip(missed).collect();
    println!("{count} packets: {seen:?}; {missed:?}");
    // It is no test if nothing goes on.
    assert!(seen.silent * 5 > count && seen.told * 10 > count && seen.missed * 5 > count, "{seen:?}");
}

/// Begins a flow of any kind and age, if there is room.
fn begin(world: &mut World, random: &mut Random) -> Option<Known> {
    let side = random.below(2);
    let vip = (VIPS[side + 2 * random.below(2)], 400 + random.below(50) as u16);
    let host = random.below(200);
    let client = if side == 0 { format!("10.50.1.{}", host + 1) } else { format!("2001:db8:50:{host:x}::1") };
    let client = (client, 1024 + random.below(60_000) as u16);
    let protocol = *random.pick(&PROTOCOLS);
    let mut then = now();
    // Some are stale, and none is expired.
    then.seconds -= if random.one_in(3) { random.below(100) as u32 } else { 0 };
    let end = (client.0.as_str(), client.1);
    let backend = match (protocol, random.below(6)) {
        (packets::TCP, 0) => world.begin(end, vip, then)?,
        (packets::TCP, more) => {
            let backend = world.open(end, vip, then)?;
            if more == 1 {
                world.decide(&tcp(end, vip, FIN | ACK), then);
            }
            if more == 2 {
                world.decide(&tcp(at(&backend, vip.1), end, FIN | ACK), then);
            }
            backend
        }
        (_, more) => world.talk(end, vip, 1 + more as u32, then)?,
    };
    Some(Known { protocol, client, vip, backend })
}

/// Returns what the worker makes of it.
fn judge(world: &mut World, made: &Made, kept: [bool; 6], seen: &mut Seen, context: &str) -> Vec<u8> {
    let from = if made.reply { world.inside } else { world.outside };
    // The kernel makes no buffer of less (bpf_prog_test_run_skb in net/bpf/test_run.c), nor does a device.
    if made.bytes.len() < 40 && made.bytes[0] >> 4 == 6 {
        return vec![];
    }
    let before = world.table();
    let (said, sent) = world.try_packet(&made.bytes, from);
    let reports = world.heard();
    assert!(world.table() == before, "the program has changed the table: {context}");
    let silent = said == REDIRECT && reports.is_empty();
    // What Ethernet adds to a short packet is gone before the rules see it (ip_rcv_core, ip6_rcv_core).
    let whole = &made.bytes[..length_of(&made.bytes).min(made.bytes.len())];
    let time = now();
    let (outcome, expected) = world.decide(whole, time);
    if said == MISS {
        assert_eq!(sent, made.bytes, "{context}");
        assert_eq!(reports, [], "{context}");
        seen.missed += 1;
        return expected;
    }
    assert_eq!(said, REDIRECT, "{context}");
    // The worker may have given the flow another backend than it began with.
    let backend = if made.reply { ends(&made.bytes).0 } else { ends(&sent).1 };
    let backend = world::BACKENDS.iter().position(|b| *b == backend);
    assert!(backend.is_some_and(|backend| kept[backend]), "{context}");
    assert_eq!(outcome, if made.reply { Outcome::Returned } else { Outcome::Forwarded }, "{context}");
    assert_eq!(sent[..whole.len()], forwarded(expected.clone()), "{context}");
    assert_eq!(sent[whole.len()..], made.bytes[whole.len()..], "{context}");
    if silent {
        assert!(same_flows(&world.table(), &before), "it moves the flow's state, and no report says so: {context}");
        seen.silent += 1;
    } else {
        assert_eq!(reports.len(), 1, "{context}");
        is_about(&reports[0], whole, made.reply, context);
        // The report moves the flow as the packet would have.
        let after = world.table();
        world.restore(&before);
        world.decider.hear(&reports[0], time);
        assert!(world.table() == after, "the report does not lead where the packet does: {context}");
        seen.told += 1;
    }
    expected
}

/// The packet's length as its header says.
fn length_of(bytes: &[u8]) -> usize {
    let two = |at: usize| usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
    if bytes[0] >> 4 == 6 { 40 + two(4) } else { two(2) }
}

/// Whether a report says of a packet what it is.
fn is_about(report: &Report, bytes: &[u8], reply: bool, context: &str) {
    let (from, to) = ports_of(bytes);
    let (client, service) = if reply { (to, from) } else { (from, to) };
    assert_eq!((report.client_port, report.reply), (client, reply), "{context}");
    let backend = world::backend_of(report.backend);
    let (_, there) = at(backend, report.vip_port);
    assert_eq!(service, if reply { there } else { report.vip_port }, "{context}");
    let key = if there == report.vip_port { there } else { 0 };
    assert_eq!(report.service_port, key, "{context}");
    assert_eq!(report.bytes as usize, bytes.len(), "{context}");
    if report.protocol == packets::TCP {
        let at = if bytes[0] >> 4 == 4 { 20 } else { 40 };
        let four = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let header = usize::from(bytes[at + 12] >> 4) * 4;
        let counted = u32::from(bytes[at + 13] & SYN != 0) + u32::from(bytes[at + 13] & FIN != 0);
        let end = four(at + 4).wrapping_add((bytes.len() - at - header) as u32).wrapping_add(counted);
        assert_eq!((report.flags, report.acknowledged, report.end), (bytes[at + 13], four(at + 8), end), "{context}");
    }
}

/// A client's reset is believed if it comes where the backend waits. Replies that went on silently are what says so, and the worker
/// has not seen them.
#[test]
fn a_reset_is_believed_by_what_silent_replies_have_said() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    for (client, vip) in [("203.0.113.7", VIPS[0]), ("2001:db8:77::7", VIPS[1])] {
        let (client, vip) = ((client, 40_000), (vip, 443));
        let backend = world.open(client, vip, now()).unwrap();
        let number: u32 = 0x1122_3344;
        let goes_on = |world: &World| world.try_packet(&tcp(client, vip, ACK), world.outside).0 == REDIRECT;
        let reply = segment(at(&backend, 443), client, ACK, (1, number), b"data");
        assert_eq!(world.try_packet(&reply, world.inside).0, REDIRECT);
        assert_eq!(world.heard(), []);
        for (seq, heard, is_believed) in [(number + 5, true, false), (number, false, false), (number, true, true)] {
            let reset = segment(client, vip, RST, (seq, 0), b"");
            assert_eq!(world.try_packet(&reset, world.outside).0, REDIRECT);
            let report = world.heard()[0];
            assert_eq!(report.heard, Some(number as u16));
            world.decider.hear(&Report { heard: report.heard.filter(|_| heard), ..report }, now());
            assert_eq!(goes_on(&world), !is_believed, "{client:?} {seq:#x}");
        }
    }
}

/// A worker may hear of packets only at its next look at the ring. By then both sides may have closed: the last word is the backend's
/// acknowledgement, which nothing tells from others of an open connection but that the backend has finished.
#[test]
fn a_connection_that_closes_between_two_looks_at_the_ring_is_closed() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    for (client, vip) in [("203.0.113.7", VIPS[0]), ("2001:db8:77::7", VIPS[1])] {
        for port in 40_000..40_003 {
            let (client, vip) = ((client, port), (vip, 443));
            let backend = world.open(client, vip, now()).unwrap();
            let goes_on = |world: &World, packet: &[u8], from| world.try_packet(packet, from).0 == REDIRECT;
            let backend = at(&backend, 443);
            for (from, to, flags, numbers, side) in [
                (backend, client, FIN | ACK, (100, 200), world.inside),
                (client, vip, FIN | ACK, (200, 101), world.outside),
                (backend, client, ACK, (101, 201), world.inside),
            ] {
                assert!(goes_on(&world, &segment(from, to, flags, numbers, b""), side));
            }
            let reports = world.heard();
            assert_eq!(reports.len(), 3, "{reports:?}");
            reports.iter().for_each(|report| world.decider.hear(report, now()));
            // A connection that is over makes way for a SYN on its ports.
            let (outcome, _) = world.decide(&tcp(client, vip, SYN), now());
            assert_eq!(outcome, Outcome::ForwardedNew, "{client:?}");
        }
    }
}

/// What another connection has left in a flow's place is no reason to report every packet.
#[test]
fn a_place_that_is_used_again_begins_anew() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    let (client, vip) = (("203.0.113.7", 40_000), (VIPS[0], 443));
    let backend = world.open(client, vip, now()).unwrap();
    let backend = at(&backend, 443);
    let data = |n| segment(backend, client, ACK, (n, 200), b"data");
    world.try_packet(&segment(backend, client, FIN | ACK, (100, 200), b""), world.inside);
    assert_eq!(world.heard().len(), 1);
    for (n, told) in [(1, 1), (2, 0), (3, 0)] {
        assert_eq!(world.try_packet(&data(n), world.inside).0, REDIRECT);
        assert_eq!(world.heard().len(), told, "{n}");
    }
}
