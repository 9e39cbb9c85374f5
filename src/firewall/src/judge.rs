//! All packets of a plan through all chains of others.
//!
//! A connection's first packets make a round trip of four legs: the request to the worker and from it to the backend, the reply
//! to the worker and from it to the client (in mode "dsr" the reply does not come by). Which interfaces clients use is not known.
//! So a service counts as cut off only if no client can reach it by any interface that a route leads through; if only those of
//! the VIPs and of the default routes are cut off, that is a warning.

mod legs;
mod told;

use crate::packet::World;
use crate::read::Firewall;
use crate::rule::{Base, ChainOrder, Hook, Table};
use crate::walk::{ChainEffect, Culprit, walk};
use legs::{Leg, legs};
use loaded_config::plan::{Plan, Service};
use loaded_host::{Paths, Problem, Severity};
use loaded_netfilter::Family;
use std::collections::BTreeMap;
use told::{Loss, Whose};

/// What firewalls of others make of the packets of a plan.
#[must_use]
pub fn judge(firewall: &Firewall, plan: &Plan, paths: Paths) -> Vec<Problem> {
    judged(firewall, plan, &World::new(paths))
}

fn judged(firewall: &Firewall, plan: &Plan, world: &World) -> Vec<Problem> {
    let mut losses = Losses::default();
    for service in &plan.services {
        for family in Family::ALL {
            losses.add(firewall, service, family, world);
        }
    }
    let unknown = |text: String| Problem::new("firewall", Severity::Unknown, text);
    let mut problems = match world.is_spent() {
        true => vec![unknown("has more rules than are examined: send a request".to_owned())],
        false => losses.problems(plan),
    };
    problems.extend(firewall.unread.iter().cloned().map(unknown));
    problems
}

/// Which chain: the table's number and the chain's number in it.
type At = (usize, usize);

/// What was lost, by what.
#[derive(Default)]
struct Losses<'t> {
    found: BTreeMap<(At, String), Loss<'t>>,
}

/// How the packets of one service fare for clients of one interface.
#[derive(Default)]
struct Fare<'t> {
    trips: usize,
    cut: usize,
    /// What cuts trips off, and whose packets it drops.
    by: BTreeMap<(At, String), (Culprit<'t>, Whose)>,
    /// What may.
    maybe: BTreeMap<(At, String), (Culprit<'t>, Whose)>,
    /// Chains with rules that were not understood and that something hinges on.
    unread: BTreeMap<(At, String), (Culprit<'t>, Whose)>,
}

impl<'t> Losses<'t> {
    fn add(&mut self, firewall: &'t Firewall, service: &Service, family: Family, world: &World) {
        let is_of = |address: &std::net::IpAddr| address.is_ipv4() == (family == Family::V4);
        let vips: Vec<_> = service.vips.iter().copied().filter(is_of).collect();
        if vips.is_empty() {
            return;
        }
        let backends = || service.backends.iter().map(|backend| backend.address).filter(is_of);
        let clients = world.paths.of_clients(&vips, backends());
        let fare = |by: Option<&str>| {
            let mut fare = Fare::default();
            for legs in legs(service, family, by, world).iter().take_while(|_| !world.is_spent()) {
                fare.add(firewall, legs);
            }
            fare
        };
        let likely: Vec<Fare<'t>> = match clients.likely.is_empty() {
            true => vec![fare(None)],
            false => clients.likely.iter().map(|name| fare(Some(name))).collect(),
        };
        let others: Vec<Fare<'t>> = clients.others.iter().map(|name| fare(Some(name))).collect();
        let all = |fares: &[Fare<'t>], is: fn(&Fare<'t>) -> bool| fares.iter().all(is);
        let severity = match () {
            () if all(&likely, Fare::is_cut_off) && all(&others, Fare::is_cut_off) => Some(Severity::Fatal),
            () if all(&likely, Fare::is_hurt) && all(&others, Fare::is_hurt) => Some(Severity::Impairing),
            () if all(&likely, Fare::is_hurt) => Some(Severity::Warning),
            () => None,
        };
        for fare in likely {
            for (severity, found) in
                [(severity, fare.by), (Some(Severity::Warning), fare.maybe), (Some(Severity::Unknown), fare.unread)]
            {
                let Some(severity) = severity else { continue };
                for (key, (culprit, whose)) in found {
                    let (table, base) = (&firewall.tables[key.0.0], &firewall.tables[key.0.0].bases[key.0.1]);
                    let loss = self.found.entry(key).or_insert_with(|| Loss::new(table, base, culprit));
                    loss.add(severity, &service.name, family, whose);
                }
            }
        }
    }

    fn problems(self, plan: &Plan) -> Vec<Problem> {
        self.found.into_values().flat_map(|loss| loss.problems(plan)).collect()
    }
}

impl<'t> Fare<'t> {
    fn is_cut_off(&self) -> bool {
        self.trips > 0 && self.cut == self.trips
    }

    fn is_hurt(&self) -> bool {
        self.cut > 0
    }

    /// Sends the packets of one round trip, to one backend and back, through all chains.
    fn add(&mut self, firewall: &'t Firewall, legs: &[Leg<'_>]) {
        self.trips += 1;
        let mut cut = false;
        for leg in legs {
            for (number, table) in firewall.tables.iter().enumerate() {
                if !table.families.contains(&leg.packet.family) {
                    continue;
                }
                for (at, base) in table.bases.iter().enumerate() {
                    cut |= self.meet(((number, at), table, base), leg);
                }
            }
        }
        self.cut += usize::from(cut);
    }

    /// Whether this chain drops the packet for sure.
    fn meet(&mut self, (at, table, base): (At, &'t Table, &'t Base), leg: &Leg<'_>) -> bool {
        let Some(packet) = leg.at(base) else { return false };
        let effect = walk(table, base, &packet);
        let ChainEffect { passes, dropped_by, unread } = effect;
        // Where the chain is, or whether it is there at all for this packet, may not be known.
        let sure = base.order != ChainOrder::Unknown
            && (!matches!(base.hook, Hook::Ingress | Hook::Egress) || !base.devices.is_empty());
        let before = base.order == ChainOrder::Before;
        let Some(culprit) = dropped_by else {
            // Another program, or another place, may take it before our rules see it.
            if let (Some(rule), true) = (unread, before) {
                note(&mut self.maybe, at, Culprit::Rule(rule), leg.whose);
            }
            return false;
        };
        match (passes, unread) {
            (false, _) if sure => {
                note(&mut self.by, at, culprit, leg.whose);
                return true;
            }
            _ if before || !passes => note(&mut self.maybe, at, culprit, leg.whose),
            (true, Some(rule)) => note(&mut self.unread, at, Culprit::Rule(rule), leg.whose),
            _ => {}
        }
        false
    }
}

fn note<'t>(found: &mut BTreeMap<(At, String), (Culprit<'t>, Whose)>, at: At, culprit: Culprit<'t>, whose: Whose) {
    let (_, known) = found.entry((at, culprit.key())).or_insert((culprit, whose));
    *known = known.and(whose);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
