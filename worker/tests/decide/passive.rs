//! What packets show about a backend, and what an attacker's packets must not be able to show.

use super::packets::{ACK, RST, SYN, ends, segment, tcp, udp, unreachable};
use super::world::{BARE, POLICY, SIDES, Service, World};
use loaded_ipc::{Cause, Outcome, Passive, Policy, Strategy};
use std::collections::BTreeSet;

const PASSIVE: Passive = Passive { fails: 3, timeout: 500, hold: 10, port: None };

fn world(passive: Passive) -> World {
    let policy = Policy { passive: Some(passive), ..POLICY };
    World::new(&[Service { vips: vec![0, 1], strategy: Strategy::RoundRobin, policy, ..BARE }])
}

/// Sends a SYN, of another client each time; returns the backend it went to.
fn syn(world: &mut World, n: u16, port: u16) -> String {
    world.forward(tcp((&SIDES[0].client(n), 4001), (SIDES[0].vip, port), SYN), Outcome::ForwardedNew)
}

fn refuse(world: &mut World, n: u16, backend: &str, port: u16, flags: u8) {
    assert_eq!(world.send(&mut tcp((backend, port), (&SIDES[0].client(n), 4001), flags)), Outcome::Returned);
}

/// Opens new flows. Each is answered, except by backends that refuse.
fn load(world: &mut World, clients: std::ops::Range<u16>, dead: &[&str]) -> Vec<String> {
    clients
        .map(|n| {
            let backend = syn(world, n, 80);
            let flags = if dead.contains(&&*backend) { RST | ACK } else { SYN | ACK };
            refuse(world, n, &backend, 80, flags);
            backend
        })
        .collect()
}

fn used(world: &mut World, from: u16) -> BTreeSet<String> {
    load(world, from..from + 30, &[]).into_iter().collect()
}

#[test]
fn a_backend_that_refuses_is_ejected_for_a_while() {
    let dead = SIDES[0].backends[1];
    let mut world = world(PASSIVE);
    let went = load(&mut world, 0..60, &[dead]);
    assert_eq!(went.iter().filter(|b| *b == dead).count(), 3, "as many as it takes, and no more");
    let view = world.view(1);
    assert!(view.ejected && view.up && !view.chosen);
    assert_eq!(view.cause, Some(Cause::Refused));
    (0..499).for_each(|_| world.wait(20));
    assert!(world.view(1).ejected);
    world.wait(20);
    assert!(!world.view(1).ejected);
    assert_eq!(used(&mut world, 100).len(), 3);
}

/// Its flows are not touched, except those that are not open yet.
#[test]
fn flows_of_an_ejected_backend_go_on() {
    let (side, dead) = (SIDES[0], SIDES[0].backends[0]);
    let mut world = world(PASSIVE);
    let open: Vec<String> = (0..3).map(|n| world.open((&side.client(n), 4001), (side.vip, 80))).collect();
    let asked: Vec<String> = (10..13).map(|n| world.ask((&side.client(n), 4001), (side.vip, 53))).collect();
    let half: Vec<String> = (20..23).map(|n| syn(&mut world, n, 80)).collect();
    load(&mut world, 30..60, &[dead]);
    assert!(world.view(0).ejected);
    for (n, backend) in (0..3).zip(&open) {
        let client = side.client(n);
        assert_eq!(&world.forward(tcp((&client, 4001), (side.vip, 80), ACK), Outcome::Forwarded), backend);
    }
    for (n, backend) in (10..13).zip(&asked) {
        assert_eq!(&world.forward(udp((&side.client(n), 4001), (side.vip, 53)), Outcome::Forwarded), backend);
    }
    for (n, backend) in (20..23).zip(&half) {
        let mut again = tcp((&side.client(n), 4001), (side.vip, 80), SYN);
        let expected = if backend == dead { Outcome::ForwardedNew } else { Outcome::Forwarded };
        assert_eq!(world.send(&mut again), expected);
    }
}

#[test]
fn a_silent_backend_is_ejected_by_a_tick_or_by_a_repeated_syn() {
    let (side, dead) = (SIDES[0], SIDES[0].backends[2]);
    let silent = |world: &mut World| {
        (0..9).for_each(|n| {
            let backend = syn(world, n, 80);
            if backend != dead {
                refuse(world, n, &backend, 80, SYN | ACK);
            }
        });
    };
    let mut first = world(PASSIVE);
    silent(&mut first);
    first.wait(480);
    assert!(!first.view(2).ejected, "it may yet answer");
    first.wait(20);
    assert_eq!(first.view(2).cause, Some(Cause::ConnectTimeout));

    // Without a tick: the repeated SYN ejects it, and goes elsewhere at once.
    let mut second = world(PASSIVE);
    silent(&mut second);
    second.millis += 1000;
    let n = (0..9).find(|n| {
        let mut again = tcp((&side.client(*n), 4001), (side.vip, 80), SYN);
        second.send(&mut again) == Outcome::ForwardedNew
    });
    assert!(n.is_some() && second.view(2).ejected);
}

