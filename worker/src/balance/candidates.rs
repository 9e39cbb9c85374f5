//! Which members of a pool may be chosen, by the standing of all of them.
//!
//! A member is *usable* if it is enabled, up and not ejected. The first of these that applies:
//!
//! 1. *Panic*: fewer than `panic_threshold` percent of the enabled primaries are usable, and no backup is. That many seldom
//!    fail at once; more likely the prober has lost its network, or lies. Every enabled primary is a candidate.
//! 2. The usable primaries.
//! 3. The usable backups.
//! 4. With `all_down = last`, the one enabled member, primary or backup, that failed last. It failed when it first went down or
//!    was ejected; draining and disabling do not change when that was. If several have been down all the worker's life, the
//!    one that was reported last.
//! 5. None.
//!
//! Percentages are compared as `usable * 100 < panic_threshold * enabled`, without rounding: one of two is not fewer than
//! 50 %, one of three is fewer than 34 % and not fewer than 33 %. A threshold of 0 never panics, one of 100 panics as soon as
//! one fails. With no primary enabled there is no panic.
//!
//! A member of weight 0 is not counted anywhere and never a candidate. Neither is one that discovery has found and no check
//! has passed yet: otherwise whoever answers for unused addresses could cause a panic, and so get clients.

use super::member::Member;
use loaded_ipc::{AllDown, Policy};

/// Where the candidates of a pool are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidates {
    pub(super) tier: Tier,
    /// Primaries that are usable.
    pub(super) usable: usize,
    /// Primaries that are enabled.
    pub(super) enabled: usize,
}

/// Which group of members the candidates are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tier {
    /// The enabled primaries.
    Panic,
    /// The usable primaries.
    Primaries,
    /// The usable backups.
    Backups,
    /// The one at this position.
    Last(usize),
    /// No member.
    None,
}

impl Candidates {
    /// O(members).
    pub(super) fn among(members: &[Member], policy: &Policy) -> Self {
        let (mut usable, mut enabled, mut backups) = (0, 0, 0);
        // Which member failed last, and when.
        let mut last: Option<(usize, u64)> = None;
        for (position, member) in members.iter().enumerate().filter(|(_, member)| member.is_enabled()) {
            let is_usable = usize::from(member.is_usable());
            match member.spec.backup {
                true => backups += is_usable,
                false => {
                    enabled += 1;
                    usable += is_usable;
                }
            }
            if last.is_none_or(|(_, failure)| member.last_failure > failure) {
                last = Some((position, member.last_failure));
            }
        }
        let tier = match last {
            _ if backups == 0 && usable * 100 < usize::from(policy.panic_threshold) * enabled => Tier::Panic,
            _ if usable > 0 => Tier::Primaries,
            _ if backups > 0 => Tier::Backups,
            Some((position, _)) if policy.all_down == AllDown::Last => Tier::Last(position),
            _ => Tier::None,
        };
        Self { tier, usable, enabled }
    }

