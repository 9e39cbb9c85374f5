//! A backend of the roster, and what is believed of it.

use loaded_config::plan::Service;
use loaded_ipc::{Admin, Cause, ServiceIndex};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Instant;

/// A backend of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BackendEntry {
    pub(crate) service: ServiceIndex,
    pub(crate) address: IpAddr,
    pub(crate) weight: u16,
    pub(crate) backup: bool,
    /// Nobody has written it down; it has answered.
    pub(crate) discovered: bool,
    /// What the operator has said, and until when a drain may last.
    pub(crate) wish: Admin,
    #[serde(with = "crate::handover::monotonic::option")]
    pub(crate) drains_until: Option<Instant>,
    /// No plan has it any more; from this time on its flows are ended.
    #[serde(with = "crate::handover::monotonic::option")]
    pub(crate) leaves: Option<Instant>,
    pub(crate) health: Health,
}

/// What is believed of a backend.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Health {
    pub(crate) up: bool,
    /// Whether a check has said so.
    pub(crate) proven: bool,
    pub(crate) cause: Cause,
    /// Microseconds of the last check.
    pub(crate) latency: u32,
    /// Since when it is up, or down.
    #[serde(with = "crate::handover::monotonic")]
    pub(crate) since: Instant,
    /// When it came up, if it was ever seen down: its slow start.
    #[serde(with = "crate::handover::monotonic::option")]
    pub(crate) rose: Option<Instant>,
}

impl BackendEntry {
    pub(super) fn new(service: ServiceIndex, address: IpAddr, health: Health) -> Self {
        Self {
            service,
            address,
            weight: 1,
            backup: false,
            discovered: false,
            wish: Admin::Enabled,
            drains_until: None,
            leaves: None,
            health,
        }
    }

    /// What workers are told.
    pub(crate) fn admin(&self, now: Instant) -> Admin {
        let until = |at: Option<Instant>| at.map(|at| if at <= now { Admin::Disabled } else { Admin::Draining });
        let leaving = until(self.leaves).unwrap_or(Admin::Enabled);
        let wish = match self.wish {
            Admin::Draining => until(self.drains_until).unwrap_or(Admin::Draining),
            wish => wish,
        };
        if wish == Admin::Disabled || leaving == Admin::Enabled { wish } else { leaving }
    }

    /// Seconds since it came up, for slow start; `u32::MAX`: it was never seen down.
    pub(crate) fn age(&self, now: Instant) -> u32 {
        self.health
            .rose
            .map_or(u32::MAX, |rose| u32::try_from(now.saturating_duration_since(rose).as_secs()).unwrap_or(u32::MAX))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.service, self.address) == (other.service, other.address)
    }

    pub(super) fn belongs(&self, service: &Service) -> bool {
        let found = || {
            let places = service.discover.iter().flat_map(|discover| &discover.places);
            self.discovered && places.into_iter().any(|place| place.network.contains(self.address))
        };
        service.backends.iter().any(|backend| backend.address == self.address) || found()
    }

    pub(super) fn come_back(&mut self, now: Instant) {
        if self.leaves.take().is_some() {
            // Nobody has looked at it meanwhile.
            self.health.proven = false;
            self.health.since = now;
        }
    }
}

impl Health {
    /// `waits`: it is not used before a check has passed.
    pub(super) fn new(waits: bool, now: Instant) -> Self {
        Self { up: !waits, proven: false, cause: Cause::Unchecked, latency: 0, since: now, rose: None }
    }

    /// A service has begun or ceased to be checked.
    pub(super) fn checked(&mut self, before: Option<bool>, after: bool, now: Instant) {
        if before == Some(true) && !after {
            // What is not checked counts as up; what was down has come up by that.
            let (since, rose) = if self.up { (self.since, self.rose) } else { (now, Some(now)) };
            *self = Self { since, rose, ..Self::new(false, now) };
        } else if before == Some(false) && after {
            *self = Self { rose: self.rose, ..Self::new(false, now) };
        }
    }
}
