//! What becomes of flows and clients when backends go down and come back, by policy and protocol.

use super::packets::{ACK, FIN, RST, SYN, echo, ends, sound, tcp, udp};
use super::world::{AFFINITY, BARE, POLICY, SIDES, Service, Side, World, index_of};
use loaded_ipc::{Admin, AllDown, BackendCounter, OnBackendDown, Outcome, Policy, Strategy};
use std::collections::BTreeSet;

const POLICIES: [OnBackendDown; 3] = [OnBackendDown::Reset, OnBackendDown::Rehash, OnBackendDown::Drain];

fn service(on_backend_down: OnBackendDown) -> Service {
    Service { vips: vec![0, 1], policy: Policy { on_backend_down, ..POLICY }, ..BARE }
}

/// The index of an address among all backends.
fn place(side: &Side, backend: &str) -> usize {
    let n = side.backends.iter().position(|b| *b == backend).expect("a backend");
    if side.vip.contains(':') { n + 3 } else { n }
}

/// Makes a backend unavailable, down or disabled.
fn take_out(world: &mut World, n: usize, by_checks: bool) {
    match by_checks {
        true => world.check(n, false),
        false => world.admin(n, Admin::Disabled),
    }
}

/// The packet that replaced the last one: its source, its destination, and whether its checksums are right.
fn answer(world: &World) -> (String, String) {
    assert!(sound(&world.sent));
    ends(&world.sent)
}

fn flags(bytes: &[u8]) -> u8 {
    bytes[if bytes[0] >> 4 == 4 { 33 } else { 53 }]
}

#[test]
fn tcp_of_a_backend_that_is_down_is_reset_on_both_sides() {
    for side in SIDES {
        for by_checks in [true, false] {
            let mut world = World::new(&[service(OnBackendDown::Reset)]);
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let backend = world.open(client, vip);
            take_out(&mut world, place(&side, &backend), by_checks);
            // What the backend still sends is forwarded until the client has got its reset.
            world.answer(tcp((&backend, 80), client, ACK));
            for flags_of_client in [ACK, FIN | ACK, ACK] {
                assert_eq!(world.send(&mut tcp(client, vip, flags_of_client)), Outcome::AnsweredReset);
                assert_eq!(answer(&world), (side.vip.into(), side.client.into()));
                assert_eq!(flags(&world.sent), RST);
                // Now the backend gets a reset too, and nothing leaves under its own address.
                assert_eq!(world.send(&mut tcp((&backend, 80), client, ACK)), Outcome::AnsweredBackend);
                assert_eq!(answer(&world), (side.client.into(), backend.clone()));
                assert_eq!(flags(&world.sent), RST);
            }
            // A reset is never answered.
            assert_eq!(world.send(&mut tcp(client, vip, RST)), Outcome::Forwarded);
            assert_eq!(world.send(&mut tcp((&backend, 80), client, RST)), Outcome::Returned);
            // A new connection on the same ports finds another backend.
            let next = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
            assert_ne!(next, backend);
            assert_eq!(world.decider.held().0, 1);
        }
    }
}

#[test]
fn a_backend_that_comes_back_in_time_loses_nothing() {
    for side in SIDES {
        for policy in POLICIES {
            let mut world = World::new(&[service(policy)]);
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let backend = world.open(client, vip);
            let n = place(&side, &backend);
            world.check(n, false);
            assert!(!world.view(n).up && !world.view(n).chosen);
            world.check(n, true);
            assert!(world.view(n).up && world.view(n).chosen);
            assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
            world.answer(tcp((&backend, 80), client, ACK));
        }
    }
}

#[test]
fn tcp_of_a_backend_that_is_down_is_rehashed_or_drained() {
    for side in SIDES {
        for by_checks in [true, false] {
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let mut world = World::new(&[service(OnBackendDown::Rehash)]);
            let backend = world.open(client, vip);
            take_out(&mut world, place(&side, &backend), by_checks);
            let next = world.forward(tcp(client, vip, ACK), Outcome::ForwardedNew);
            assert_ne!(next, backend);
            assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), next);
            assert_eq!(world.decider.held().0, 1);

            let mut world = World::new(&[service(OnBackendDown::Drain)]);
            let backend = world.open(client, vip);
            take_out(&mut world, place(&side, &backend), by_checks);
            if by_checks {
                for _ in 0..3 {
                    assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
                    world.answer(tcp((&backend, 80), client, ACK));
                }
            } else {
                // Flows of a disabled backend end whatever the policy is.
                assert_eq!(world.send(&mut tcp(client, vip, ACK)), Outcome::AnsweredReset);
                assert_eq!(world.send(&mut tcp((&backend, 80), client, ACK)), Outcome::AnsweredBackend);
            }
            // A SYN on the ports of an open connection is its backend's to answer, unless that has been silent.
            if by_checks {
                world.now += 59;
                assert_eq!(world.forward(tcp(client, vip, SYN), Outcome::Forwarded), backend);
                world.now += 1;
            }
            assert_ne!(world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew), backend);
        }
    }
}

