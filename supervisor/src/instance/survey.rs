//! What the last regular look saw of everything whose changes nobody announces, and the condition of a service.

use crate::roster::Roster;
use loaded_ipc::{Admin, AllDown, BackendIndex, Cause, ServiceIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Time between two looks at the routes of mode "dsr", each of which runs a program four times.
pub(super) const ROUTES_EVERY: Duration = Duration::from_secs(10);
/// How long a change that nobody has asked for rests after it has failed.
const REST: Duration = Duration::from_secs(10);
/// Maximum number of discovered nodes that wait for the next change.
const MAX_FOUND: usize = 1024;

/// What was seen last, and when to look again.
#[derive(Debug)]
pub(crate) struct Survey {
    /// The next look.
    pub(super) due: Instant,
    /// The next look at the routes.
    pub(super) routes_due: Instant,
    /// For each worker and backend why the worker avoids it, if it does.
    pub(super) ejected: BTreeMap<(u16, BackendIndex), Option<Cause>>,
    pub(super) conditions: BTreeMap<ServiceIndex, Condition>,
    /// Nodes that have answered a search for backends and are not yet in the roster.
    pub(super) found: BTreeSet<(ServiceIndex, IpAddr)>,
    /// When a change for the sake of discovered nodes was last begun.
    pub(super) discovered: Option<Instant>,
    /// Until then no change begins that nobody has asked for.
    pub(super) rests_until: Instant,
}

/// The condition of a service, by the checks and the operator's wishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    Fine,
    /// Too few backends are up: the checks are not believed.
    Panic,
    /// Only backup backends are left.
    Backup,
    AllDown(AllDown),
}

impl Survey {
    pub(crate) fn new() -> Self {
        Self {
            due: Instant::now(),
            routes_due: Instant::now() + ROUTES_EVERY,
            ejected: BTreeMap::new(),
            conditions: BTreeMap::new(),
            found: BTreeSet::new(),
            discovered: None,
            rests_until: Instant::now(),
        }
    }

    /// When to look again.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// A change that nobody has asked for has failed: the next one waits.
    pub(crate) fn rest(&mut self) {
        self.rests_until = Instant::now() + REST;
    }

    /// Whether there is room for another discovered node, and this one is new.
    pub(super) fn has_room_for(&self, node: &(ServiceIndex, IpAddr)) -> bool {
        self.found.len() < MAX_FOUND && !self.found.contains(node)
    }
}

/// The condition of a service. The worker's balancer goes by the same rule, and by what each worker's own packets show.
pub(super) fn condition(roster: &Roster, index: ServiceIndex, now: Instant) -> Condition {
    let Some(entry) = roster.service(index) else { return Condition::Fine };
    let policy = entry.service.policy;
    let of_service = || roster.backends().filter(move |(_, backend)| backend.service == index && backend.confirmed);
    let enabled = || of_service().filter(|(_, backend)| backend.admin(now) == Admin::Enabled);
    let mut worst = Condition::Fine;
    for v4 in [true, false] {
        let count = |backup: bool, up: bool| {
            let of_kind = enabled().filter(|(_, b)| b.address.is_ipv4() == v4 && b.backup == backup);
            of_kind.filter(|(_, b)| b.health.up || !up).count()
        };
        let (all, up, backups) = (count(false, false), count(false, true), count(true, true));
        let condition = match () {
            () if of_service().all(|(_, b)| b.address.is_ipv4() != v4) => Condition::Fine,
            () if backups == 0 && up * 100 < usize::from(policy.panic_threshold) * all => Condition::Panic,
            () if up > 0 => Condition::Fine,
            () if backups > 0 => Condition::Backup,
            () => Condition::AllDown(policy.all_down),
        };
        if condition != Condition::Fine {
            worst = condition;
        }
    }
    worst
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => f.write_str("ok"),
            Self::Panic => f.write_str("panic: too few backends are up, so the checks are not believed"),
            Self::Backup => f.write_str("on backup: no other backend is up"),
            Self::AllDown(AllDown::Reject) => f.write_str("all backends are down: new connections are rejected"),
            Self::AllDown(AllDown::Drop) => f.write_str("all backends are down: new connections are dropped"),
            Self::AllDown(AllDown::Last) => f.write_str("all backends are down: the last one to go down is used"),
        }
    }
}
