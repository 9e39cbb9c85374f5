//! Which target is checked when. A target is either here or in flight, so the heap never outgrows its initial size.

use crate::check::CheckPlan;
use crate::clock::SECOND;
use crate::health::Health;
use crate::random::Random;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Targets by when they are due, in microseconds of [`crate::clock`].
#[derive(Debug)]
pub(crate) struct Schedule {
    due: BinaryHeap<Reverse<(u64, u16)>>,
}

impl Schedule {
    pub(crate) fn new(targets: usize) -> Self {
        Self { due: BinaryHeap::with_capacity(targets) }
    }

    pub(crate) fn add(&mut self, target: u16, at: u64) {
        self.due.push(Reverse((at, target)));
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// The target that has been due the longest.
    pub(crate) fn take(&mut self, now: u64) -> Option<u16> {
        if self.next()? > now {
            return None;
        }
        self.due.pop().map(|Reverse((_, target))| target)
    }
}

/// Microseconds until the first check: anywhere in the interval, so that targets spread over it; within a second for a
/// target of which nothing is known.
pub(crate) fn first_wait(plan: &CheckPlan, health: Health, random: &mut Random) -> u64 {
    let interval = plan.interval(health.up());
    let window = if health.proven() { interval } else { interval.min(SECOND) };
    random.below(window)
}

/// Microseconds from the start of a check to the start of the next.
pub(crate) fn wait(plan: &CheckPlan, up: bool, random: &mut Random) -> u64 {
    let interval = plan.interval(up);
    let part = interval * u64::from(plan.jitter) / 100;
    interval - part + random.below(2 * part + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::tests::plan;
    use loaded_ipc::CheckKind;
    use proptest::prelude::*;

    #[test]
    fn the_longest_due_comes_first() {
        let mut schedule = Schedule::new(3);
        for (target, at) in [(1, 30), (2, 10), (3, 20)] {
            schedule.add(target, at);
        }
        assert_eq!(schedule.take(9), None);
        let order: Vec<_> = std::iter::from_fn(|| schedule.take(25)).collect();
        assert_eq!((order, schedule.next()), (vec![2, 3], Some(30)));
    }

    proptest! {
        #[test]
        fn waits_keep_to_the_jitter(seed: u64, jitter in 0u8..=50, interval in 100u32..=86_400_000, up: bool) {
            let mut plan = plan(CheckKind::Icmp);
            (plan.jitter, plan.interval, plan.interval_down) = (jitter, interval, interval / 2 + 50);
            let mut random = Random::new(seed);
            let middle = u64::from(if up { plan.interval } else { plan.interval_down }) * 1000;
            let part = middle * u64::from(jitter) / 100;
            for _ in 0..20 {
                let wait = wait(&plan, up, &mut random);
                prop_assert!(wait >= middle - part && wait <= middle + part);
                prop_assert!(first_wait(&plan, Health::new(up, true), &mut random) < middle);
                prop_assert!(first_wait(&plan, Health::new(up, false), &mut random) < middle.min(1_000_000));
            }
        }
    }

    #[test]
    fn first_checks_are_spread() {
        let plan = plan(CheckKind::Icmp);
        let mut random = Random::new(7);
        let mut tenths = [0u32; 10];
        for _ in 0..1000 {
            let wait = first_wait(&plan, Health::new(true, true), &mut random);
            tenths[usize::try_from(wait * 10 / plan.interval(true)).expect("small")] += 1;
        }
        assert!(tenths.iter().all(|n| (60..140).contains(n)), "{tenths:?}");
    }
}