/// Even if its packets come without a pause, so that the flow never expires.
#[test]
fn datagrams_never_stick_to_a_backend_that_is_down() {
    for side in SIDES {
        for policy in POLICIES {
            for by_checks in [true, false] {
                let (client, vip) = ((side.client, 4001), (side.vip, 53));
                let mut world = World::new(&[service(policy)]);
                let backend = world.ask(client, vip);
                take_out(&mut world, place(&side, &backend), by_checks);
                // Its late answers are dropped and do not keep the flow alive.
                world.unchanged(udp((&backend, 53), client), Outcome::DroppedBackendOut);
                if policy == OnBackendDown::Reset {
                    assert_eq!(world.send(&mut udp(client, vip)), Outcome::AnsweredUnreachable);
                    assert_eq!(answer(&world), (side.vip.into(), side.client.into()));
                    assert_eq!(world.decider.held().0, 0);
                    assert_eq!(world.count(BackendCounter::Flows, index_of(0, place(&side, &backend))), 0);
                }
                let next = world.forward(udp(client, vip), Outcome::ForwardedNew);
                assert_ne!(next, backend);
                assert_eq!(world.forward(udp(client, vip), Outcome::Forwarded), next);

                let mut world = World::new(&[service(policy)]);
                let ping = |id| echo(side.client, side.vip, true, id);
                let backend = world.forward(ping(7), Outcome::ForwardedNew);
                take_out(&mut world, place(&side, &backend), by_checks);
                world.unchanged(echo(&backend, side.client, false, 7), Outcome::DroppedBackendOut);
                assert_ne!(world.forward(ping(7), Outcome::ForwardedNew), backend);
            }
        }
    }
}

#[test]
fn a_draining_backend_keeps_its_flows_and_gets_no_new_ones() {
    for side in SIDES {
        let mut world = World::new(&[Service { affinity: Some(AFFINITY), ..service(OnBackendDown::Reset) }]);
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let backend = world.open(client, vip);
        let asked = world.ask((side.client, 4002), (side.vip, 53));
        let half_open = world.forward(tcp((side.client, 4003), vip, SYN), Outcome::ForwardedNew);
        assert_eq!((&asked, &half_open), (&backend, &backend), "affinity");
        world.admin(place(&side, &backend), Admin::Draining);
        for _ in 0..3 {
            assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
            world.answer(tcp((&backend, 80), client, ACK));
            assert_eq!(world.forward(udp((side.client, 4002), (side.vip, 53)), Outcome::Forwarded), backend);
        }
        // A SYN goes elsewhere: a repeated one, and one of a new flow; but not one on ports that are in use, which is no client's.
        let next = world.forward(tcp((side.client, 4003), vip, SYN), Outcome::ForwardedNew);
        assert_ne!(next, backend);
        assert_eq!(world.forward(tcp((side.client, 4004), vip, SYN), Outcome::ForwardedNew), next, "its new backend");
        assert_eq!(world.forward(tcp(client, vip, SYN), Outcome::Forwarded), backend);
        // A flow of the old backend no longer refreshes the client.
        world.forward(udp((side.client, 4002), (side.vip, 53)), Outcome::Forwarded);
        assert_eq!(world.forward(tcp((side.client, 4005), vip, SYN), Outcome::ForwardedNew), next);
    }
}

#[test]
fn a_half_open_flow_does_not_wait_for_a_backend_that_went_down() {
    for side in SIDES {
        for policy in POLICIES {
            let mut world = World::new(&[service(policy)]);
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let backend = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
            world.check(place(&side, &backend), false);
            let next = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
            assert_ne!(next, backend);
            assert_eq!(world.forward(tcp(client, vip, SYN), Outcome::Forwarded), next);
        }
    }
}