    /// Whether the member at this position is a candidate.
    pub(super) fn has(&self, position: usize, member: &Member) -> bool {
        match self.tier {
            Tier::Panic => member.is_enabled() && !member.spec.backup,
            Tier::Primaries => member.is_usable() && !member.spec.backup,
            Tier::Backups => member.is_usable() && member.spec.backup,
            Tier::Last(last) => position == last,
            Tier::None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{STRATEGIES, WELL, member, policy};
    use super::super::{Balancer, MemberSpec, Standing};
    use super::*;
    use loaded_ipc::BackendIndex;
    use proptest::prelude::*;

    const DOWN: Standing = Standing { up: false, ..WELL };

    /// `count` primaries, of which the first `out` are down.
    fn panics(threshold: u8, count: u16, out: u16) -> bool {
        let members: Vec<MemberSpec> = (0..count).map(|n| member(n, 1)).collect();
        let mut balancer = Balancer::new(&members, STRATEGIES[0], 0, policy(threshold)).expect("pool");
        (0..out).for_each(|n| assert!(balancer.set_standing(BackendIndex(n), DOWN)));
        assert_eq!(balancer.usable(), (usize::from(count - out), usize::from(count)));
        balancer.is_panicking()
    }

    #[test]
    fn panic_begins_below_the_threshold_and_not_at_it() {
        assert!(!panics(50, 2, 1) && panics(51, 2, 1));
        assert!(!panics(33, 3, 2) && panics(34, 3, 2));
        assert!(!panics(66, 3, 1) && panics(67, 3, 1));
        assert!(!panics(0, 4, 4) && panics(1, 4, 4));
        assert!(!panics(100, 4, 0) && panics(100, 4, 1));
        assert!(!panics(1, 100, 99) && panics(1, 101, 100));
        assert!(!panics(100, 0, 0));
    }

    /// Two that are up and seventy that nobody has reached: neither panic nor last resort knows them.
    #[test]
    fn a_node_that_never_passed_a_check_counts_nowhere() {
        const FOUND: Standing = Standing { confirmed: false, ..DOWN };
        for strategy in STRATEGIES {
            let members: Vec<MemberSpec> = (0..72).map(|n| member(n, 1)).collect();
            let policy = Policy { all_down: AllDown::Last, ..policy(50) };
            let mut balancer = Balancer::new(&members, strategy, 0, policy).expect("pool");
            (2..72).for_each(|n| assert!(balancer.set_standing(BackendIndex(n), FOUND)));
            assert_eq!((balancer.usable(), balancer.is_panicking(), balancer.candidates()), ((2, 2), false, 2));
            // A panic has those that have been there.
            (0..2).for_each(|n| assert!(balancer.set_standing(BackendIndex(n), DOWN)));
            assert_eq!((balancer.usable(), balancer.is_panicking(), balancer.candidates()), ((0, 2), true, 2));
            // It passes, fails again, and counts for good.
            balancer.set_standing(BackendIndex(9), WELL);
            assert_eq!((balancer.usable(), balancer.is_panicking(), balancer.candidates()), ((1, 3), true, 3));
            balancer.set_standing(BackendIndex(9), DOWN);
            assert_eq!((balancer.usable(), balancer.candidates()), ((0, 3), 3));
        }
        // Nothing but found nodes: no last resort either.
        let members = [member(0, 1), member(1, 1)];
        let policy = Policy { all_down: AllDown::Last, ..policy(50) };
        let mut balancer = Balancer::new(&members, STRATEGIES[1], 0, policy).expect("pool");
        (0..2).for_each(|n| assert!(balancer.set_standing(BackendIndex(n), FOUND)));
        assert_eq!((balancer.choose(&[]), balancer.is_panicking()), (None, false));
    }

    #[test]
    fn the_last_resort_is_the_enabled_member_that_failed_last() {
        let members = [member(0, 1), member(1, 1), member(2, 1)];
        let policy = Policy { all_down: AllDown::Last, ..policy(0) };
        let mut balancer = Balancer::new(&members, STRATEGIES[1], 0, policy).expect("pool");
        let mut set = |n, standing| {
            balancer.set_standing(BackendIndex(n), standing);
            balancer.choose(&[])
        };
        set(2, DOWN);
        set(0, Standing { ejected: true, ..WELL });
        assert_eq!(set(1, Standing { ejected: true, ..WELL }), Some(BackendIndex(1)));
        // A second reason is no second failure.
        assert_eq!(set(2, Standing { ejected: true, ..DOWN }), Some(BackendIndex(1)));
        assert_eq!(set(1, Standing { enabled: false, ..DOWN }), Some(BackendIndex(0)));
        assert_eq!(set(1, DOWN), Some(BackendIndex(1)));
        assert_eq!(set(2, WELL), Some(BackendIndex(2)));
        assert_eq!(set(2, DOWN), Some(BackendIndex(2)));
    }

    /// The rule in an operator's words, applied to a list of what happened.
    fn by_hand(members: &[MemberSpec], standings: &[Standing], went_out: &[usize], policy: &Policy) -> Vec<usize> {
        let enabled: Vec<usize> = (0..members.len())
            .filter(|&n| standings[n].enabled && standings[n].confirmed && members[n].weight > 0)
            .collect();
        let usable: Vec<usize> =
            enabled.iter().copied().filter(|&n| standings[n].up && !standings[n].ejected).collect();
        let of = |list: &[usize], backup: bool| -> Vec<usize> {
            list.iter().copied().filter(|&n| members[n].backup == backup).collect()
        };
        let (primaries, usable_primaries) = (of(&enabled, false), of(&usable, false));
        let too_few = usable_primaries.len() * 100 < primaries.len() * usize::from(policy.panic_threshold);
        if too_few && of(&usable, true).is_empty() {
            return primaries;
        }
        if !usable_primaries.is_empty() {
            return usable_primaries;
        }
        if !usable.is_empty() {
            return of(&usable, true);
        }
        let last = went_out.iter().rev().find(|n| enabled.contains(n));
        last.filter(|_| policy.all_down == AllDown::Last).into_iter().copied().collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

        #[test]
        fn the_candidates_are_those_of_the_rule(
            kinds in prop::collection::vec((0..4_u16, prop::bool::weighted(0.3)), 0..7),
            steps in prop::collection::vec((
                0..7_u16,
                (prop::bool::weighted(0.8), prop::bool::weighted(0.8), any::<bool>(), prop::bool::weighted(0.3))
                    .prop_map(|(enabled, confirmed, up, ejected)| Standing { enabled, confirmed, up, ejected }),
                0..=1200_u16,
            ), 0..40),
            threshold in prop_oneof![Just(0), Just(100), 0..=100_u8],
            all_down in prop_oneof![Just(AllDown::Reject), Just(AllDown::Drop), Just(AllDown::Last)],
        ) {
            let members: Vec<MemberSpec> = (0..).zip(&kinds)
                .map(|(n, &(weight, backup))| MemberSpec { backup, ..member(n, weight) })
                .collect();
            let policy = Policy { all_down, ..policy(threshold) };
            for strategy in STRATEGIES {
                let mut balancer = Balancer::new(&members, strategy, 3, policy).expect("pool");
                let (mut standings, mut went_out) = (vec![WELL; members.len()], vec![]);
                for &(n, standing, share) in &steps {
                    let known = usize::from(n) < members.len();
                    let changes = known && standings[usize::from(n)] != standing;
                    prop_assert_eq!(balancer.set_standing(BackendIndex(n), standing), changes);
                    balancer.set_share(BackendIndex(n), share);
                    if known {
                        let before = std::mem::replace(&mut standings[usize::from(n)], standing);
                        if (before.up, before.ejected) == (true, false) && (!standing.up || standing.ejected) {
                            went_out.push(usize::from(n));
                        }
                    }
                    let expected = by_hand(&members, &standings, &went_out, &policy);
                    let is_candidate = |n: &usize| balancer.is_candidate(BackendIndex(u16::try_from(*n).expect("few")));
                    prop_assert_eq!(&(0..9).filter(is_candidate).collect::<Vec<_>>(), &expected);
                    for client in 0..4_u32 {
                        let chosen = balancer.choose(&client.to_be_bytes());
                        prop_assert_eq!(chosen.is_some(), !expected.is_empty());
                        if let Some(chosen) = chosen {
                            prop_assert!(expected.contains(&usize::from(chosen.0)));
                            balancer.client_added(chosen);
                        }
                    }
                }
            }
        }
    }
}
