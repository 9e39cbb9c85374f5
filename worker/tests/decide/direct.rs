//! Direct server return: packets keep their addresses and get a mark; the answers of backends are never seen.

use super::packets::{ACK, End, FIN, RST, SYN, echo, tcp, udp, unreachable};
use super::world::{BACKENDS, BARE, SIDES, Service, Side, World, index_of};
use loaded_ipc::{Admin, BackendIndex, Mode, Outcome};
use loaded_table::Timeouts;
use loaded_worker::wire::PacketFacts;

const LIVES: Timeouts = Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };

fn direct() -> Service {
    Service { mode: Mode::Dsr, vips: vec![0, 1], ..BARE }
}

fn world() -> World {
    World::new(&[direct()])
}

/// Sends a packet that must be forwarded unchanged; returns the backend.
#[track_caller]
fn marked(world: &mut World, bytes: &[u8], expected: Outcome) -> BackendIndex {
    let mut sent = bytes.to_vec();
    assert_eq!(world.send(&mut sent), expected);
    assert_eq!(sent, bytes, "it goes on as it came");
    world.direct.expect("a mark")
}

fn place_of(backend: BackendIndex) -> usize {
    (0..BACKENDS.len()).find(|place| index_of(0, *place) == backend).expect("a backend of the first service")
}

/// The state of a flow shows in how long it lives.
#[track_caller]
fn lives_for(world: &mut World, seconds: u32) {
    world.now += seconds;
    world.sweep();
    assert_eq!(world.decider.held().0, 1, "after {seconds} s");
    world.now += 1;
    world.sweep();
    assert_eq!(world.decider.held().0, 0, "a second later");
}

fn ends_of(side: &Side) -> (End<'static>, End<'static>) {
    ((side.client, 4001), (side.vip, 80))
}

#[test]
fn a_packet_keeps_its_addresses_and_goes_to_a_backend_by_its_mark() {
    for side in SIDES {
        let mut world = world();
        for n in 0..6 {
            let client = side.client(n);
            let first = marked(&mut world, &tcp((&client, 4001), (side.vip, 80), SYN), Outcome::ForwardedNew);
            assert!(side.backends.contains(&BACKENDS[place_of(first)]));
            for _ in 0..3 {
                assert_eq!(marked(&mut world, &tcp((&client, 4001), (side.vip, 80), ACK), Outcome::Forwarded), first);
            }
            marked(&mut world, &udp((&client, 4001), (side.vip, 80)), Outcome::ForwardedNew);
            marked(&mut world, &echo(&client, side.vip, true, 9), Outcome::ForwardedNew);
        }
        let flows = |place| world.count(loaded_ipc::BackendCounter::NewFlows, index_of(0, place));
        let all: u64 = (0..BACKENDS.len()).map(flows).sum();
        assert_eq!(all, 18);
    }
}

#[test]
fn packets_of_direct_backends_are_not_touched() {
    for side in SIDES {
        let mut world = world();
        let (client, vip) = ends_of(&side);
        let backend = BACKENDS[place_of(marked(&mut world, &tcp(client, vip, SYN), Outcome::ForwardedNew))];
        // A packet from its own address is no reply, whatever the ports.
        world.unchanged(tcp((backend, 80), client, SYN | ACK), Outcome::PassedForeign);
        assert_eq!(world.direct, None);
        world.unchanged(
            unreachable(side.router, side.client, &tcp(client, (backend, 80), SYN), 8),
            Outcome::PassedForeign,
        );
    }
}

#[test]
fn a_backend_in_both_modes_has_its_replies_translated_only_in_nat() {
    for side in SIDES {
        let (nat, dsr) = (Service { vips: vec![2, 3], ..BARE }, direct());
        let mut world = World::new(&[dsr, nat]);
        let (client, vip) = ends_of(&side);
        // The same ports at both VIPs, until both flows are at one backend.
        let first = BACKENDS[place_of(marked(&mut world, &tcp(client, vip, SYN), Outcome::ForwardedNew))];
        world.unchanged(tcp((first, 80), client, SYN | ACK), Outcome::PassedOwn);
        let both = (0..3).find_map(|_| {
            let mut bytes = tcp(client, (side.second_vip, 80), SYN);
            assert_eq!(world.send(&mut bytes), Outcome::ForwardedNew);
            assert_eq!(world.direct, None);
            if super::packets::ends(&bytes).1 == first {
                return Some(());
            }
            // The flow has ended, so that the next packet begins a new one.
            assert_eq!(world.send(&mut tcp(client, (side.second_vip, 80), RST)), Outcome::Forwarded);
            None
        });
        assert_eq!(both, Some(()), "no clash: only one of the two flows has replies here");
        world.answer(tcp((first, 80), client, SYN | ACK));
    }
}

