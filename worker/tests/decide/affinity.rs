//! Clients that stay with their backends, for as long as they should.

use super::packets::{ACK, SYN, echo, tcp, udp};
use super::world::{AFFINITY, SIDES, Service, World};
use loaded_ipc::{Affinity, Outcome};
use std::collections::BTreeSet;

fn with(affinity: Affinity) -> [Service; 1] {
    [Service { affinity: Some(affinity), ..Service::default() }]
}

#[test]
fn a_client_stays_with_one_backend() {
    for side in SIDES {
        let mut world = World::new(&with(AFFINITY));
        let mut all = BTreeSet::new();
        for n in 0..20 {
            let client = side.client(n);
            let backend = world.forward(echo(&client, side.vip, true, 77), Outcome::ForwardedNew);
            for port in 1..20 {
                let flow = ((&*client, port), (side.vip, port + 100));
                assert_eq!(world.forward(tcp(flow.0, flow.1, SYN), Outcome::ForwardedNew), backend);
                assert_eq!(world.forward(udp(flow.0, flow.1), Outcome::ForwardedNew), backend);
            }
            all.insert(backend);
        }
        assert_eq!(all.len(), 3, "and different clients with different ones");
        assert_eq!(world.decider.held(), (20 * 39, 20));
    }
}

#[test]
fn without_affinity_a_clients_flows_are_spread() {
    for side in SIDES {
        let mut world = World::new(&[Service { affinity: None, ..Service::default() }]);
        let flows = (1..=9).map(|port| tcp((side.client, port), (side.vip, 80), SYN));
        let backends: Vec<_> = flows.map(|syn| world.forward(syn, Outcome::ForwardedNew)).collect();
        for backend in side.backends {
            assert_eq!(backends.iter().filter(|b| *b == backend).count(), 3);
        }
        assert_eq!(world.decider.held(), (9, 0));
    }
}

#[test]
fn clients_of_one_prefix_count_as_one() {
    let affinity = Affinity { prefix4: 24, prefix6: 64, timeout: 60 };
    let [v4, v6] = SIDES;
    for (side, same, other) in [
        (v4, ["203.0.113.1", "203.0.113.255"], "203.0.112.1"),
        (v6, ["2001:db8:7:7::1", "2001:db8:7:7:ffff::9"], "2001:db8:7:6::1"),
    ] {
        let mut world = World::new(&with(affinity));
        let mut go = |client: &str| world.forward(udp((client, 5), (side.vip, 53)), Outcome::ForwardedNew);
        let backend = go(same[0]);
        assert_ne!(go(other), backend, "round robin gives the next client the next");
        assert_eq!(go(same[1]), backend);
        assert_eq!(world.decider.held(), (3, 2));
    }
}

/// The widest and the narrowest prefixes that a configuration may have.
#[test]
fn the_widest_and_narrowest_prefixes_work() {
    for (prefix4, prefix6, clients) in [(1, 1, 1), (32, 128, 2)] {
        for side in SIDES {
            let mut world = World::new(&with(Affinity { prefix4, prefix6, timeout: 60 }));
            for n in [4, 5] {
                world.forward(udp((&side.client(n), 5), (side.vip, 53)), Outcome::ForwardedNew);
            }
            assert_eq!(world.decider.held().1, clients);
        }
    }
}

#[test]
fn a_client_is_forgotten_after_its_timeout_but_never_before() {
    let side = SIDES[0];
    for timeout in [1, 2, 16, 100, 3600] {
        let mut world = World::new(&with(Affinity { timeout, ..AFFINITY }));
        let mut port = 0;
        let mut go = |world: &mut World, later: u32| {
            world.now += later;
            port += 1;
            world.forward(tcp((side.client, port), (side.vip, 80), SYN), Outcome::ForwardedNew)
        };
        let first = go(&mut world, 0);
        assert_eq!(go(&mut world, timeout), first, "{timeout}");
        assert_eq!(go(&mut world, timeout), first, "{timeout}");
        assert_ne!(go(&mut world, timeout + timeout / 16 + 1), first, "{timeout}");
        let held = world.decider.held().1;
        world.sweep();
        assert_eq!((held, world.decider.held().1), (1, 1));
        world.now += timeout + timeout / 16 + 1;
        world.sweep();
        assert_eq!(world.decider.held().1, 0, "{timeout}");
    }
}

/// Whatever the timeout, and however often packets of the flow come within it.
#[test]
fn a_long_flow_keeps_its_client() {
    for side in SIDES {
        for (timeout, pause) in
            [(1, 1), (2, 1), (3, 2), (7, 3), (9, 9), (20, 1), (100, 7), (100, 99), (3600, 10), (3600, 1000)]
        {
            let mut world = World::new(&with(Affinity { timeout, ..AFFINITY }));
            let client = (side.client, 4001);
            let backend = world.open(client, (side.vip, 80));
            for _ in 0..(5 * timeout / pause).max(40) {
                world.now += pause;
                world.forward(tcp(client, (side.vip, 80), ACK), Outcome::Forwarded);
                world.answer(tcp((&backend, 80), client, ACK));
                world.sweep();
                assert_eq!(world.decider.held(), (1, 1), "timeout {timeout}, pause {pause}");
            }
            // Idle from now on, but for less time than the client is remembered.
            world.now += timeout;
            let next = world.forward(tcp((side.client, 4002), (side.vip, 80), SYN), Outcome::ForwardedNew);
            assert_eq!(next, backend, "timeout {timeout}, pause {pause}");
        }
    }
}

/// Packets of the backend alone do not keep a client: it may be gone, and the backend still sending.
#[test]
fn replies_do_not_keep_a_client() {
    let side = SIDES[0];
    let mut world = World::new(&with(Affinity { timeout: 10, ..AFFINITY }));
    let client = (side.client, 4001);
    let backend = world.forward(udp(client, (side.vip, 53)), Outcome::ForwardedNew);
    for _ in 0..20 {
        world.now += 1;
        let mut reply = udp((&backend, 53), client);
        assert_eq!(world.send(&mut reply), Outcome::Returned);
    }
    world.sweep();
    assert_eq!(world.decider.held(), (1, 0));
}

#[test]
fn a_new_worker_finds_the_clients_of_the_old_one() {
    for side in SIDES {
        let mut world = World::new(&with(AFFINITY));
        let go = |world: &mut World, n, port| {
            world.forward(tcp((&side.client(n), port), (side.vip, 80), SYN), Outcome::ForwardedNew)
        };
        let before: Vec<_> = (0..30).map(|n| go(&mut world, n, 1)).collect();
        world.respawn();
        let after: Vec<_> = (0..30).map(|n| go(&mut world, n, 2)).collect();
        assert_eq!(before, after);
        assert_eq!(world.decider.held(), (60, 30));
    }
}
