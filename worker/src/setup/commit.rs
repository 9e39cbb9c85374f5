//! `Commit`: checks what only the whole configuration shows, and builds the setup.

use super::assembly::{Assembly, OutOfStep, ServiceDraft};
use super::model::{Backend, Served, Service, ServicePool, Setup, Translation, Vip};
use crate::balance::{Balancer, MemberSpec};
use crate::wire::{Address, Family, protocol};
use loaded_ipc::{BackendIndex, Mode, OnFailure, PortRange, Protocol, Unserved};
use std::collections::{BTreeMap, BTreeSet};

impl Assembly {
    pub(super) fn finish(self, worker: u16) -> Result<Setup, OutOfStep> {
        let (vip_order, addresses) = (self.vip_order()?, self.backend_addresses()?);
        if self.vips.values().any(|address| addresses.binary_search(address).is_ok()) {
            return Err(OutOfStep("a virtual IP that is a backend"));
        }
        // Replies of direct backends do not come this way.
        let replying: BTreeSet<_> = self.backends.values().filter(|(b, _)| !b.direct).map(|(b, _)| b.address).collect();
        let reply_addresses = addresses.into_iter().filter(|address| replying.contains(address)).collect();
        let empty = |address| Vip { address, tcp: Vec::new(), udp: Vec::new(), sctp: Vec::new(), any: None };
        let mut vips = slots(self.vips.iter().map(|(&index, &address)| (index, empty(address))));
        let kinds = self.kinds();
        let mut services = BTreeMap::new();
        for (&index, draft) in &self.services {
            listen(&mut vips, index, draft)?;
            let pool = |family| self.pool(index, draft, family, worker);
            let (v4, v6) = (pool(Family::V4)?, pool(Family::V6)?);
            let ServiceDraft { mode, affinity, policy, .. } = *draft;
            let (changes_ports, keeps_ports) = (self.has_backend(index, true), self.has_backend(index, false));
            let crossing = self.crossing(index, &kinds);
            let service = Service { mode, affinity, policy, changes_ports, keeps_ports, crossing, v4, v6 };
            services.insert(index, Box::new(service));
        }
        for vip in vips.iter_mut().flatten() {
            for ranges in [&mut vip.tcp, &mut vip.udp, &mut vip.sctp] {
                ranges.sort_unstable();
                if ranges.windows(2).any(|pair| pair[1].0.low <= pair[0].0.high) {
                    return Err(OutOfStep("ports of a virtual IP that overlap"));
                }
            }
        }
        let (generation, unserved, malformed) = self.begun.unwrap_or((0, Unserved::Pass, OnFailure::Drop));
        // A malformed packet that passed would meet the host's own stack at the VIP of a service in mode "nat".
        let translates = self.services.values().any(|service| service.mode == Mode::Nat);
        Ok(Setup {
            generation,
            unserved,
            malformed: if translates { OnFailure::Drop } else { malformed },
            quota: self.quota,
            translation: self.translation(),
            served: self.served(),
            vip_order,
            reply_addresses,
            backends: slots(self.backends.into_iter().map(|(index, (backend, _))| (index, backend))),
            vips,
            services: slots(services.into_iter()),
        })
    }

    /// The backends of a service and a family with their balancer.
    fn pool(&self, service: u16, draft: &ServiceDraft, family: Family, worker: u16) -> Result<ServicePool, OutOfStep> {
        let members: Vec<_> = (self.backends.iter())
            .filter(|(_, (backend, _))| backend.service == service && backend.family() == family)
            .map(|(&index, &(Backend { address, port, backup, .. }, weight))| MemberSpec {
                backend: BackendIndex(index),
                address,
                port,
                weight,
                backup,
            })
            .collect();
        let balancer = Balancer::new(&members, draft.strategy, worker, draft.policy);
        let balancer = balancer.map_err(|_| OutOfStep("a backend twice, or too many"))?;
        Ok(ServicePool { balancer, backends: members.iter().map(|member| member.backend.0).collect() })
    }

    /// Whether a service has a backend with a port, or one without.
    fn has_backend(&self, service: u16, port: bool) -> bool {
        self.backends.values().any(|(backend, _)| backend.service == service && backend.port.is_some() == port)
    }

    /// For each address whether a backend there has a port, and whether one has none.
    fn kinds(&self) -> BTreeMap<Address, (bool, bool)> {
        let mut kinds: BTreeMap<Address, (bool, bool)> = BTreeMap::new();
        for (backend, _) in self.backends.values().filter(|(backend, _)| !backend.direct) {
            let (changes, keeps) = kinds.entry(backend.address).or_default();
            *changes |= backend.port.is_some();
            *keeps |= backend.port.is_none();
        }
        kinds
    }

