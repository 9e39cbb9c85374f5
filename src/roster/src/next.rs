//! The next roster: made from this one and a plan.

use super::{BackendEntry, BackendHealth, FAREWELL, Leaving, NumbersExhausted, Roster, ServiceEntry};
use loaded_config::plan::{Plan, Service};
use loaded_ipc::{Destination, ServiceIndex};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

impl Roster {
    /// The roster after this one. All workers have opened their tables in generation `settled` or later. `found` are discovered
    /// backends.
    ///
    /// # Errors
    /// If what leaves and what comes are together more than there are numbers.
    pub fn next(
        &self,
        plan: &Plan,
        found: &[(ServiceIndex, IpAddr)],
        settled: u64,
        now: Instant,
    ) -> Result<Self, NumbersExhausted> {
        let mut next = self.clone();
        next.generation += 1;
        next.unserved = plan.unserved;
        next.linger = plan.linger;
        next.malformed = plan.on_failure.parse_error;
        next.quota = plan.quota;
        next.drain = Duration::from_secs(plan.drain.into());
        next.forget(now);
        next.see_off(plan, now);
        next.clear_for(plan);
        for service in &plan.services {
            next.take_service(service, settled, now)?;
        }
        for &(service, address) in found {
            if next.may_join(service, address) {
                next.take_found(service, address, settled, now)?;
            }
        }
        Ok(next)
    }

    /// Drops what has left.
    fn forget(&mut self, now: Instant) {
        let generation = self.generation;
        self.leaving.retain(|leaving| leaving.until > now);
        let mut busy = Vec::new();
        self.backends.retain(generation, |_, backend| {
            let stays = backend.leaves.is_none_or(|at| at + FAREWELL > now);
            busy.extend(stays.then_some(backend.service));
            stays
        });
        self.services.retain(generation, |number, entry| {
            entry.leaves.is_none_or(|at| at > now) || busy.contains(&ServiceIndex(number))
        });
        let named: Vec<IpAddr> = self.leaving.iter().flat_map(|leaving| leaving.vips.clone()).collect();
        let services: Vec<&Service> =
            self.services.iter().filter(|(_, e)| e.leaves.is_none()).map(|(_, e)| &e.service).collect();
        self.vips.retain(generation, |_, vip| {
            named.contains(vip) || services.iter().any(|service| service.vips.contains(vip))
        });
    }

    /// Makes everything that the plan no longer has leave.
    fn see_off(&mut self, plan: &Plan, now: Instant) {
        let deadline = now + self.drain;
        let kept = |name: &String| plan.services.iter().find(|service| service.name == *name);
        let mut gone = Vec::new();
        let mut names = BTreeMap::new();
        for (number, entry) in self.services.iter() {
            let Service { vips, protocol, ports, name, .. } = &entry.service;
            names.insert(number, name.clone());
            let same = |kept: &Service| (&kept.vips, &kept.protocol, &kept.ports) == (vips, protocol, ports);
            if entry.leaves.is_none() && !kept(name).is_some_and(same) {
                let (vips, protocol, ports) = (vips.clone(), *protocol, ports.clone());
                gone.push(Leaving { service: ServiceIndex(number), vips, protocol, ports, until: deadline + FAREWELL });
            }
        }
        for entry in self.services.values_mut().filter(|entry| entry.leaves.is_none()) {
            if kept(&entry.service.name).is_none() {
                entry.leaves = Some(deadline);
                entry.listens.clear();
            }
        }
        for backend in self.backends.values_mut().filter(|backend| backend.leaves.is_none()) {
            let service = names.get(&backend.service.0).and_then(kept);
            if !service.is_some_and(|service| backend.belongs(service)) {
                backend.leaves = Some(deadline);
            }
        }
        // Traffic that has left more than once stays until the last deadline.
        self.leaving.retain(|old| !gone.iter().any(|new| new.is_same(old)));
        self.leaving.extend(gone);
    }

    /// An address has one role: if the plan gives it another, whatever has it in the old role goes at once.
    fn clear_for(&mut self, plan: &Plan) {
        let is_vip = |address: &IpAddr| plan.services.iter().any(|service| service.vips.contains(address));
        let is_backend = |address: &IpAddr| {
            plan.services.iter().any(|service| service.backends.iter().any(|backend| backend.address == *address))
        };
        let generation = self.generation;
        self.backends.retain(generation, |_, backend| !is_vip(&backend.address));
        self.vips.retain(generation, |_, vip| !is_backend(vip));
        self.leaving.iter_mut().for_each(|leaving| leaving.vips.retain(|vip| !is_backend(vip)));
        self.leaving.retain(|leaving| !leaving.vips.is_empty());
    }

    fn take_service(&mut self, service: &Service, settled: u64, now: Instant) -> Result<(), NumbersExhausted> {
        let mut listens = Vec::new();
        for &vip in &service.vips {
            let known = self.vips.find(|known| *known == vip);
            listens.push(known.or_else(|| self.vips.insert(vip, settled)).ok_or(NumbersExhausted("VIPs"))?);
        }
        listens.sort_unstable();
        let entry = ServiceEntry { service: service.clone(), listens, leaves: None };
        let known = self.services.find(|known| known.service.name == service.name);
        let before = known.and_then(|number| self.services.get(number)).map(|entry| entry.service.check.is_some());
        let number = match known {
            Some(number) => {
                if let Some(known) = self.services.get_mut(number) {
                    *known = entry;
                }
                number
            }
            None => self.services.insert(entry, settled).ok_or(NumbersExhausted("services"))?,
        };
        let index = ServiceIndex(number);
        for backend in self.backends.values_mut().filter(|backend| backend.service == index) {
            backend.health.checked(before, service.check.is_some(), now);
        }
        for backend in &service.backends {
            match self.backend_at(index, backend.destination()) {
                Some(entry) => {
                    entry.come_back(now);
                    (entry.weight, entry.backup) = (backend.weight, backend.backup);
                    (entry.discovered, entry.confirmed) = (false, true);
                }
                None => {
                    let health = BackendHealth::new(before.is_some() && service.check.is_some(), now);
                    let mut entry = BackendEntry::new(index, backend.destination(), health);
                    (entry.weight, entry.backup) = (backend.weight, backend.backup);
                    self.backends.insert(entry, settled).ok_or(NumbersExhausted("backends"))?;
                }
            }
        }
        Ok(())
    }

    fn take_found(
        &mut self,
        service: ServiceIndex,
        address: IpAddr,
        settled: u64,
        now: Instant,
    ) -> Result<(), NumbersExhausted> {
        let port = self.services.get(service.0).and_then(|entry| entry.service.port);
        let to = Destination { address, port };
        if let Some(entry) = self.backend_at(service, to) {
            entry.come_back(now);
            return Ok(());
        }
        let mut entry = BackendEntry::new(service, to, BackendHealth::new(true, now));
        (entry.discovered, entry.confirmed) = (true, false);
        self.backends.insert(entry, settled).map(drop).ok_or(NumbersExhausted("backends"))
    }

    fn backend_at(&mut self, service: ServiceIndex, to: Destination) -> Option<&mut BackendEntry> {
        self.backends.values_mut().find(|backend| backend.service == service && backend.destination() == to)
    }
}

impl Leaving {
    fn is_same(&self, other: &Self) -> bool {
        (self.service, &self.vips, self.protocol, &self.ports)
            == (other.service, &other.vips, other.protocol, &other.ports)
    }
}
