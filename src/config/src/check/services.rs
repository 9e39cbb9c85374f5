//! Builds the plan's services and their backends from the draft, and reports what contradicts.

use crate::draft::DraftService;
use crate::location::{At, Flaw, Mark};
use crate::mistake::Mistakes;
use crate::plan::{Backend, Discover, MAX_BACKENDS, Service};
use crate::probe;
use loaded_ipc::{Check, Destination, Passive, Policy, PortRange};
use std::collections::HashMap;
use std::net::IpAddr;

/// Counts the backends as they come.
pub(super) struct Services<'m> {
    pub(super) mistakes: &'m Mistakes,
    pub(super) backends: usize,
}

impl Services<'_> {
    pub(super) fn service(&mut self, draft: &DraftService, vips: &HashMap<IpAddr, Mark>) -> Service {
        let backends = self.members(draft, vips);
        if let Some(discover) = &draft.discover {
            self.count(discover.value.limit.into(), discover.mark);
        }
        // What they make of the service rests on all of these.
        let known =
            draft.knows(&["vip", "protocol", "ports", "port", "mode", "check", "passive", "discover", "backend"]);
        let (check, passive, discover) = if known { self.probes(draft) } else { (None, None, None) };
        let checks_own_ports = check.as_ref().is_some_and(|check| probe::checks_own_ports(draft, check));
        Service {
            name: draft.name.value.clone(),
            vips: draft.vips.iter().map(|vip| vip.value).collect(),
            protocol: draft.protocol,
            ports: self.mistakes.take(sorted_ports(&draft.ports)).unwrap_or_default(),
            port: draft.port.filter(|_| draft.discover.is_some()).map(|port| port.value),
            mode: draft.mode,
            strategy: draft.strategy,
            affinity: draft.affinity,
            policy: Policy { passive, ..draft.policy },
            check,
            checks_own_ports,
            discover,
            backends,
        }
    }

    fn probes(&self, draft: &DraftService) -> (Option<Check>, Option<Passive>, Option<Discover>) {
        let check = self.mistakes.take(probe::check(draft));
        // Without the port of a check nobody knows what packets can be judged by.
        let passive = check.as_ref().map(|check| self.mistakes.take(probe::passive(draft, check.as_ref())).flatten());
        (check.flatten(), passive.flatten(), self.mistakes.take(probe::discover(draft)).flatten())
    }

    fn members(&mut self, draft: &DraftService, vips: &HashMap<IpAddr, Mark>) -> Vec<Backend> {
        let mut seen: HashMap<Destination, Mark> = HashMap::new();
        let mut members = Vec::new();
        for member in &draft.members {
            let address = &member.address;
            if let Some(vip) = vips.get(&address.value) {
                let text = format!("{} is a VIP and cannot be a backend too", address.value);
                self.mistakes.add(address.flaw(text).see(*vip));
            }
            let port = draft.port_of(member).map(|port| port.value);
            let destination = Destination { address: address.value, port };
            if let Some(first) = seen.insert(destination, address.mark).filter(|_| draft.knows(&["port"])) {
                let name = &draft.name.value;
                let text = format!("{destination} is a backend of {name:?} twice; remove one (TOML has weights)");
                self.mistakes.add(address.flaw(text).see(first));
            }
            self.count(1, address.mark);
            members.push(Backend { address: address.value, port, weight: member.weight, backup: member.backup });
        }
        members
    }

    /// Tells once that there are too many.
    fn count(&mut self, more: usize, mark: Mark) {
        let before = self.backends;
        self.backends += more;
        if before <= MAX_BACKENDS && self.backends > MAX_BACKENDS {
            let text = format!("more than {MAX_BACKENDS} backends, counting those that discover may add");
            self.mistakes.add(mark.flaw(text));
        }
    }
}

fn sorted_ports(ports: &[At<PortRange>]) -> Result<Vec<PortRange>, Flaw> {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|port| (port.value, port.mark));
    for (first, second) in ports.iter().zip(ports.iter().skip(1)) {
        if second.value.low <= first.value.high {
            let (late, early) = if first.mark > second.mark { (first, second) } else { (second, first) };
            return Err(late.flaw(format!("ports {} and {} overlap", early.value, late.value)).see(early.mark));
        }
    }
    Ok(ports.iter().map(|port| port.value).collect())
}