    /// See [`Service::crossing`].
    fn crossing(&self, service: u16, kinds: &BTreeMap<Address, (bool, bool)>) -> Box<[u16]> {
        let own = self.backends.values().map(|(backend, _)| backend).filter(|backend| backend.service == service);
        let crossed = own.filter_map(|backend| match (backend.port, kinds.get(&backend.address)?) {
            (Some(port), (_, true)) => Some(port),
            (None, (true, _)) => Some(0),
            _ => None,
        });
        crossed.collect::<BTreeSet<u16>>().into_iter().collect()
    }

    fn translation(&self) -> Translation {
        let backends = || self.backends.values().map(|(backend, _)| backend);
        let is_sctp = |service| self.services.get(&service).is_some_and(|draft| draft.protocol == Protocol::Sctp);
        let places: BTreeSet<_> = backends().filter_map(|backend| Some((backend.address, backend.port?))).collect();
        Translation {
            changes: !places.is_empty(),
            keeps: backends().any(|backend| backend.port.is_none()),
            of_sctp: backends().any(|backend| backend.port.is_some() && is_sctp(backend.service)),
            places: places.into_iter().collect(),
        }
    }

    /// See [`Setup::served_at`].
    fn served(&self) -> Box<[Served]> {
        const EVERY: [PortRange; 1] = [PortRange { low: 0, high: u16::MAX }];
        let is_nat = |draft: &&ServiceDraft| draft.mode == Mode::Nat;
        let mut served = Vec::new();
        for (&index, (backend, _)) in &self.backends {
            let Some(draft) = self.services.get(&backend.service).filter(is_nat) else { continue };
            let protocols: &[u8] = match draft.protocol {
                Protocol::Tcp => &[protocol::TCP],
                Protocol::Udp => &[protocol::UDP],
                Protocol::Any => &[protocol::TCP, protocol::UDP],
                Protocol::Sctp => &[protocol::SCTP],
            };
            let adopts = draft.policy.adopt && !draft.ports.is_empty() && draft.protocol != Protocol::Any;
            let named = if draft.ports.is_empty() { &EVERY } else { draft.ports.as_slice() };
            let own = backend.port.map(|port| [PortRange { low: port, high: port }]);
            let ports = own.as_ref().map_or(named, |own| own.as_slice());
            let one = |protocol, ports| Served { address: backend.address, protocol, ports, backend: index, adopts };
            served.extend(protocols.iter().flat_map(|&protocol| ports.iter().map(move |&ports| one(protocol, ports))));
        }
        served.sort_by_key(|served| served.address);
        served.into()
    }

    fn vip_order(&self) -> Result<Box<[(Address, u16)]>, OutOfStep> {
        let mut order: Vec<_> = self.vips.iter().map(|(&index, &address)| (address, index)).collect();
        order.sort_unstable();
        match order.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            true => Err(OutOfStep("a virtual IP's address twice")),
            false => Ok(order.into()),
        }
    }

    /// The backends' addresses, sorted, each once. Several services may share one, but within a service two backends with one
    /// address and port could not be told apart.
    fn backend_addresses(&self) -> Result<Box<[Address]>, OutOfStep> {
        let backends = self.backends.values().map(|(backend, _)| backend);
        let mut all: Vec<_> = backends.map(|backend| (backend.address, backend.port, backend.service)).collect();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(OutOfStep("an address twice in one service"));
        }
        let mut addresses: Vec<Address> = all.into_iter().map(|(address, ..)| address).collect();
        addresses.dedup();
        Ok(addresses.into())
    }
}

/// Enters a service at the virtual IPs on which it listens.
fn listen(vips: &mut [Option<Vip>], index: u16, draft: &ServiceDraft) -> Result<(), OutOfStep> {
    let everything = [PortRange { low: 0, high: u16::MAX }];
    let ports = if draft.ports.is_empty() { &everything[..] } else { &draft.ports };
    for &vip in &draft.vips {
        let Some(Some(vip)) = vips.get_mut(usize::from(vip)) else { continue };
        let ranges = ports.iter().map(|&range| (range, index));
        match draft.protocol {
            Protocol::Tcp => vip.tcp.extend(ranges),
            Protocol::Udp => vip.udp.extend(ranges),
            Protocol::Sctp => vip.sctp.extend(ranges),
            Protocol::Any if vip.any.is_some() => return Err(OutOfStep("two services for everything to a virtual IP")),
            Protocol::Any => vip.any = Some(index),
        }
    }
    Ok(())
}

/// A slot for every index up to the largest, from items in rising order. An index has 16 bits, which bounds the memory.
fn slots<T>(items: impl Iterator<Item = (u16, T)>) -> Box<[Option<T>]> {
    let mut slots = Vec::new();
    for (index, item) in items {
        slots.resize_with(usize::from(index), || None);
        slots.push(Some(item));
    }
    slots.into()
}
