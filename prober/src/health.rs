//! Rise and fall: when the results of checks change what is believed. No clock, no input or output.

use loaded_ipc::Cause;

/// What is believed of one backend, and the evidence against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    up: bool,
    proven: bool,
    /// Consecutive results that contradict `up`.
    against: u8,
}

impl Health {
    /// Starts from what was believed before; `proven`: by a check.
    #[must_use]
    pub fn new(up: bool, proven: bool) -> Self {
        Self { up, proven, against: 0 }
    }

    /// Whether it is believed to be up.
    #[must_use]
    pub fn up(self) -> bool {
        self.up
    }

    /// Whether any check has confirmed it yet.
    #[must_use]
    pub fn proven(self) -> bool {
        self.proven
    }

    /// Takes one result. Returns whether the supervisor must hear of a change: the state has changed, or this was the
    /// first result of all, which decides alone.
    ///
    /// `rise` consecutive successes bring a backend up, `fall` consecutive failures take it down; one result to the
    /// contrary restarts the count. There is no other damping of flapping. A check that could not be made counts
    /// neither way and does not break a row.
    pub fn judge(&mut self, cause: Cause, rise: u8, fall: u8) -> bool {
        let passed = match cause {
            Cause::NotMade | Cause::Unchecked => return false,
            cause => cause == Cause::Passed,
        };
        if !self.proven {
            *self = Self { up: passed, proven: true, against: 0 };
            return true;
        }
        if passed == self.up {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        if self.against < if self.up { fall } else { rise } {
            return false;
        }
        *self = Self { up: passed, proven: true, against: 0 };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn causes() -> impl Strategy<Value = Vec<Cause>> {
        let one = prop_oneof![
            4 => Just(Cause::Passed),
            2 => Just(Cause::Refused),
            2 => Just(Cause::Status(503)),
            1 => Just(Cause::NotMade),
        ];
        prop::collection::vec(one, 0..200)
    }

    #[test]
    fn failures_must_be_in_a_row() {
        let mut health = Health::new(true, true);
        for _ in 0..100 {
            assert!(!health.judge(Cause::Refused, 2, 3));
            assert!(!health.judge(Cause::Refused, 2, 3));
            assert!(!health.judge(Cause::Passed, 2, 3));
        }
        assert!(health.up());
    }

    #[test]
    fn a_check_not_made_neither_counts_nor_breaks_the_row() {
        let mut health = Health::new(true, true);
        assert!(!health.judge(Cause::Refused, 2, 2));
        assert!(!health.judge(Cause::NotMade, 2, 2));
        assert!(health.judge(Cause::Refused, 2, 2));
        assert!(!health.up());
        let mut health = Health::new(true, false);
        assert!(!health.judge(Cause::NotMade, 1, 1));
        assert!(!health.proven());
    }

    #[test]
    fn the_first_result_of_an_unproven_backend_decides_alone() {
        for (believed, cause, up) in [
            (true, Cause::Passed, true),
            (true, Cause::NoEcho, false),
            (false, Cause::Passed, true),
            (false, Cause::NoEcho, false),
        ] {
            let mut health = Health::new(believed, false);
            assert!(health.judge(cause, 200, 200));
            assert_eq!((health.up(), health.proven()), (up, true));
        }
    }

    proptest! {
        /// Against the rule in plain words: the state turns exactly when the last `n` results that count, all since the
        /// last turn, contradict it.
        #[test]
        fn the_state_turns_at_the_end_of_a_row(
            causes in causes(), up: bool, proven: bool, rise in 1u8..=6, fall in 1u8..=6,
        ) {
            let mut health = Health::new(up, proven);
            let mut believed = up;
            let mut since: Vec<bool> = Vec::new();
            let mut proven = proven;
            for cause in causes {
                let told = health.judge(cause, rise, fall);
                if cause == Cause::NotMade {
                    prop_assert!(!told);
                    continue;
                }
                since.push(cause == Cause::Passed);
                let needed = if !proven { 1 } else if believed { fall } else { rise };
                let row = since.iter().rev().take_while(|passed| **passed != believed).count();
                let turn = row >= usize::from(needed);
                prop_assert_eq!(told, turn || !proven);
                if turn {
                    believed = !believed;
                    since.clear();
                }
                proven = true;
                prop_assert_eq!(health.up(), believed);
                prop_assert!(health.proven());
            }
        }
    }
}
