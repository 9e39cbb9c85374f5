//! The strategies as the decision uses them: what counts as a client, and when it no longer does.

use super::packets::{ACK, RST, SYN, tcp, udp};
use super::world::{AFFINITY, SIDES, Service, Side, World};
use loaded_ipc::{Affinity, Outcome, Protocol, Strategy};
use loaded_table::{AffinityTable, FlowTable};

const SHORT: Affinity = Affinity { timeout: 10, ..AFFINITY };

fn service(strategy: Strategy, affinity: Option<Affinity>) -> Service {
    Service { strategy, affinity, ..Service::default() }
}

/// New UDP flows of the clients with these numbers; how many went to each backend.
fn spread(world: &mut World, side: &Side, clients: std::ops::Range<u16>) -> [usize; 3] {
    let mut counts = [0; 3];
    for n in clients {
        let backend = world.forward(udp((&side.client(n), n + 1), (side.vip, 53)), Outcome::ForwardedNew);
        counts[side.backends.iter().position(|b| *b == backend).expect("of this family")] += 1;
    }
    counts
}

#[test]
fn round_robin_and_weighted_follow_the_weights() {
    for side in SIDES {
        for strategy in [Strategy::RoundRobin, Strategy::Weighted] {
            for affinity in [Some(AFFINITY), None] {
                let weights = [1, 2, 3, 3, 2, 1];
                let mut world = World::new(&[Service { weights, ..service(strategy, affinity) }]);
                let expected = if side.vip.contains(':') { [300, 200, 100] } else { [100, 200, 300] };
                assert_eq!(spread(&mut world, &side, 0..600), expected, "{strategy}");
            }
        }
    }
}

#[test]
fn maglev_chooses_by_the_client_and_the_same_everywhere() {
    for side in SIDES {
        for affinity in [Some(AFFINITY), None] {
            let services = [service(Strategy::Maglev { seed: 5 }, affinity)];
            let mut worlds = [World::new(&services), World::new(&services)];
            // Another history must not matter.
            spread(&mut worlds[1], &side, 1000..1100);
            for n in 0..300 {
                let syn = tcp((&side.client(n), 4000 + n), (side.vip, 80), SYN);
                let [a, b] = worlds.each_mut().map(|world| world.forward(syn.clone(), Outcome::ForwardedNew));
                assert_eq!(a, b);
            }
            let counts = spread(&mut worlds[0], &side, 2000..2300);
            assert!(counts.iter().all(|count| *count > 60), "{counts:?}");
        }
    }
}

/// Defect 3: a backend that had no clients could never get one.
#[test]
fn a_backend_without_clients_gets_the_next() {
    for side in SIDES {
        let mut world = World::new(&[service(Strategy::Weighted, Some(AFFINITY))]);
        assert_eq!(spread(&mut world, &side, 0..1).iter().sum::<usize>(), 1);
        assert!(spread(&mut world, &side, 1..3).iter().sum::<usize>() == 2);
        assert_eq!(spread(&mut world, &side, 3..33), [10; 3]);
    }
}

/// Gives one backend more clients than the others, then lets all of them expire but those of `keep`.
#[test]
fn counts_go_down_when_clients_and_flows_expire() {
    for side in SIDES {
        // With affinity clients count, and expire after 10 s; without it flows do, after 180, or 30 if unanswered.
        for (affinity, answered, expiry) in [(Some(SHORT), true, 11), (None, true, 181), (None, false, 31)] {
            let mut world = World::new(&[service(Strategy::Weighted, affinity)]);
            assert_eq!(spread(&mut world, &side, 0..30), [10; 3]);
            // Those at the first backend live on; the others go.
            let mut kept = Vec::new();
            for n in 0..30 {
                let client = side.client(n);
                let again = udp((&client, n + 1), (side.vip, 53));
                let backend = world.forward(again.clone(), Outcome::Forwarded);
                if answered {
                    world.answer(udp((&backend, 53), (&client, n + 1)));
                }
                if backend == side.backends[0] {
                    kept.push(again);
                }
            }
            world.now += expiry - 2;
            kept.iter().for_each(|again| assert_eq!(world.send(&mut again.clone()), Outcome::Forwarded));
            world.now += 2;
            world.sweep();
            // Ten at the first, none elsewhere: the next twenty go to the other two.
            assert_eq!(spread(&mut world, &side, 100..120), [0, 10, 10]);
            assert_eq!(spread(&mut world, &side, 200..203), [1; 3]);
        }
    }
}

