//! A transaction under way: each message is judged as it comes, and what only the end shows is judged there.

use super::{Backend, OutOfStep, Pool, Service, Setup, Vip, address};
use crate::balance::{Balancer, MemberSpec};
use crate::wire::{Address, Family};
use loaded_ipc::{
    Affinity, BackendIndex, MAX_BACKEND_INDEX, Mode, OnFailure, Policy, PortRange, Protocol, ServiceIndex,
};
use loaded_ipc::{Quota, Strategy, ToWorker, Unserved};
use std::collections::{BTreeMap, BTreeSet};

/// Limits of what the messages may say.
const MAX_WEIGHT: u16 = 256;
const MAX_TIMEOUT: u32 = 365 * 86_400;
const MAX_SLOW_START: u32 = 3600;
const MAX_HOLD: u32 = 3600;

/// What has come of a transaction.
#[derive(Debug, Default)]
pub struct Assembly {
    begun: Option<(u64, Unserved, OnFailure)>,
    quota: Option<Quota>,
    vips: BTreeMap<u16, Address>,
    backends: BTreeMap<u16, (Backend, u16)>,
    services: BTreeMap<u16, Draft>,
    /// The service that items belong to.
    current: u16,
}

#[derive(Debug)]
struct Draft {
    protocol: Protocol,
    mode: Mode,
    strategy: Strategy,
    affinity: Option<Affinity>,
    policy: Policy,
    vips: Vec<u16>,
    ports: Vec<PortRange>,
}

impl Assembly {
    /// Takes the next message. `Commit` gives the setup; `worker` (from 0) offsets its round robin.
    ///
    /// # Errors
    /// [`OutOfStep`] for a message that has no place here. The transaction is then worthless.
    pub fn take(&mut self, message: ToWorker, worker: u16) -> Result<Option<Setup>, OutOfStep> {
        match message {
            ToWorker::Begin { generation, unserved, malformed } if self.begun.is_none() => {
                self.begun = Some((generation, unserved, malformed));
            }
            _ if self.begun.is_none() => return Err(OutOfStep("an item before Begin")),
            ToWorker::Begin { .. } | ToWorker::Hello { .. } => return Err(OutOfStep("a second Begin or Hello")),
            ToWorker::Quota(quota) => {
                if !is_sane_quota(quota) {
                    return Err(OutOfStep("a quota outside its limits"));
                }
                if self.quota.replace(quota).is_some() {
                    return Err(OutOfStep("a second quota"));
                }
            }
            ToWorker::Vip { index, address: ip } => {
                if self.vips.insert(index, address(ip)).is_some() {
                    return Err(OutOfStep("a virtual IP twice"));
                }
            }
            ToWorker::Service { index: ServiceIndex(index), protocol, mode, strategy, affinity, policy } => {
                if affinity.is_some_and(|a| !is_sane(&a)) {
                    return Err(OutOfStep("an affinity outside its limits"));
                }
                if !is_sane_policy(&policy) {
                    return Err(OutOfStep("a policy outside its limits"));
                }
                let (vips, ports) = (Vec::new(), Vec::new());
                let draft = Draft { protocol, mode, strategy, affinity, policy, vips, ports };
                if self.services.insert(index, draft).is_some() {
                    return Err(OutOfStep("a service twice"));
                }
                self.current = index;
            }
            ToWorker::Listen { vip } => {
                if !self.vips.contains_key(&vip) {
                    return Err(OutOfStep("an unknown virtual IP"));
                }
                self.service()?.vips.push(vip);
            }
            ToWorker::Port(range) => {
                let service = self.service()?;
                if range.low > range.high || service.protocol == Protocol::Any {
                    return Err(OutOfStep("ports that are none, or of a service for all"));
                }
                service.ports.push(range);
            }
            ToWorker::Backend { index: BackendIndex(index), address: ip, weight, backup, admin, up, age } => {
                let direct = self.service()?.mode == Mode::Dsr;
                if index >= MAX_BACKEND_INDEX {
                    return Err(OutOfStep("a backend's index outside its limits"));
                }
                if !(1..=MAX_WEIGHT).contains(&weight) {
                    return Err(OutOfStep("a weight outside its limits"));
                }
                let (address, service) = (address(ip), self.current);
                let backend = Backend { address, service, direct, backup, admin, up, age };
                if self.backends.insert(index, (backend, weight)).is_some() {
                    return Err(OutOfStep("a backend twice"));
                }
            }
            ToWorker::Go | ToWorker::Stop | ToWorker::Admin { .. } | ToWorker::Explain { .. } => {
                return Err(OutOfStep("an order too early"));
            }
            ToWorker::Commit => return std::mem::take(self).finish(worker).map(Some),
        }
        Ok(None)
    }

    fn service(&mut self) -> Result<&mut Draft, OutOfStep> {
        self.services.get_mut(&self.current).ok_or(OutOfStep("an item of no service"))
    }

