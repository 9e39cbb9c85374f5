//! How long flows may be idle, by service.

use super::packets::{ACK, End, FIN, RST, SYN, echo, tcp, udp};
use super::world::{BARE, POLICY, SIDES, Service, World};
use loaded_ipc::{Idle, Outcome, Policy};

const SHORT: Idle = Idle { tcp: 50, half_open: 4, closing: 7, udp: 20, echo: 9 };

/// One service has its own timeouts, the other the documented defaults.
fn services() -> [Service; 2] {
    let policy = Policy { idle: SHORT, ..POLICY };
    [Service { vips: vec![0, 1], policy, ..BARE }, Service { vips: vec![2, 3], ..BARE }]
}

type Make = fn(End<'_>, End<'_>) -> Vec<u8>;
/// A packet of the client, or of the backend.
type Step = (bool, Make);

const OPEN: [Step; 2] = [(true, |from, to| tcp(from, to, SYN)), (false, |from, to| tcp(from, to, SYN | ACK))];
const HELLO: Step = (true, |from, to| tcp(from, to, ACK));
const BYE: [Step; 2] = [(true, |from, to| tcp(from, to, FIN | ACK)), (false, |from, to| tcp(from, to, FIN | ACK))];
const RESET: Step = (true, |from, to| tcp(from, to, RST));
const DATAGRAM: [Step; 2] = [(true, udp), (false, udp)];
const PING: Step = (true, |from, to| echo(from.0, to.0, true, from.1));

/// The packets of a flow, the seconds it lives after them, with the short timeouts and with the defaults, and the packet of the
/// backend that shows it.
fn lives() -> Vec<(Vec<Step>, u32, u32, Make)> {
    let open = [OPEN[0], OPEN[1], HELLO];
    let data: Make = |from, to| tcp(from, to, ACK);
    let pong: Make = |from, to| echo(from.0, to.0, false, to.1);
    vec![
        (vec![OPEN[0]], 4, 30, data),
        (OPEN.to_vec(), 4, 30, data),
        (open.to_vec(), 50, 7440, data),
        ([&open[..], &BYE[..1]].concat(), 50, 7440, data),
        ([&open[..], &BYE[..]].concat(), 7, 30, data),
        // An open flow would be forgotten sooner than the 240 s that a reset one gets otherwise.
        ([&open[..], &[RESET]].concat(), 50, 240, data),
        (vec![DATAGRAM[0]], 4, 30, udp),
        (DATAGRAM.to_vec(), 20, 180, udp),
        (vec![PING], 9, 60, pong),
    ]
}

#[test]
fn each_service_forgets_by_its_own_timeouts() {
    for side in SIDES {
        for (steps, short, documented, late) in lives() {
            for (vip, limit) in [(side.vip, short), (side.second_vip, documented)] {
                for (wait, remains) in [(limit, true), (limit + 1, false)] {
                    let mut world = World::new(&services());
                    let (client, service) = ((side.client, 4001), (vip, 80));
                    let backend = world.forward(steps[0].1(client, service), Outcome::ForwardedNew);
                    for (request, packet) in &steps[1..] {
                        match request {
                            true => assert_eq!(world.send(&mut packet(client, service)), Outcome::Forwarded),
                            false => world.answer(packet((&backend, 80), client)),
                        }
                    }
                    world.now += wait;
                    world.sweep();
                    assert_eq!(world.decider.held().0, usize::from(remains), "{} steps, {wait} s", steps.len());
                    let expected = if remains { Outcome::Returned } else { Outcome::PassedOwn };
                    let outcome = world.send(&mut late((&backend, 80), client));
                    assert_eq!(outcome, expected, "{} steps, {wait} s", steps.len());
                }
            }
        }
    }
}

#[test]
fn a_packet_finds_no_expired_flow_even_before_a_sweep() {
    let side = SIDES[0];
    for (vip, limit) in [(side.vip, 20), (side.second_vip, 180)] {
        let mut world = World::new(&services());
        let (client, service) = ((side.client, 4001), (vip, 80));
        world.ask(client, service);
        world.now += limit + 1;
        assert_eq!(world.send(&mut udp(client, service)), Outcome::ForwardedNew);
    }
}

#[test]
fn the_next_worker_applies_its_own_timeouts_to_existing_flows() {
    let side = SIDES[0];
    let mut world = World::new(&services());
    let (client, service) = ((side.client, 4001), (side.second_vip, 80));
    world.ask(client, service);
    world.services[1].policy.idle = SHORT;
    world.respawn();
    world.now += 21;
    assert_eq!(world.send(&mut udp(client, service)), Outcome::ForwardedNew);
}
