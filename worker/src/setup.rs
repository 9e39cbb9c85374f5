//! The configuration as the worker uses it, put together from the supervisor's transaction. All memory the hot path
//! needs is had here, before the fence closes.

use crate::balance::{Balancer, MemberSpec};
use crate::wire::{Address, Family, is_mapped, mapped};
use loaded_ipc::{Affinity, BackendIndex, PortRange, Protocol, ServiceIndex, Strategy, ToWorker};
use std::net::IpAddr;

/// Limits of what the messages may say.
const MAX_WEIGHT: u16 = 256;
const MAX_TIMEOUT: u32 = 365 * 86_400;

/// What is balanced where.
#[derive(Debug)]
pub struct Setup {
    generation: u64,
    /// By index.
    vips: Vec<Vip>,
    /// Addresses with their indices, sorted for the search.
    vip_order: Vec<(Address, u16)>,
    backends: Vec<Address>,
    backend_order: Vec<(Address, u16)>,
    services: Vec<Service>,
}

/// A virtual IP and the services on it.
#[derive(Debug)]
struct Vip {
    address: Address,
    tcp: Vec<(PortRange, u16)>,
    udp: Vec<(PortRange, u16)>,
    any: Option<u16>,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// Whether and how a client stays with its backend.
    pub affinity: Option<Affinity>,
    v4: Balancer,
    v6: Balancer,
}

/// A message that does not fit where the transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is out of step: {0}")]
pub struct OutOfStep(&'static str);

impl Setup {
    /// Number of the transaction it came from.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Index of a virtual IP.
    #[must_use]
    pub fn vip(&self, address: &Address) -> Option<u16> {
        position(&self.vip_order, address)
    }

    /// Address of a virtual IP.
    #[must_use]
    pub fn vip_address(&self, index: u16) -> Option<&Address> {
        self.vips.get(usize::from(index)).map(|vip| &vip.address)
    }

    /// Index of a backend.
    #[must_use]
    pub fn backend(&self, address: &Address) -> Option<u16> {
        position(&self.backend_order, address)
    }

    /// Address of a backend.
    #[must_use]
    pub fn backend_address(&self, index: u16) -> Option<&Address> {
        self.backends.get(usize::from(index))
    }

    /// The service for a TCP or UDP port of a virtual IP.
    #[must_use]
    pub fn service_at(&self, vip: u16, udp: bool, port: u16) -> Option<u16> {
        let vip = self.vips.get(usize::from(vip))?;
        let ranges = if udp { &vip.udp } else { &vip.tcp };
        let after = ranges.partition_point(|(range, _)| range.low <= port);
        match after.checked_sub(1).and_then(|i| ranges.get(i)) {
            Some((range, service)) if port <= range.high => Some(*service),
            _ => vip.any,
        }
    }

    /// The service that takes everything to a virtual IP.
    #[must_use]
    pub fn service_for_all(&self, vip: u16) -> Option<u16> {
        self.vips.get(usize::from(vip))?.any
    }

    /// A service by its index.
    #[must_use]
    pub fn service(&self, index: u16) -> Option<&Service> {
        self.services.get(usize::from(index))
    }

    /// Every service, in the order of their indices.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.iter()
    }

    /// What chooses among a service's backends of one family.
    pub fn balancer(&mut self, index: u16, family: Family) -> Option<&mut Balancer> {
        let service = self.services.get_mut(usize::from(index))?;
        Some(match family {
            Family::V4 => &mut service.v4,
            Family::V6 => &mut service.v6,
        })
    }

    /// A client of a service is counted, or no longer, at a backend.
    pub fn count_client(&mut self, service: u16, backend: u16, more: bool) {
        let family = match self.backends.get(usize::from(backend)) {
            Some(address) if is_mapped(address) => Family::V4,
            _ => Family::V6,
        };
        if let Some(balancer) = self.balancer(service, family) {
            match more {
                true => balancer.client_added(BackendIndex(backend)),
                false => balancer.client_removed(BackendIndex(backend)),
            }
        }
    }
}

/// A transaction under way.
#[derive(Debug, Default)]
pub struct Assembly {
    generation: Option<u64>,
    vips: Vec<Address>,
    backends: Vec<Address>,
    services: Vec<Draft>,
}

#[derive(Debug)]
struct Draft {
    protocol: Protocol,
    strategy: Strategy,
    affinity: Option<Affinity>,
    vips: Vec<u16>,
    ports: Vec<PortRange>,
    members: Vec<(BackendIndex, u16)>,
}

