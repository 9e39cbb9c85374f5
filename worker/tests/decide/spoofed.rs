//! What an attacker can do who sends from spoofed addresses and hears no answers.

use super::packets::{ACK, FIN, RST, SYN, guessed, segment, tcp, udp};
use super::world::{SIDES, Service, Side, World};
use loaded_ipc::{Admin, Outcome};
use loaded_worker::wire::PacketFacts;

const PSH: u8 = 8;

/// Two buckets of eight ways.
const PLACES: usize = 16;

fn small() -> World {
    World::sized(&[spread()], 8, 64)
}

/// Round robin, so that a new flow goes to another backend than the last one.
fn spread() -> Service {
    Service { affinity: None, ..Service::default() }
}

/// A connection whose SYN the backend has answered, and its backend.
fn answered(side: &Side) -> (World, String) {
    let mut world = World::new(&[spread()]);
    let backend = world.forward(tcp((side.client, 4001), (side.vip, 80), SYN), Outcome::ForwardedNew);
    say(&mut world, side, &backend, false, SYN | ACK);
    (world, backend)
}

/// A packet of the client or of the backend.
fn say(world: &mut World, side: &Side, backend: &str, by_client: bool, flags: u8) {
    if by_client {
        let got = world.forward(tcp((side.client, 4001), (side.vip, 80), flags), Outcome::Forwarded);
        assert_eq!(got, backend);
    } else {
        world.answer(tcp((backend, 80), (side.client, 4001), flags));
    }
}

/// A packet in the client's name, of someone who does not hear the backend.
fn guess(world: &mut World, side: &Side, backend: &str, flags: u8) {
    for bit in 0..16 {
        let got = world.forward(guessed((side.client, 4001), (side.vip, 80), flags, bit), Outcome::Forwarded);
        assert_eq!(got, backend);
    }
}

/// Checks that the flow is gone after exactly this many idle seconds.
fn lives_for(mut world: World, side: &Side, backend: &str, seconds: u32) {
    let reply = || tcp((backend, 80), (side.client, 4001), ACK);
    let began = world.now;
    // A cut packet finds the flow without keeping it alive.
    let mut at = |after, outcome| {
        world.now = began + after;
        let mut bytes = reply();
        let facts = PacketFacts { cut: true, ..PacketFacts::WHOLE };
        assert_eq!(world.send_as(&mut bytes, facts), outcome, "after {after} s");
    };
    at(seconds, Outcome::DroppedCut);
    at(seconds + 1, Outcome::PassedOwn);
    world.unchanged(reply(), Outcome::PassedOwn);
}

/// Whatever a client sends, a flow that no backend has answered does not live long and is not protected.
#[test]
fn unanswered_flows_keep_no_client_out() {
    const TRAINS: [&[u8]; 6] = [
        &[SYN, ACK, ACK],
        &[SYN, ACK, ACK | PSH],
        &[SYN, FIN | ACK, ACK],
        &[SYN, FIN],
        &[SYN, SYN | ACK, ACK],
        &[ACK; 3],
    ];
    for side in SIDES {
        for train in TRAINS.map(Some).into_iter().chain([None]) {
            let mut world = small();
            let flood = |world: &mut World, from: u16| {
                for n in from..from + 100 {
                    let (address, vip) = (side.client(n), (side.vip, 80));
                    let client = (&*address, 4001);
                    let Some(train) = train else {
                        world.forward(udp(client, vip), Outcome::ForwardedNew);
                        continue;
                    };
                    let mut outcome = Outcome::ForwardedNew;
                    for flags in train {
                        world.forward(tcp(client, vip, *flags), outcome);
                        outcome = Outcome::Forwarded;
                    }
                }
                assert_eq!(world.decider.held().0, PLACES);
            };
            flood(&mut world, 0);
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let web = world.open(client, vip);
            let dns = world.talk(client, vip);
            // Established flows stay.
            world.now += 1;
            flood(&mut world, 100);
            assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), web);
            assert_eq!(world.forward(udp(client, vip), Outcome::Forwarded), dns);
            world.now += 30;
            world.sweep();
            assert_eq!(world.decider.held().0, PLACES, "idle for 30 s: alive");
            world.now += 1;
            world.sweep();
            assert_eq!(world.decider.held().0, 2, "the real ones alone");
            world.answer(tcp((&web, 80), client, ACK));
            world.answer(udp((&dns, 80), client));
        }
    }
}

