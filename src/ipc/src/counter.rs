//! What workers count, in memory the supervisor can read. Every packet has exactly one [`Outcome`].

use crate::{BackendIndex, Cause, MAX_BACKEND_INDEX};
use bincode::{Decode, Encode};

/// Number of counters about packets: received ones, one for each outcome, one for each fault, and those of the flow table.
pub const COUNTERS: usize = 1 + Outcome::ALL.len() + Fault::ALL.len() + Pressure::ALL.len();

/// Index of a word that is no counter: the packet that the worker looks at or decides about, as [`in_hand`] has it; 0 between
/// two. Should the worker die, it is the one under suspicion.
pub const IN_HAND: usize = COUNTERS;

/// Index of another such word: whose turn it is to work with queue and tables, one of [`Turn`]. When the supervisor dies in the
/// middle of a change, the worker that waits for its turn sees here whether it has come.
pub const TURN: usize = IN_HAND + 1;

/// What the worker that serves, or served last, has said of its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Turn {
    /// It has begun.
    Begun = 0,
    /// It was told to end: it has answered all that it held, and touches nothing any more.
    Over = 1,
    /// Its supervisor is dead, and it goes on.
    Kept = 2,
}

impl Turn {
    /// From the word; whatever a hostile worker has put there.
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        match word {
            1 => Self::Over,
            2 => Self::Kept,
            _ => Self::Begun,
        }
    }
}

/// The backends' counters begin here: on a cache line, if the first counter does.
const BACKENDS: usize = (TURN + 1).next_multiple_of(8);

/// The packet with this id as a word that is not 0.
#[must_use]
pub fn in_hand(id: u32) -> u64 {
    1 << 32 | u64::from(id)
}

/// The id in such a word; whatever a hostile worker has put there.
#[must_use]
pub fn from_hand(word: u64) -> Option<u32> {
    (word >> 32 == 1).then(|| u32::try_from(word & u64::from(u32::MAX)).ok()).flatten()
}

/// Number of counters a worker has in all: those about packets, then each backend's.
pub const ALL_COUNTERS: usize = BACKENDS + MAX_BACKEND_INDEX as usize * 8;

/// Index of the counter of received packets: always the sum over all outcomes.
pub const RECEIVED: usize = 0;

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident from $first:expr, { $($(#[$item_doc:meta])* $item:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
        pub enum $name {
            $($(#[$item_doc])* $item,)*
        }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$item,)*];

            /// Its name in logs and counters.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$item => $label,)* }
            }

            /// Index of its counter.
            #[must_use]
            pub fn index(self) -> usize {
                $first + self as usize
            }
        }
    };
}

counted! {
    /// What became of a packet, and why.
    Outcome from RECEIVED + 1, {
        /// Request of a known flow, sent on to its backend.
        Forwarded = "forwarded",
        /// First request of a flow, sent on to the backend chosen for it.
        ForwardedNew = "forwarded_new",
        /// Reply of a known flow, sent on to the client as the VIP's.
        Returned = "returned",
        /// ICMP error about a reply, sent on to the backend.
        ErrorForwarded = "error_forwarded",
        /// ICMP error from a backend about a request, sent on to the client as the VIP's.
        ErrorReturned = "error_returned",
        /// Request of a flow whose backend is down, answered with a TCP reset.
        AnsweredReset = "answered_reset",
        /// Request of a flow whose backend is down, answered with ICMP port unreachable.
        AnsweredUnreachable = "answered_unreachable",
        /// New TCP connection, refused with a reset: no backend can be chosen.
        RefusedReset = "refused_reset",
        /// New UDP flow, refused with ICMP port unreachable: no backend can be chosen.
        RefusedUnreachable = "refused_unreachable",
        /// Reply of a flow that was reset because its backend is out, answered with a TCP reset to the backend.
        AnsweredBackend = "answered_backend",
        /// ICMP error from a router behind us, or this host, about a request, sent to the client as from the VIP.
        ErrorRelayed = "error_relayed",

        /// Piece of a packet that came before the first piece: sent through the rules again, where it comes after it.
        RepeatedFragment = "repeated_fragment",

        /// Passed: neither to a VIP nor from a backend.
        PassedForeign = "passed_foreign",
        /// Passed: from a backend, of no flow of ours; the backend's own traffic.
        PassedOwn = "passed_own",
        /// Passed: to a VIP, but to nothing that is balanced there; the host's own traffic.
        PassedUnserved = "passed_unserved",
        /// Passed: header, length or upper layer do not hold together, and `on_failure.parse_error` says pass.
        PassedMalformed = "passed_malformed",
        /// Passed: IPv6 neighbour or multicast listener discovery.
        PassedNeighbour = "passed_neighbour",

        /// Dropped: header, length or upper layer do not hold together.
        DroppedMalformed = "dropped_malformed",
        /// Dropped: a piece of a packet that does not fit the others, or whose first piece did not come or was not sent on.
        DroppedFragment = "dropped_fragment",
        /// Dropped: to a VIP, but to nothing that is balanced there, and `unserved` says drop.
        DroppedUnserved = "dropped_unserved",
        /// Dropped: an ICMP error to a VIP about a packet of no flow of ours.
        DroppedStrayError = "dropped_stray_error",
        /// Dropped: a reply, other than TCP, of a flow whose backend is out.
        DroppedBackendOut = "dropped_backend_out",
        /// Dropped: no backend may be chosen.
        DroppedNoBackend = "dropped_no_backend",
        /// Dropped: the flow table is full of living flows.
        DroppedTableFull = "dropped_table_full",
        /// Dropped: another flow of this client, to another VIP, already uses the same ports at the chosen backend.
        DroppedClash = "dropped_clash",
        /// Dropped: longer than the kernel can hand over, so it cannot be rewritten.
        DroppedCut = "dropped_cut",
        /// Dropped: the worker failed to give a verdict. Always 0 unless `loaded` has a bug.
        DroppedUndecided = "dropped_undecided",
    }
}

