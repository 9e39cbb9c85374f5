//! The plan: what the configuration asks for, checked and complete. Both formats produce one; no user of it knows
//! which format it came from.

mod cores;
mod diff;
pub mod display;
mod log_level;
mod metrics;
mod service;
mod several;
mod written;

pub use cores::CoresError;
pub use diff::{Change, What, diff, immutable_change};
pub use log_level::LogLevel;
pub use metrics::MetricsAddress;
pub use service::{Backend, Discover, Place, Service};
pub use written::written;

use crate::defaults::{CLIENTS, DRAIN, FLOWS, QUEUE_BASE, QUEUE_LEN, QUOTA, STOP_HOLD, UNSERVED, USER};
use loaded_ipc::{OnFailure, Quota, Unserved};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// Maximum number of packets that may wait in one kernel queue: the original's default, 10 Mi. The kernel allocates
/// nothing in advance.
pub const MAX_QUEUE_LEN: u32 = 10 * 1024 * 1024;
/// `-Q`, nfq_len and queue_len.
pub(crate) const QUEUE_LENS: RangeInclusive<u32> = 1..=MAX_QUEUE_LEN;
/// Entries in one worker's flow or client table, each way. 64 Mi entries of 128 bytes are 8 GiB a worker.
pub const TABLE_ENTRIES: RangeInclusive<u32> = 1024..=64 * 1024 * 1024;
/// Longest affinity timeout in seconds: one year.
pub const MAX_TIMEOUT: u32 = 365 * 24 * 3600;
/// Largest share of one backend; 1:256 is already finer than hashing distributes.
pub const MAX_WEIGHT: u16 = 256;
/// Maximum number of services in a plan.
pub const MAX_SERVICES: usize = 256;
/// Maximum number of backends in a plan, summed over the services, discovered ones included.
pub const MAX_BACKENDS: usize = 4096;
/// Longest drain deadline in seconds: a week.
pub const MAX_DRAIN: u32 = 7 * 24 * 3600;
/// Greatest [`Plan::stop_hold`], an hour.
pub const MAX_STOP_HOLD: u32 = 3600;
/// Maximum number of VIPs of one service.
pub const MAX_VIPS: usize = 256;
/// Maximum number of port ranges of one service.
pub const MAX_PORT_RANGES: usize = 256;
/// Maximum number of name servers; each costs rules that every packet passes.
pub const MAX_NAMESERVERS: usize = 64;

/// Desired state. Every invariant named on a field holds: the parsers refuse what would break it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The account workers run as. Never root. Resolved when the supervisor starts.
    pub user: String,
    /// First and last core for workers, inclusive; `None` is every core this process may use.
    pub cores: Option<(u16, u16)>,
    /// Worker on core `n` answers queue `queue_base + n`.
    pub queue_base: u16,
    /// Packets that may wait in one kernel queue (`NFQA_CFG_QUEUE_MAXLEN`), 1..=10_485_760.
    pub queue_len: u32,
    /// Flows one worker can hold, 1024..=67_108_864.
    pub flows: u32,
    /// Clients (affinity entries) one worker can hold, 1024..=67_108_864.
    pub clients: u32,
    /// The share of the flow table that one source prefix can keep.
    pub quota: Quota,
    /// What happens to packets to a VIP that no service serves.
    pub unserved: Unserved,
    /// What happens to packets that no worker decides about. [`Failures::CLOSED`] if any service is of mode "nat".
    pub on_failure: Failures,
    /// Name servers: port 53 from and to them is never balanced (key NS of the classic format). At most 64,
    /// none twice, none a VIP.
    pub nameservers: Vec<IpAddr>,
    /// At least one, at most 256.
    pub services: Vec<Service>,
    /// Seconds a removed or drained backend (or a removed service, VIP or port) may keep its flows. 1..=[`MAX_DRAIN`].
    pub drain: u32,
    /// Seconds for which an instance that was told to end serves on while its VIPs are addresses of this host.
    /// 0..=[`MAX_STOP_HOLD`]; 0: it ends at once.
    #[serde(default)]
    pub stop_hold: u32,
    /// Whether the kernel reassembles fragments before a worker gets them; otherwise the worker tracks fragments itself.
    pub defragment: bool,
    /// Whether workers survive a killed supervisor until another one takes them over; otherwise they die with it.
    pub linger: bool,
    /// Whether the kernel sends packets of known flows on.
    #[serde(default = "Fast::of_older")]
    pub fast: Fast,
    /// What becomes of settings of this host (sysctl) that stand in the way.
    #[serde(default)]
    pub host: HostPolicy,
    /// The least grave lines of the log that are written.
    #[serde(default)]
    pub log_level: LogLevel,
    /// Where metrics and the status page are served; `None`: nowhere.
    #[serde(default)]
    pub metrics: Option<MetricsAddress>,
    /// The group that may ask a running instance what changes nothing, and connect to a Unix socket of `metrics`; `None`: root
    /// alone.
    #[serde(default)]
    pub monitor_group: Option<String>,
    /// The program that is told of changes, an absolute path, and its arguments; empty: none.
    #[serde(default)]
    pub notify: Vec<String>,
    /// The account it runs as, never root; `None`: that of the workers.
    #[serde(default)]
    pub notify_user: Option<String>,
}

