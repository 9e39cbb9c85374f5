//! Flows that the operator ends: the named ones end for both sides, the others live on.

use super::packets::{ACK, FIN, RST, SYN, tcp, udp};
use super::world::{AFFINITY, BARE, POLICY, SIDES, Service, World, index_of};
use loaded_ipc::{BackendCounter, FlowsMeant, OnBackendDown, Outcome, Policy, Question, ServiceIndex};
use loaded_table::FlowState;

const NOTHING: FlowsMeant = FlowsMeant { client: None, backend: None, port: None, service: None, state: None };

fn service(on_backend_down: OnBackendDown) -> Service {
    Service { vips: vec![0, 1], policy: Policy { on_backend_down, ..POLICY }, ..BARE }
}

/// Ends flows, in pieces of some buckets; how many.
fn end(world: &mut World, meant: FlowsMeant) -> u32 {
    let now = world.time();
    world.decider.begin_to_end(5, meant);
    loop {
        assert!(world.decider.is_ending());
        if let Some((id, ended)) = world.decider.end_some(7, now) {
            world.decider.end_is_said();
            assert!(id == 5 && !world.decider.is_ending());
            return ended;
        }
    }
}

#[test]
fn a_named_connection_is_reset_on_both_sides_and_others_live_on() {
    for side in SIDES {
        for policy in [OnBackendDown::Reset, OnBackendDown::Rehash, OnBackendDown::Drain] {
            let mut world = World::new(&[service(policy)]);
            let (client, other, vip) = ((side.client, 4001), side.client(9), (side.vip, 80));
            let (backend, kept) = (world.open(client, vip), world.open((&other, 4001), vip));
            let length = if side.client.contains(':') { 128 } else { 32 };
            let meant = FlowsMeant { client: Some((side.client.parse().expect("address"), length)), ..NOTHING };
            assert_eq!(end(&mut world, meant), 1);
            assert_eq!(end(&mut world, meant), 0, "it is ended already");
            assert_eq!(world.forward(tcp((&other, 4001), vip, ACK), Outcome::Forwarded), kept);
            for _ in 0..2 {
                assert_eq!(world.send(&mut tcp((&backend, 80), client, ACK)), Outcome::AnsweredBackend);
                for flags in [ACK, FIN | ACK] {
                    assert_eq!(world.send(&mut tcp(client, vip, flags)), Outcome::AnsweredReset);
                }
                // A silent client must not find that it goes on, whatever worker comes after.
                world.now += 7000;
                world.sweep();
                world.respawn();
            }
            // A reset is never answered.
            assert_eq!(world.send(&mut tcp(client, vip, RST)), Outcome::Forwarded);
            assert_eq!(world.send(&mut tcp((&backend, 80), client, RST | ACK)), Outcome::Returned);
            assert_eq!(world.send(&mut tcp(client, vip, ACK)), Outcome::AnsweredReset);
            world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
        }
    }
}

#[test]
fn datagrams_end_as_the_policy_says() {
    for side in SIDES {
        for (policy, next) in [
            (OnBackendDown::Reset, Outcome::AnsweredUnreachable),
            (OnBackendDown::Rehash, Outcome::ForwardedNew),
            (OnBackendDown::Drain, Outcome::ForwardedNew),
        ] {
            let policy = Policy { on_backend_down: policy, adopt: true, ..POLICY };
            let protocol = loaded_ipc::Protocol::Udp;
            let served = Service { protocol, ports: vec![53], affinity: Some(AFFINITY), policy, ..BARE };
            let mut world = World::new(&[Service { vips: vec![0, 1], ..served }]);
            let (client, vip) = ((side.client, 4001), (side.vip, 53));
            let backend = world.talk(client, vip);
            let meant = FlowsMeant { backend: backend.parse().ok(), ..NOTHING };
            assert_eq!(end(&mut world, meant), 1);
            assert_eq!(world.send(&mut udp((&backend, 53), client)), Outcome::DroppedBackendOut);
            assert_eq!(world.send(&mut udp(client, vip)), next);
            // The next datagram of a client that was told begins another flow, and none of the backend's does before.
            if next == Outcome::AnsweredUnreachable {
                world.respawn();
                assert_eq!(world.send(&mut udp((&backend, 53), client)), Outcome::DroppedBackendOut);
            }
            let after = if next == Outcome::ForwardedNew { Outcome::Forwarded } else { Outcome::ForwardedNew };
            assert_eq!(world.send(&mut udp(client, vip)), after);
            assert_eq!(world.decider.held().0, 1);
        }
    }
}

