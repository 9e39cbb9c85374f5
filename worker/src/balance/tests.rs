//! What holds for every strategy. Tests of one strategy are in its file.

use super::*;
use std::collections::VecDeque;

pub(super) const STRATEGIES: [Strategy; 3] = [Strategy::RoundRobin, Strategy::Weighted, Strategy::Maglev { seed: 1 }];
pub(super) const WELL: Standing = Standing { enabled: true, confirmed: true, up: true, ejected: false };
pub(super) const DOWN: Standing = Standing { up: false, ..WELL };

pub(super) fn policy(panic_threshold: u8) -> Policy {
    Policy { panic_threshold, ..Policy::STANDARD }
}

/// Backend `n`, a primary, with an address of its own.
pub(super) fn member(n: u16, weight: u16) -> MemberSpec {
    MemberSpec { backend: BackendIndex(n), address: u128::from(n + 1).to_be_bytes(), port: None, weight, backup: false }
}

/// Backends 0, 1, … of these weights.
pub(super) fn of_weights(strategy: Strategy, weights: &[u16], start: u16) -> Balancer {
    let members: Vec<_> = (0..).zip(weights).map(|(n, weight)| member(n, *weight)).collect();
    Balancer::new(&members, strategy, start, policy(0)).expect("pool")
}

#[test]
fn without_candidates_none_is_chosen() {
    for strategy in STRATEGIES {
        assert_eq!(of_weights(strategy, &[], 0).choose(b"client"), None);
        assert_eq!(of_weights(strategy, &[0, 0], 0).choose(b"client"), None);
        let mut balancer = of_weights(strategy, &[1, 2, 3], 9);
        (0..3).for_each(|n| assert!(balancer.set_standing(BackendIndex(n), DOWN)));
        assert_eq!(balancer.choose(b"client"), None);
        assert!(balancer.set_standing(BackendIndex(1), WELL));
        assert_eq!(balancer.choose(b"client"), Some(BackendIndex(1)));
        balancer.set_standing(BackendIndex(1), Standing { enabled: false, ..WELL });
        assert_eq!(balancer.choose(b"client"), None);
    }
}

#[test]
fn backups_serve_when_the_primaries_are_down_and_panic_begins_when_they_are_too() {
    for strategy in STRATEGIES {
        for (threshold, expected) in [(0, vec![]), (1, vec![0, 1])] {
            let mut members = [0, 1, 2, 3].map(|n| member(n, 1));
            members[2..].iter_mut().for_each(|member| member.backup = true);
            let mut balancer = Balancer::new(&members, strategy, 0, policy(threshold)).expect("pool");
            let chosen = |balancer: &mut Balancer| {
                let clients = (0..64_u32).filter_map(|n| balancer.choose(&n.to_be_bytes()));
                let mut chosen: Vec<u16> = clients.map(|backend| backend.0).collect();
                chosen.sort_unstable();
                chosen.dedup();
                chosen
            };
            assert_eq!(chosen(&mut balancer), [0, 1], "{strategy}");
            balancer.set_standing(BackendIndex(0), DOWN);
            assert_eq!(chosen(&mut balancer), [1], "{strategy}");
            balancer.set_standing(BackendIndex(1), Standing { ejected: true, ..WELL });
            assert_eq!(chosen(&mut balancer), [2, 3], "{strategy}");
            assert!(!balancer.is_panicking());
            (2..4).for_each(|n| assert!(balancer.set_standing(BackendIndex(n), DOWN)));
            assert_eq!(chosen(&mut balancer), expected, "{strategy}");
            assert_eq!(balancer.is_panicking(), threshold > 0);
        }
    }
}

/// Four backends of weights 1, 2, 1, 4 with steady traffic; the second was down and begins its slow start without clients. Each
/// client stays while 4000 others come, so in balance a weight of 1 has 500 clients.
fn ramp(strategy: Strategy, steps: u16, clients_a_step: u32) -> Vec<(f64, f64)> {
    let mut balancer = of_weights(strategy, &[1, 2, 1, 4], 0);
    let back = BackendIndex(1);
    let (mut here, mut client) = (VecDeque::new(), 0_u32);
    let mut come = |balancer: &mut Balancer| {
        let chosen = balancer.choose(&client.to_be_bytes()).expect("candidates");
        client += 1;
        balancer.client_added(chosen);
        here.push_back(chosen);
        if here.len() > 4000 {
            here.pop_front().into_iter().for_each(|gone| balancer.client_removed(gone));
        }
        chosen
    };
    balancer.set_standing(back, DOWN);
    (0..10_000).for_each(|_| assert_ne!(come(&mut balancer), back));
    balancer.set_share(back, 0);
    balancer.set_standing(back, WELL);
    (0..=steps)
        .map(|step| {
            let share = u16::try_from(u32::from(FULL_SHARE) * u32::from(step) / u32::from(steps)).expect("share");
            balancer.set_share(back, share);
            let effective = 2.0 * f64::from(share) / f64::from(FULL_SHARE);
            let got = (0..clients_a_step).filter(|_| come(&mut balancer) == back).count();
            (got as f64, f64::from(clients_a_step) * effective / (6.0 + effective))
        })
        .collect()
}