/// A backend answers any SYN. What follows must be a packet that the backend would answer too, if with a reset.
#[test]
fn a_segment_without_ack_opens_nothing() {
    for side in SIDES {
        for flags in [0, FIN, PSH, FIN | PSH, SYN, SYN | FIN] {
            let (mut world, backend) = answered(&side);
            say(&mut world, &side, &backend, true, flags);
            lives_for(world, &side, &backend, 30);
        }
        for flags in [0, FIN, PSH, FIN | PSH] {
            let mut world = World::new(&[spread()]);
            let backend = world.open((side.client, 4001), (side.vip, 80));
            say(&mut world, &side, &backend, false, RST);
            say(&mut world, &side, &backend, true, flags);
            lives_for(world, &side, &backend, 240);
        }
    }
}

#[test]
fn a_udp_flow_lives_long_once_it_is_answered() {
    for side in SIDES {
        let (client, vip) = ((side.client, 4001), (side.vip, 53));
        for (answered, seconds) in [(true, 180), (false, 30)] {
            let mut world = World::new(&[spread()]);
            let backend = world.forward(udp(client, vip), Outcome::ForwardedNew);
            if answered {
                world.answer(udp((&backend, 53), client));
            }
            // Further packets of the client keep it alive, each for no longer.
            for _ in 0..3 {
                world.now += seconds;
                assert_eq!(world.forward(udp(client, vip), Outcome::Forwarded), backend);
            }
            world.now += seconds;
            world.sweep();
            assert_eq!(world.decider.held().0, 1);
            world.now += 1;
            world.unchanged(udp((&backend, 53), client), Outcome::PassedOwn);
            assert_ne!(world.forward(udp(client, vip), Outcome::ForwardedNew), backend);
        }
        // An answer in the last second counts.
        let mut world = World::new(&[spread()]);
        let backend = world.forward(udp(client, vip), Outcome::ForwardedNew);
        world.now += 30;
        world.answer(udp((&backend, 53), client));
        world.now += 180;
        world.answer(udp((&backend, 53), client));
    }
}

/// Both ends ignore a reset outside their window. The worker does not know the window, but sees that they go on.
#[test]
fn a_reset_that_both_sides_ignore_ends_nothing() {
    for side in SIDES {
        for reset_by_client in [true, false] {
            for next_by_client in [true, false] {
                for next in [ACK, ACK | PSH, FIN | ACK] {
                    for half_closed in [None, Some(true), Some(false)] {
                        let mut world = World::new(&[spread()]);
                        let backend = world.open((side.client, 4001), (side.vip, 80));
                        if let Some(by_client) = half_closed {
                            say(&mut world, &side, &backend, by_client, FIN | ACK);
                        }
                        say(&mut world, &side, &backend, reset_by_client, RST);
                        world.now += 240;
                        say(&mut world, &side, &backend, next_by_client, next);
                        // It is open as before, and a SYN is a stray packet.
                        say(&mut world, &side, &backend, true, SYN);
                        lives_for(world, &side, &backend, 7440);
                    }
                }
            }
        }
    }
}

/// Nothing comes after a real reset, or only what is answered with another.
#[test]
fn a_real_reset_ends_a_connection() {
    for side in SIDES {
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        for by_client in [true, false] {
            for rest in [&[][..], &[(by_client, RST | ACK)], &[(!by_client, ACK), (by_client, RST)]] {
                for flags in [RST, RST | ACK] {
                    let reset = || {
                        let mut world = World::new(&[spread()]);
                        let backend = world.open(client, vip);
                        say(&mut world, &side, &backend, by_client, flags);
                        rest.iter().for_each(|(by_client, flags)| say(&mut world, &side, &backend, *by_client, *flags));
                        (world, backend)
                    };
                    let (world, backend) = reset();
                    lives_for(world, &side, &backend, 240);
                    let (mut world, backend) = reset();
                    assert_ne!(world.open(client, vip), backend, "a new one, on the next backend");
                    assert_eq!(world.decider.held().0, 1);
                }
            }
        }
        // And it makes room.
        let mut world = small();
        for n in 0..16 {
            world.open((side.client, n), vip);
        }
        world.unchanged(tcp((side.client, 99), vip, SYN), Outcome::DroppedTableFull);
        world.forward(tcp((side.client, 7), vip, RST), Outcome::Forwarded);
        world.open((side.client, 99), vip);
    }
}