impl Assembly {
    /// Takes the next message. `Commit` gives the setup; `worker` (from 0) offsets its round robin.
    ///
    /// # Errors
    /// [`OutOfStep`] for a message that has no place here. The transaction is then worthless.
    pub fn take(&mut self, message: ToWorker, worker: u16) -> Result<Option<Setup>, OutOfStep> {
        match message {
            ToWorker::Begin { generation } if self.generation.is_none() => self.generation = Some(generation),
            _ if self.generation.is_none() => return Err(OutOfStep("an item before Begin")),
            ToWorker::Begin { .. } | ToWorker::Hello { .. } => return Err(OutOfStep("a second Begin or Hello")),
            ToWorker::Vip { index, address } => append(&mut self.vips, index, address)?,
            ToWorker::Backend { index, address } => append(&mut self.backends, index.0, address)?,
            ToWorker::Service { index: ServiceIndex(index), protocol, strategy, affinity } => {
                if usize::from(index) != self.services.len() {
                    return Err(OutOfStep("a service out of order"));
                }
                if affinity.is_some_and(|a| !is_sane(&a)) {
                    return Err(OutOfStep("an affinity outside its limits"));
                }
                let (vips, ports, members) = (Vec::new(), Vec::new(), Vec::new());
                self.services.push(Draft { protocol, strategy, affinity, vips, ports, members });
            }
            ToWorker::Listen { vip } => {
                if usize::from(vip) >= self.vips.len() {
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
            ToWorker::Member { backend, weight } => {
                if usize::from(backend.0) >= self.backends.len() || !(1..=MAX_WEIGHT).contains(&weight) {
                    return Err(OutOfStep("an unknown backend, or a weight outside its limits"));
                }
                self.service()?.members.push((backend, weight));
            }
            ToWorker::Commit => return std::mem::take(self).finish(worker).map(Some),
        }
        Ok(None)
    }

    fn service(&mut self) -> Result<&mut Draft, OutOfStep> {
        self.services.last_mut().ok_or(OutOfStep("an item of no service"))
    }

    fn finish(self, worker: u16) -> Result<Setup, OutOfStep> {
        let everywhere = || (Vec::new(), Vec::new(), None);
        let mut vips: Vec<Vip> = self
            .vips
            .iter()
            .map(|&address| {
                let (tcp, udp, any) = everywhere();
                Vip { address, tcp, udp, any }
            })
            .collect();
        let mut services = Vec::with_capacity(self.services.len());
        for (index, draft) in self.services.into_iter().enumerate() {
            let index = u16::try_from(index).map_err(|_| OutOfStep("too many services"))?;
            let ports = match draft.ports.is_empty() {
                true => vec![PortRange { low: 0, high: u16::MAX }],
                false => draft.ports,
            };
            for vip in draft.vips {
                let Some(vip) = vips.get_mut(usize::from(vip)) else { continue };
                let ranges = ports.iter().map(|&range| (range, index));
                match draft.protocol {
                    Protocol::Tcp => vip.tcp.extend(ranges),
                    Protocol::Udp => vip.udp.extend(ranges),
                    Protocol::Any if vip.any.is_some() => {
                        return Err(OutOfStep("two services for all of a virtual IP"));
                    }
                    Protocol::Any => vip.any = Some(index),
                }
            }
            let balancer = |v4: bool| {
                let members = draft.members.iter().filter_map(|&(backend, weight)| {
                    let address = *self.backends.get(usize::from(backend.0))?;
                    (is_mapped(&address) == v4).then_some(MemberSpec { backend, address, weight, eligible: true })
                });
                let members: Vec<_> = members.collect();
                Balancer::new(&members, draft.strategy, worker).map_err(|_| OutOfStep("a backend twice, or too many"))
            };
            services.push(Service { affinity: draft.affinity, v4: balancer(true)?, v6: balancer(false)? });
        }
        for vip in &mut vips {
            for ranges in [&mut vip.tcp, &mut vip.udp] {
                ranges.sort_unstable();
                if ranges.windows(2).any(|pair| pair[1].0.low <= pair[0].0.high) {
                    return Err(OutOfStep("ports of a virtual IP that overlap"));
                }
            }
        }
        let (vip_order, backend_order) = (order(&self.vips)?, order(&self.backends)?);
        if self.vips.iter().any(|address| position(&backend_order, address).is_some()) {
            return Err(OutOfStep("a virtual IP that is a backend"));
        }
        Ok(Setup {
            generation: self.generation.unwrap_or(0),
            vip_order,
            backend_order,
            backends: self.backends,
            vips,
            services,
        })
    }
}

/// An IP address in the form the worker uses.
#[must_use]
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => mapped(v4.octets()),
        IpAddr::V6(v6) => v6.octets(),
    }
}

fn append(list: &mut Vec<Address>, index: u16, ip: IpAddr) -> Result<(), OutOfStep> {
    if usize::from(index) != list.len() {
        return Err(OutOfStep("an index with a gap"));
    }
    list.push(address(ip));
    Ok(())
}

fn order(list: &[Address]) -> Result<Vec<(Address, u16)>, OutOfStep> {
    let mut order: Vec<_> = list.iter().copied().zip(0..).collect();
    order.sort_unstable();
    match order.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        true => Err(OutOfStep("an address twice")),
        false => Ok(order),
    }
}

fn is_sane(affinity: &Affinity) -> bool {
    let Affinity { prefix4, prefix6, timeout } = *affinity;
    (1..=32).contains(&prefix4) && (1..=128).contains(&prefix6) && (1..=MAX_TIMEOUT).contains(&timeout)
}

fn position(order: &[(Address, u16)], address: &Address) -> Option<u16> {
    order.binary_search_by(|(a, _)| a.cmp(address)).ok().and_then(|i| order.get(i)).map(|(_, index)| *index)
}