#[test]
fn in_its_slow_start_a_backend_gets_no_more_than_its_growing_share() {
    for strategy in STRATEGIES {
        // Few clients in the slow start, and so many that all those from its begin have left at its end.
        for clients_a_step in [20, 100, 2000] {
            let mut steps = ramp(strategy, 30, clients_a_step);
            // Its full share: it may catch up.
            let full = steps.pop().expect("steps");
            let (mut got_all, mut fair_all) = (0.0, 0.0);
            for (step, &(got, fair)) in steps.iter().enumerate() {
                // Round robin is exact to one turn; a hash is as exact as chance, so four standard deviations.
                let slack = if matches!(strategy, Strategy::Maglev { .. }) { 1.0 + 4.0 * fair.sqrt() } else { 2.0 };
                assert!(got <= fair + slack, "{strategy} {clients_a_step} step {step}: {got} for {fair}");
                (got_all, fair_all) = (got_all + got, fair_all + fair);
            }
            let least = if matches!(strategy, Strategy::Maglev { .. }) { 0.8 } else { 0.95 };
            assert!(got_all >= fair_all * least - 1.0, "{strategy} {clients_a_step}: {got_all} of {fair_all}");
            assert!(full.0 > full.1 * 0.5, "{strategy} {clients_a_step}: {full:?}");
        }
    }
}

/// Whatever happened to members and shares: `would_choose` says what `choose` then returns, and changes nothing.
#[test]
fn what_would_be_chosen_is_chosen() {
    for strategy in STRATEGIES {
        let build = || of_weights(strategy, &[3, 1, 2, 7, 0], 5);
        let (mut asked, mut other) = (build(), build());
        let mut word = 7_u32;
        for step in 0..20_000_u32 {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [kind, n, share, more] = word.to_be_bytes();
            let (backend, share) = (BackendIndex(u16::from(n % 5)), u16::from(share) * 5);
            for balancer in [&mut asked, &mut other] {
                match kind {
                    0..4 => drop(balancer.set_standing(backend, Standing { up: more & 1 == 0, ..WELL })),
                    4..12 => balancer.set_share(backend, share),
                    12..40 => balancer.client_removed(backend),
                    _ => {}
                }
            }
            let client = (step % 500).to_be_bytes();
            let said = (asked.would_choose(&client), asked.would_choose(&client));
            let chosen = [&mut asked, &mut other].map(|balancer| {
                let chosen = balancer.choose(&client);
                chosen.into_iter().for_each(|backend| balancer.client_added(backend));
                chosen
            });
            assert_eq!((said, chosen[1]), ((chosen[0], chosen[0]), chosen[0]), "{strategy} {step}");
        }
    }
}

/// A choice among some: always one of them if there is one, foreseen by `would_choose_where`, and by the weights.
#[test]
fn a_choice_among_some_is_one_of_them_and_spreads_by_weight() {
    let members = [3, 1, 2, 7, 1, 2];
    for strategy in STRATEGIES {
        let mut balancer = of_weights(strategy, &members, 5);
        // In its slow start; the last resort of some choices all the same.
        balancer.set_share(BackendIndex(1), 1);
        balancer.set_standing(BackendIndex(5), DOWN);
        let mut counts = [0_u32; 6];
        for client in 0..60_000_u32 {
            let some = client * 37 % 64;
            let accept = |backend: BackendIndex| some >> backend.0 & 1 == 1;
            let said = balancer.would_choose_where(&client.to_be_bytes(), accept);
            let chosen = balancer.choose_where(&client.to_be_bytes(), accept);
            assert_eq!(said, chosen, "{strategy} {some:b}");
            match chosen {
                Some(backend) => {
                    assert!(accept(backend) && backend.0 != 5, "{strategy} {some:b}: {backend:?}");
                    balancer.client_added(backend);
                    counts[usize::from(backend.0)] += 1;
                }
                None => assert_eq!(some & 0b1_1111, 0, "{strategy}: none of {some:b}"),
            }
        }
        let [a, b, c, d, e, out] = counts;
        assert!(d > a && a > c && c > e && e > b && out == 0, "{strategy}: {counts:?}");
    }
}

/// Whoever is passed over for some clients saves nothing up: no burst comes after.
#[test]
fn members_passed_over_get_no_burst_afterwards() {
    let mut balancer = of_weights(Strategy::RoundRobin, &[1, 1, 1], 0);
    for _ in 0..1000 {
        assert_ne!(balancer.choose_where(&[], |backend| backend.0 != 0), Some(BackendIndex(0)));
    }
    let turns: Vec<u16> = (0..30).filter_map(|_| balancer.choose(&[])).map(|backend| backend.0).collect();
    assert!(turns.chunks(3).all(|three| three.contains(&0)), "{turns:?}");
}
