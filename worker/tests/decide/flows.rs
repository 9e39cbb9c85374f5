//! Flows of all kinds, from their first packet to their last.

use super::packets::{ACK, End, FIN, RST, SYN, echo, ends, sound, tcp, tcp_after_fin, udp};
use super::world::{BARE, SIDES, Service, World};
use loaded_ipc::Outcome;

fn spread() -> Service {
    Service { vips: vec![0, 1], ..BARE }
}

/// First packet, second packet and reply of each kind of flow: client's end, service's end.
type Exchange = fn(End<'_>, End<'_>) -> [Vec<u8>; 2];
const KINDS: [(&str, Exchange); 3] = [
    ("tcp", |client, service| [tcp(client, service, SYN), tcp(service, client, SYN | ACK)]),
    ("udp", |client, service| [udp(client, service), udp(service, client)]),
    ("echo", |client, service| [echo(client.0, service.0, true, client.1), echo(service.0, client.0, false, client.1)]),
];

#[test]
fn a_flow_goes_to_one_backend_and_comes_back_as_the_vips() {
    for side in SIDES {
        for (kind, exchange) in KINDS {
            for service in [Service::default(), spread()] {
                let mut world = World::new(&[service]);
                let client = (side.client, 4001);
                let [request, reply_of_vip] = exchange(client, (side.vip, 80));
                let backend = world.forward(request.clone(), Outcome::ForwardedNew);
                // The backend gets what the client would have sent it.
                let mut forwarded = request.clone();
                assert_eq!(world.send(&mut forwarded), Outcome::Forwarded, "{kind}");
                assert_eq!(forwarded, exchange(client, (&backend, 80))[0], "{kind}");
                // And the client gets, byte for byte, what the VIP would have sent.
                let mut reply = exchange(client, (&backend, 80))[1].clone();
                assert_eq!(world.send(&mut reply), Outcome::Returned, "{kind}");
                assert_eq!(reply, reply_of_vip, "{kind}");
                assert!(sound(&reply));
                assert_eq!(world.decider.held().0, 1);
            }
        }
    }
}

/// Defect 8 of the original: a backend's own connections were forwarded as the VIP's.
#[test]
fn a_backends_own_traffic_is_not_touched() {
    for side in SIDES {
        let mut world = World::new(&[Service::default()]);
        let [ours, other, _] = side.backends;
        world.unchanged(tcp((ours, 40_000), (side.client, 443), SYN), Outcome::PassedOwn);
        world.unchanged(udp((ours, 40_000), (side.client, 53)), Outcome::PassedOwn);
        world.unchanged(echo(ours, side.client, true, 9), Outcome::PassedOwn);
        let backend = world.forward(tcp((side.client, 4001), (side.vip, 80), SYN), Outcome::ForwardedNew);
        let stranger = if backend == ours { other } else { ours };
        // Looks like the reply, but comes from another backend, or has another port, or is of another kind.
        world.unchanged(tcp((stranger, 80), (side.client, 4001), ACK), Outcome::PassedOwn);
        world.unchanged(tcp((&backend, 81), (side.client, 4001), ACK), Outcome::PassedOwn);
        world.unchanged(tcp((&backend, 80), (side.client, 4002), ACK), Outcome::PassedOwn);
        world.unchanged(udp((&backend, 80), (side.client, 4001)), Outcome::PassedOwn);
        world.unchanged(tcp((&backend, 80), (side.router, 4001), ACK), Outcome::PassedOwn);
    }
}

#[test]
fn a_syn_on_a_closing_flow_begins_a_new_one() {
    for side in SIDES {
        for last in [FIN | ACK, RST] {
            let (client, vip) = ((side.client, 4001), (side.vip, 80));
            let mut world = World::new(&[spread()]);
            let first = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
            assert_eq!(world.forward(tcp(client, vip, SYN), Outcome::Forwarded), first, "a repeated SYN");
            world.answer(tcp((&first, 80), client, SYN | ACK));
            assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), first);
            assert_eq!(world.forward(tcp(client, vip, SYN), Outcome::Forwarded), first, "an open one is not over");
            assert_eq!(world.forward(tcp(client, vip, last), Outcome::Forwarded), first);
            if last & RST == 0 {
                assert_eq!(
                    world.forward(tcp(client, vip, SYN), Outcome::Forwarded),
                    first,
                    "half closed is not closed"
                );
                world.answer(tcp((&first, 80), client, FIN | ACK));
                assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), first, "the last ACK");
            }
            let second = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
            assert_ne!(second, first, "round robin moves on");
            assert_eq!(world.forward(tcp(client, vip, ACK), Outcome::Forwarded), second);
            assert_eq!(world.decider.held().0, 1);
        }
    }
}

/// One side may have finished and wait for the other for as long as for any answer. If the flow were forgotten, the backend's
/// answer would reach the client with the backend's address.
#[test]
fn a_half_closed_connection_lives_as_long_as_an_open_one() {
    let side = SIDES[0];
    let (client, vip) = ((side.client, 4001), (side.vip, 80));
    for by_client in [true, false] {
        let mut world = World::new(&[Service::default()]);
        let backend = world.open(client, vip);
        let reply = |world: &mut World, flags| {
            assert_eq!(world.send(&mut tcp((&backend, 80), client, flags)), Outcome::Returned);
        };
        if by_client {
            world.forward(tcp(client, vip, FIN | ACK), Outcome::Forwarded);
        } else {
            reply(&mut world, FIN | ACK);
        }
        world.now += 7440;
        reply(&mut world, ACK);
        world.forward(tcp(client, vip, ACK), Outcome::Forwarded);
        // The other side's FIN ends it.
        if by_client {
            reply(&mut world, FIN | ACK);
        } else {
            world.forward(tcp(client, vip, FIN | ACK), Outcome::Forwarded);
            assert_eq!(world.send(&mut tcp_after_fin((&backend, 80), client, ACK)), Outcome::Returned);
        }
        world.now += 31;
        world.unchanged(tcp((&backend, 80), client, ACK), Outcome::PassedOwn);
    }
}

