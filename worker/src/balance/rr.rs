//! Smooth weighted round robin.
//!
//! In each turn every candidate earns its weight; the richest is chosen and pays the sum of all weights. Weights 5, 1, 1 give
//! a a b a c a a and not a a a a a b c: a heavy backend never gets a burst. In its slow start a member earns only its share of
//! its weight, so it gets exactly that share of its turns.

use super::member::Member;
use super::pool::Pool;

#[derive(Debug)]
pub(super) struct RoundRobin {
    /// By position, in 1/1024 of a weight. A member that is no candidate has none.
    credit: Box<[i64]>,
}

impl RoundRobin {
    /// Takes `start` turns ahead, so that workers with different numbers begin with different backends.
    pub(super) fn new(pool: &Pool, start: u16) -> Self {
        let mut rr = Self { credit: vec![0; pool.len()].into() };
        for _ in 0..start {
            rr.choose(pool, |_| true);
        }
        rr
    }

    /// A turn among the candidates that `accept` takes. The others neither earn nor pay, so that they save nothing up for a
    /// burst. O(members).
    #[inline]
    pub(super) fn choose(&mut self, pool: &Pool, accept: impl Fn(&Member) -> bool) -> Option<usize> {
        let mut price = 0;
        let position = richest(self.credit.iter_mut().zip(pool.members()).map(|(credit, member)| {
            let earned = earned(*credit, member, &accept)?;
            price += member.effective().cast_signed();
            *credit = earned;
            Some(earned)
        }))?;
        if let Some(credit) = self.credit.get_mut(position) {
            *credit -= price;
        }
        Some(position)
    }

    /// What [`RoundRobin::choose`] would return. Takes no turn.
    pub(super) fn next(&self, pool: &Pool, accept: impl Fn(&Member) -> bool) -> Option<usize> {
        richest(self.credit.iter().zip(pool.members()).map(|(credit, member)| earned(*credit, member, &accept)))
    }

    /// To be called when the candidates have changed.
    ///
    /// A member that left or came back has neither credit nor debt, and none keeps more than a whole turn of either: otherwise,
    /// when a heavy member leaves, the others would work off in bursts what it has left them.
    pub(super) fn settle(&mut self, pool: &Pool) {
        let turn = pool.effective().cast_signed();
        for (credit, member) in self.credit.iter_mut().zip(pool.members()) {
            *credit = if member.is_candidate() { (*credit).clamp(-turn, turn) } else { 0 };
        }
    }
}

/// The credit of an acceptable candidate after it has earned; `None` for other members.
#[inline]
fn earned(credit: i64, member: &Member, accept: impl Fn(&Member) -> bool) -> Option<i64> {
    (member.is_candidate() && accept(member)).then(|| credit + member.effective().cast_signed())
}

/// The position of the first member with the most credit.
#[inline]
fn richest(earned: impl Iterator<Item = Option<i64>>) -> Option<usize> {
    let mut richest: Option<(usize, i64)> = None;
    for (position, credit) in earned.enumerate() {
        let Some(credit) = credit else { continue };
        if richest.is_none_or(|(_, most)| credit > most) {
            richest = Some((position, credit));
        }
    }
    richest.map(|(position, _)| position)
}

#[cfg(test)]
mod tests {
    use super::super::Balancer;
    use super::super::tests::{DOWN, WELL, of_weights};
    use loaded_ipc::{BackendIndex, Strategy};

    fn balancer(weights: &[u16], start: u16) -> Balancer {
        of_weights(Strategy::RoundRobin, weights, start)
    }

    fn turns(balancer: &mut Balancer, count: usize) -> Vec<u16> {
        (0..count).map(|_| balancer.choose(&[]).expect("candidates").0).collect()
    }

    #[test]
    fn a_heavy_backend_gets_no_burst() {
        assert_eq!(turns(&mut balancer(&[5, 1, 1], 0), 14), [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn equal_weights_take_turns_from_where_the_worker_begins() {
        for start in 0..7 {
            let first = start % 3;
            let expected = [first, (first + 1) % 3, (first + 2) % 3, first];
            assert_eq!(turns(&mut balancer(&[4, 4, 4], start), 4), expected);
        }
    }

    #[test]
    fn every_period_has_exactly_the_weights() {
        let mut balancer = balancer(&[7, 3, 0, 90], 11);
        let chosen = turns(&mut balancer, 300);
        let count = |n| chosen.iter().filter(|c| **c == n).count();
        assert_eq!([count(0), count(1), count(2), count(3)], [21, 9, 0, 270]);
    }

    #[test]
    fn the_others_share_fairly_while_one_is_down_and_after() {
        let mut balancer = balancer(&[1, 2, 1], 0);
        turns(&mut balancer, 5);
        balancer.set_standing(BackendIndex(1), DOWN);
        let chosen = turns(&mut balancer, 100);
        let count = |chosen: &[u16], n| i64::try_from(chosen.iter().filter(|c| **c == n).count()).expect("few");
        assert!((count(&chosen, 0) - 50).abs() <= 2 && count(&chosen, 1) == 0);
        balancer.set_standing(BackendIndex(1), WELL);
        let chosen = turns(&mut balancer, 100);
        assert!((count(&chosen, 1) - 50).abs() <= 2 && (count(&chosen, 0) - 25).abs() <= 2);
    }

    #[test]
    fn a_member_that_failed_a_thousand_times_does_not_wait() {
        let mut balancer = balancer(&[1; 16], 0);
        for time in 0..1000 {
            let turns = 1 + (0..100).take_while(|_| balancer.choose(&[]) != Some(BackendIndex(2))).count();
            assert!(turns <= 16, "time {time}: {turns} turns");
            balancer.set_standing(BackendIndex(2), DOWN);
            balancer.set_standing(BackendIndex(2), WELL);
        }
    }

    #[test]
    fn when_the_heavy_member_fails_no_other_gets_a_burst() {
        let mut balancer = balancer(&[1, 1, 256], 0);
        while balancer.choose(&[]) != Some(BackendIndex(0)) {}
        balancer.set_standing(BackendIndex(2), DOWN);
        let chosen = turns(&mut balancer, 8);
        assert!(chosen.windows(4).all(|four| four.contains(&0) && four.contains(&1)), "{chosen:?}");
    }

    #[test]
    fn a_share_is_that_part_of_the_turns() {
        let mut balancer = balancer(&[2, 2, 4], 0);
        for (share, expected) in [(1, 1), (512, 512), (1024, 1024)] {
            balancer.set_share(BackendIndex(1), share);
            let chosen = turns(&mut balancer, 3 * 1024 + usize::from(share));
            assert_eq!(chosen.iter().filter(|c| **c == 1).count().abs_diff(expected), 0, "share {share}");
        }
    }
}