counted! {
    /// What went wrong between worker and kernel, or prober.
    Fault from RECEIVED + 1 + Outcome::ALL.len(), {
        /// A verdict for a packet the kernel no longer knew: its queue was flushed.
        UnknownId = "verdict_unknown_id",
        /// A verdict the kernel refused for another reason.
        Refused = "verdict_refused",
        /// A verdict that could not be sent.
        Unsent = "verdict_unsent",
        /// A message from the kernel that is neither packet nor answer.
        Strange = "message_strange",
        /// An answer that did not fit its packet's place; the packet was dropped. Always 0 unless `loaded` has a bug.
        Unfit = "verdict_unfit",
        /// A message of the prober that is none, or names a generation or a backend this worker does not have.
        MembershipStrange = "membership_strange",
    }
}

counted! {
    /// What a full flow table had to do. No packet is lost by it; what is, is an outcome.
    Pressure from RECEIVED + 1 + Outcome::ALL.len() + Fault::ALL.len(), {
        /// A living flow made room for a new one: none that is protected.
        Evicted = "flow_evicted",
        /// A flow was opened, but is not protected: its source prefix has its share of those that are.
        Unprotected = "flow_unprotected",
    }
}

/// What a worker counts, in the order of its memory: two binaries of which this says the same can read each other's.
#[must_use]
pub fn counted() -> String {
    let outcomes = Outcome::ALL.iter().map(|outcome| outcome.label());
    let all = outcomes.chain(Fault::ALL.iter().map(|fault| fault.label()));
    let all: Vec<_> = all.chain(Pressure::ALL.iter().map(|pressure| pressure.label())).collect();
    format!("{} {ALL_COUNTERS}", all.join(" "))
}

/// What a worker counts of one backend: eight words, one cache line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BackendCounter {
    /// Flows it has now. Goes up and down.
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
    /// The checks say so; as the prober has told this worker.
    pub up: bool,
    /// This worker gives it no new flows for a while, for what its packets have shown.
    pub ejected: bool,
    /// Why, if so: refused, unreachable or connect timeout.
    pub cause: Option<Cause>,
    /// New flows can go there.
    pub chosen: bool,
}

impl View {
    /// As a word. 0 is no view: the worker does not know the backend.
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

    /// From a word; whatever a hostile worker has put there.
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
        assert_eq!(BackendCounter::View.index(BackendIndex(MAX_BACKEND_INDEX - 1)), ALL_COUNTERS - 2);
    }

    #[test]
    fn a_packet_in_hand_survives_as_a_word() {
        for id in [0, 1, u32::MAX] {
            assert_eq!(from_hand(in_hand(id)), Some(id));
        }
        assert_eq!((from_hand(0), from_hand(7), from_hand(u64::MAX)), (None, None, None));
        assert!(!Outcome::ALL.iter().any(|outcome| outcome.index() == IN_HAND));
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
    }
}
