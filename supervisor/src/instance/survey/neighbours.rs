//! Hosts on our links that do not answer when the kernel asks for their link address: it drops what is to go to them.

use crate::roster::Roster;
use loaded_config::plan::Plan;
use loaded_control::{ConditionStatus, Effect};
use loaded_host::{Neighbour, NeighbourEvents, SilentNeighbour, silent_neighbours};
use loaded_ipc::Admin;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Shortest time from one look to the next.
const EVERY: Duration = Duration::from_secs(1);
/// After a look that takes long, as with thousands of neighbours, the next one waits this many times as long.
const REST: u32 = 500;
/// So many are named.
const NAMED: usize = 4;

/// What is known of them.
#[derive(Debug)]
pub(in crate::instance) struct NeighbourWatch {
    /// Not among what the loop waits for: where there are thousands of neighbours one of them always changes.
    events: Option<NeighbourEvents>,
    /// The plan has changed, or a neighbour.
    is_due: bool,
    /// Before that there is no look.
    rests_until: Instant,
    silent: BTreeMap<Neighbour, SilentNeighbour>,
    /// Those that have failed since the last look.
    failed: BTreeSet<Neighbour>,
    /// What they do to packets, and of which standing of the backends that was found; `None`: it is to be found anew.
    told: Option<(u64, Vec<ConditionStatus>)>,
}

impl NeighbourWatch {
    /// Begins with the changes from now on: what has failed before the start may have been long ago.
    pub(super) fn begin() -> Self {
        let open = NeighbourEvents::open();
        let events = open.inspect_err(|error| log::warn!("changes of neighbours are not announced: {error}")).ok();
        Self {
            events,
            is_due: false,
            rests_until: Instant::now(),
            silent: BTreeMap::new(),
            failed: BTreeSet::new(),
            told: None,
        }
    }

    /// Routes or interfaces have changed: packets may go through silent neighbours no more, of which the neighbours say nothing.
    pub(in crate::instance) fn note_change(&mut self) {
        self.is_due |= !self.silent.is_empty();
    }

    /// Looks at the neighbours if one that matters has changed, and at those that are silent in any case.
    pub(in crate::instance) fn look(&mut self, plan: &Plan, now: Instant) {
        let Self { events, failed, silent, .. } = self;
        self.is_due |=
            events.as_mut().is_some_and(|events| events.read(failed, |neighbour| silent.contains_key(neighbour)));
        if !self.is_due || now < self.rests_until {
            return;
        }
        self.is_due = false;
        let begin = Instant::now();
        let failed = std::mem::take(&mut self.failed);
        let has_failed = |neighbour: &Neighbour| failed.contains(neighbour) || self.silent.contains_key(neighbour);
        match silent_neighbours(plan, has_failed) {
            Ok(silent) => (self.silent, self.told) = (silent, None),
            Err(error) => log::warn!("neighbours cannot be listed: {error}"),
        }
        self.rests_until = now + EVERY.max(begin.elapsed() * REST);
    }

    /// What they do to packets, kept as long as the backends have this standing.
    pub(in crate::instance) fn conditions(
        &mut self,
        roster: &Roster,
        standing: u64,
        now: Instant,
    ) -> Vec<ConditionStatus> {
        if self.silent.is_empty() {
            return Vec::new();
        }
        match &self.told {
            Some((of, told)) if *of == standing => told.clone(),
            _ => {
                let found = self.judged(roster, now);
                self.told = Some((standing, found.clone()));
                found
            }
        }
    }

    /// Those that go to nobody but backends that are out already do no harm.
    fn judged(&self, roster: &Roster, now: Instant) -> Vec<ConditionStatus> {
        let enabled = roster
            .backends()
            .filter(|(_, backend)| backend.health.up && backend.confirmed && backend.admin(now) == Admin::Enabled);
        let taking: BTreeSet<IpAddr> = enabled.map(|(_, backend)| backend.address).collect();
        let takes = |address: &IpAddr| taking.contains(address);
        let matters = |silent: &&SilentNeighbour| silent.leads_out || silent.backends.iter().any(takes);
        let (harmful, harmless): (Vec<_>, Vec<_>) = self.silent.values().partition(matters);
        let mut all = Vec::new();
        for (effect, silent) in [(Effect::Impairs, harmful), (Effect::Note, harmless)] {
            all.extend(silent.iter().take(NAMED).map(|silent| ConditionStatus {
                family: Some(if silent.address.is_ipv4() { 4 } else { 6 }),
                ..condition(effect, format!("{silent}; to see it"), silent.to_see())
            }));
            if let Some(more) = silent.len().checked_sub(NAMED + 1) {
                let text = format!("{} more neighbours do not answer; to see them", more + 1);
                all.push(condition(effect, text, "ip neigh show nud failed".to_owned()));
            }
        }
        all
    }
}

fn condition(effect: Effect, text: String, mend: String) -> ConditionStatus {
    ConditionStatus { name: "neighbour".to_owned(), effect, service: None, family: None, text, mend: Some(mend) }
}
