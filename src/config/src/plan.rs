//! The plan: what the configuration asks for, checked and complete. Both formats produce one; no user of it knows
//! which format it came from.

mod diff;
pub mod display;
mod log_level;
mod metrics;
mod several;
mod written;

pub use diff::{Change, What, diff, immutable_change};
pub use log_level::LogLevel;
pub use metrics::MetricsAddress;
pub use written::written;

use crate::defaults::{CLIENTS, DRAIN, FLOWS, QUEUE_BASE, QUEUE_LEN, QUOTA, STOP_HOLD, UNSERVED, USER};
use crate::network::Network;
use loaded_ipc::{
    Affinity, Check, Destination, Mode, OnFailure, Policy, PortRange, Protocol, Quota, Strategy, Unserved,
};
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

/// What happens to packets that no worker decides about. For "all backends down" see each service's [`Policy`].
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

/// One balanced service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Unique; shown in logs and status.
    pub name: String,
    /// At least one, at most 256, none twice. No other service has the same VIP, protocol and port;
    /// [`Protocol::Any`] has all of its VIPs. For each family present here there is at least one
    /// backend of that family that is no backup, or a place of `discover`, and nothing of a family that is absent.
    pub vips: Vec<IpAddr>,
    /// What is balanced.
    pub protocol: Protocol,
    /// Sorted, not overlapping, at most 256. Empty means every port; always empty for [`Protocol::Any`].
    pub ports: Vec<PortRange>,
    /// The port that packets to discovered backends get; `None`: they keep the one they came to. Always `None` without
    /// `discover`.
    #[serde(default)]
    pub port: Option<u16>,
    /// How its packets get to their backends.
    pub mode: Mode,
    /// How a new client gets its backend.
    pub strategy: Strategy,
    /// `None`: each flow is balanced by itself.
    pub affinity: Option<Affinity>,
    /// What happens when backends fail.
    pub policy: Policy,
    /// How backends are checked; `None`: not at all, and all count as up.
    pub check: Option<Check>,
    /// Backends have different ports and the check names none: each is checked at its own. The check's port is then that of
    /// one of them.
    #[serde(default)]
    pub checks_own_ports: bool,
    /// Where to look for more backends.
    pub discover: Option<Discover>,
    /// In the order of the configuration, no address twice with one port. May be empty with `discover`.
    pub backends: Vec<Backend>,
}

/// A backend of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Its address. Never a VIP of the plan.
    pub address: IpAddr,
    /// The port that packets to it get, never 0; `None`: they keep the one they came to. `None` in mode "dsr" and for
    /// [`Protocol::Any`].
    #[serde(default)]
    pub port: Option<u16>,
    /// Share relative to the other backends of the service, 1..=256.
    pub weight: u16,
    /// Used only when no other backend is available.
    pub backup: bool,
}

impl Backend {
    /// Where its packets go.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { address: self.address, port: self.port }
    }
}

impl Service {
    /// Where a check of a backend connects or sends; `None` for ping alone. `port`: the one that packets to the backend get.
    #[must_use]
    pub fn check_port(&self, port: Option<u16>) -> Option<u16> {
        let checked = self.check.as_ref()?.kind.port()?;
        Some(port.filter(|_| self.checks_own_ports).unwrap_or(checked))
    }
}

/// Where to discover nodes that become backends of a service. Requires a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discover {
    /// Where to ask, and who may answer. At least one.
    pub places: Vec<Place>,
    /// Maximum number of backends to add, 1..=1024.
    pub limit: u16,
    /// Milliseconds between two searches, 1000..=86_400_000.
    pub interval: u32,
}

/// One network to search for nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Only answers from within it count.
    pub network: Network,
    /// Where echo requests go: a broadcast address in the network, or ff02::1.
    pub to: IpAddr,
    /// The interface to the network; required for IPv6.
    pub interface: Option<String>,
}

/// The configured cores do not match the ones this process may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    /// Some of the cores do not exist or are not available to this process.
    #[error(
        "workers are to run on cores {low}-{high}, but there is no core {} for them; available: {}",
        numbers(missing),
        numbers(available)
    )]
    Missing {
        /// First core of the plan.
        low: u16,
        /// Last core of the plan.
        high: u16,
        /// Which of them are not available.
        missing: Vec<u16>,
        /// What is available.
        available: Vec<u16>,
    },
    /// There is no core at all.
    #[error("no core is available for workers")]
    NoneAvailable,
    /// The queue number of a core would not fit in 16 bits.
    #[error("core {core} would answer queue {queue_base} + {core}, but queue numbers end at 65535; lower --queue-base")]
    NoQueue {
        /// The core.
        core: u16,
        /// The plan's base.
        queue_base: u16,
    },
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

    /// The cores that get a worker, ascending: those of the plan, or all of `available` (any order).
    ///
    /// # Errors
    /// A core of the plan is not in `available`; nothing is available; a core has no queue number.
    pub fn check_cores(&self, available: &[u16]) -> Result<Vec<u16>, CoresError> {
        let mut available = available.to_vec();
        available.sort_unstable();
        available.dedup();
        let chosen = match self.cores {
            None => available,
            Some((low, high)) => {
                let missing: Vec<u16> = (low..=high).filter(|core| available.binary_search(core).is_err()).collect();
                if !missing.is_empty() {
                    return Err(CoresError::Missing { low, high, missing, available });
                }
                (low..=high).collect()
            }
        };
        let &last = chosen.last().ok_or(CoresError::NoneAvailable)?;
        match self.queue_base.checked_add(last) {
            Some(_) => Ok(chosen),
            None => Err(CoresError::NoQueue { core: last, queue_base: self.queue_base }),
        }
    }
}

/// "0-3, 7": consecutive numbers become a range.
fn numbers(list: &[u16]) -> String {
    let runs = list.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let runs = runs.filter_map(|run| Some(PortRange { low: *run.first()?, high: *run.last()? }.to_string()));
    runs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn cores_default_to_all_available() {
        assert_eq!(Plan::empty().check_cores(&[3, 0, 1]), Ok(vec![0, 1, 3]));
        assert_eq!(Plan::empty().check_cores(&[]), Err(CoresError::NoneAvailable));
    }

    #[test]
    fn cores_that_do_not_exist_are_named() {
        let plan = Plan { cores: Some((1, 3)), ..Plan::empty() };
        assert_eq!(plan.check_cores(&[0, 1, 2, 3]), Ok(vec![1, 2, 3]));
        let error = plan.check_cores(&[0, 1]).unwrap_err().to_string();
        assert_eq!(error, "workers are to run on cores 1-3, but there is no core 2-3 for them; available: 0-1");
    }

    #[test]
    fn a_core_without_a_queue_number_is_refused() {
        let plan = Plan { queue_base: 65535, ..Plan::empty() };
        assert_eq!(plan.check_cores(&[0]), Ok(vec![0]));
        assert_eq!(plan.check_cores(&[0, 1]), Err(CoresError::NoQueue { core: 1, queue_base: 65535 }));
    }
}