#[test]
fn any_answer_clears_all_failures() {
    let side = SIDES[0];
    let mut world = world(PASSIVE);
    // A flow to each backend: two open connections, and one of datagrams.
    let open = [1, 2].map(|port| world.open((side.client, port), (side.vip, 80)));
    let asked = world.ask((side.client, 3), (side.vip, 53));
    for n in 0..200 {
        let backend = syn(&mut world, n, 80);
        refuse(&mut world, n, &backend, 80, RST | ACK);
        match (1..).zip(&open).find(|(_, open)| **open == backend) {
            Some((port, _)) => world.answer(tcp((&backend, 80), (side.client, port), ACK)),
            None => {
                assert_eq!(backend, asked);
                world.answer(udp((&asked, 53), (side.client, 3)));
            }
        }
    }
    assert!((0..3).all(|n| !world.view(n).ejected));
    // Without those answers the first backend is ejected.
    let refused = (200..209).map(|n| {
        let backend = syn(&mut world, n, 80);
        refuse(&mut world, n, &backend, 80, RST | ACK);
    });
    refused.for_each(drop);
    assert_eq!((0..3).filter(|n| world.view(*n).ejected).count(), 1);
}

#[test]
fn never_more_than_half_and_never_the_last_are_ejected() {
    let side = SIDES[0];
    let mut world = world(PASSIVE);
    load(&mut world, 0..300, &side.backends);
    assert_eq!((0..3).filter(|n| world.view(*n).ejected).count(), 1, "one of three");
    for n in 0..3 {
        if !world.view(n).ejected {
            world.check(n, false);
            break;
        }
    }
    load(&mut world, 300..400, &side.backends);
    assert_eq!(used(&mut world, 500).len(), 1, "the last that is usable");
    let v6 = (3..6).filter(|n| world.view(*n).ejected).count();
    assert_eq!(v6, 0, "the other family is another pool");
}

/// A healthy backend answers a stray ACK with a reset, and a SYN to a closed port too, which counts only where all ports do.
#[test]
fn a_client_cannot_eject_a_backend_by_provoking_resets() {
    let side = SIDES[0];
    let mut world = world(PASSIVE);
    for n in 0..100 {
        let client = side.client(n);
        let mut stray = tcp((&client, 4001), (side.vip, 80), ACK);
        assert_eq!(world.send(&mut stray), Outcome::ForwardedNew);
        let backend = super::packets::ends(&stray).1;
        refuse(&mut world, n, &backend, 80, RST);
    }
    assert_eq!(used(&mut world, 200).len(), 3);

    let mut world = self::world(Passive { port: Some(80), ..PASSIVE });
    for n in 0..100 {
        let backend = syn(&mut world, n, 81);
        refuse(&mut world, n, &backend, 81, RST | ACK);
    }
    (0..100).for_each(|_| world.wait(20));
    assert_eq!(used(&mut world, 200).len(), 3);
}

#[test]
fn only_the_backends_own_icmp_counts() {
    for (from_backend, ejected) in [(true, true), (false, false)] {
        let side = SIDES[0];
        let mut world = world(PASSIVE);
        let dead = side.backends[0];
        for n in 0..30 {
            let backend = syn(&mut world, n, 80);
            let client = side.client(n);
            if backend == dead {
                let about = tcp((&client, 4001), (&backend, 80), SYN);
                let from = if from_backend { dead } else { side.router };
                let mut error = unreachable(from, &client, &about, 100);
                let expected = if from_backend { Outcome::ErrorReturned } else { Outcome::ErrorRelayed };
                assert_eq!(world.send(&mut error), expected);
            } else {
                refuse(&mut world, n, &backend, 80, SYN | ACK);
            }
        }
        assert_eq!(world.view(0).ejected, ejected);
        if ejected {
            assert_eq!(world.view(0).cause, Some(Cause::Unreachable));
        }
    }
}

#[test]
fn the_checks_and_the_operator_end_an_ejection() {
    use loaded_ipc::Admin;
    let dead = SIDES[0].backends[0];
    let ejected = || {
        let mut world = world(PASSIVE);
        load(&mut world, 0..30, &[dead]);
        assert!(world.view(0).ejected);
        world
    };
    let mut world = ejected();
    // A report that changes nothing has no effect: it may be an old one.
    world.check(0, true);
    assert!(world.view(0).ejected);
    world.check(0, false);
    world.check(0, true);
    assert!(!world.view(0).ejected && world.view(0).chosen);
    let mut world = ejected();
    world.admin(0, Admin::Draining);
    world.admin(0, Admin::Enabled);
    assert!(!world.view(0).ejected && world.view(0).chosen);
}

