//! What the last regular look saw of everything whose changes nobody announces.
//!
//! - [`account`], [`beside`], [`host_watch`], [`neighbours`], [`standing`], [`traffic`]: its parts.
//! - [`alarm`]: whether a counter has moved.

mod account;
mod alarm;
mod beside;
mod host_watch;
mod neighbours;
pub(super) mod standing;
pub(super) mod traffic;

use alarm::Alarm;
use beside::ClientsBeside;
use host_watch::HostWatch;
use loaded_control::Health;
use loaded_ipc::{BackendIndex, Cause, ServiceIndex};
use neighbours::NeighbourWatch;
use standing::{Condition, Standing};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use traffic::{OrphanTrend, Trend};

/// Time between two looks at the routes of mode "dsr", each of which runs a program four times, and at interfaces for the kernel
/// path, if nothing is announced.
pub(super) const ROUTES_EVERY: Duration = Duration::from_secs(10);
/// The same for the ways to backends for the kernel path: the kernel is asked for each, and announces what changes them.
pub(super) const WAYS_EVERY: Duration = Duration::from_secs(300);
/// After a look at those the next one waits this many times as long, however often routes change: a hundredth of a core at most.
pub(super) const WAYS_REST: u32 = 100;
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
    /// The next look at interfaces for the kernel path.
    pub(super) kernel_path_due: Instant,
    /// The next look at its ways to backends, and before when there is none.
    pub(super) ways_due: Instant,
    pub(super) ways_rest_until: Instant,
    /// For each worker whether its views of backends have to be read again.
    pub(super) views: BTreeMap<u16, Alarm>,
    /// For each worker and backend why the worker avoids it, if it does.
    pub(super) ejected: BTreeMap<(u16, BackendIndex), Option<Cause>>,
    /// How the backends stand, and its number when their conditions were noted last.
    pub(super) standing: Standing,
    pub(super) noted: u64,
    pub(super) conditions: BTreeMap<ServiceIndex, Condition>,
    /// Nodes that have answered a search for backends and are not yet in the roster.
    pub(super) found: BTreeSet<(ServiceIndex, IpAddr)>,
    /// When a change for the sake of discovered nodes was last begun.
    pub(super) discovered: Option<Instant>,
    /// Until then no change begins that nobody has asked for.
    pub(super) rests_until: Instant,
    /// What was found of the host.
    pub(super) host: HostWatch,
    /// Clients in the network of backends.
    pub(super) beside: ClientsBeside,
    /// What passes, of each service and of IPv4 or not; and when it is to be looked at again.
    pub(super) trends: BTreeMap<(ServiceIndex, bool), Trend>,
    /// The same of each backend.
    pub(super) backend_trends: BTreeMap<BackendIndex, Trend>,
    pub(super) orphans: OrphanTrend,
    pub(super) traffic_due: Instant,
    /// Neighbours that do not answer.
    pub(super) neighbours: NeighbourWatch,
    /// Workers that did not serve.
    pub(super) unready: Vec<String>,
    pub(super) table_loss: RecentLoss,
    pub(super) queue_loss: RecentLoss,
    /// The verdict of now.
    pub(super) health: Health,
}

/// How long a loss of packets is told of after the last one.
const LOSS_LASTS: Duration = Duration::from_secs(10);

/// What was lost of late.
#[derive(Debug, Default)]
pub(super) struct RecentLoss {
    count: u64,
    at: Option<Instant>,
}

impl RecentLoss {
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
            ways_due: Instant::now() + WAYS_EVERY,
            ways_rest_until: Instant::now(),
            views: BTreeMap::new(),
            ejected: BTreeMap::new(),
            standing: Standing::default(),
            noted: 0,
            conditions: BTreeMap::new(),
            found: BTreeSet::new(),
            discovered: None,
            rests_until: Instant::now(),
            host: HostWatch::new(),
            beside: ClientsBeside::default(),
            trends: BTreeMap::new(),
            backend_trends: BTreeMap::new(),
            orphans: OrphanTrend::default(),
            traffic_due: Instant::now(),
            neighbours: NeighbourWatch::begin(),
            unready: Vec::new(),
            table_loss: RecentLoss::default(),
            queue_loss: RecentLoss::default(),
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
