//! Everything an operator can see, as one value. Its JSON is an interface: fields may be added, but none is removed or changes
//! its meaning. Times are in seconds since 1970 and durations in seconds, unless the name says otherwise. `text` writes it for
//! people, `metrics` for Prometheus.

use super::checks::CheckFigures;
use super::health::{ConditionStatus, InstanceVerdict};
use super::policy::PolicyStatus;
use loaded_ipc::Destination;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// A running instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub version: String,
    /// Process id of the supervisor.
    pub pid: u32,
    /// When this status was taken.
    pub now: u64,
    /// When the instance was started.
    pub since: u64,
    /// Number of the configuration in use; counts up with each reload.
    pub generation: u64,
    /// The last reload.
    pub last_reload: Option<Reload>,
    /// The last upgrade that failed.
    #[serde(default)]
    pub refused_upgrade: Option<Refused>,
    /// What was changed at run time and stands in no file, one change a line.
    #[serde(default)]
    pub amendments: Vec<String>,
    /// Layers of the sandbox that this kernel has, as found at start. /proc shows seccomp alone.
    pub layers: Vec<String>,
    /// What this kernel does with the verdict NF_REPEAT, tried at start: `repeats`, `accepts` or `unknown: …`. Unless it
    /// repeats, packets that a killed worker held are dropped.
    #[serde(default)]
    pub nf_repeat: String,
    /// Whether clients are served; `None`: an older instance does not say.
    #[serde(default)]
    pub verdict: Option<InstanceVerdict>,
    /// Why not, the worst first; then what may matter.
    #[serde(default)]
    pub conditions: Vec<ConditionStatus>,
    /// Our netfilter rules.
    #[serde(default)]
    pub rules: RulesStatus,
    /// Settings of the host that the instance has written and will put back.
    #[serde(default)]
    pub host_set: Vec<SettingStatus>,
    /// Checks of backends that began more than 250 ms after they were due.
    #[serde(default)]
    pub late_checks: LateChecks,
    /// What the kernel sends on without a worker; `None`: an older instance, which has no kernel path.
    #[serde(default)]
    pub kernel_path: Option<KernelPathStatus>,
    /// The supervisor first.
    pub processes: Vec<Process>,
    /// In the order of the configuration.
    pub services: Vec<ServiceStatus>,
    /// One for each worker.
    pub queues: Vec<Queue>,
    /// Packets by outcome, over all workers: their sum is the number received. Then those of the kernel path, which no worker
    /// received: `kernel_forwarded` and `kernel_returned`.
    pub packets: BTreeMap<String, u64>,
    /// What full flow tables had to do, over all workers.
    pub pressure: BTreeMap<String, u64>,
    /// Faults between workers, kernel and prober, over all workers.
    pub faults: BTreeMap<String, u64>,
}

/// How our netfilter rules are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesStatus {
    /// How often they had to be put back because another program had removed some.
    pub put_back: u64,
    /// What is missing now and could not be put back yet; while something is, packets bypass the workers.
    pub missing: Vec<String>,
    /// Packets in a backend's name that they have taken for no reply, since the supervisor has begun.
    #[serde(default)]
    pub refused_replies: u64,
}

/// A setting of the host that the instance has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingStatus {
    /// Its name, as sysctl(8) has it.
    pub name: String,
    /// What it was.
    pub old: i64,
    /// What was written.
    pub value: i64,
}

/// The kernel path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelPathStatus {
    /// Why it is off; `None`: it is on.
    pub off: Option<String>,
    /// The same in a word: "not_wanted", "refused", "started_without" or "other_program".
    #[serde(default)]
    pub off_reason: Option<String>,
    /// Interfaces it is attached to.
    pub interfaces: Vec<String>,
    /// Interfaces whose packets go by the queue, since they take no program.
    pub refused: Vec<String>,
    /// Packets to VIPs and from backends that it has left to the workers, by reason.
    pub missed: BTreeMap<String, u64>,
}

/// Checks that began late, since the instance was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateChecks {
    /// How many.
    pub count: u64,
    /// How long after it was due the latest of them began, milliseconds.
    pub longest_ms: u32,
    /// When the prober has last told of one.
    pub last: Option<u64>,
}

/// How a reload went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Unix time in seconds.
    pub at: u64,
    /// Whether the new configuration is in use.
    pub ok: bool,
    /// What was changed, or why nothing was.
    pub text: String,
}

