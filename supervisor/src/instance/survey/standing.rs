//! How the backends stand: found in one pass over all of them, and kept until one of them changes or a deadline passes. With
//! thousands of backends, of which none changes, a look costs nothing for them.

use crate::roster::Roster;
use loaded_ipc::{Admin, AllDown, ServiceIndex};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

/// How the backends of each service stand.
#[derive(Debug, Default)]
pub(in crate::instance) struct Standing {
    /// Grows each time it is found anew.
    number: u64,
    /// Generation and revision of the roster that it was found of.
    of: Option<(u64, u64)>,
    /// Then a deadline passes.
    until: Option<Instant>,
    stands: BTreeMap<ServiceIndex, Stand>,
    /// Some backend or traffic is leaving.
    leaving: bool,
}

impl Standing {
    /// Finds it anew if anything has changed. Returns its number: as long as that is the same, so are all backends.
    pub(in crate::instance) fn follow(&mut self, roster: &Roster, now: Instant) -> u64 {
        let of = (roster.generation(), roster.revision());
        if self.of != Some(of) || self.until.is_some_and(|at| at <= now) {
            *self = Self {
                number: self.number + 1,
                of: Some(of),
                until: roster.next_deadline(now),
                stands: stands(roster, now),
                leaving: roster.is_leaving(),
            };
        }
        self.number
    }

    /// How the backends of each service stand, as it was found last.
    pub(in crate::instance) fn stands(&self) -> &BTreeMap<ServiceIndex, Stand> {
        &self.stands
    }

    /// How one service stands, as it was found last.
    pub(in crate::instance) fn of(&self, service: ServiceIndex) -> Stand {
        self.stands.get(&service).copied().unwrap_or_default()
    }

    /// Whether some backend or traffic is leaving.
    pub(in crate::instance) fn is_leaving(&self) -> bool {
        self.leaving
    }
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

/// How the backends of a service stand: those of IPv4, those of IPv6.
pub(in crate::instance) type Stand = [Count; 2];

/// Confirmed backends of one service and family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::instance) struct Count {
    any: bool,
    /// Enabled ones that are no backups, and those of them that are up.
    all: usize,
    up: usize,
    /// Enabled backups that are up.
    backups: usize,
}

impl Count {
    /// Enabled ones that are up.
    pub(in crate::instance) fn all_up(self) -> usize {
        self.up + self.backups
    }
}

/// How the backends of each service stand.
fn stands(roster: &Roster, now: Instant) -> BTreeMap<ServiceIndex, Stand> {
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
pub(in crate::instance) fn condition(roster: &Roster, index: ServiceIndex, stand: Stand) -> Condition {
    let [v4, v6] = stand.map(|count| family_condition(roster, index, count));
    if v6 == Condition::Fine { v4 } else { v6 }
}

/// How a service stands in one family. The worker's balancer goes by the same rule, and by what each worker's own packets
/// show.
pub(in crate::instance) fn family_condition(roster: &Roster, index: ServiceIndex, count: Count) -> Condition {
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::fixture::plan;
    use loaded_ipc::{Admin, Destination};
    use std::time::Duration;

    #[test]
    fn it_is_found_anew_when_a_backend_changes_or_a_deadline_passes_and_not_before() {
        let (plan, now) = (plan(), Instant::now());
        let mut roster = Roster::empty().next(&plan, &[], 0, now).unwrap();
        let backend = plan.services[0].backends[0].address;
        let mut standing = Standing::default();
        let mut at = |roster: &Roster, seconds| standing.follow(roster, now + Duration::from_secs(seconds));
        assert_eq!((at(&roster, 0), at(&roster, 0), at(&roster, 999)), (1, 1, 1));
        let named = Destination { address: backend, port: None };
        let until = now + Duration::from_secs(1010);
        assert!(!roster.wish(named, None, Admin::Draining, Some(until)).is_empty());
        assert_eq!((at(&roster, 1000), at(&roster, 1009)), (2, 2));
        assert_eq!((at(&roster, 1010), at(&roster, 2000)), (3, 3), "the drain is over");
        let next = roster.next(&plan, &[], 0, now).unwrap();
        assert_eq!(at(&next, 2000), 4, "another generation");
    }
}
