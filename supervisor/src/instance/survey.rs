//! What the last regular look saw of everything whose changes nobody announces, and the condition of a service.

use super::account::Account;
use super::beside::ClientsBeside;
use super::neighbours::NeighbourWatch;
use super::traffic::Course;
use crate::roster::Roster;
use loaded_control::Health;
use loaded_host::Problem;
use loaded_ipc::{Admin, AllDown, BackendIndex, Cause, ServiceIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Time between two looks at the routes of mode "dsr", each of which runs a program four times, and at interfaces and routes for
/// the kernel path, if nothing is announced.
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
    /// The next look at interfaces and routes for the kernel path.
    pub(super) kernel_path_due: Instant,
    /// For each worker and backend why the worker avoids it, if it does.
    pub(super) ejected: BTreeMap<(u16, BackendIndex), Option<Cause>>,
    pub(super) conditions: BTreeMap<ServiceIndex, Condition>,
    /// Nodes that have answered a search for backends and are not yet in the roster.
    pub(super) found: BTreeSet<(ServiceIndex, IpAddr)>,
    /// When a change for the sake of discovered nodes was last begun.
    pub(super) discovered: Option<Instant>,
    /// Until then no change begins that nobody has asked for.
    pub(super) rests_until: Instant,
    /// What was found of the host, and when it is to be looked at again.
    pub(super) host: Vec<Problem>,
    pub(super) host_due: Instant,
    /// The account of the children.
    pub(super) account: Account,
    /// Clients in the network of backends.
    pub(super) beside: ClientsBeside,
    /// What passes, of each service and of IPv4 or not; and when it is to be looked at again.
    pub(super) courses: BTreeMap<(ServiceIndex, bool), Course>,
    pub(super) traffic_due: Instant,
    /// Neighbours that do not answer.
    pub(super) neighbours: NeighbourWatch,
    /// Workers that did not serve.
    pub(super) unready: Vec<String>,
    pub(super) table_loss: Loss,
    pub(super) queue_loss: Loss,
    /// The verdict of now.
    pub(super) health: Health,
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

/// How long a loss of packets is told of after the last one.
const LOSS_LASTS: Duration = Duration::from_secs(10);

/// What was lost of late.
#[derive(Debug, Default)]
pub(super) struct Loss {
    count: u64,
    at: Option<Instant>,
}

impl Loss {
    /// Notes the counter of now; whether it has grown of late.
    pub(super) fn is_recent(&mut self, count: u64, now: Instant) -> bool {
        if count > std::mem::replace(&mut self.count, count) {
            self.at = Some(now);
        }
        self.at.is_some_and(|at| now.duration_since(at) < LOSS_LASTS)
    }
}

impl Survey {
    pub(crate) fn new() -> Self {
        Self {
            due: Instant::now(),
            routes_due: Instant::now() + ROUTES_EVERY,
            kernel_path_due: Instant::now() + ROUTES_EVERY,
            ejected: BTreeMap::new(),
            conditions: BTreeMap::new(),
            found: BTreeSet::new(),
            discovered: None,
            rests_until: Instant::now(),
            host: Vec::new(),
            host_due: Instant::now(),
            account: Account::default(),
            beside: ClientsBeside::default(),
            courses: BTreeMap::new(),
            traffic_due: Instant::now(),
            neighbours: NeighbourWatch::begin(),
            unready: Vec::new(),
            table_loss: Loss::default(),
            queue_loss: Loss::default(),
            health: Health::default(),
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

/// How the backends of a service stand: those of IPv4, those of IPv6.
pub(super) type Stand = [Count; 2];

/// Confirmed backends of one service and family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    any: bool,
    /// Enabled ones that are no backups, and those of them that are up.
    all: usize,
    up: usize,
    /// Enabled backups that are up.
    backups: usize,
}

impl Count {
    /// Enabled ones that are up.
    pub(super) fn all_up(self) -> usize {
        self.up + self.backups
    }
}

/// How the backends of each service stand.
pub(super) fn stands(roster: &Roster, now: Instant) -> BTreeMap<ServiceIndex, Stand> {
    let mut stands: BTreeMap<ServiceIndex, Stand> = BTreeMap::new();
    for (_, backend) in roster.backends().filter(|(_, backend)| backend.confirmed) {
        let [v4, v6] = stands.entry(backend.service).or_default();
        let count = if backend.address.is_ipv4() { v4 } else { v6 };
        count.any = true;
        if backend.admin(now) != Admin::Enabled {
            continue;
        }
        let up = usize::from(backend.health.up);
        if backend.backup {
            count.backups += up;
        } else {
            count.all += 1;
            count.up += up;
        }
    }
    stands
}

/// How a service stands, in the family that is worse off.
pub(super) fn condition(roster: &Roster, index: ServiceIndex, stand: Stand) -> Condition {
    let [v4, v6] = stand.map(|count| family_condition(roster, index, count));
    if v6 == Condition::Fine { v4 } else { v6 }
}

/// How a service stands in one family. The worker's balancer goes by the same rule, and by what each worker's own packets
/// show.
pub(super) fn family_condition(roster: &Roster, index: ServiceIndex, count: Count) -> Condition {
    let Some(entry) = roster.service(index) else { return Condition::Fine };
    let policy = entry.service.policy;
    let Count { any, all, up, backups } = count;
    match () {
        () if !any => Condition::Fine,
        () if backups == 0 && up * 100 < usize::from(policy.panic_threshold) * all => Condition::Panic,
        () if up > 0 => Condition::Fine,
        () if backups > 0 => Condition::Backup,
        () => Condition::AllDown(policy.all_down),
    }
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