/// What was never open is not open still.
#[test]
fn a_reset_handshake_is_not_finished_by_an_ack() {
    for side in SIDES {
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        for answered in [true, false] {
            for by_client in [true, false] {
                let reset = || {
                    let mut world = World::new(&[spread()]);
                    let backend = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
                    if answered {
                        say(&mut world, &side, &backend, false, SYN | ACK);
                    }
                    say(&mut world, &side, &backend, by_client, RST | ACK);
                    for flags in [ACK, ACK | PSH, FIN | ACK, ACK] {
                        say(&mut world, &side, &backend, true, flags);
                    }
                    // Nor is it by all that a backend may yet have on its way.
                    for (by_client, flags) in [(false, SYN | ACK), (true, ACK), (false, ACK), (true, ACK)] {
                        say(&mut world, &side, &backend, by_client, flags);
                    }
                    (world, backend)
                };
                let (world, backend) = reset();
                lives_for(world, &side, &backend, 30);
                let (mut world, backend) = reset();
                assert_ne!(world.open(client, vip), backend);
            }
        }
    }
}

/// A backend answers a wrong acknowledgement with a RST and still waits for the right one (net/ipv4/tcp_minisocks.c,
/// tcp_check_req).
#[test]
fn a_reset_that_answers_a_guess_ends_no_handshake() {
    for side in SIDES {
        let (mut world, backend) = answered(&side);
        guess(&mut world, &side, &backend, ACK);
        say(&mut world, &side, &backend, false, RST);
        say(&mut world, &side, &backend, true, ACK);
        say(&mut world, &side, &backend, true, SYN);
        lives_for(world, &side, &backend, 7440);
    }
}

/// An open flow lives by its backend's packets: nobody can keep it by sending in the client's name.
#[test]
fn a_client_nobody_answers_does_not_keep_its_flow_open() {
    for side in SIDES {
        for before in [None, Some(true), Some(false)] {
            let mut world = World::new(&[spread()]);
            let backend = world.open((side.client, 4001), (side.vip, 80));
            if let Some(by_client) = before {
                say(&mut world, &side, &backend, by_client, FIN | ACK);
            }
            for _ in 0..3 {
                world.now += 2000;
                say(&mut world, &side, &backend, true, ACK);
            }
            lives_for(world, &side, &backend, 7440 - 6000);
        }
    }
}

/// The client's last data and its FIN come together, or one behind the other, after the backend's FIN, as TLS closes.
#[test]
fn a_connection_that_both_sides_close_is_over_once_the_backend_has_acknowledged_that() {
    const NUMBER: u32 = 0xffff;
    let after = |by: u32| NUMBER.wrapping_add(by);
    for side in SIDES {
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let (data, none): (&[u8], &[u8]) = (b"notify", b"");
        let trains: [&[(u32, u8, &[u8])]; 3] =
            [&[(0, FIN | ACK, data)], &[(0, ACK, data), (6, FIN | ACK, none)], &[(0, FIN | ACK, none); 2]];
        for train in trains {
            let closed = |acknowledged: &[u32]| {
                let mut world = World::new(&[spread()]);
                let backend = world.open(client, vip);
                world.answer(segment((&backend, 80), client, FIN | ACK, (77, NUMBER), b""));
                for (by, flags, data) in train {
                    world.forward(segment(client, vip, *flags, (after(*by), 78), data), Outcome::Forwarded);
                }
                for by in acknowledged {
                    world.answer(segment((&backend, 80), client, ACK, (78, after(*by)), b""));
                }
                (world, backend)
            };
            let data = if train.iter().any(|(.., data)| !data.is_empty()) { 6 } else { 0 };
            for acknowledged in [&[data + 1][..], &[0, data, data + 1], &[data + 1, data + 1]] {
                let (world, backend) = closed(acknowledged);
                lives_for(world, &side, &backend, 30);
                let (mut world, backend) = closed(acknowledged);
                assert_ne!(world.open(client, vip), backend);
            }
            // Until then it is open: the FIN may be anybody's, and so may a RST behind it.
            for acknowledged in [&[][..], &[0], &[data], &[data, data + 2]] {
                let (mut world, backend) = closed(acknowledged);
                world.forward(segment(client, vip, RST, (after(data + 1), 0), b""), Outcome::Forwarded);
                say(&mut world, &side, &backend, true, SYN);
                lives_for(world, &side, &backend, 7440);
            }
        }
    }
}

/// Of 65,536 blocks of numbers one is right.
#[test]
fn an_acknowledgement_of_another_number_opens_nothing() {
    for side in SIDES {
        for flags in [ACK, ACK | PSH, FIN | ACK, SYN | ACK, RST | ACK] {
            let (mut world, backend) = answered(&side);
            guess(&mut world, &side, &backend, flags);
            lives_for(world, &side, &backend, 30);
            // The client itself is not kept out by that, and a SYN that comes again changes nothing.
            let (mut world, backend) = answered(&side);
            guess(&mut world, &side, &backend, flags);
            say(&mut world, &side, &backend, true, SYN);
            say(&mut world, &side, &backend, true, ACK);
            lives_for(world, &side, &backend, 7440);
        }
    }
}

