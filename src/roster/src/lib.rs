//! The roster: the services and backends that run now, with the numbers that they keep, the health of each backend, and what
//! is leaving. It never knows processes, nor how a rule or a message is spelled. No I/O and no clock: the time is passed in
//! (but for [`monotonic`], by which times are written into the journal).
//!
//! A reload makes the next roster from this one and a plan. Whatever both have keeps its number and its health. Whatever the
//! plan no longer has leaves: it gets no new flows, and its flows go on until a deadline. If it comes back before, it never
//! left.

#![forbid(unsafe_code)]

mod choice;
mod entry;
mod judge;
pub mod monotonic;
mod next;
mod slots;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;

pub use entry::{BackendEntry, BackendHealth};
pub use judge::Impossible;

use loaded_config::QUOTA;
use loaded_config::plan::{Plan, Service};
use loaded_ipc::{
    Admin, BackendIndex, Cause, Destination, MAX_BACKEND_INDEX, Mode, OnFailure, PortRange, Protocol, Quota,
    ServiceIndex, Unserved,
};
use loaded_netfilter::{Reach, Served};
use serde::{Deserialize, Serialize};
use slots::Slots;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How long workers still know a backend that has left, so that both ends of its last flows hear that they are over.
const FAREWELL: Duration = Duration::from_secs(20);
/// How long a leaving backend without flows stays, in case a packet is on its way.
const EMPTY: Duration = Duration::from_secs(2);
/// How long a discovered backend may be down before it leaves. A classic file checks every 30 s.
const FORGOTTEN: Duration = Duration::from_secs(300);

/// The services and backends that run now.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Roster {
    generation: u64,
    /// See [`Roster::revision`].
    #[serde(skip)]
    revision: u64,
    unserved: Unserved,
    linger: bool,
    malformed: OnFailure,
    quota: Quota,
    drain: Duration,
    vips: Slots<IpAddr>,
    services: Slots<ServiceEntry>,
    backends: Slots<BackendEntry>,
    leaving: Vec<Leaving>,
}

/// Traffic that a service no longer takes. Rules bring it to the workers until its flows are over.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Leaving {
    service: ServiceIndex,
    vips: Vec<IpAddr>,
    protocol: Protocol,
    ports: Vec<PortRange>,
    #[serde(with = "crate::monotonic")]
    until: Instant,
}

/// A service of the roster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceEntry {
    /// As it is configured.
    pub service: Service,
    /// Its VIPs by number, sorted; none when it leaves.
    pub listens: Vec<u16>,
    /// When it goes, if the plan no longer has it.
    #[serde(with = "crate::monotonic::option")]
    pub leaves: Option<Instant>,
}