/// Why another binary did not take over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Unix time in seconds.
    pub at: u64,
    /// Why it was refused.
    pub text: String,
}

/// A process of the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its role.
    pub role: Role,
    /// `supervisor`, `worker[0]`, `prober`.
    pub name: String,
    /// Process id; `None` while it does not run.
    pub pid: Option<u32>,
    /// Whether it serves.
    pub serving: bool,
    /// In words: `serving`, `preparing`, `restarts in 1.6 s`.
    pub state: String,
    /// When it entered this state.
    pub since: u64,
    /// The core it runs on; `None`: on any.
    pub core: Option<u16>,
    /// How often it was restarted after it died. Reloads do not count.
    pub restarts: u64,
    /// How often its own sandbox killed it (SIGSYS): each one a security event.
    #[serde(default)]
    pub sandbox_kills: u64,
    /// As the kernel reports it; `None` while there is no process.
    pub sandbox: Option<Sandbox>,
    /// Resident memory, kB (VmRSS, proc_pid_status(5)).
    pub memory_kb: Option<u64>,
    /// Processor time it has used, milliseconds (utime and stime, proc_pid_stat(5)).
    #[serde(default)]
    pub cpu_ms: Option<u64>,
}

/// A role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Owns rules, queues and children.
    Supervisor,
    /// Answers packets.
    Worker,
    /// Checks backends.
    Prober,
    /// Shows metrics and status by HTTP.
    Exporter,
}

/// A process's rights as /proc/PID/status shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Effective user id.
    pub uid: u32,
    /// Seccomp filters, its parents' among them; `None`: the kernel does not tell (before 5.9).
    pub seccomp_filters: Option<u32>,
    /// `none`, `strict` or `filter`.
    pub seccomp: String,
    /// Whether exec can give it no new rights.
    pub no_new_privs: bool,
    /// Effective capabilities, by name.
    pub capabilities: Vec<String>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Where it answers.
    pub vips: Vec<IpAddr>,
    /// `tcp`, `udp`, `sctp` or `any`.
    pub protocol: String,
    /// `80`, `8000-8080`. Empty: all.
    pub ports: Vec<String>,
    /// How packets get to backends: `nat` or `dsr`.
    pub mode: String,
    /// How a new client gets its backend.
    pub strategy: String,
    /// All that it chooses by, as a number: where it is the same, and the same backends are up, a client gets the same backend.
    /// `None`: the strategy does not choose by the client alone, or an older instance does not say.
    #[serde(default)]
    pub choice: Option<u32>,
    /// How a client keeps its backend; `None`: it does not.
    pub affinity: Option<String>,
    /// What happens when backends fail.
    #[serde(flatten)]
    pub policy: PolicyStatus,
    /// How workers judge backends by packets; `None`: not at all.
    pub passive: Option<String>,
    /// How backends are checked; `None`: not at all.
    pub check: Option<String>,
    /// Where backends are looked for; `None`: nowhere.
    pub discover: Option<String>,
    /// What its checks have come to; `None`: the prober has told of none.
    #[serde(default)]
    pub checks: Option<CheckFigures>,
    /// Its state.
    pub state: ServiceState,
    /// In the order of the configuration, then discovered ones, then leaving ones.
    pub backends: Vec<BackendStatus>,
}

/// The state of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceState {
    /// Backends that are up get its flows.
    Ok,
    /// Too few are up: the checks are not believed, and all enabled ones get flows.
    Panic,
    /// Only backups are left.
    Backup,
    /// No backend can be chosen.
    AllDown,
    /// Removed from the configuration: no new flows.
    Leaving,
}

impl ServiceState {
    /// All, in the order of their severity.
    pub const ALL: [Self; 5] = [Self::Ok, Self::Leaving, Self::Backup, Self::Panic, Self::AllDown];

    /// Its name in JSON and in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Panic => "panic",
            Self::Backup => "backup",
            Self::AllDown => "all_down",
            Self::Leaving => "leaving",
        }
    }
}

impl fmt::Display for ServiceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Panic => "panic: checks not believed",
            Self::Backup => "backup: only backups are left",
            Self::AllDown => "all down",
            Self::Leaving => "leaving: no new flows",
        })
    }
}

