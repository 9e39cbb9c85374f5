//! What a service does with its flows, and when its backends fail: each value with its range, its default and the
//! reason for it.

use bincode::{Decode, Encode};
use std::fmt;
use std::ops::RangeInclusive;

/// What a service does with its flows, and when its backends fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct Policy {
    /// What becomes of the flows of a backend that is down.
    pub on_backend_down: OnBackendDown,
    /// What becomes of new flows when no backend is up.
    pub all_down: AllDown,
    /// If fewer than this percentage of the backends (without backups) are up, the checks are not believed and all backends
    /// are used. 0..=100; 0: never.
    pub panic_threshold: u8,
    /// Seconds until a backend that came up gets its full share. 0..=3600.
    pub slow_start: u32,
    /// How long its flows may be idle.
    pub idle: Idle,
    /// Whether, and how, workers judge backends by the packets they see.
    pub passive: Option<Passive>,
    /// Whether replies may come by any interface, and not only by one that the route to the backend leads through. Decided by
    /// the rules, before a worker sees a packet.
    pub asymmetric: bool,
    /// Whether a backend's packet in the middle of a connection that is not known here begins a flow, where its client would get
    /// this backend, and is dropped elsewhere. Only with TCP, UDP or SCTP, mode "nat", and ports that are named.
    pub adopt: bool,
}

impl Policy {
    /// What a service has where the configuration says nothing (scripts/loaded.toml); with checks workers judge as well.
    /// `on_backend_down`: the client learns at once that its connection is gone, and opens another. `all_down`: an answer now
    /// is better than a timeout, and no packet goes where nobody listens. (The original went on to the last configured server
    /// without a word.) `panic_threshold`: checks are always believed until somebody says otherwise. `slow_start`: a backend
    /// that came up gets its share at once. `asymmetric`: most networks answer by the way they were asked, and there nobody on
    /// the clients' side can speak in a backend's name. `adopt`: a client knows no connection with a backend's own address;
    /// what a backend opens or accepts itself is told by its first packet.
    pub const STANDARD: Self = Self {
        on_backend_down: OnBackendDown::Reset,
        all_down: AllDown::Reject,
        panic_threshold: 0,
        slow_start: 0,
        idle: Idle::STANDARD,
        passive: None,
        asymmetric: false,
        adopt: true,
    };

    /// The range of `panic_threshold`.
    pub const PANIC_THRESHOLDS: RangeInclusive<u8> = 0..=100;

    /// The range of `slow_start`.
    pub const SLOW_STARTS: RangeInclusive<u32> = 0..=3600;

    /// Whether each value is within its range.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        Self::PANIC_THRESHOLDS.contains(&self.panic_threshold)
            && Self::SLOW_STARTS.contains(&self.slow_start)
            && self.idle.is_sane()
            && self.passive.is_none_or(|passive| passive.is_sane())
    }
}

/// A journal that another version has written may lack a field.
impl Default for Policy {
    fn default() -> Self {
        Self::STANDARD
    }
}

/// Seconds after which flows without packets are forgotten. Each 1..=[`MAX_IDLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Idle {
    /// TCP, open.
    pub tcp: u32,
    /// Any protocol but echo, until the backend has answered; TCP until the client has acknowledged that.
    pub half_open: u32,
    /// TCP, after both FINs.
    pub closing: u32,
    /// Everything but TCP and echo, once the backend has answered.
    pub udp: u32,
    /// ICMP echo.
    pub echo: u32,
}

/// Seven days.
pub const MAX_IDLE: u32 = 7 * 24 * 3600;

impl Idle {
    /// The defaults. `tcp`: 2 h 4 min, the least RFC 5382 REQ-5 allows: two hours until the first
    /// keep-alive, and 4 min. `half_open`: longer than the 16 s between a client's fourth and fifth SYN, so its retries
    /// meet the same backend; short because each costs an attacker one packet. `closing`: a peer's retransmitted FINs
    /// (200 ms doubled seven times is 25 s) still find their flow. `udp`: RFC 4787 REQ-5 wants 2 min or more; 3 are what
    /// Linux conntrack gives. `echo`: the least RFC 5508 REQ-2 allows.
    pub const STANDARD: Self = Self { tcp: 2 * 3600 + 4 * 60, half_open: 30, closing: 30, udp: 180, echo: 60 };

    /// After a reset: 4 min, the least RFC 5382 REQ-5 allows for what is not open, since the reset may be a forgery that both
    /// sides ignore; but no longer than an open connection.
    #[must_use]
    pub fn reset(&self) -> u32 {
        self.tcp.min(240)
    }

    /// Whether each value is within its range.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        [self.tcp, self.half_open, self.closing, self.udp, self.echo].iter().all(|idle| (1..=MAX_IDLE).contains(idle))
    }
}

/// What becomes of the flows of a backend that is down (not of one that drains).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum OnBackendDown {
    /// The client's next packet is answered: TCP by a reset, UDP by port unreachable.
    Reset,
    /// The next packet goes to another backend.
    Rehash,
    /// TCP still goes to the backend, come what may; packets of other protocols go to another one.
    Drain,
}

/// What becomes of new flows when no backend can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum AllDown {
    /// Answered: TCP by a reset, UDP by port unreachable; an echo request is dropped.
    Reject,
    /// Dropped.
    Drop,
    /// Sent to the backend that was the last to go down.
    Last,
}

/// When a worker ejects a backend because packets show that it takes no connections: for a while the backend gets no new
/// flows, and the flows it has are not touched. Never more than half of a service's backends, and never the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Passive {
    /// Consecutive refused or unanswered openings, with no answer of the backend between them. 1..=255.
    pub fails: u8,
    /// Milliseconds after which an opening counts as unanswered. 50..=60_000.
    pub timeout: u32,
    /// Seconds until it is tried again; doubled, up to eight times as long, when it fails again at once. 1..=3600.
    pub hold: u32,
    /// Only openings to this port count; `None`: to any port. A healthy backend may have closed some of many ports.
    pub port: Option<u16>,
}

impl Passive {
    /// The range of `fails`.
    pub const FAILS: RangeInclusive<u8> = 1..=u8::MAX;

    /// The range of `timeout`.
    pub const TIMEOUTS: RangeInclusive<u32> = 50..=60_000;

    /// The range of `hold`.
    pub const HOLDS: RangeInclusive<u32> = 1..=3600;

    /// Whether each value is within its range.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        Self::FAILS.contains(&self.fails) && Self::TIMEOUTS.contains(&self.timeout) && Self::HOLDS.contains(&self.hold)
    }
}

impl fmt::Display for OnBackendDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "reset",
            Self::Rehash => "rehash",
            Self::Drain => "drain",
        })
    }
}

impl fmt::Display for AllDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reject => "reject",
            Self::Drop => "drop",
            Self::Last => "last",
        })
    }
}