/// No flow is counted twice and none for ever: a flow that takes an old one's place takes its count, too.
#[test]
fn a_flow_that_begins_again_counts_once() {
    let side = SIDES[0];
    let mut world = World::new(&[service(Strategy::Weighted, None)]);
    let (client, vip) = ((side.client, 4001), (side.vip, 80));
    for _ in 0..50 {
        let backend = world.open(client, vip);
        world.answer(tcp((&backend, 80), client, RST));
        let backend = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
        world.answer(tcp((&backend, 80), client, RST | ACK));
    }
    assert_eq!(world.decider.held().0, 1);
    let after: usize = spread(&mut world, &side, 0..29).iter().max().copied().expect("three");
    assert_eq!(after, 10, "29 more and one that is there: ten each");
}

/// Sixteen places; the flows or clients of another service push out four of six.
#[test]
fn displaced_entries_no_longer_count() {
    for side in SIDES {
        for (affinity, room) in [(Some(AFFINITY), 4096), (None, 8)] {
            let web =
                |port, strategy| Service { protocol: Protocol::Tcp, ports: vec![port], ..service(strategy, affinity) };
            let mut world = World::sized(&[web(80, Strategy::Weighted), web(81, Strategy::RoundRobin)], room, 8);
            let go = |world: &mut World, n: u16, port, flags, outcome| {
                world.forward(tcp((&side.client(n), n + 1), (side.vip, port), flags), outcome)
            };
            let first = |backend: &String| backend == side.backends[0];
            let begun = (0..6).map(|n| (n, go(&mut world, n, 80, SYN, Outcome::ForwardedNew)));
            let kept: Vec<u16> = begun.filter(|(_, backend)| first(backend)).map(|(n, _)| n).collect();
            assert_eq!(kept.len(), 2);
            for n in &kept {
                world.answer(tcp((side.backends[0], 80), (&side.client(*n), n + 1), SYN | ACK));
            }
            for later in [0, 300] {
                world.now += later;
                kept.iter().for_each(|n| _ = go(&mut world, *n, 80, ACK, Outcome::Forwarded));
            }
            (100..114).for_each(|n| _ = go(&mut world, n, 81, SYN, Outcome::ForwardedNew));
            world.now += 1;
            if affinity.is_some() {
                assert_eq!(world.decider.held().1, 16);
                for n in kept {
                    world.forward(tcp((&side.client(n), 999), (side.vip, 80), SYN), Outcome::ForwardedNew);
                }
            }
            // Two are left at the first backend, none elsewhere.
            let next: Vec<_> = (200..204).map(|n| go(&mut world, n, 80, SYN, Outcome::ForwardedNew)).collect();
            assert!(!next.iter().any(first), "{next:?}");
        }
    }
}

/// Where clients count, their flows do not.
#[test]
fn a_client_counts_without_flows() {
    let side = SIDES[0];
    let mut world = World::new(&[service(Strategy::Weighted, Some(AFFINITY))]);
    world.services[0].weights = [1, 0, 0, 0, 0, 0];
    world.respawn();
    assert_eq!(spread(&mut world, &side, 0..10), [10, 0, 0]);
    world.services[0].weights = [1; 6];
    world.respawn();
    world.now += 181;
    world.sweep();
    assert_eq!(world.decider.held(), (0, 10));
    assert_eq!(spread(&mut world, &side, 100..120), [0, 10, 10]);
}

#[test]
fn a_new_worker_counts_what_it_finds() {
    for side in SIDES {
        for affinity in [Some(SHORT), None] {
            let mut world = World::new(&[service(Strategy::Weighted, affinity)]);
            // Only the first backend is there at first.
            world.services[0].weights = [1, 0, 0, 1, 0, 0];
            world.respawn();
            assert_eq!(spread(&mut world, &side, 0..10), [10, 0, 0]);
            world.services[0].weights = [1; 6];
            world.respawn();
            assert_eq!(spread(&mut world, &side, 100..120), [0, 10, 10]);
            assert_eq!(spread(&mut world, &side, 200..230), [10, 10, 10]);
        }
    }
}

#[test]
fn without_a_backend_of_the_family_nothing_is_forwarded() {
    let [v4, v6] = SIDES;
    for strategy in [Strategy::RoundRobin, Strategy::Weighted, Strategy::Maglev { seed: 1 }] {
        let weights = [1, 1, 1, 0, 0, 0];
        let mut world = World::new(&[Service { weights, ..service(strategy, Some(AFFINITY)) }]);
        world.forward(udp((v4.client, 1), (v4.vip, 53)), Outcome::ForwardedNew);
        world.unchanged(udp((v6.client, 1), (v6.vip, 53)), Outcome::DroppedNoBackend);
        assert_eq!(world.decider.held(), (1, 1));
    }
}

/// What the issue promises: at most 128 bytes a flow, and as much again for a client.
#[test]
fn memory_at_a_million_is_bounded() {
    const MILLION: usize = 1_000_000;
    assert!(FlowTable::bytes_for(MILLION) <= 128 * MILLION);
    assert!(AffinityTable::bytes_for(MILLION) <= 128 * MILLION);
}
