//! What workers count, in memory the supervisor can read. Every packet has exactly one [`Outcome`].

/// Number of counters a worker has: received packets, one for each outcome, one for each fault.
pub const COUNTERS: usize = 1 + Outcome::ALL.len() + Fault::ALL.len();

/// Index of the counter of received packets: always the sum over all outcomes.
pub const RECEIVED: usize = 0;

macro_rules! counted {
    ($(#[$doc:meta])* $name:ident from $first:expr, { $($(#[$item_doc:meta])* $item:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
        /// ICMP error from a router behind us about a request, sent on to the client; the router stays its sender.
        ErrorRelayed = "error_relayed",

        /// Passed: neither to a VIP nor from a backend.
        PassedForeign = "passed_foreign",
        /// Passed: from a backend, of no flow of ours; the backend's own traffic.
        PassedOwn = "passed_own",
        /// Passed: to a VIP, but to nothing that is balanced there; the host's own traffic.
        PassedUnserved = "passed_unserved",
        /// Passed: IPv6 neighbour or multicast listener discovery.
        PassedNeighbour = "passed_neighbour",

        /// Dropped: header, length or upper layer do not hold together.
        DroppedMalformed = "dropped_malformed",
        /// Dropped: a piece of a packet to a VIP. The kernel puts packets together before it queues them.
        DroppedFragment = "dropped_fragment",
        /// Dropped: a protocol that is not balanced, to a VIP that is balanced as a whole.
        DroppedProtocol = "dropped_protocol",
        /// Dropped: an ICMP error to a VIP about a packet of no flow of ours.
        DroppedStrayError = "dropped_stray_error",
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
    /// What went wrong between worker and kernel.
    Fault from RECEIVED + 1 + Outcome::ALL.len(), {
        /// A verdict for a packet the kernel no longer knew: its queue was flushed.
        UnknownId = "verdict_unknown_id",
        /// A verdict the kernel refused for another reason.
        Refused = "verdict_refused",
        /// A verdict that could not be sent.
        Unsent = "verdict_unsent",
        /// A message from the kernel that is neither packet nor answer.
        Strange = "message_strange",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_counter_has_its_own_place_and_name() {
        let outcomes = Outcome::ALL.iter().map(|o| (o.index(), o.label()));
        let all: Vec<_> = outcomes.chain(Fault::ALL.iter().map(|f| (f.index(), f.label()))).collect();
        assert_eq!(all.iter().map(|a| a.0).collect::<Vec<_>>(), (1..COUNTERS).collect::<Vec<_>>());
        assert_eq!(all.iter().map(|a| a.1).collect::<BTreeSet<_>>().len(), all.len());
    }
}