/// A client's affinity to a backend that takes no new flows is neither used nor refreshed.
#[test]
fn a_client_gets_another_backend_and_stays_there() {
    for side in SIDES {
        for admin in [None, Some(Admin::Draining), Some(Admin::Disabled)] {
            let mut world = World::new(&[Service { affinity: Some(AFFINITY), ..service(OnBackendDown::Drain) }]);
            let vip = (side.vip, 80);
            let first = world.open((side.client, 1), vip);
            let n = place(&side, &first);
            match admin {
                None => world.check(n, false),
                Some(admin) => world.admin(n, admin),
            }
            let second = world.open((side.client, 2), vip);
            assert_ne!(second, first);
            match admin {
                None => world.check(n, true),
                Some(_) => world.admin(n, Admin::Enabled),
            }
            for port in 3..10 {
                assert_eq!(world.open((side.client, port), vip), second);
            }
            assert_eq!(world.decider.held().1, 1);
        }
    }
}

#[test]
fn without_a_backend_the_policy_decides() {
    for side in SIDES {
        for all_down in [AllDown::Reject, AllDown::Drop, AllDown::Last] {
            let base = service(OnBackendDown::Reset);
            let policy = Policy { all_down, ..base.policy };
            let mut world = World::new(&[Service { policy, ..base }]);
            (0..6).for_each(|n| world.check(n, false));
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let mut packets =
                [tcp(client, vip, SYN), udp(client, vip), echo(side.client, side.vip, true, 5), tcp(client, vip, RST)];
            if all_down == AllDown::Last {
                let last = side.backends[2];
                assert_eq!(world.forward(packets[0].clone(), Outcome::ForwardedNew), last);
                // So its flows are kept.
                world.answer(tcp((last, 80), client, SYN | ACK));
                assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), last);
                continue;
            }
            let outcomes = packets.each_mut().map(|bytes| {
                let outcome = world.send(bytes);
                if matches!(outcome, Outcome::RefusedReset | Outcome::RefusedUnreachable) {
                    assert_eq!(answer(&world), (side.vip.into(), side.client.into()));
                }
                outcome
            });
            use Outcome::{DroppedNoBackend, RefusedReset, RefusedUnreachable};
            match all_down {
                AllDown::Reject => {
                    assert_eq!(outcomes, [RefusedReset, RefusedUnreachable, DroppedNoBackend, DroppedNoBackend]);
                }
                _ => assert_eq!(outcomes, [DroppedNoBackend; 4]),
            }
            assert_eq!(world.decider.held(), (0, 0));
            // Without a restart it goes on.
            world.check(place(&side, side.backends[1]), true);
            assert_eq!(world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew), side.backends[1]);
        }
    }
}

/// While the checks are disbelieved they end no flow either.
#[test]
fn flows_go_on_in_panic() {
    let side = SIDES[0];
    let base = service(OnBackendDown::Reset);
    let mut world = World::new(&[Service { policy: Policy { panic_threshold: 50, ..base.policy }, ..base }]);
    let (client, vip) = ((side.client, 4001), (side.vip, 80));
    let backend = world.open(client, vip);
    (0..3).for_each(|n| world.check(n, false));
    assert!(world.view(0).chosen && !world.view(0).up);
    assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), backend);
    (1..3).for_each(|n| world.check(n, true));
    assert_eq!(world.send(&mut tcp(client, vip, ACK)), Outcome::AnsweredReset, "believed again");
}

#[test]
fn backups_serve_while_no_primary_can() {
    for side in SIDES {
        let mut world = World::new(&[Service { backups: vec![2, 5], ..service(OnBackendDown::Reset) }]);
        let base = place(&side, side.backends[0]);
        let go = |world: &mut World, port| world.open((side.client, port), (side.vip, 80));
        assert!((1..7).all(|port| go(&mut world, port) != side.backends[2]));
        (0..2).for_each(|n| world.check(base + n, false));
        assert!((11..17).all(|port| go(&mut world, port) == side.backends[2]));
        world.check(base, true);
        assert_eq!(go(&mut world, 20), side.backends[0]);
        assert_eq!(
            world.forward(tcp((side.client, 11), (side.vip, 80), ACK), Outcome::Forwarded),
            side.backends[2],
            "what it has goes on"
        );
    }
}