    fn finish(self, worker: u16) -> Result<Setup, OutOfStep> {
        let (vip_order, behind) = (self.vip_order()?, self.behind()?);
        if self.vips.values().any(|address| behind.binary_search(address).is_ok()) {
            return Err(OutOfStep("a virtual IP that is a backend"));
        }
        // Replies of the others pass by.
        let replying: BTreeSet<_> = self.backends.values().filter(|(b, _)| !b.direct).map(|(b, _)| b.address).collect();
        let behind = behind.into_iter().filter(|address| replying.contains(address)).collect();
        let empty = |address| Vip { address, tcp: Vec::new(), udp: Vec::new(), any: None };
        let mut vips = slots(self.vips.iter().map(|(&index, &address)| (index, empty(address))));
        let mut services = BTreeMap::new();
        for (&index, draft) in &self.services {
            listen(&mut vips, index, draft)?;
            let pool = |family| self.pool(index, draft, family, worker);
            let (v4, v6) = (pool(Family::V4)?, pool(Family::V6)?);
            let Draft { mode, affinity, policy, .. } = *draft;
            let service = Service { mode, affinity, policy, v4, v6 };
            services.insert(index, Box::new(service));
        }
        for vip in vips.iter_mut().flatten() {
            for ranges in [&mut vip.tcp, &mut vip.udp] {
                ranges.sort_unstable();
                if ranges.windows(2).any(|pair| pair[1].0.low <= pair[0].0.high) {
                    return Err(OutOfStep("ports of a virtual IP that overlap"));
                }
            }
        }
        let (generation, unserved, malformed) = self.begun.unwrap_or((0, Unserved::Pass, OnFailure::Drop));
        // What passes as it came would meet the host's own stack at the VIP of such a service.
        let translates = self.services.values().any(|service| service.mode == Mode::Nat);
        Ok(Setup {
            generation,
            unserved,
            malformed: if translates { OnFailure::Drop } else { malformed },
            quota: self.quota,
            vip_order,
            behind,
            backends: slots(self.backends.into_iter().map(|(index, (backend, _))| (index, backend))),
            vips,
            services: slots(services.into_iter()),
        })
    }

    /// The backends of a service and a family, and what chooses among them.
    fn pool(&self, service: u16, draft: &Draft, family: Family, worker: u16) -> Result<Pool, OutOfStep> {
        let members: Vec<_> = (self.backends.iter())
            .filter(|(_, (backend, _))| backend.service == service && backend.family() == family)
            .map(|(&index, &(Backend { address, backup, .. }, weight))| MemberSpec {
                backend: BackendIndex(index),
                address,
                weight,
                backup,
            })
            .collect();
        let balancer = Balancer::new(&members, draft.strategy, worker, draft.policy);
        let balancer = balancer.map_err(|_| OutOfStep("a backend twice, or too many"))?;
        Ok(Pool { balancer, backends: members.iter().map(|member| member.backend.0).collect() })
    }

    fn vip_order(&self) -> Result<Box<[(Address, u16)]>, OutOfStep> {
        let mut order: Vec<_> = self.vips.iter().map(|(&index, &address)| (address, index)).collect();
        order.sort_unstable();
        match order.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            true => Err(OutOfStep("a virtual IP's address twice")),
            false => Ok(order.into()),
        }
    }

    /// The backends' addresses. In several services there may be the same one, but in one it could not be told apart.
    fn behind(&self) -> Result<Box<[Address]>, OutOfStep> {
        let mut all: Vec<_> = self.backends.values().map(|(backend, _)| (backend.address, backend.service)).collect();
        all.sort_unstable();
        if all.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(OutOfStep("an address twice in one service"));
        }
        let mut behind: Vec<Address> = all.into_iter().map(|(address, _)| address).collect();
        behind.dedup();
        Ok(behind.into())
    }
}

/// Enters a service at the virtual IPs it listens on.
fn listen(vips: &mut [Option<Vip>], index: u16, draft: &Draft) -> Result<(), OutOfStep> {
    let everything = [PortRange { low: 0, high: u16::MAX }];
    let ports = if draft.ports.is_empty() { &everything[..] } else { &draft.ports };
    for &vip in &draft.vips {
        let Some(Some(vip)) = vips.get_mut(usize::from(vip)) else { continue };
        let ranges = ports.iter().map(|&range| (range, index));
        match draft.protocol {
            Protocol::Tcp => vip.tcp.extend(ranges),
            Protocol::Udp => vip.udp.extend(ranges),
            Protocol::Any if vip.any.is_some() => return Err(OutOfStep("two services for all of a virtual IP")),
            Protocol::Any => vip.any = Some(index),
        }
    }
    Ok(())
}

/// A slot for every index up to the largest, of items by rising index; an index is of 16 bits, so that is the bound of the memory.
fn slots<T>(items: impl Iterator<Item = (u16, T)>) -> Box<[Option<T>]> {
    let mut slots = Vec::new();
    for (index, item) in items {
        slots.resize_with(usize::from(index), || None);
        slots.push(Some(item));
    }
    slots.into()
}

fn is_sane(affinity: &Affinity) -> bool {
    let Affinity { prefix4, prefix6, timeout } = *affinity;
    (1..=32).contains(&prefix4) && (1..=128).contains(&prefix6) && (1..=MAX_TIMEOUT).contains(&timeout)
}

fn is_sane_quota(quota: Quota) -> bool {
    let Quota { prefix4, prefix6, percent } = quota;
    (1..=32).contains(&prefix4) && (1..=128).contains(&prefix6) && (1..=100).contains(&percent)
}

fn is_sane_policy(policy: &Policy) -> bool {
    let passive = policy.passive.is_none_or(|passive| {
        passive.fails >= 1 && (50..=60_000).contains(&passive.timeout) && (1..=MAX_HOLD).contains(&passive.hold)
    });
    passive && policy.panic_threshold <= 100 && policy.slow_start <= MAX_SLOW_START && policy.idle.is_sane()
}
