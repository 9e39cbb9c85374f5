//! What is checked when. A probe is either here or in flight, so the heaps never outgrow their initial size.

use crate::clock::SECOND;
use crate::random::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Probes by when they are due, in microseconds of [`crate::clock`].
#[derive(Debug)]
pub(crate) struct Schedule {
    up: BinaryHeap<Reverse<(u64, u16)>>,
    /// Those whose targets are down: the next check may take its whole timeout.
    down: BinaryHeap<Reverse<(u64, u16)>>,
}

impl Schedule {
    pub(crate) fn new(probes: usize) -> Self {
        Self { up: BinaryHeap::with_capacity(probes), down: BinaryHeap::with_capacity(probes) }
    }

    pub(crate) fn add(&mut self, probe: u16, at: u64, down: bool) {
        if down { &mut self.down } else { &mut self.up }.push(Reverse((at, probe)));
    }

    /// When the next one is due. `scarce`: those that are down have to wait, so that their timeouts delay nobody else's check.
    pub(crate) fn next(&self, scarce: bool) -> Option<u64> {
        let down = self.down.peek().filter(|_| !scarce);
        self.up.peek().into_iter().chain(down).map(|Reverse((at, _))| *at).min()
    }

    /// The probe that has been due the longest, and since when; those that are not down come first.
    pub(crate) fn take(&mut self, now: u64, scarce: bool) -> Option<(u64, u16)> {
        let is_due = |heap: &BinaryHeap<_>| heap.peek().is_some_and(|Reverse((at, _))| *at <= now);
        let next = match is_due(&self.up) {
            true => self.up.pop(),
            false if !scarce && is_due(&self.down) => self.down.pop(),
            false => None,
        };
        next.map(|Reverse(next)| next)
    }
}

/// Microseconds until the first check: anywhere in the interval, so that probes spread over it; within a second if
/// nothing is known of a target.
pub(crate) fn first_wait(interval: u64, proven: bool, random: &mut Random) -> u64 {
    let window = if proven { interval } else { interval.min(SECOND) };
    random.below(window)
}

/// Microseconds from the start of a check to the start of the next: the interval, or up to `jitter` percent less. Never
/// more, so that a failure is found within as many intervals as it takes failures.
pub(crate) fn wait(interval: u64, jitter: u8, random: &mut Random) -> u64 {
    interval - random.below(interval * u64::from(jitter) / 100 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_longest_due_comes_first() {
        let mut schedule = Schedule::new(3);
        for (probe, at) in [(1, 30), (2, 10), (3, 20)] {
            schedule.add(probe, at, false);
        }
        assert_eq!(schedule.take(9, false), None);
        let order: Vec<_> = std::iter::from_fn(|| schedule.take(25, false)).collect();
        assert_eq!((order, schedule.next(false)), (vec![(10, 2), (20, 3)], Some(30)));
    }

    #[test]
    fn the_down_wait_where_slots_are_scarce() {
        let mut schedule = Schedule::new(3);
        for (probe, at, down) in [(1, 10, true), (2, 20, false), (3, 40, false)] {
            schedule.add(probe, at, down);
        }
        assert_eq!((schedule.next(true), schedule.next(false)), (Some(20), Some(10)));
        assert_eq!(schedule.take(30, true), Some((20, 2)), "those that are up first");
        assert_eq!(schedule.take(30, true), None);
        assert_eq!(schedule.take(30, false), Some((10, 1)));
        assert_eq!((schedule.next(true), schedule.next(false)), (Some(40), Some(40)));
    }

    proptest! {
        #[test]
        fn waits_keep_to_the_jitter(seed: u64, jitter in 0u8..=50, interval in 100_000u64..=86_400_000_000) {
            let mut random = Random::new(seed);
            let part = interval * u64::from(jitter) / 100;
            for _ in 0..20 {
                let wait = wait(interval, jitter, &mut random);
                prop_assert!(wait >= interval - part && wait <= interval);
                prop_assert!(first_wait(interval, true, &mut random) < interval);
                prop_assert!(first_wait(interval, false, &mut random) < interval.min(1_000_000));
            }
        }
    }

    #[test]
    fn first_checks_are_spread() {
        let mut random = Random::new(7);
        let mut tenths = [0u32; 10];
        for _ in 0..1000 {
            let wait = first_wait(2 * SECOND, true, &mut random);
            tenths[usize::try_from(wait * 10 / (2 * SECOND)).expect("small")] += 1;
        }
        assert!(tenths.iter().all(|n| (60..140).contains(n)), "{tenths:?}");
    }
}