/// What a place that is protected costs who hears nothing: half of all numbers, on average.
#[test]
fn of_all_numbers_one_opens_a_flow() {
    let side = SIDES[0];
    let vip = (side.vip, 80);
    let mut world = World::sized(&[spread()], 1 << 17, 64);
    for number in 0..=u16::MAX {
        let client = side.client(number);
        let client = (&*client, 4001);
        let backend = world.forward(segment(client, vip, SYN, (0, 0), b""), Outcome::ForwardedNew);
        world.answer(segment((&backend, 80), client, SYN | ACK, (0x1234_4320, 1), b""));
        let numbers = (1, u32::from(number) << 16 | 0x9876);
        world.forward(segment(client, vip, ACK, numbers, b""), Outcome::Forwarded);
    }
    assert_eq!(world.decider.held().0, 65_536);
    world.now += 31;
    world.sweep();
    assert_eq!(world.decider.held().0, 1);
}

/// Nor is it the first to go, or the only one to get in, when the table is full.
#[test]
fn guesses_keep_no_client_out() {
    for side in SIDES {
        let mut world = small();
        let web = world.open((side.client, 4001), (side.vip, 80));
        for n in 0..300 {
            let (address, vip) = (side.client(n), (side.vip, 80));
            let client = (&*address, 4001);
            let backend = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
            world.answer(tcp((&backend, 80), client, SYN | ACK));
            for flags in [ACK, FIN | ACK, RST] {
                world.forward(guessed(client, vip, flags, u32::from(n % 16)), Outcome::Forwarded);
            }
            world.answer(tcp((&backend, 80), client, if n % 2 == 0 { ACK } else { RST }));
        }
        assert_eq!(world.forward(tcp((side.client, 4001), (side.vip, 80), ACK), Outcome::Forwarded), web);
    }
}

/// What comes first may be lost, or acknowledged together with what comes next: any number in the same block counts. In the next
/// second that of the next segment.
#[test]
fn the_number_to_acknowledge_is_near_what_the_backend_has_sent() {
    for side in SIDES {
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        // The answer ends before the last of all numbers, and the data beyond it.
        let first = u32::MAX - 3;
        let cases = [(u32::MAX - 2, [true, false]), (0xffff_0000, [true, false]), (0xfffe_ffff, [false; 2])];
        for (acknowledged, opens) in cases.into_iter().chain([(0, [false, true]), (2, [false, true])]) {
            for (opens, wait) in opens.into_iter().zip([0, 1]) {
                let mut world = World::new(&[spread()]);
                let backend = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
                world.answer(segment((&backend, 80), client, SYN | ACK, (first, 77), b""));
                world.now += wait;
                world.answer(segment((&backend, 80), client, ACK, (first.wrapping_add(1), 77), b"hello"));
                world.forward(segment(client, vip, ACK, (77, acknowledged), b""), Outcome::Forwarded);
                lives_for(world, &side, &backend, if opens { 7440 } else { 30 });
            }
        }
    }
}

/// The client is always behind what the backend has sent: the flow's balancer has lost its tables in the middle of a download,
/// or data came right behind the answer to the SYN (TCP Fast Open).
#[test]
fn a_flow_opens_in_the_middle_of_a_download() {
    const DATA: [u8; 1448] = [7; 1448];
    let number = |n: u32| 0xfff0_0000_u32.wrapping_add(n * 1448);
    for (side, begins) in SIDES.into_iter().flat_map(|side| [(side, SYN), (side, ACK)]) {
        // Segments on their way, and how many come in a second.
        for (behind, rate) in [(0, 10), (20, 200), (400, 1000)] {
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let mut world = World::new(&[spread()]);
            let backend = world.forward(segment(client, vip, begins, (77, 5), b""), Outcome::ForwardedNew);
            if begins == SYN {
                world.answer(segment((&backend, 80), client, SYN | ACK, (number(behind).wrapping_sub(1), 78), b""));
            }
            for n in 1..rate * 3 {
                world.answer(segment((&backend, 80), client, ACK, (number(behind + n - 1), 78), &DATA));
                if n % 2 == 0 {
                    world.forward(segment(client, vip, ACK, (78, number(n)), b""), Outcome::Forwarded);
                }
                world.now += u32::from(n % rate == 0);
            }
            lives_for(world, &side, &backend, 7440);
        }
    }
}