impl Plan {
    /// The account of the program that is told of changes.
    #[must_use]
    pub fn notify_account(&self) -> &str {
        self.notify_user.as_deref().unwrap_or(&self.user)
    }

    /// No service yet, and every setting at its default.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            user: USER.to_owned(),
            cores: None,
            queue_base: QUEUE_BASE,
            queue_len: QUEUE_LEN,
            flows: FLOWS,
            clients: CLIENTS,
            quota: QUOTA,
            unserved: UNSERVED,
            on_failure: Failures::CLOSED,
            nameservers: Vec::new(),
            services: Vec::new(),
            drain: DRAIN,
            stop_hold: STOP_HOLD,
            defragment: true,
            linger: true,
            fast: Fast::default(),
            host: HostPolicy::default(),
            log_level: LogLevel::default(),
            metrics: None,
            monitor_group: None,
            notify: Vec::new(),
            notify_user: None,
        }
    }
}

/// Whether the kernel sends packets of known flows on, so that they meet no worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fast {
    /// Where it can; elsewhere the workers do.
    #[default]
    Auto,
    /// Never.
    Off,
}

impl Fast {
    /// What plans of older versions have meant, which do not name it.
    fn of_older() -> Self {
        Self::Off
    }

    /// Reads one.
    ///
    /// # Errors
    /// What to write instead.
    pub fn read(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            _ => Err(format!("fast cannot be {text:?}; write auto or off")),
        }
    }
}

impl fmt::Display for Fast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Off => "off",
        })
    }
}

/// What becomes of settings of this host (sysctl) that stand in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostPolicy {
    /// They are told, each with the command that mends it.
    #[default]
    Tell,
    /// Those of the interfaces that are used are written, and put back at the end.
    Set,
}

impl HostPolicy {
    /// Reads one.
    ///
    /// # Errors
    /// What to write instead.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        match text {
            "tell" => Ok(Self::Tell),
            "set" => Ok(Self::Set),
            _ => Err(format!("host cannot be {text:?}; write tell or set")),
        }
    }
}

impl fmt::Display for HostPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tell => "tell",
            Self::Set => "set",
        })
    }
}

/// What happens to packets that no worker decides about. For "all backends down" see each service's [`loaded_ipc::Policy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// No process has bound the queue.
    pub no_worker: OnFailure,
    /// The queue, or the socket's receive buffer, is full.
    pub queue_full: OnFailure,
    /// A packet is malformed.
    pub parse_error: OnFailure,
}

impl Failures {
    /// Drop packets whatever fails.
    pub const CLOSED: Self =
        Self { no_worker: OnFailure::Drop, queue_full: OnFailure::Drop, parse_error: OnFailure::Drop };
}
