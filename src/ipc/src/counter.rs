//! The layout of a worker's counters in shared memory: what each 64-bit word means, and how the words that are no counters are
//! encoded.

use crate::outcome::{Fault, Outcome, Pressure};
use crate::{BackendIndex, Cause, MAX_BACKEND_INDEX};

/// Number of counters about packets: one for the received ones, one for each outcome, fault and kind of pressure.
pub const COUNTERS: usize = 1 + Outcome::ALL.len() + Fault::ALL.len() + Pressure::ALL.len();

/// Index of a word that is no counter: the packet the worker is working on, as [`encode_packet_id`] writes it; 0 between
/// packets. If the worker dies, this packet is the suspect.
pub const CURRENT_PACKET: usize = COUNTERS;

/// Index of another such word: who works with queue and tables, one of [`Turn`]. If the supervisor dies in the middle of a
/// change of workers, the successor sees here whether the predecessor has ended.
pub const TURN: usize = CURRENT_PACKET + 1;

/// The state of the turn at the queue, written by workers alone: the one that serves, or the one that takes the turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Turn {
    /// A worker serves.
    Begun = 0,
    /// The worker was told to end: it has answered all packets that it held, and touches nothing any more.
    Over = 1,
    /// The worker's supervisor is dead, and it goes on serving.
    Kept = 2,
}

impl Turn {
    /// Decodes the word, whatever a hostile worker has put there.
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        match word {
            1 => Self::Over,
            2 => Self::Kept,
            _ => Self::Begun,
        }
    }
}

/// Index of a third: how often this worker has changed what it says of a backend ([`BackendCounter::View`]). Whoever reads those
/// need not read them again as long as this is the same.
pub const VIEWS: usize = TURN + 1;

/// The backends' counters begin here, at a cache line if the first counter does.
const BACKENDS: usize = (VIEWS + 1).next_multiple_of(8);

/// Encodes a packet id as a word that is never 0.
#[must_use]
pub fn encode_packet_id(id: u32) -> u64 {
    1 << 32 | u64::from(id)
}

/// Decodes such a word, whatever a hostile worker has put there; `None` if it holds no id.
#[must_use]
pub fn decode_packet_id(word: u64) -> Option<u32> {
    (word >> 32 == 1).then(|| u32::try_from(word & u64::from(u32::MAX)).ok()).flatten()
}

/// Number of words a worker has in all: those about packets, then each backend's.
pub const ALL_COUNTERS: usize = BACKENDS + MAX_BACKEND_INDEX as usize * 8;

/// The layout of the counters as text. Two binaries for which it is equal can read each other's counters.
#[must_use]
pub fn counter_layout() -> String {
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.label());
    let all = outcomes.chain(Fault::ALL.iter().map(|fault| fault.label()));
    let all: Vec<_> = all.chain(Pressure::ALL.iter().map(|pressure| pressure.label())).collect();
    format!("{} {ALL_COUNTERS}", all.join(" "))
}

/// What a worker counts of one backend: eight words, one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendCounter {
    /// Flows it has now; goes up and down.
    Flows,
    /// Flows it was given.
    NewFlows,
    /// Packets sent to it.
    PacketsTo,
    /// Bytes sent to it, with IP headers.
    BytesTo,
    /// Packets it sent.
    PacketsFrom,
    /// Bytes it sent.
    BytesFrom,
    /// A [`View`].
    View,
    /// SYNs that clients of its own network have sent again, since no answer of its passed here.
    Beside,
}

impl BackendCounter {
    /// Index of this counter of a backend.
    #[must_use]
    pub fn index(self, backend: BackendIndex) -> usize {
        BACKENDS + usize::from(backend.0) * 8 + self as usize
    }
}

/// How a worker sees one backend, as one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct View {
    /// Whether it is up by the checks, as the prober has told this worker.
    pub up: bool,
    /// Whether this worker gives it no new flows for a while, because of what packets have shown.
    pub ejected: bool,
    /// Why it is ejected: refused, unreachable or connect timeout.
    pub cause: Option<Cause>,
    /// Whether it takes new flows.
    pub chosen: bool,
}

impl View {
    /// Encodes it as a word that is not 0; 0 means that the worker does not know the backend.
    #[must_use]
    pub fn to_word(self) -> u64 {
        let cause = match self.cause {
            Some(Cause::Refused) => 1,
            Some(Cause::Unreachable) => 2,
            Some(Cause::ConnectTimeout) => 3,
            _ => 0,
        };
        1 | u64::from(self.up) << 1 | u64::from(self.ejected) << 2 | u64::from(self.chosen) << 3 | cause << 8
    }

    /// Decodes a word, whatever a hostile worker has put there.
    #[must_use]
    pub fn from_word(word: u64) -> Option<Self> {
        let bit = |n: u32| word >> n & 1 == 1;
        let cause = match word >> 8 & 0xff {
            1 => Some(Cause::Refused),
            2 => Some(Cause::Unreachable),
            3 => Some(Cause::ConnectTimeout),
            _ => None,
        };
        bit(0).then(|| Self { up: bit(1), ejected: bit(2), cause, chosen: bit(3) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backends_counters_lie_behind_all_others_and_beside_each_other() {
        assert!(BackendCounter::Flows.index(BackendIndex(0)) >= COUNTERS);
        assert_eq!(BackendCounter::Flows.index(BackendIndex(1)) - BackendCounter::Flows.index(BackendIndex(0)), 8);
        assert_eq!(BackendCounter::Beside.index(BackendIndex(MAX_BACKEND_INDEX - 1)), ALL_COUNTERS - 1);
    }

    #[test]
    fn a_packet_in_hand_survives_as_a_word() {
        for id in [0, 1, u32::MAX] {
            assert_eq!(decode_packet_id(encode_packet_id(id)), Some(id));
        }
        assert_eq!((decode_packet_id(0), decode_packet_id(7), decode_packet_id(u64::MAX)), (None, None, None));
        assert!(!Outcome::ALL.iter().any(|outcome| outcome.index() == CURRENT_PACKET));
        for turn in [Turn::Begun, Turn::Over, Turn::Kept] {
            assert_eq!(Turn::from_word(turn as u64), turn);
        }
        assert_eq!((Turn::from_word(3), Turn::from_word(u64::MAX)), (Turn::Begun, Turn::Begun));
    }

    #[test]
    fn a_view_survives_as_a_word() {
        let view = View { up: true, ejected: true, cause: Some(Cause::Refused), chosen: false };
        assert_eq!(View::from_word(view.to_word()), Some(view));
        assert_eq!(View::from_word(0), None);
        assert_eq!(View::from_word(View::default().to_word()), Some(View::default()));
    }

    use std::collections::BTreeSet;

    #[test]
    fn every_counter_has_its_own_place_and_name() {
        let outcomes = Outcome::ALL.iter().map(|o| (o.index(), o.label()));
        let faults = Fault::ALL.iter().map(|f| (f.index(), f.label()));
        let pressure = Pressure::ALL.iter().map(|p| (p.index(), p.label()));
        let all: Vec<_> = outcomes.chain(faults).chain(pressure).collect();
        assert_eq!(all.iter().map(|a| a.0).collect::<Vec<_>>(), (1..COUNTERS).collect::<Vec<_>>());
        assert_eq!(all.iter().map(|a| a.1).collect::<BTreeSet<_>>().len(), all.len());
        let meanings: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.meaning()).collect();
        assert_eq!(meanings.len(), Outcome::ALL.len());
    }
}