#[test]
fn a_backends_own_connections_are_not_ended() {
    for side in SIDES {
        let policy = Policy { adopt: true, ..POLICY };
        let served =
            Service { ports: vec![80], protocol: loaded_ipc::Protocol::Tcp, policy, ..service(OnBackendDown::Reset) };
        let mut world = World::new(&[served]);
        let (here, there) = ((side.backends[0], 80), (side.client, 4001));
        for (opener, other) in [(here, there), (there, here)] {
            let mut pass = |from, to, flags| world.unchanged(tcp(from, to, flags), Outcome::PassedOwn);
            pass(opener, other, SYN);
            pass(other, opener, SYN | ACK);
            pass(opener, other, ACK);
            assert_eq!(end(&mut world, FlowsMeant { backend: side.backends[0].parse().ok(), ..NOTHING }), 0);
            // Still the same connection, for another one begins only once it is over.
            for (from, to) in [(opener, other), (other, opener)] {
                world.unchanged(tcp(from, to, FIN | ACK), Outcome::PassedOwn);
            }
        }
    }
}

#[test]
fn each_filter_names_its_flows() {
    let side = SIDES[0];
    let services = [
        Service { ports: vec![80], protocol: loaded_ipc::Protocol::Tcp, ..service(OnBackendDown::Reset) },
        Service { ports: vec![81], protocol: loaded_ipc::Protocol::Tcp, ..service(OnBackendDown::Reset) },
    ];
    let fresh = || {
        let mut world = World::new(&services);
        for n in 0..30 {
            world.open((&side.client(n), 4001), (side.vip, 80 + n % 2));
        }
        // Half open.
        world.forward(tcp((side.client, 1), (side.vip, 80), SYN), Outcome::ForwardedNew);
        world
    };
    let count = |meant: FlowsMeant| end(&mut fresh(), meant);
    assert_eq!(count(FlowsMeant { service: Some(ServiceIndex(1)), ..NOTHING }), 15);
    assert_eq!(count(FlowsMeant { state: Some(FlowState::HalfOpen as u8), ..NOTHING }), 1);
    let network = Some(("10.50.0.0".parse().expect("address"), 16));
    assert_eq!(count(FlowsMeant { client: network, ..NOTHING }), 30);
    let both = FlowsMeant { client: network, service: Some(ServiceIndex(0)), ..NOTHING };
    assert_eq!(count(both), 15);
    assert_eq!(count(FlowsMeant { port: Some(8080), ..NOTHING }), 0);
    let mut world = fresh();
    let had = world.count(BackendCounter::Flows, index_of(0, 1));
    let backend = FlowsMeant { backend: side.backends[1].parse().ok(), service: Some(ServiceIndex(0)), ..NOTHING };
    assert_eq!(u64::from(end(&mut world, backend)), had);
    let question = Question {
        protocol: 6,
        client: side.client(0).parse().expect("address"),
        client_port: 4001,
        vip: side.vip.parse().expect("address"),
        vip_port: 80,
    };
    assert!(end(&mut world, FlowsMeant { service: Some(ServiceIndex(0)), ..NOTHING }) > 0);
    let said = world.decider.explain(&question, world.time());
    assert_eq!((said.outcome, said.flow.map(|flow| flow.state)), (Outcome::ForwardedNew, Some(FlowState::Ended as u8)));
}
