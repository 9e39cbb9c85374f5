//! A service: what it is configured to do, the state it is in, and its backends.

use super::backend::{AdminState, BackendStatus};
use crate::checks::CheckFigures;
use crate::policy::PolicyStatus;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

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
