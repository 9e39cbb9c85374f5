//! Which acts, in which order, on which victims and for how long. The seed alone decides: nothing that happens meanwhile
//! changes the sequence.

use super::{DISABLED, DRAINED, MORTAL};
use crate::instance::VARIANTS;
use crate::rig::packet::Dice;
use std::time::Duration;

/// What is done to the instance. `which` chooses among the processes that serve at that moment, as a remainder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    KillWorker {
        which: usize,
    },
    /// In the background. A worker that does not answer for 1.5 s is killed and replaced.
    StopWorker {
        which: usize,
        seconds: u64,
    },
    KillProber,
    /// A new one is started after `rest`.
    KillSupervisor {
        rest: Duration,
    },
    Upgrade,
    Reload {
        variant: usize,
    },
    /// A backend of `steady`: no client may notice.
    Drain {
        backend: usize,
        seconds: u64,
    },
    /// A backend of `mortal`.
    Disable {
        backend: usize,
        seconds: u64,
    },
    KillBackend {
        backend: usize,
        seconds: u64,
    },
    Flood {
        kind: Kind,
        seconds: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Syn,
    Datagram,
}

impl Act {
    /// Its name in the journal and the picture.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KillWorker { .. } => "kill worker",
            Self::StopWorker { .. } => "stop worker",
            Self::KillProber => "kill prober",
            Self::KillSupervisor { .. } => "kill supervisor",
            Self::Upgrade => "upgrade",
            Self::Reload { .. } => "reload",
            Self::Drain { .. } => "drain",
            Self::Disable { .. } => "disable",
            Self::KillBackend { .. } => "backend dies",
            Self::Flood { .. } => "flood",
        }
    }
}

/// A round has each of these once, in random order, so that a short soak has everything, too.
const ROUND: [fn(&mut Plan) -> Act; 12] = [
    |plan| Act::KillWorker { which: plan.dice.below(usize::MAX) },
    |plan| Act::KillWorker { which: plan.dice.below(usize::MAX) },
    |plan| Act::StopWorker { which: plan.dice.below(usize::MAX), seconds: plan.seconds(1, 3) },
    |_| Act::KillProber,
    |plan| Act::KillSupervisor { rest: plan.pause() },
    |_| Act::Upgrade,
    Plan::reload,
    Plan::reload,
    |plan| Act::Drain { backend: plan.dice.below(DRAINED), seconds: plan.seconds(2, 5) },
    |plan| Act::Disable { backend: plan.dice.below(DISABLED), seconds: plan.seconds(2, 5) },
    |plan| Act::KillBackend { backend: plan.dice.below(MORTAL), seconds: plan.seconds(3, 6) },
    |plan| Act::Flood { kind: plan.dice.one_of(&[Kind::Syn, Kind::Datagram]), seconds: plan.seconds(2, 5) },
];

/// The endless sequence: each act, and the pause after it.
pub(crate) struct Plan {
    dice: Dice,
    /// What is left of this round; the next act is the last element.
    round: Vec<fn(&mut Self) -> Act>,
    variant: usize,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        // Neighbouring seeds are to begin differently.
        let dice = Dice::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Self { dice, round: Vec::new(), variant: 0 }
    }

    fn shuffled(&mut self) -> Vec<fn(&mut Self) -> Act> {
        let mut round = ROUND.to_vec();
        for last in (1..round.len()).rev() {
            round.swap(last, self.dice.below(last + 1));
        }
        round
    }

    fn seconds(&mut self, least: u64, most: u64) -> u64 {
        least + u64::try_from(self.dice.below(usize::try_from(most - least + 1).unwrap())).unwrap()
    }

    /// Up to two seconds.
    fn pause(&mut self) -> Duration {
        Duration::from_millis(u64::try_from(self.dice.below(2000)).unwrap())
    }

    /// To a variant other than the last one.
    fn reload(&mut self) -> Act {
        self.variant = (self.variant + 1 + self.dice.below(VARIANTS - 1)) % VARIANTS;
        Act::Reload { variant: self.variant }
    }
}

impl Iterator for Plan {
    type Item = (Act, Duration);

    fn next(&mut self) -> Option<Self::Item> {
        if self.round.is_empty() {
            self.round = self.shuffled();
        }
        let draw = self.round.pop()?;
        Some((draw(self), self.pause()))
    }
}

#[test]
fn a_seed_gives_one_sequence() {
    let of = |seed| Plan::of(seed).take(100).collect::<Vec<_>>();
    assert_eq!(of(26), of(26));
    assert_ne!(of(26), of(27));
}

#[test]
fn each_round_has_every_act() {
    let names = |round: &[(Act, Duration)]| {
        let mut names: Vec<_> = round.iter().map(|(act, _)| act.name()).collect();
        names.sort_unstable();
        names
    };
    let acts: Vec<_> = Plan::of(1).take(3 * ROUND.len()).collect();
    let rounds: Vec<_> = acts.chunks(ROUND.len()).map(names).collect();
    assert!(rounds.iter().all(|round| *round == rounds[0]), "{rounds:?}");
    let mut kinds = rounds[0].clone();
    kinds.dedup();
    assert_eq!(kinds.len(), 10);
    assert!(acts.iter().all(|(_, pause)| *pause < Duration::from_secs(2)));
}

#[test]
fn a_reload_changes_something() {
    let mut before = 0;
    for (act, _) in Plan::of(3).take(500) {
        if let Act::Reload { variant } = act {
            assert!(variant != before && variant < VARIANTS);
            before = variant;
        }
    }
}