#[test]
fn a_backend_that_came_up_starts_slowly() {
    for strategy in [Strategy::RoundRobin, Strategy::Maglev { seed: 1 }] {
        let side = SIDES[0];
        let base = Service { strategy, ..service(OnBackendDown::Reset) };
        let mut world = World::new(&[Service { policy: Policy { slow_start: 30, ..base.policy }, ..base }]);
        let mut port = 0;
        let mut part = |world: &mut World| {
            let all = (0..3000).filter(|_| {
                port += 1;
                let client = side.client(port);
                world.forward(udp((&client, port), (side.vip, 53)), Outcome::ForwardedNew) == side.backends[0]
            });
            let count = all.count();
            world.now += 31;
            world.millis = world.millis.saturating_sub(31_000);
            world.sweep();
            count
        };
        assert!((900..1100).contains(&part(&mut world)));
        world.check(0, false);
        assert_eq!(part(&mut world), 0);
        // In `part` time passes only for flows.
        world.millis += 100_000;
        world.check(0, true);
        let early = part(&mut world);
        assert!((50..250).contains(&early), "{strategy}: {early}");
        (0..750).for_each(|_| world.wait(20));
        let half = part(&mut world);
        assert!((350..750).contains(&half), "{strategy}: {half}");
        (0..760).for_each(|_| world.wait(20));
        let full = part(&mut world);
        assert!((900..1100).contains(&full), "{strategy}: {full}");
    }
}

/// The supervisor tells a worker that takes over how far a slow start had got.
#[test]
fn a_slow_start_goes_on_in_the_next_worker() {
    let side = SIDES[0];
    let policy = Policy { slow_start: 30, ..POLICY };
    for (age, expected) in [(0, 50..250), (15, 350..750), (30, 900..1100), (u32::MAX, 900..1100)] {
        let mut world = World::sized(&[Service { policy, age, ..service(OnBackendDown::Reset) }], 10_000, 10);
        let count = (0..3000).filter(|n| {
            let syn = udp((&side.client(*n), 1), (side.vip, 53));
            world.forward(syn, Outcome::ForwardedNew) == side.backends[0]
        });
        let count = count.count();
        assert!(expected.contains(&count), "{age}: {count}");
    }
}

#[test]
fn forwarded_packets_are_counted_for_their_backend() {
    for side in SIDES {
        let mut world = World::new(&[service(OnBackendDown::Reset)]);
        let (client, vip) = ((side.client, 4001), (side.vip, 80));
        let backend = world.open(client, vip);
        let index = index_of(0, place(&side, &backend));
        let length = tcp(client, vip, ACK).len() as u64;
        use BackendCounter as C;
        let all = [C::Flows, C::NewFlows, C::PacketsTo, C::BytesTo, C::PacketsFrom, C::BytesFrom];
        assert_eq!(all.map(|c| world.count(c, index)), [1, 1, 2, 2 * length, 1, length]);
        world.now += 8000;
        world.sweep();
        assert_eq!(all.map(|c| world.count(c, index)), [0, 1, 2, 2 * length, 1, length]);
    }
}

/// A node that discovery has found gets no client before a check has passed, whatever panic or `last` say; then it is a
/// backend like any other, in panic too.
#[test]
fn a_found_node_waits_for_its_first_passed_check() {
    for side in SIDES {
        let policy = Policy { panic_threshold: 60, all_down: AllDown::Last, ..POLICY };
        let (down, found) = (vec![0, 1, 2, 3, 4, 5], vec![1, 2, 4, 5]);
        let mut world = World::new(&[Service { policy, down, found, affinity: None, ..Service::default() }]);
        let chosen = |world: &mut World| -> BTreeSet<String> {
            world.now += 60;
            let syns = (0..30).map(|n| tcp((&side.client(n), 4000), (side.vip, 80), SYN));
            syns.map(|syn| world.forward(syn, Outcome::ForwardedNew)).collect()
        };
        let [first, second, _] = side.backends.map(str::to_owned);
        assert_eq!(chosen(&mut world), BTreeSet::from([first.clone()]));
        for up in [true, false] {
            world.check(place(&side, &second), up);
        }
        assert_eq!(chosen(&mut world), BTreeSet::from([first, second]));
    }
}
