//! A process in the status: what it does, and the rights it has.

use serde::{Deserialize, Serialize};

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
