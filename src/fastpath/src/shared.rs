//! What the program and this crate have in common: places in records, numbers, sizes. The build makes a C header of it
//! (build.rs includes this file), and the program's compiler compares it with its structs.

/// Backend numbers are below this (`loaded_ipc::MAX_BACKEND_INDEX`).
pub const MAX_BACKENDS: usize = 8192;
/// Numbers of virtual IPs are below this; those of others stay with the queue.
pub const MAX_VIPS: usize = 4096;
/// Most workers of an instance.
pub const MAX_WORKERS: usize = 256;

/// The hash table of addresses: 2^[`ADDRESS_BITS`] buckets of [`ADDRESS_SLOTS`].
pub const ADDRESS_BITS: u32 = 13;
/// Buckets.
pub const ADDRESS_BUCKETS: usize = 1 << ADDRESS_BITS;
/// Slots of a bucket.
pub const ADDRESS_SLOTS: usize = 4;

/// Declares numbers once, as constants and as a list for the header.
macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: usize = $value;)*

        /// All of them by name.
        pub const NUMBERS: &[(&str, usize)] = &[$((stringify!($name), $name),)*];
    };
}

numbers! {
    /// A backend, by its index.
    BACKEND_BYTES = 32;
    /// Its address, IPv4 as `::ffff:a.b.c.d`.
    BACKEND_ADDRESS = 0;
    /// The interface that leads to it, by which its replies must come; 0: by any.
    BACKEND_INTERFACE = 16;
    /// Seconds for which a flow may go on without a visit to its worker: open TCP,
    BACKEND_FRESH_TCP = 20;
    /// answered UDP,
    BACKEND_FRESH_UDP = 21;
    /// flows that are not open yet,
    BACKEND_FRESH_HALF_OPEN = 22;
    /// and those that both sides have closed.
    BACKEND_FRESH_CLOSING = 23;
    /// Its port; 0: that of the service. Host byte order.
    BACKEND_PORT = 24;
    /// What becomes of its packets; 0: there is no such backend.
    BACKEND_KIND = 26;
    /// They are rewritten, and its replies come this way (mode "nat").
    BACKEND_IS_REWRITTEN = 1;
    /// They stay as they are, and its replies take another way (mode "dsr").
    BACKEND_IS_DIRECT = 2;

    /// An address of interest.
    ADDRESS_BYTES = 32;
    /// The address itself.
    ADDRESS_ADDRESS = 0;
    /// Index of a virtual IP.
    ADDRESS_INDEX = 16;
    /// What it is; 0: the slot is free.
    ADDRESS_KIND = 24;
    /// Which ports flows to it have: both bits, if some change and some stay.
    ADDRESS_PORTS = 25;
    /// The port at the backend is that at the virtual IP.
    PORTS_STAY = 1;
    /// It may be another one.
    PORTS_CHANGE = 2;
    /// A virtual IP.
    ADDRESS_IS_VIP = 1;
    /// One or several backends.
    ADDRESS_IS_BACKEND = 2;

    /// A worker's table.
    WORKER_BYTES = 32;
    /// The key of its hash.
    WORKER_HASH_KEY = 0;
    /// Number of its buckets.
    WORKER_BUCKETS = 16;
    /// Not 0: it is there.
    WORKER_USED = 24;

    /// Number of workers, masks of both families, keys.
    STEERING_BYTES = 48;

    /// A packet that moves a flow's state.
    REPORT_BYTES = 48;
    /// The client's address.
    REPORT_CLIENT = 0;
    /// Its port, host byte order, like all numbers.
    REPORT_CLIENT_PORT = 16;
    /// The one in the flow's key: that of the service, or 0 if the backend has another one.
    REPORT_SERVICE_PORT = 18;
    /// TCP: the number behind the packet's last byte; SYN and FIN count as one.
    REPORT_END = 20;
    /// TCP: what it acknowledges, if it has the flag.
    REPORT_ACKNOWLEDGED = 24;
    /// The flow's virtual IP.
    REPORT_VIP = 28;
    /// The flow's backend.
    REPORT_BACKEND = 30;
    /// TCP or UDP.
    REPORT_PROTOCOL = 32;
    /// TCP flags (RFC 9293 §3.1).
    REPORT_FLAGS = 33;
    /// Not 0: from the backend.
    REPORT_REPLY = 34;
    /// Bytes of the packet, with its IP header.
    REPORT_PACKET_BYTES = 36;
    /// TCP: [`HEARD`] and the lower 16 bits of the number that the backend has acknowledged last, as far as the program has seen.
    REPORT_HEARD = 40;
    /// There is such a number.
    HEARD = 0x1_0000;
    /// The backend has sent its FIN.
    FINISHED = 0x2_0000;
    /// The port at the flow's virtual IP.
    REPORT_VIP_PORT = 44;

    /// The byte of a backend: its flows go on, and nothing more.
    KEPT = 1;
    /// The same, and each reply is reported: the worker waits for a sign of life.
    KEPT_AND_HEARD = 2;

    /// What a backend's packets and bytes add up to.
    TOTAL_BYTES = 32;
}

/// Declares why packets go on to the queue.
macro_rules! misses {
    ($($(#[$doc:meta])* $name:ident = $constant:literal, $label:literal;)*) => {
        /// Why a packet goes on to the rules and the queue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Miss {
            $($(#[$doc])* $name,)*
        }

        impl Miss {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// Their names in C.
            pub const CONSTANTS: &[&str] = &[$($constant,)*];

            /// Whether there is a counter of it: not of what is nobody's business here.
            #[must_use]
            pub fn is_counted(self) -> bool {
                !matches!(self, Self::Not | Self::Unread | Self::Foreign)
            }

            /// Its name for the operator.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

misses! {
    /// None: it was sent on.
    Not = "MISS_NOT", "sent";
    /// Not counted: neither TCP nor UDP, or unusual.
    Unread = "MISS_UNREAD", "unread";
    /// Not counted: neither to a virtual IP nor from a backend.
    Foreign = "MISS_FOREIGN", "foreign";
    /// A SYN.
    Opens = "MISS_OPENS", "opens";
    /// No flow is there.
    NoFlow = "MISS_NO_FLOW", "no_flow";
    /// The worker was just writing the entry.
    Torn = "MISS_TORN", "torn";
    /// The flow's state, or the packet's flags, are for the worker to judge.
    Unusual = "MISS_UNUSUAL", "unusual";
    /// The backend is not known here, or the packet came in by another interface.
    Backend = "MISS_BACKEND", "backend";
    /// The worker has not seen the flow lately.
    Stale = "MISS_STALE", "stale";
    /// The worker does not keep the backend's flows.
    NotKept = "MISS_NOT_KEPT", "not_kept";
    /// No way out, or the packet is too long for it.
    Way = "MISS_WAY", "way";
    /// The packet could not be changed.
    Change = "MISS_CHANGE", "change";
    /// No room for a report.
    Room = "MISS_ROOM", "room";
}