#[test]
fn the_clients_packets_alone_move_a_direct_flow_along() {
    for side in SIDES {
        let (client, vip) = ends_of(&side);
        let after = |flags: &[u8]| {
            let mut world = world();
            for (n, &flags) in flags.iter().enumerate() {
                let outcome = if n == 0 { Outcome::ForwardedNew } else { Outcome::Forwarded };
                marked(&mut world, &tcp(client, vip, flags), outcome);
            }
            world
        };
        lives_for(&mut after(&[SYN]), LIVES.half_open);
        lives_for(&mut after(&[SYN, SYN]), LIVES.half_open);
        lives_for(&mut after(&[SYN, ACK]), LIVES.established);
        lives_for(&mut after(&[SYN, ACK, FIN | ACK]), LIVES.closing);
        lives_for(&mut after(&[SYN, ACK, FIN | ACK, ACK]), LIVES.closing);
        lives_for(&mut after(&[SYN, RST]), LIVES.closing);
        lives_for(&mut after(&[SYN, ACK, RST]), LIVES.reset);
        // What comes after it shows that a reset was forged.
        lives_for(&mut after(&[SYN, ACK, RST, ACK]), LIVES.established);
        // After its FIN a client may acknowledge data for hours, and each packet keeps the flow alive.
        let mut world = after(&[SYN, ACK, FIN | ACK]);
        for _ in 0..10 {
            world.now += 25;
            world.sweep();
            marked(&mut world, &tcp(client, vip, ACK), Outcome::Forwarded);
        }
        // And the ports can be used again at once, at the same backend: that it has ended the connection is not seen here.
        for last in [FIN | ACK, RST] {
            let mut world = after(&[SYN, ACK]);
            let home = marked(&mut world, &tcp(client, vip, last), Outcome::Forwarded);
            assert_eq!(marked(&mut world, &tcp(client, vip, SYN), Outcome::Forwarded), home);
            lives_for(&mut world, LIVES.half_open);
            let mut world = after(&[SYN, ACK, last, SYN, ACK]);
            lives_for(&mut world, LIVES.established);
        }
    }
}

#[test]
fn a_client_that_sends_two_datagrams_counts_as_answered() {
    for side in SIDES {
        let (client, vip) = ends_of(&side);
        let mut world = world();
        marked(&mut world, &udp(client, vip), Outcome::ForwardedNew);
        lives_for(&mut world, LIVES.half_open);
        marked(&mut world, &udp(client, vip), Outcome::ForwardedNew);
        marked(&mut world, &udp(client, vip), Outcome::Forwarded);
        lives_for(&mut world, LIVES.datagram);
    }
}

#[test]
fn an_error_about_an_answer_reaches_the_backend_that_sent_it() {
    for side in SIDES {
        for length in [8, 100] {
            let mut world = world();
            let (client, vip) = ends_of(&side);
            let backend = marked(&mut world, &tcp(client, vip, SYN), Outcome::ForwardedNew);
            // Its segments have the VIP as their source, and so has what is quoted of them.
            let error = unreachable(side.router, side.vip, &tcp(vip, client, ACK), length);
            assert_eq!(marked(&mut world, &error, Outcome::ErrorForwarded), backend);
            let stray = unreachable(side.router, side.vip, &tcp(vip, (side.client, 4002), ACK), length);
            world.unchanged(stray, Outcome::DroppedStrayError);
            assert_eq!(world.direct, None);
        }
    }
}

#[test]
fn a_backend_that_goes_down_takes_its_connections_with_it() {
    for side in SIDES {
        let mut world = world();
        let (client, vip) = ends_of(&side);
        let backend = place_of(marked(&mut world, &tcp(client, vip, SYN), Outcome::ForwardedNew));
        marked(&mut world, &tcp(client, vip, ACK), Outcome::Forwarded);
        world.check(backend, false);
        let mut bytes = tcp(client, vip, ACK);
        assert_eq!(world.send(&mut bytes), Outcome::AnsweredReset, "the answer is ours, from the VIP");
        assert_eq!(world.direct, None);
        assert_eq!(super::packets::ends(&world.sent), (side.vip.to_owned(), side.client.to_owned()));
        let next = place_of(marked(&mut world, &tcp(client, vip, SYN), Outcome::ForwardedNew));
        assert_ne!(next, backend);
        world.admin(next, Admin::Draining);
        marked(&mut world, &tcp(client, vip, ACK), Outcome::Forwarded);
    }
}

#[test]
fn a_cut_packet_is_still_forwarded_directly() {
    for side in SIDES {
        let mut world = world();
        let (client, vip) = ends_of(&side);
        let cut = PacketFacts { cut: true, ..PacketFacts::WHOLE };
        let mut bytes = tcp(client, vip, SYN);
        assert_eq!(world.send_as(&mut bytes, cut), Outcome::ForwardedNew);
        assert!(world.direct.is_some());
        assert_eq!(world.send_as(&mut tcp(client, vip, ACK), cut), Outcome::Forwarded);
        assert!(world.direct.is_some());
    }
}
