//! One generation of the configuration: the plan, what runs by it, and the rules that bring its packets.

use crate::Error;
use crate::hops::hops;
use crate::roster::Roster;
use loaded_config::plan::Plan;
use loaded_config::{Amendment, LoadedPlan, Source};
use loaded_host::own_ports;
use loaded_ipc::ServiceIndex;
use loaded_netfilter::routes::Hops;
use loaded_netfilter::{RuleSet, Steering};
use std::net::IpAddr;
use std::time::Instant;

/// What an instance serves by, or is about to.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) plan: Plan,
    /// The files that the plan was made of, as they were read.
    pub(crate) sources: Vec<Source>,
    /// What was changed at run time and stands in no file. The plan has it.
    pub(crate) amendments: Vec<Amendment>,
    pub(crate) roster: Roster,
    pub(crate) rules: RuleSet,
}

/// The rules that bring a roster's traffic to the workers.
pub(crate) fn rules(roster: &Roster, plan: &Plan, queues: &[u16], steering: &Steering) -> RuleSet {
    let mut reach = roster.reach(plan);
    reach.own_ports = own_ports().unwrap_or(reach.own_ports);
    RuleSet::new(&reach, queues, steering)
}

impl Generation {
    /// The generation after `roster`. All workers have opened their tables in generation `settled` or later; `found` are
    /// discovered backends.
    ///
    /// # Errors
    /// If there are not enough numbers for what comes while what was removed has not left.
    pub(crate) fn after(
        roster: &Roster,
        loaded: LoadedPlan,
        found: &[(ServiceIndex, IpAddr)],
        settled: u64,
        (queues, steering): (&[u16], &Steering),
    ) -> Result<Self, Error> {
        let LoadedPlan { plan, sources, amendments, .. } = loaded;
        let roster = roster.next(&plan, found, settled, Instant::now())?;
        let rules = rules(&roster, &plan, queues, steering);
        Ok(Self { plan, sources, amendments, roster, rules })
    }

    /// What it was made of.
    pub(crate) fn loaded(&self) -> LoadedPlan {
        let Self { plan, sources, amendments, .. } = self;
        let (notes, forgotten) = (Vec::new(), Vec::new());
        LoadedPlan { plan: plan.clone(), notes, sources: sources.clone(), amendments: amendments.clone(), forgotten }
    }

    /// The routes by mark that its packets need, including those to backends that are leaving.
    ///
    /// # Errors
    /// If a backend of mode "dsr" is in no network of this host.
    pub(crate) fn hops(&self) -> Result<Hops, Error> {
        Ok(hops(&self.roster)?)
    }
}
