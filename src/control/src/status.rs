//! Everything an operator can see, as one value. Its JSON is an interface: fields may be added, but none is removed or changes
//! its meaning. Times are in seconds since 1970 and durations in seconds, unless the name says otherwise. `text` writes it for
//! people, `metrics` for Prometheus.

mod backend;
mod process;
mod service;

pub use backend::{AdminState, BackendState, BackendStatus, Ejection};
pub use process::{Process, Role, Sandbox};
pub use service::{ServiceState, ServiceStatus};

use super::health::{ConditionStatus, InstanceVerdict};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