/// A connection that the backend resets is over, too.
#[test]
fn a_backends_reset_closes_the_flow() {
    let side = SIDES[0];
    let (client, vip) = ((side.client, 4001), (side.vip, 80));
    let mut world = World::new(&[Service::default()]);
    let backend = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
    let mut reply = tcp((&backend, 80), client, RST | ACK);
    assert_eq!(world.send(&mut reply), Outcome::Returned);
    assert_eq!(world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew), backend, "affinity");
}

#[test]
fn a_half_open_flow_is_established_by_the_clients_ack() {
    let side = SIDES[1];
    let (client, vip) = ((side.client, 4001), (side.vip, 80));
    let reply = |backend: &str| tcp((backend, 80), client, SYN | ACK);
    let mut world = World::new(&[Service::default()]);
    let backend = world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
    // The backend's answer alone does not establish it: 31 s later it is gone.
    assert_eq!(world.send(&mut reply(&backend)), Outcome::Returned);
    world.now += 31;
    world.unchanged(reply(&backend), Outcome::PassedOwn);
    // Nor does the client's ACK alone.
    world.forward(tcp(client, vip, SYN), Outcome::ForwardedNew);
    world.forward(tcp(client, vip, ACK), Outcome::Forwarded);
    world.now += 31;
    world.unchanged(reply(&backend), Outcome::PassedOwn);
    assert_eq!(world.open(client, vip), backend);
    world.now += 7440;
    assert_eq!(world.send(&mut reply(&backend)), Outcome::Returned);
    world.now += 7441;
    world.unchanged(reply(&backend), Outcome::PassedOwn);
}

#[test]
fn a_full_table_evicts_no_open_connection() {
    let side = SIDES[0];
    // Two buckets of eight ways.
    let mut world = World::sized(&[Service::default()], 8, 64);
    let open = |world: &mut World, n: u16, outcome| {
        let mut syn = tcp((side.client, n), (side.vip, 80), SYN);
        assert_eq!(world.send(&mut syn), outcome, "{n}");
        outcome == Outcome::ForwardedNew
    };
    for n in 1..=16 {
        world.open((side.client, n), (side.vip, 80));
    }
    assert_eq!(world.decider.held().0, 16);
    let mut bytes = tcp((side.client, 99), (side.vip, 80), SYN);
    let before = bytes.clone();
    assert_eq!(world.send(&mut bytes), Outcome::DroppedTableFull);
    assert_eq!(bytes, before);
    for n in 1..=16 {
        world.forward(tcp((side.client, n), (side.vip, 80), ACK), Outcome::Forwarded);
    }
    // A half-open or closing one makes room.
    world.forward(tcp((side.client, 5), (side.vip, 80), RST), Outcome::Forwarded);
    open(&mut world, 99, Outcome::ForwardedNew);
    open(&mut world, 100, Outcome::ForwardedNew);
    assert_eq!(world.decider.held().0, 16);
    for n in (1..=16).filter(|n| *n != 5) {
        world.forward(tcp((side.client, n), (side.vip, 80), ACK), Outcome::Forwarded);
    }
}

/// The backend could not tell the two flows apart, and neither could we tell their replies.
#[test]
fn flows_that_differ_only_in_the_vip_do_not_share_a_backend() {
    for side in SIDES {
        let services = [Service { vips: vec![0, 1, 2, 3], weights: [1, 0, 0, 1, 0, 0], ..Service::default() }];
        let mut world = World::new(&services);
        let client = (side.client, 4001);
        let backend = world.forward(udp(client, (side.vip, 53)), Outcome::ForwardedNew);
        assert_eq!(world.send(&mut udp(client, (side.second_vip, 53))), Outcome::RefusedClash);
        world.forward(udp((side.client, 4002), (side.second_vip, 53)), Outcome::ForwardedNew);
        let mut replies = [udp((&backend, 53), client), udp((&backend, 53), (side.client, 4002))];
        for (reply, vip) in replies.iter_mut().zip([side.vip, side.second_vip]) {
            assert_eq!(world.send(reply), Outcome::Returned);
            assert_eq!(ends(reply).0, vip);
        }
        // Once the first flow is gone there is no clash.
        world.now += 181;
        world.forward(udp(client, (side.second_vip, 53)), Outcome::ForwardedNew);
    }
}

#[test]
fn a_new_worker_finds_the_flows_of_the_old_one() {
    for side in SIDES {
        let mut world = World::new(&[spread()]);
        let mut backends = Vec::new();
        for n in 1..50 {
            backends.push(world.open((side.client, n), (side.vip, 80)));
        }
        world.respawn();
        world.now += 7440;
        assert_eq!(world.decider.held(), (49, 0));
        for (n, backend) in (1..50).zip(&backends) {
            assert_eq!(&world.forward(tcp((side.client, n), (side.vip, 80), ACK), Outcome::Forwarded), backend);
            let mut reply = tcp((backend, 80), (side.client, n), ACK);
            assert_eq!(world.send(&mut reply), Outcome::Returned);
            assert_eq!(ends(&reply).0, side.vip);
        }
    }
}