/// A SYN on the ports of a connection is its backend's to answer, whatever becomes of that backend, and whatever was said in
/// the client's name before.
#[test]
fn who_knows_the_ports_moves_no_connection() {
    for side in SIDES {
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        for admin in [Admin::Enabled, Admin::Draining] {
            for half_closed in [None, Some(true), Some(false)] {
                for before in [&[][..], &[RST], &[RST | ACK, RST], &[FIN | ACK], &[FIN | ACK, RST]] {
                    let mut world = World::new(&[spread()]);
                    let backend = world.open(client, vip);
                    let place = super::world::BACKENDS.iter().position(|b| *b == backend).expect("a backend");
                    world.admin(place, admin);
                    if let Some(by_client) = half_closed {
                        say(&mut world, &side, &backend, by_client, FIN | ACK);
                    }
                    before.iter().for_each(|flags| guess(&mut world, &side, &backend, *flags));
                    // It answers the SYN with an acknowledgement, and the client that with nothing.
                    guess(&mut world, &side, &backend, SYN);
                    say(&mut world, &side, &backend, false, ACK);
                    lives_for(world, &side, &backend, 7440);
                }
            }
        }
    }
}

/// Without any answer of the backend either: it lives as long as before, and is no one's to displace.
#[test]
fn a_guessed_reset_changes_nothing() {
    for side in SIDES {
        for flags in [RST, RST | ACK] {
            let mut world = small();
            let backend = world.open((side.client, 4001), (side.vip, 80));
            guess(&mut world, &side, &backend, flags);
            world.now += 3;
            for n in 0..300 {
                world.forward(tcp((&side.client(n), 4001), (side.vip, 80), SYN), Outcome::ForwardedNew);
            }
            world.now -= 3;
            lives_for(world, &side, &backend, 7440);
        }
    }
}

/// A reset counts where the backend waits (RFC 5961 §3): at what it has acknowledged last, which may be less than the client has
/// sent. What it sends itself does not matter.
#[test]
fn a_reset_counts_at_the_number_that_the_backend_waits_for() {
    let first = u32::MAX - 3;
    let numbered = |by: u32| first.wrapping_add(by);
    for side in SIDES {
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        for flags in [RST, RST | ACK] {
            for (number, counts) in [(1, false), (5, false), (6, true), (7, false), (6 + 65_535, false)] {
                let mut world = World::new(&[spread()]);
                let backend = world.forward(segment(client, vip, SYN, (first, 0), b""), Outcome::ForwardedNew);
                world.answer(segment((&backend, 80), client, SYN | ACK, (77, numbered(1)), b""));
                for data in [&b""[..], b"hello", b""] {
                    world.forward(segment(client, vip, ACK, (numbered(1), 78), data), Outcome::Forwarded);
                }
                world.answer(segment((&backend, 80), client, ACK, (78, numbered(6)), b"how are you"));
                world.answer(segment((&backend, 80), client, ACK, (89, numbered(6)), b"?"));
                world.forward(segment(client, vip, flags, (numbered(number), 0), b""), Outcome::Forwarded);
                let outcome = if counts { Outcome::ForwardedNew } else { Outcome::Forwarded };
                let next = world.forward(segment(client, vip, SYN, (9999, 0), b""), outcome);
                assert_eq!(next != backend, counts);
            }
        }
    }
}

/// An honest reset that is not believed here, since the backend has acknowledged more than was seen: the client's next
/// connection on the same ports gets there by way of the backend, as RFC 5961 §4 has it.
#[test]
fn a_client_whose_reset_is_not_believed_connects_again() {
    for side in SIDES {
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let reset = || {
            let mut world = World::new(&[spread()]);
            let backend = world.open(client, vip);
            guess(&mut world, &side, &backend, RST);
            say(&mut world, &side, &backend, true, SYN);
            (world, backend)
        };
        // The backend has heard the reset, and accepts another connection.
        let (mut world, backend) = reset();
        say(&mut world, &side, &backend, false, SYN | ACK);
        guess(&mut world, &side, &backend, ACK);
        let (mut again, _) = reset();
        say(&mut again, &side, &backend, false, SYN | ACK);
        lives_for(again, &side, &backend, 30);
        say(&mut world, &side, &backend, true, ACK);
        lives_for(world, &side, &backend, 7440);
        // It has not, and acknowledges the old one: this is what the client's next reset comes with.
        let (mut world, backend) = reset();
        world.answer(segment((&backend, 80), client, ACK, (1, 4711), b""));
        world.forward(segment(client, vip, RST, (4711, 0), b""), Outcome::Forwarded);
        assert_ne!(world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew), backend);
        // It does not listen any more.
        let (mut world, backend) = reset();
        say(&mut world, &side, &backend, false, RST | ACK);
        assert_ne!(world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew), backend);
    }
}
