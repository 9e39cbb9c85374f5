//! One counter of a worker: while it stands still, thousands of others need not be read.

/// A count as it was seen last.
#[derive(Debug, Default)]
pub(in crate::instance) struct Alarm {
    count: Option<u64>,
    again: bool,
}

impl Alarm {
    /// Whether to read what it counts: it has moved; or it had at the last look, when it may have shown before the rest.
    pub(in crate::instance) fn rings(&mut self, count: u64) -> bool {
        let moved = self.count.replace(count) != Some(count);
        std::mem::replace(&mut self.again, moved) || moved
    }

    /// Not everything was taken: it rings once more.
    pub(in crate::instance) fn ring_again(&mut self) {
        self.again = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rings_once_more_after_the_last_change() {
        let mut alarm = Alarm::default();
        let mut rung = |counts: &[u64]| counts.iter().map(|count| alarm.rings(*count)).collect::<Vec<_>>();
        assert_eq!(rung(&[0, 0, 0]), [true, true, false]);
        assert_eq!(rung(&[3, 4, 4, 4]), [true, true, true, false]);
        alarm.ring_again();
        assert!(alarm.rings(4) && !alarm.rings(4));
    }
}
