//! A client's two flows that differ only in the VIP: they have two backends, and where there is no second one, the client
//! hears so.

use super::packets::{ACK, RST, SYN, ends, ip, sound, tcp, udp};
use super::world::{AFFINITY, SIDES, Service, Side, World};
use loaded_ipc::{AllDown, ChoiceReason, Mode, Outcome, Policy, Pressure, Protocol, Question, Strategy};

const STRATEGIES: [Strategy; 3] = [Strategy::RoundRobin, Strategy::Weighted, Strategy::Maglev { seed: 3 }];

/// Two services, one on the first VIPs, one on the second, with the same backends.
fn two(service: &Service) -> [Service; 2] {
    [vec![0, 1], vec![2, 3]].map(|vips| Service { vips, ..service.clone() })
}

fn avoided(world: &World) -> u64 {
    world.decider.counters().get(Pressure::ClashAvoided.index()).expect("a counter")
}

fn question(side: &Side, port: u16) -> Question {
    let [client, vip] = [side.client, side.second_vip].map(|address| address.parse().expect("address"));
    Question { protocol: 6, client, client_port: port, vip, vip_port: 80 }
}

#[test]
fn flows_that_would_clash_have_two_backends_and_both_work() {
    for side in SIDES {
        for (strategy, affinity) in STRATEGIES.into_iter().flat_map(|s| [(s, None), (s, Some(AFFINITY))]) {
            let mut world = World::new(&two(&Service { strategy, affinity, ..Service::default() }));
            for port in 1000..1200 {
                let client = (side.client, port);
                let one = world.open(client, (side.vip, 80));
                let other = world.open(client, (side.second_vip, 80));
                assert_ne!(one, other, "{strategy}");
                for (backend, vip) in [(&one, side.vip), (&other, side.second_vip)] {
                    assert_eq!(&world.forward(tcp(client, (vip, 80), ACK), Outcome::Forwarded), backend);
                    world.answer(tcp((backend, 80), client, ACK));
                    assert_eq!(ends(&world.sent).0, vip);
                }
            }
        }
    }
}

/// The client keeps the backend it has for all flows that do not clash.
#[test]
fn affinity_bends_for_the_one_flow_and_that_is_counted() {
    for side in SIDES {
        for strategy in STRATEGIES {
            // Both VIPs are of one service, so the client has one backend at both.
            let mut world = World::new(&[Service { strategy, vips: vec![0, 1, 2, 3], ..Service::default() }]);
            let home = world.open((side.client, 1000), (side.vip, 80));
            let said = world.decider.explain(&question(&side, 1000), world.time());
            let bent = world.open((side.client, 1000), (side.second_vip, 80));
            assert_ne!(bent, home);
            assert!(matches!(said.chosen.map(|chosen| chosen.reason), Some(ChoiceReason::Clash { .. })), "{said:?}");
            assert_eq!(avoided(&world), 1);
            for (port, vip) in [(1001, side.vip), (1002, side.second_vip)] {
                assert_eq!(world.open((side.client, port), (vip, 80)), home);
            }
            // What the flow's packets say of the client is not that it has moved.
            world.forward(tcp((side.client, 1000), (side.second_vip, 80), ACK), Outcome::Forwarded);
            assert_eq!(world.open((side.client, 2000), (side.second_vip, 80)), home);
            assert_eq!((avoided(&world), world.decider.held().1), (1, 1));
        }
    }
}

/// One backend is down, one taken.
#[test]
fn the_last_backend_that_is_left_is_found() {
    for side in SIDES {
        for strategy in STRATEGIES {
            let mut world = World::new(&two(&Service { strategy, affinity: None, ..Service::default() }));
            let place = |backend: &str| super::world::BACKENDS.iter().position(|b| *b == backend).expect("a backend");
            for port in 1..100 {
                let one = world.open((side.client, port), (side.vip, 80));
                // Of the first service alone; the second has all three.
                world.check(place(&one), false);
                let other = world.open((side.client, port), (side.second_vip, 80));
                world.check(place(&one), true);
                assert_ne!(one, other, "{strategy}");
            }
        }
    }
}

#[test]
fn where_no_backend_is_left_the_client_is_refused_at_once() {
    for side in SIDES {
        // Whatever clients get when no backend is up: this is something else.
        for all_down in [AllDown::Reject, AllDown::Drop, AllDown::Last] {
            let policy = Policy { all_down, ..super::world::POLICY };
            let one = Service { weights: [1, 0, 0, 1, 0, 0], policy, ..Service::default() };
            let mut world = World::new(&two(&one));
            let client = (side.client, 4001);
            world.open(client, (side.vip, 80));
            let held = world.decider.held();
            let mut syn = tcp(client, (side.second_vip, 80), SYN);
            assert_eq!(world.send(&mut syn), Outcome::RefusedClash);
            assert!(sound(&world.sent));
            assert_eq!(ends(&world.sent), (side.second_vip.to_owned(), side.client.to_owned()));
            // A reset is never answered.
            world.unchanged(tcp(client, (side.second_vip, 80), RST), Outcome::DroppedClash);

            world.ask(client, (side.vip, 53));
            assert_eq!(world.send(&mut udp(client, (side.second_vip, 53))), Outcome::RefusedClash);
            assert!(sound(&world.sent));
            assert_eq!(ends(&world.sent), (side.second_vip.to_owned(), side.client.to_owned()));

            // Nothing answers for a protocol that has no answer.
            world.forward(ip(side.client, side.vip, 47, vec![7; 8]), Outcome::ForwardedNew);
            world.unchanged(ip(side.client, side.second_vip, 47, vec![7; 8]), Outcome::DroppedClash);
            assert_eq!((world.decider.held().0, avoided(&world)), (held.0 + 2, 0));
        }
    }
}

/// Its replies take another way, so they are not mixed up here; the client keeps its backend.
#[test]
fn flows_of_direct_backends_do_not_clash() {
    for side in SIDES {
        let service = Service { mode: Mode::Dsr, weights: [1, 0, 0, 1, 0, 0], ..Service::default() };
        let mut world = World::new(&two(&service));
        for vip in [side.vip, side.second_vip] {
            world.unchanged(tcp((side.client, 4001), (vip, 80), SYN), Outcome::ForwardedNew);
        }
        assert_eq!(avoided(&world), 0);
    }
}

/// Services on ports of their own have nothing to clash about.
#[test]
fn flows_to_different_ports_or_protocols_do_not_clash() {
    for side in SIDES {
        let one = Service { weights: [1, 0, 0, 1, 0, 0], protocol: Protocol::Any, ..Service::default() };
        let mut world = World::new(&two(&one));
        world.open((side.client, 4001), (side.vip, 80));
        world.open((side.client, 4001), (side.second_vip, 81));
        world.open((side.client, 4002), (side.second_vip, 80));
        world.ask((side.client, 4001), (side.second_vip, 80));
        assert_eq!(avoided(&world), 0);
    }
}