/// The next roster would need more numbers than there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("all numbers for {0} are in use until what was removed before has left; try again in a minute")]
pub struct NumbersExhausted(&'static str);

impl Roster {
    /// A roster in which nothing runs.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            generation: 0,
            revision: 0,
            unserved: Unserved::Pass,
            linger: true,
            malformed: OnFailure::Drop,
            quota: QUOTA,
            drain: Duration::ZERO,
            vips: Slots::new(u16::MAX),
            services: Slots::new(u16::MAX),
            backends: Slots::new(MAX_BACKEND_INDEX),
            leaving: Vec::new(),
        }
    }

    /// Takes over health and wishes from the roster that ran while this one was being prepared.
    pub fn inherit(&mut self, old: &Self) {
        self.revision += 1;
        let numbers: Vec<_> = self.backends.iter().map(|(number, _)| number).collect();
        for number in numbers {
            let Some(old) = old.backends.get(number) else { continue };
            if let Some(new) = self.backends.get_mut(number).filter(|new| new.is_same(old)) {
                (new.wish, new.drains_until) = (old.wish, old.drains_until);
                new.confirmed |= old.confirmed;
                // A service that begins or ceases to be checked with this roster keeps what was decided for that.
                if new.health.cause != Cause::Unchecked {
                    new.health = old.health;
                }
            }
        }
    }

    /// Whether there is something to probe.
    #[must_use]
    pub fn is_probed(&self) -> bool {
        self.services().any(|(_, entry)| entry.leaves.is_none() && entry.service.check.is_some())
    }

    /// Number of the configuration, from 1.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Grows with each change of a backend within a generation: of what is believed of it, of what is wanted of it, of when it
    /// goes. That a deadline passes is no change: see [`Roster::next_deadline`].
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// When a deadline of a backend passes next, after which something is to be done with it that was not before.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        self.backends().flat_map(|(_, backend)| backend.deadlines()).filter(|at| *at > now).min()
    }

    /// How many flows one client may have.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// What becomes of packets to a VIP that no service takes.
    #[must_use]
    pub fn unserved(&self) -> Unserved {
        self.unserved
    }

    /// Whether workers go on if the supervisor is killed.
    #[must_use]
    pub fn lingers(&self) -> bool {
        self.linger
    }

    /// What becomes of malformed packets.
    #[must_use]
    pub fn malformed(&self) -> OnFailure {
        self.malformed
    }

    /// VIPs, in ascending order of their numbers.
    pub fn vips(&self) -> impl Iterator<Item = (u16, IpAddr)> {
        self.vips.iter().map(|(number, vip)| (number, *vip))
    }

    /// The VIP with this number.
    pub fn vip(&self, number: u16) -> Option<IpAddr> {
        self.vips.get(number).copied()
    }

    /// Services, in ascending order of their numbers, including those that are leaving.
    pub fn services(&self) -> impl Iterator<Item = (ServiceIndex, &ServiceEntry)> {
        self.services.iter().map(|(number, entry)| (ServiceIndex(number), entry))
    }

    /// The service with this number.
    #[must_use]
    pub fn service(&self, index: ServiceIndex) -> Option<&ServiceEntry> {
        self.services.get(index.0)
    }

    /// Backends, in ascending order of their numbers, including those that are leaving.
    pub fn backends(&self) -> impl Iterator<Item = (BackendIndex, &BackendEntry)> {
        self.backends.iter().map(|(number, entry)| (BackendIndex(number), entry))
    }

    /// The backend with this number.
    #[must_use]
    pub fn backend(&self, index: BackendIndex) -> Option<&BackendEntry> {
        self.backends.get(index.0)
    }

    /// The traffic that rules must bring to the workers: of services, and of what is leaving.
    #[must_use]
    pub fn reach(&self, plan: &Plan) -> Reach {
        let backends = |service: ServiceIndex| {
            let replies = self.service(service).is_none_or(|entry| entry.service.mode == Mode::Nat);
            let of_service = self.backends().filter(move |(_, backend)| replies && backend.service == service);
            of_service.map(|(_, backend)| backend.destination()).collect()
        };
        let policy = |service| self.service(service).map(|entry| entry.service.policy);
        let asymmetric = |service| policy(service).is_some_and(|policy| policy.asymmetric);
        let adopts = |service| policy(service).is_some_and(|policy| policy.adopt);
        let mut reach = Reach { served: Vec::new(), ..Reach::of(plan) };
        for (index, entry) in self.services().filter(|(_, entry)| entry.leaves.is_none()) {
            let Service { vips, protocol, ports, .. } = entry.service.clone();
            let (asymmetric, adopts) = (asymmetric(index), adopts(index));
            reach.extend(Served { vips, protocol, ports, backends: backends(index), asymmetric, adopts });
        }
        for Leaving { service, vips, protocol, ports, .. } in self.leaving.clone() {
            reach.extend(Served {
                vips,
                protocol,
                ports,
                backends: backends(service),
                asymmetric: asymmetric(service),
                adopts: adopts(service),
            });
        }
        reach
    }

    /// Whether something has left, so that the next roster would be smaller.
    #[must_use]
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.leaving.iter().any(|leaving| leaving.until <= now)
            || self.backends().any(|(_, backend)| backend.leaves.is_some_and(|at| at + FAREWELL <= now))
    }

    /// Whether some backend is leaving, or traffic that rules still bring to the workers.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        !self.leaving.is_empty() || self.backends().any(|(_, backend)| backend.leaves.is_some())
    }

    /// Notes what the operator wants of the backends with this address, in all services or in one: of those with this port or,
    /// if none is named, whatever their port. Returns these backends.
    pub fn wish(
        &mut self,
        named: Destination,
        service: Option<&str>,
        wish: Admin,
        until: Option<Instant>,
    ) -> Vec<BackendIndex> {
        let services: Vec<_> =
            self.services.iter().filter(|(_, e)| service.is_none_or(|name| e.service.name == name)).collect();
        let services: Vec<_> = services.into_iter().map(|(number, _)| ServiceIndex(number)).collect();
        let is_named = |b: &BackendEntry| b.address == named.address && (named.port.is_none() || b.port == named.port);
        let is_meant = |b: &BackendEntry| is_named(b) && b.leaves.is_none() && services.contains(&b.service);
        let meant: Vec<_> = self.backends.iter().filter(|(_, b)| is_meant(b)).map(|(number, _)| number).collect();
        self.revision += 1;
        for number in &meant {
            if let Some(backend) = self.backends.get_mut(*number) {
                (backend.wish, backend.drains_until) = (wish, until);
            }
        }
        meant.into_iter().map(BackendIndex).collect()
    }

    /// How long a drain lasts if the operator does not say.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.drain
    }

    /// Removes leaving backends that have no flows left before their deadline.
    pub fn hasten(&mut self, now: Instant, flows: impl Fn(BackendIndex) -> u64) {
        let empty: Vec<_> = self.backends().filter(|(_, b)| b.leaves.is_some()).map(|(index, _)| index).collect();
        for index in empty.into_iter().filter(|index| flows(*index) == 0) {
            let leaves = self.backends.get_mut(index.0).and_then(|backend| backend.leaves.as_mut());
            if let Some(leaves) = leaves.filter(|leaves| **leaves > now + EMPTY) {
                *leaves = now + EMPTY;
                self.revision += 1;
            }
        }
    }

    /// Makes discovered backends leave that have been down for a long time. Returns whether there were any.
    pub fn forget_lost(&mut self, now: Instant) -> bool {
        let mut any = false;
        for backend in self.backends.values_mut().filter(|b| b.discovered && b.leaves.is_none() && !b.health.up) {
            if now.saturating_duration_since(backend.health.since) >= FORGOTTEN {
                backend.leaves = Some(now);
                any = true;
            }
        }
        self.revision += u64::from(any);
        any
    }
}