/// A backend of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Where it is.
    pub address: IpAddr,
    /// The port that its packets get; `None`: they keep the one they came to.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its number; the same after a reload.
    pub index: u16,
    /// Its weight: its share relative to the others.
    pub weight: u16,
    /// Only used when no other can be.
    pub backup: bool,
    /// Found by discovery, not in the configuration.
    pub discovered: bool,
    /// It is in the configuration, or a check has passed. Until then a discovered node gets no clients and does not
    /// count.
    #[serde(default = "confirmed")]
    pub confirmed: bool,
    /// What the operator wants of it.
    pub admin: AdminState,
    /// Its health by the checks.
    pub state: BackendState,
    /// When it entered this state.
    pub since: u64,
    /// What the last check said.
    pub cause: String,
    /// Microseconds the last check took.
    pub latency_us: Option<u32>,
    /// Seconds it may still keep its flows, if it drains or leaves.
    pub drain_left: Option<u32>,
    /// Seconds until it gets its full share, if it came up a short while ago.
    pub slow_start_left: Option<u32>,
    /// Flows it has now.
    pub flows: u64,
    /// Flows assigned to it so far.
    pub new_flows: u64,
    /// Packets sent to it.
    pub packets_to: u64,
    /// Bytes sent to it, with IP headers.
    pub bytes_to: u64,
    /// Packets it sent.
    pub packets_from: u64,
    /// Bytes it sent.
    pub bytes_from: u64,
    /// Workers that have ejected it for a while, by passive observation.
    pub ejected_by: Vec<Ejection>,
}

/// The value for a status of an older version, which lacks the field.
fn confirmed() -> bool {
    true
}

/// What the operator wants of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// Use it as the checks say.
    Enabled,
    /// No new flows.
    Draining,
    /// No flows.
    Disabled,
}

impl From<loaded_ipc::Admin> for AdminState {
    fn from(admin: loaded_ipc::Admin) -> Self {
        match admin {
            loaded_ipc::Admin::Enabled => Self::Enabled,
            loaded_ipc::Admin::Draining => Self::Draining,
            loaded_ipc::Admin::Disabled => Self::Disabled,
        }
    }
}

/// A backend's health by its checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// It may get new flows.
    Up,
    /// It may not get new flows.
    Down,
    /// Not checked, or no result yet: counts as up.
    Unchecked,
    /// Removed from the configuration: no new flows.
    Leaving,
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unchecked => "unchecked",
            Self::Leaving => "leaving",
        })
    }
}

/// One worker's passive judgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// Position of the worker.
    pub worker: u16,
    /// What it saw.
    pub cause: String,
}

/// A kernel queue and what it has lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Its number.
    pub queue: u16,
    /// Position of the worker that answers it.
    pub worker: u16,
    /// Packets the worker received from it.
    pub received: u64,
    /// Packets waiting for a verdict.
    pub waiting: u32,
    /// Packets the kernel dropped because the queue was full.
    pub dropped_full: u32,
    /// Packets the kernel dropped because the socket's buffer was full.
    pub dropped_socket: u32,
    /// Flows in the worker's table, by its own account.
    #[serde(default)]
    pub flows: u64,
    /// Maximum number of them.
    #[serde(default)]
    pub flows_most: u32,
}

impl ServiceStatus {
    /// The families it answers.
    #[must_use]
    pub fn families(&self) -> Vec<&'static str> {
        let has = |v4| self.vips.iter().any(|vip| vip.is_ipv4() == v4);
        [("IPv4", true), ("IPv6", false)].into_iter().filter(|(_, v4)| has(*v4)).map(|(name, _)| name).collect()
    }

    /// Those of them in which no backend takes new flows.
    #[must_use]
    pub fn families_down(&self) -> Vec<&'static str> {
        let takes = |backend: &&BackendStatus| backend.counts_as_up() && backend.admin == AdminState::Enabled;
        let serves = |name: &&str| self.backends.iter().filter(takes).any(|b| b.address.is_ipv4() == (*name == "IPv4"));
        self.families().into_iter().filter(|name| !serves(name)).collect()
    }
}

impl BackendStatus {
    /// Where its packets go: its name.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { address: self.address, port: self.port }
    }

    /// Whether new flows could go to it, as far as checks say.
    #[must_use]
    pub fn counts_as_up(&self) -> bool {
        matches!(self.state, BackendState::Up | BackendState::Unchecked)
    }
}
