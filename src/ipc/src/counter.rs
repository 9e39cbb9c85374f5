//! What workers count, in memory that the supervisor reads. Every packet has exactly one [`Outcome`].

use crate::{BackendIndex, Cause, MAX_BACKEND_INDEX};
use bincode::{Decode, Encode};

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

/// Index of the counter of received packets: the sum of all outcomes between two batches.
pub const RECEIVED: usize = 0;

/// Declares an enum of things that are counted, each with the label of its counter and, after `=>`, the sentence that an
/// operator reads of it.
macro_rules! counted {
    ($(#[$doc:meta])* $name:ident from $first:expr, {
        $($(#[$item_doc:meta])* $item:ident = $label:literal => $meaning:literal,)*
    }) => {
        counted! { $(#[$doc])* $name from $first, { $($(#[$item_doc])* $item = $label,)* } }

        impl $name {
            /// What it means to an operator: the end of a sentence whose subject is the packet.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$item => $meaning,)* }
            }
        }
    };
    ($(#[$doc:meta])* $name:ident from $first:expr, { $($(#[$item_doc:meta])* $item:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
        pub enum $name {
            $($(#[$item_doc])* $item,)*
        }

        impl $name {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$item,)*];

            /// Its name in logs, status and metrics.
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
    /// What became of a packet, and why. Each has its label and its sentence beside it.
    Outcome from RECEIVED + 1, {
        /// Request of a known flow, sent on to its backend.
        Forwarded = "forwarded" => "goes on to",
        /// First request of a flow, sent on to the backend chosen for it.
        ForwardedNew = "forwarded_new" => "begins a flow to",
        /// Reply of a known flow, sent on to the client as if from the VIP.
        Returned = "returned" => "is a reply, and goes back to the client from the virtual IP",
        /// ICMP error about a reply, sent on to the backend.
        ErrorForwarded = "error_forwarded" => "is an ICMP error about a reply, and goes on to the backend",
        /// ICMP error from a backend about a request, sent on to the client as if from the VIP.
        ErrorReturned = "error_returned" =>
            "is an ICMP error from a backend, and goes on to the client from the virtual IP",
        /// Request of a flow whose backend is down, answered with a TCP reset.
        AnsweredReset = "answered_reset" => "answered with a reset, because the backend of its flow is out",
        /// Request of a flow whose backend is down, answered with ICMP port unreachable.
        AnsweredUnreachable = "answered_unreachable" =>
            "answered with port unreachable, because the backend of its flow is out",
        /// New TCP connection, refused with a reset: no backend can be chosen.
        RefusedReset = "refused_reset" => "answered with a reset, because no backend can be chosen",
        /// New UDP flow, refused with ICMP port unreachable: no backend can be chosen.
        RefusedUnreachable = "refused_unreachable" => "answered with port unreachable, because no backend can be \
            chosen",
        /// New TCP connection or UDP flow, refused with a reset or ICMP port unreachable: at every backend that could be chosen
        /// another flow of this client, to another VIP, already uses the same ports.
        RefusedClash = "refused_clash" =>
            "answered with a reset or port unreachable, because the client has the same flow to another virtual IP or port on \
             every backend that could be chosen, and replies could not be told apart",
        /// Reply of a flow that was reset because its backend is out, or that another backend has by now, answered with a TCP reset
        /// to the backend.
        AnsweredBackend = "answered_backend" =>
            "is a reply of a flow that was reset, or that another backend has by now, and answered with a reset to the backend",
        /// ICMP error from a router behind us, or this host, about a request, sent to the client as if from the VIP.
        ErrorRelayed = "error_relayed" =>
            "is an ICMP error from a router or this host, and goes on to the client from the virtual IP",

        /// A fragment that came before the first one of its packet: sent through the rules again, so that it comes after it.
        RepeatedFragment = "repeated_fragment" => "is a fragment that waits for the first one of its packet",

        /// Passed: neither to a VIP nor from a backend.
        PassedForeign = "passed_foreign" => "passes, because it is neither to a virtual IP nor from a backend",
        /// Passed: from a backend, but of no flow of ours; the backend's own traffic.
        PassedOwn = "passed_own" => "passes, because it is a backend's own traffic, of no flow here",
        /// Passed: to a VIP, but no service takes it; the host's own traffic.
        PassedUnserved = "passed_unserved" => "passes, because no service takes it: it belongs to this host",
        /// Passed: header, length or upper layer contradict each other, and `on_failure.parse_error` says pass.
        PassedMalformed = "passed_malformed" => "passes, because it is malformed and parse_error = \"pass\"",
        /// Passed: IPv6 neighbour or multicast listener discovery.
        PassedNeighbour = "passed_neighbour" => "passes, because it is neighbour or multicast listener discovery",

        /// Dropped: header, length or upper layer contradict each other.
        DroppedMalformed = "dropped_malformed" => "dropped, because it is malformed",
        /// Dropped: a fragment that does not fit the others of its packet, or whose first one did not come or was not sent on.
        DroppedFragment = "dropped_fragment" =>
            "dropped, because it is a fragment of a packet whose other fragments do not fit, or whose first one \
             was not sent on",
        /// Dropped: to a VIP, but no service takes it, and `unserved` says drop.
        DroppedUnserved = "dropped_unserved" => "dropped, because no service takes it",
        /// Dropped: an ICMP error to a VIP about a packet of no flow of ours.
        DroppedStrayError = "dropped_stray_error" =>
            "dropped, because it is an ICMP error about a packet of no flow here",
        /// Dropped: a reply, other than TCP, of a flow whose backend is out.
        DroppedBackendOut = "dropped_backend_out" => "dropped, because it is a reply of a flow whose backend is out",
        /// Dropped: no backend can be chosen.
        DroppedNoBackend = "dropped_no_backend" => "dropped, because there is no backend for it",
        /// Dropped: the flow table is full of living flows.
        DroppedTableFull = "dropped_table_full" => "dropped, because the flow table is full of living flows",
        /// Dropped: as `RefusedClash`, but of a protocol without an answer, or from an address that must not be answered.
        DroppedClash = "dropped_clash" =>
            "dropped, because the client has the same flow to another virtual IP or port on every \
             backend that could be chosen, and replies could not be told apart",
        /// Dropped: longer than the kernel can hand over, so it cannot be rewritten.
        DroppedCut = "dropped_cut" =>
            "dropped, because it is longer than the kernel can hand over and cannot be rewritten",
        /// Dropped: a backend's packet in the middle of a connection that neither a client nor the backend has here. The client
        /// would see the backend's own address.
        DroppedOrphan = "dropped_orphan" =>
            "dropped, because it is a backend's packet in the middle of a connection that is not known here",
        /// Dropped: the worker failed to give a verdict. Always 0 unless `loaded` has a bug.
        DroppedUndecided = "dropped_undecided" =>
            "dropped, because the worker failed to decide about it: a bug in loaded",
    }
}

counted! {
    /// What went wrong between a worker and the kernel or the prober.
    Fault from RECEIVED + 1 + Outcome::ALL.len(), {
        /// A verdict for a packet the kernel no longer knew: its queue was flushed.
        UnknownId = "verdict_unknown_id",
        /// A verdict the kernel refused for another reason.
        Refused = "verdict_refused",
        /// A verdict that could not be sent.
        Unsent = "verdict_unsent",
        /// A message from the kernel that is neither packet nor answer.
        Strange = "message_strange",
        /// An answer that did not fit into its packet's buffer; the packet was dropped. Always 0 unless `loaded` has a bug.
        Unfit = "verdict_unfit",
        /// A malformed message from the prober, or one about a generation or a backend that this worker does not know.
        MembershipStrange = "membership_strange",
        /// A table whose header was not the supervisor's when it was opened: it was emptied.
        TableDamaged = "table_damaged",
    }
}

counted! {
    /// What a full flow table, or flows too alike, made necessary. No packet is lost by it: a lost packet has an outcome.
    Pressure from RECEIVED + 1 + Outcome::ALL.len() + Fault::ALL.len(), {
        /// A living flow that is not protected gave way to a new one.
        Evicted = "flow_evicted",
        /// A flow was opened unprotected: its source prefix, or its client's port, has its full share of protected flows.
        Unprotected = "flow_unprotected",
        /// A flow was given another backend than its client's or the strategy's: there it would have clashed with a flow of the
        /// same client, from the same port, to another VIP.
        ClashAvoided = "clash_avoided",
    }
}

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
