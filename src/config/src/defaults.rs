//! The defaults and their reasons. `scripts/loaded.toml` names each of them. Those of a service's policy are
//! [`loaded_ipc::Policy::STANDARD`].

use loaded_ipc::{Mode, Quota, Unserved};

/// Default account of the workers and the prober.
pub const USER: &str = "nobody";
/// Default number of core 0's queue: queue n is core n's, as in the original.
pub const QUEUE_BASE: u16 = 0;
/// Default length of a kernel queue in packets: a burst of 16 ms at a million packets a second. Each waiting
/// packet holds an skb of up to 64 KiB, so this is at most 1 GiB, and about 40 MB for packets of 1500 bytes.
pub const QUEUE_LEN: u32 = 16_384;
/// Default of `mode`: backends need to know nothing of the VIP.
pub const MODE: Mode = Mode::Nat;
/// Default flows of one worker: 22 MiB at 88 bytes each, taken at start.
pub const FLOWS: u32 = 262_144;
/// Default clients of one worker: as many, 20 MiB at 80 bytes each.
pub const CLIENTS: u32 = 262_144;
/// Default of `quota`. The prefixes are the smallest that are routed by themselves, so whoever owns one can send and
/// receive with all of its addresses; a subscriber's network (/56, /48) lies within one. A share is 5242 of the default
/// flows, which few networks have open at one worker. Those that do, say a carrier's NAT, lose nothing while less than
/// half of the table is protected; after that they lose only their longest idle flows, and only to a new flow that
/// finds no other place.
pub const QUOTA: Quota = Quota { prefix4: 24, prefix6: 48, percent: 2 };
/// Default seed of the maglev strategy: "loaded" in ASCII. A constant, so that several balancers agree without being
/// told to.
pub const MAGLEV_SEED: u64 = 0x6c6f_6164_6564;
/// Default seconds after a client's last packet until it is forgotten.
pub const AFFINITY_TIMEOUT: u32 = 3600;
/// Default leading bits that make an IPv4 client: the whole address.
pub const PREFIX4: u8 = 32;
/// Default leading bits that make an IPv6 client in the classic format: the whole address, as in the original.
pub const CLASSIC_PREFIX6: u8 = 128;
/// Default leading bits that make an IPv6 client in TOML: one network, whose hosts change their addresses often.
pub const PREFIX6: u8 = 64;
/// Default seconds that a removed or drained backend may keep its flows: most downloads end in five minutes, and an
/// operator does not wait for a drain any longer than that.
pub const DRAIN: u32 = 300;
/// Seconds: who does not move VIPs between machines wants an end that ends.
pub const STOP_HOLD: u32 = 0;
/// Default of `unserved`: traffic to a VIP that is not balanced belongs to the host, as without `loaded`.
pub const UNSERVED: Unserved = Unserved::Pass;

/// Default milliseconds between two checks: with [`FALL`] a silent backend is out within 8 s, and 100 backends
/// cost 50 checks a second.
pub const CHECK_INTERVAL: u32 = 2000;
/// Default milliseconds until a check has failed: a lost SYN is sent again after one second (RFC 6298 §2.1), and in a
/// network of backends that is failure enough. Less where the interval is shorter.
pub const CHECK_TIMEOUT: u32 = 1000;
/// Default percent by which each wait differs: enough to keep checks that began together from staying together.
pub const JITTER: u8 = 10;
/// Default of `rise`: consecutive successes that bring a backend up; one could be luck.
pub const RISE: u8 = 2;
/// Default of `fall`: consecutive failures that take a backend down; two lost packets do not.
pub const FALL: u8 = 3;
/// Default HTTP status codes that count as success: answers and redirects.
pub const STATUS: (u16, u16) = (200, 399);
/// Default port of a DNS check.
pub const DNS_PORT: u16 = 53;

/// Default consecutive failed openings after which a worker ejects a backend.
pub const PASSIVE_FAILS: u8 = 3;
/// Default milliseconds until an opening counts as unanswered: below the second after which clients repeat a SYN, so
/// that the repeated one goes elsewhere.
pub const PASSIVE_TIMEOUT: u32 = 500;
/// Default seconds until such a backend is tried again: time for the checks to say what it is.
pub const PASSIVE_HOLD: u32 = 10;

/// Default most backends that discovery may add to a service.
pub const DISCOVER_LIMIT: u16 = 64;
/// Default milliseconds between two searches: every node of the network answers each of them.
pub const DISCOVER_INTERVAL: u32 = 10_000;
