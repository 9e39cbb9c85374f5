//! Smooth weighted round robin.
//!
//! Each turn every candidate earns its weight; the richest is chosen and pays the sum of all weights. With weights
//! 5, 1, 1 that gives a a b a c a a and not a a a a a b c: a heavy backend never gets a burst.

use super::pool::Pool;

#[derive(Debug)]
pub(super) struct RoundRobin {
    credit: Box<[i64]>,
}

impl RoundRobin {
    /// `start` turns are taken ahead, so that workers with different numbers begin at different backends.
    pub(super) fn new(pool: &Pool, start: u16) -> Self {
        let mut rr = Self { credit: vec![0; pool.len()].into() };
        for _ in 0..start {
            rr.choose(pool);
        }
        rr
    }

    /// O(members).
    #[inline]
    pub(super) fn choose(&mut self, pool: &Pool) -> Option<usize> {
        let mut total = 0_i64;
        let mut richest: Option<(usize, i64)> = None;
        for (position, (credit, member)) in self.credit.iter_mut().zip(pool.members()).enumerate() {
            if !member.is_candidate() {
                continue;
            }
            let weight = i64::from(member.weight);
            *credit += weight;
            total += weight;
            if richest.is_none_or(|(_, most)| *credit > most) {
                richest = Some((position, *credit));
            }
        }
        let (position, _) = richest?;
        if let Some(credit) = self.credit.get_mut(position) {
            *credit -= total;
        }
        Some(position)
    }

    /// A member that left or came back begins with neither credit nor debt.
    pub(super) fn rejoin(&mut self, position: Option<usize>) {
        if let Some(credit) = position.and_then(|position| self.credit.get_mut(position)) {
            *credit = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Balancer;
    use super::super::tests::of_weights;
    use loaded_ipc::{BackendIndex, Strategy};

    fn balancer(weights: &[u16], start: u16) -> Balancer {
        of_weights(Strategy::RoundRobin, weights, start)
    }

    fn turns(balancer: &mut Balancer, count: usize) -> Vec<u16> {
        (0..count).map(|_| balancer.choose(&[]).expect("eligible").0).collect()
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
    fn the_rest_share_fairly_while_one_is_away_and_after() {
        let mut balancer = balancer(&[1, 2, 1], 0);
        turns(&mut balancer, 5);
        balancer.set_eligible(BackendIndex(1), false);
        let chosen = turns(&mut balancer, 100);
        let count = |chosen: &[u16], n| i64::try_from(chosen.iter().filter(|c| **c == n).count()).expect("few");
        assert!((count(&chosen, 0) - 50).abs() <= 2 && count(&chosen, 1) == 0);
        balancer.set_eligible(BackendIndex(1), true);
        let chosen = turns(&mut balancer, 100);
        assert!((count(&chosen, 1) - 50).abs() <= 2 && (count(&chosen, 0) - 25).abs() <= 2);
    }
}
