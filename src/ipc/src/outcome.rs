//! What becomes of packets, and what goes wrong on the way, each with its counter and label. Every packet has exactly one
//! [`Outcome`], and each outcome a meaning for the operator.

use bincode::{Decode, Encode};

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
