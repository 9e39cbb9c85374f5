//! What the program sends on, the worker would have sent on, to the byte; and the program changes no table. By
//! `BPF_PROG_TEST_RUN`: nothing is attached. As root.
#![allow(dead_code, clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod captures;
mod cost;
mod garbage;
mod generated;
mod judge;
mod life;
mod network;
#[path = "../../../../worker/tests/decide/packets.rs"]
mod packets;
mod steering;
mod torn;
mod world;

use generated::Random;
use judge::Seen;
use life::Life;
use loaded_fastpath::foretell::{FlowNow, Next, Sent, foretell};
use loaded_fastpath::records::Fresh;
use loaded_fastpath::{Keep, Miss, Report};
use loaded_ipc::{Idle, Outcome};
use loaded_table::FlowState;
use packets::{ACK, FIN, RST, SYN, ends, segment, sound, tcp, udp};
use world::{DIRECT, DIRECT_VIPS, MISS, REDIRECT, VIPS, World, at, forwarded, now};

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

/// In mode "dsr" only the client's side passes, and its packets stay as they are.
#[test]
fn packets_to_direct_backends_go_on_as_they_are() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    for (side, client) in ["203.0.113.7", "2001:db8:77::7"].into_iter().enumerate() {
        let (client, vip) = ((client, 40_000), (DIRECT_VIPS[side], 443));
        world.open(client, vip, now()).unwrap();
        let packet = tcp(client, vip, ACK);
        assert_eq!(world.try_packet(&packet, world.outside), (REDIRECT, forwarded(packet.clone())), "{client:?}");
        world.talk(client, vip, 3, now()).unwrap();
        let datagram = udp(client, vip);
        assert_eq!(world.try_packet(&datagram, world.outside), (REDIRECT, forwarded(datagram.clone())));
        assert_eq!(world.heard(), []);
        for backend in &DIRECT[2 * side..][..2] {
            assert_eq!(
                world.try_packet(&tcp((backend, 443), client, ACK), world.inside).0,
                MISS,
                "no reply of the service"
            );
        }
        // Through a router the link address would be the router's, and the address the virtual IP.
        network::route_by_router(side);
        assert_eq!(world.try_packet(&packet, world.outside).0, MISS);
        assert_eq!(world.loaded.program.missed(Miss::Way), 1 + side as u64);
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
    let client = ("203.0.113.7", 40_000);
    let vips = [(false, (VIPS[0], 443)), (true, (DIRECT_VIPS[0], 443))];
    for (_, vip) in vips {
        world.open(client, vip, now()).unwrap();
        world.talk(client, vip, 3, now()).unwrap();
    }
    // Far from where a second more would matter.
    let states = FlowState::ALL.iter().flat_map(|state| [0, 4, 12, 27, 40].map(|age| (*state, age)));
    let cases = states.flat_map(|case| vips.map(|vip| (case, vip))).flat_map(|case| [(case, true), (case, false)]);
    let mut ways = [0, 0];
    for (((state, unseen), (direct, vip)), is_kept) in cases {
        let keep = if is_kept { Keep::Yes } else { Keep::No };
        (0..6).for_each(|n| world::keep(&world.keeping, n, keep));
        world::direct_indexes(0).iter().for_each(|index| world.keeping.set(*index, keep));
        world.set_all(state, now().seconds - unseen);
        let flow = Some(FlowNow { state, unseen, fresh: Some(fresh), direct, is_kept });
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

#[test]
fn what_goes_on_is_what_the_worker_would_have_sent() {
    if !is_root() {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (count, seed) = (number("LOADED_PACKETS").unwrap_or(PACKETS), number("LOADED_SEED").unwrap_or(20_261_128));
    let mut random = Random::Seeded(seed);
    let mut seen = Seen::default();
    let mut missed = vec![0; Miss::ALL.len()];
    for first in (0..count).step_by(LIFE) {
        let mut life = Life::begin(World::new(), 150, &mut random);
        for n in first..count.min(first + LIFE as u64) {
            life.step(&mut random, &format!("LOADED_SEED={seed} packet {n}"));
        }
        seen += life.seen;
        Miss::ALL.iter().zip(&mut missed).for_each(|(why, sum)| *sum += life.world.loaded.program.missed(*why));
    }
    let missed: Vec<_> = Miss::ALL.iter().map(|why| why.label()).zip(missed).collect();
    println!("{count} packets: {seen:?}; {missed:?}");
    // It is no test if nothing goes on.
    assert!(seen.silent * 5 > count && seen.told * 10 > count && seen.missed * 5 > count, "{seen:?}");
    assert!(seen.direct * 20 > count, "{seen:?}");
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
