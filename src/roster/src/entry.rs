//! A backend of the roster, and its health.

use super::FORGOTTEN;
use loaded_config::plan::Service;
use loaded_ipc::{Admin, Cause, Destination, ServiceIndex};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Instant;

/// A backend of a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BackendEntry {
    /// Number of its service.
    pub service: ServiceIndex,
    /// Its address.
    pub address: IpAddr,
    /// The port that its packets get; `None`: they keep the one they came to.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share of new flows, as it is configured.
    pub weight: u16,
    /// It gets new flows only while no other backend can.
    pub backup: bool,
    /// It is not in the configuration: discovery has found it.
    pub discovered: bool,
    /// It is or was in the configuration, or a check has passed. Until then a discovered node does not count.
    #[serde(default = "yes")]
    pub confirmed: bool,
    /// What the operator wants. Drain, disable and enable survive reload, upgrade and a supervisor crash; a stop forgets them.
    pub wish: Admin,
    /// Until when a drain lasts that the operator wants.
    #[serde(with = "crate::monotonic::option")]
    pub drains_until: Option<Instant>,
    /// When its flows are ended, if the plan no longer has it.
    #[serde(with = "crate::monotonic::option")]
    pub leaves: Option<Instant>,
    /// Whether it is up.
    pub health: BackendHealth,
}

/// Whether a backend is up, and how that is known.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct BackendHealth {
    /// Whether it is up.
    pub up: bool,
    /// A check has said so.
    pub proven: bool,
    /// How its last check ended.
    pub cause: Cause,
    /// Duration of the last check in microseconds.
    pub latency: u32,
    /// Since when it is up, or down.
    #[serde(with = "crate::monotonic")]
    pub since: Instant,
    /// When it came up, if it was ever seen down: the beginning of its slow start.
    #[serde(with = "crate::monotonic::option")]
    pub rose: Option<Instant>,
}

/// The value for a backend in the journal of a binary that lacks the field.
fn yes() -> bool {
    true
}

impl BackendEntry {
    pub(super) fn new(service: ServiceIndex, to: Destination, health: BackendHealth) -> Self {
        Self {
            service,
            address: to.address,
            port: to.port,
            weight: 1,
            backup: false,
            discovered: false,
            confirmed: true,
            wish: Admin::Enabled,
            drains_until: None,
            leaves: None,
            health,
        }
    }

    /// Where its packets go: its name for operators.
    #[must_use]
    pub fn destination(&self) -> Destination {
        Destination { address: self.address, port: self.port }
    }

    /// What workers are told to do with it.
    #[must_use]
    pub fn admin(&self, now: Instant) -> Admin {
        let until = |at: Option<Instant>| at.map(|at| if at <= now { Admin::Disabled } else { Admin::Draining });
        let leaving = until(self.leaves).unwrap_or(Admin::Enabled);
        let wish = match self.wish {
            Admin::Draining => until(self.drains_until).unwrap_or(Admin::Draining),
            wish => wish,
        };
        if wish == Admin::Disabled || leaving == Admin::Enabled { wish } else { leaving }
    }

    /// When something is to be done with it that was not before: a drain is over, it goes, or it is forgotten.
    pub(super) fn deadlines(&self) -> impl Iterator<Item = Instant> {
        let drained = self.drains_until.filter(|_| self.wish == Admin::Draining);
        let lost = self.discovered && self.leaves.is_none() && !self.health.up;
        let forgotten = lost.then(|| self.health.since + FORGOTTEN);
        [drained, self.leaves, forgotten].into_iter().flatten()
    }

    /// Seconds since it came up, for slow start; `u32::MAX`: it was never seen down.
    #[must_use]
    pub fn age(&self, now: Instant) -> u32 {
        self.health
            .rose
            .map_or(u32::MAX, |rose| u32::try_from(now.saturating_duration_since(rose).as_secs()).unwrap_or(u32::MAX))
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.service, self.destination()) == (other.service, other.destination())
    }

    pub(super) fn belongs(&self, service: &Service) -> bool {
        let found = || {
            let places = service.discover.iter().flat_map(|discover| &discover.places);
            self.discovered
                && self.port == service.port
                && places.into_iter().any(|place| place.network.contains(self.address))
        };
        service.backends.iter().any(|backend| backend.destination() == self.destination()) || found()
    }

    pub(super) fn come_back(&mut self, now: Instant) {
        if self.leaves.take().is_some() {
            // It was not checked meanwhile.
            self.health.proven = false;
            self.health.since = now;
        }
    }
}

impl BackendHealth {
    /// The health of a new backend. `waits`: it is not used before a check has passed.
    pub(super) fn new(waits: bool, now: Instant) -> Self {
        Self { up: !waits, proven: false, cause: Cause::Unchecked, latency: 0, since: now, rose: None }
    }

    /// Its service begins or ceases to be checked.
    pub(super) fn checked(&mut self, before: Option<bool>, after: bool, now: Instant) {
        if before == Some(true) && !after {
            // An unchecked backend counts as up, so one that was down comes up now.
            let (since, rose) = if self.up { (self.since, self.rose) } else { (now, Some(now)) };
            *self = Self { since, rose, ..Self::new(false, now) };
        } else if before == Some(false) && after {
            *self = Self { rose: self.rose, ..Self::new(false, now) };
        }
    }
}