#[test]
fn without_the_policy_no_backend_is_ejected() {
    let mut world = World::new(&[Service { vips: vec![0, 1], ..BARE }]);
    load(&mut world, 0..300, &SIDES[0].backends);
    assert!((0..6).all(|n| !world.view(n).ejected));
}

/// The answers may still wait in the queue, or have been dropped since it was full.
#[test]
fn a_worker_that_is_behind_ejects_no_backend() {
    let ejected = |behind: bool| {
        let mut world = world(PASSIVE);
        for n in 0..300 {
            syn(&mut world, n, 80);
            world.wait(5);
            if behind {
                world.decider.fall_behind();
            }
        }
        // Answers that were lost do not come any more.
        (0..100).for_each(|_| world.wait(20));
        (0..3).filter_map(|n| world.view(n).cause).collect::<Vec<_>>()
    };
    assert_eq!(ejected(false), [Cause::ConnectTimeout]);
    assert_eq!(ejected(true), []);
}

/// A SYN with this number, of another client each time; returns the backend.
fn syn_with(world: &mut World, n: u16, number: u32, outcome: Outcome) -> String {
    world.forward(segment((&SIDES[0].client(n), 4001), (SIDES[0].vip, 80), SYN, (number, 0), b""), outcome)
}

/// Whoever sends resets or errors in a backend's name must know the number of each SYN.
#[test]
fn only_what_answers_a_syn_is_a_refusal() {
    let side = SIDES[0];
    let refuses = |answer: &dyn Fn(&str, &str, u16) -> Vec<u8>, number: u32| {
        let mut world = world(PASSIVE);
        for n in 0..60 {
            let backend = syn_with(&mut world, n, number, Outcome::ForwardedNew);
            let mut answer = answer(&backend, &side.client(n), n);
            assert!(matches!(world.send(&mut answer), Outcome::Returned | Outcome::ErrorReturned));
        }
        (0..3).filter(|n| world.view(*n).ejected).count() == 1
    };
    for number in [0, 1000, 0xffff, 0x0001_fffe, u32::MAX] {
        let resets = |by: u32| {
            let numbers = (0, number.wrapping_add(by));
            move |backend: &str, client: &str, _: u16| segment((backend, 80), (client, 4001), RST | ACK, numbers, b"")
        };
        let errors = |by: u32, quoted: usize| {
            let numbers = (number.wrapping_add(by), 0);
            move |backend: &str, client: &str, _: u16| {
                let about = segment((client, 4001), (backend, 80), SYN, numbers, b"");
                unreachable(backend, client, &about, quoted)
            }
        };
        assert!(refuses(&resets(1), number), "{number:#x}");
        assert!(refuses(&errors(0, 8), number) && refuses(&errors(0, 100), number), "{number:#x}");
        for wrong in (0..16).map(|bit| 1 << bit) {
            assert!(!refuses(&resets(1 + wrong), number), "{number:#x}");
            assert!(!refuses(&errors(wrong, 8), number) && !refuses(&errors(wrong, 100), number), "{number:#x}");
        }
    }
}

/// A SYN that is sent again with another number is the one to refuse.
#[test]
fn the_latest_syn_is_the_one_that_is_refused() {
    let side = SIDES[0];
    for (number, ejected) in [(1000, false), (2000, true)] {
        let mut world = world(PASSIVE);
        for n in 0..60 {
            let backend = syn_with(&mut world, n, 1000, Outcome::ForwardedNew);
            assert_eq!(syn_with(&mut world, n, 2000, Outcome::Forwarded), backend);
            let numbers = (0, number + 1);
            world.answer(segment((&backend, 80), (&side.client(n), 4001), RST | ACK, numbers, b""));
        }
        assert_eq!((0..3).filter(|n| world.view(*n).ejected).count() == 1, ejected);
    }
}

/// Data that comes with a SYN (TCP Fast Open) is acknowledged with it.
#[test]
fn a_syn_with_data_is_refused_as_a_whole() {
    for (numbers, ejected) in [((5000, 0), true), ((4999, 0), false)] {
        let (side, mut world) = (SIDES[0], world(PASSIVE));
        for n in 0..60 {
            let client = side.client(n);
            let mut bytes = segment((&client, 4001), (side.vip, 80), SYN, numbers, b"early");
            assert_eq!(world.send(&mut bytes), Outcome::ForwardedNew);
            let backend = ends(&bytes).1;
            world.answer(segment((&backend, 80), (&client, 4001), RST | ACK, (0, 5006), b""));
        }
        assert_eq!((0..3).any(|n| world.view(n).ejected), ejected);
    }
}
