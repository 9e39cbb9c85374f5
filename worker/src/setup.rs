//! The configuration as the worker uses it, put together from the supervisor's transaction. All memory the hot path
//! needs is had here, before the fence closes.
//!
//! Things are named by indices that may have gaps, because an index keeps its meaning from one configuration to the
//! next: each table has a slot for every index up to the largest. A backend's index is of one service; the same address
//! may have several. So replies are recognised by their address, and the flow says which backend it was.

mod assembly;
mod memory;

pub use assembly::Assembly;
pub(crate) use memory::Memories;

use crate::balance::Balancer;
use crate::wire::{Address, Family, is_mapped, mapped};
use loaded_ipc::{Admin, Affinity, BackendIndex, Mode, OnFailure, Policy, PortRange, Quota, Unserved};
use std::net::IpAddr;

/// What is balanced where.
#[derive(Debug)]
pub struct Setup {
    generation: u64,
    unserved: Unserved,
    malformed: OnFailure,
    quota: Option<Quota>,
    /// By index.
    vips: Box<[Option<Vip>]>,
    /// Addresses with their indices, sorted for the search.
    vip_order: Box<[(Address, u16)]>,
    backends: Box<[Option<Backend>]>,
    /// Every address that replies come from, once, sorted for the search.
    behind: Box<[Address]>,
    services: Box<[Option<Box<Service>>]>,
}

/// A virtual IP and the services on it.
#[derive(Debug)]
struct Vip {
    address: Address,
    tcp: Vec<(PortRange, u16)>,
    udp: Vec<(PortRange, u16)>,
    any: Option<u16>,
}

/// A backend of one service, as the transaction says it is at the start.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    /// Its address.
    pub address: Address,
    /// Index of its service.
    pub service: u16,
    /// Packets go to it as they are, and its replies another way.
    pub direct: bool,
    /// Only used when no other can be.
    pub backup: bool,
    /// What the operator wants of it.
    pub admin: Admin,
    /// What the checks say.
    pub up: bool,
    /// Seconds since it came up; `u32::MAX`: it was never seen down.
    pub age: u32,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// How its packets get to their backends.
    pub mode: Mode,
    /// Whether and how a client stays with its backend.
    pub affinity: Option<Affinity>,
    /// What happens when backends fail.
    pub policy: Policy,
    v4: Pool,
    v6: Pool,
}

/// A service's backends of one family.
#[derive(Debug)]
pub struct Pool {
    /// What chooses among them.
    pub balancer: Balancer,
    /// Their indices, rising.
    pub backends: Box<[u16]>,
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

    /// What becomes of packets to a virtual IP that no service serves there.
    #[must_use]
    pub fn unserved(&self) -> Unserved {
        self.unserved
    }

    /// What becomes of packets that do not hold together.
    #[must_use]
    pub fn malformed(&self) -> OnFailure {
        self.malformed
    }

    /// What one source prefix can have; `None`: no bound.
    #[must_use]
    pub fn quota(&self) -> Option<Quota> {
        self.quota
    }

    /// Index of a virtual IP.
    #[must_use]
    #[inline]
    pub fn vip(&self, address: &Address) -> Option<u16> {
        self.vip_order.binary_search_by(|(a, _)| a.cmp(address)).ok().and_then(|i| self.vip_order.get(i)).map(|v| v.1)
    }

    /// Address of a virtual IP.
    #[must_use]
    #[inline]
    pub fn vip_address(&self, index: u16) -> Option<&Address> {
        slot(&self.vips, index).map(|vip| &vip.address)
    }

    /// Whether an address is a backend's whose replies come this way, of whatever service.
    #[must_use]
    #[inline]
    pub fn is_backend(&self, address: &Address) -> bool {
        self.behind.binary_search(address).is_ok()
    }

    /// A backend by its index.
    #[must_use]
    #[inline]
    pub fn backend(&self, index: u16) -> Option<&Backend> {
        slot(&self.backends, index)
    }

    /// Address of a backend.
    #[must_use]
    #[inline]
    pub fn backend_address(&self, index: u16) -> Option<&Address> {
        self.backend(index).map(|backend| &backend.address)
    }

    /// Whether packets go to a backend as they are, and its replies another way.
    #[must_use]
    #[inline]
    pub fn is_direct(&self, index: u16) -> bool {
        self.backend(index).is_some_and(|backend| backend.direct)
    }

    /// Every backend with its index, by rising index.
    pub fn backends(&self) -> impl Iterator<Item = (u16, &Backend)> {
        (0_u16..).zip(&self.backends).filter_map(|(index, backend)| Some((index, backend.as_ref()?)))
    }

    /// One more than the largest index of a backend.
    #[must_use]
    pub fn backend_slots(&self) -> usize {
        self.backends.len()
    }

    /// The service for a TCP or UDP port of a virtual IP.
    #[must_use]
    pub fn service_at(&self, vip: u16, udp: bool, port: u16) -> Option<u16> {
        let vip = slot(&self.vips, vip)?;
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
        slot(&self.vips, vip)?.any
    }

    /// A service by its index.
    #[must_use]
    #[inline]
    pub fn service(&self, index: u16) -> Option<&Service> {
        slot(&self.services, index).map(|service| &**service)
    }

    /// The service of each index, where there is one.
    pub fn services(&self) -> impl Iterator<Item = Option<&Service>> {
        self.services.iter().map(Option::as_deref)
    }

    /// A service's backends of one family.
    pub fn pool(&mut self, index: u16, family: Family) -> Option<&mut Pool> {
        let service = self.services.get_mut(usize::from(index))?.as_deref_mut()?;
        Some(match family {
            Family::V4 => &mut service.v4,
            Family::V6 => &mut service.v6,
        })
    }

    /// What chooses among a service's backends of one family, to be asked only.
    #[must_use]
    pub fn balancer(&self, index: u16, family: Family) -> Option<&Balancer> {
        let service = self.service(index)?;
        Some(match family {
            Family::V4 => &service.v4.balancer,
            Family::V6 => &service.v6.balancer,
        })
    }

    /// Whether something can be at this backend for this service: entries that another worker left may name what this
    /// configuration does not have, or, if it was hostile, what does not belong together.
    #[must_use]
    pub fn belongs(&self, service: u16, backend: u16, client: &Address) -> bool {
        let backend = self.backend(backend);
        backend.is_some_and(|b| b.service == service && is_mapped(&b.address) == is_mapped(client))
    }

    /// A client of a service is counted, or no longer, at a backend.
    pub(crate) fn count_client(&mut self, service: u16, backend: u16, more: bool) {
        let Some(family) = self.backend(backend).map(Backend::family) else { return };
        if let Some(pool) = self.pool(service, family) {
            match more {
                true => pool.balancer.client_added(BackendIndex(backend)),
                false => pool.balancer.client_removed(BackendIndex(backend)),
            }
        }
    }
}

impl Backend {
    /// The family of its address.
    #[must_use]
    pub fn family(&self) -> Family {
        if is_mapped(&self.address) { Family::V4 } else { Family::V6 }
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

#[inline]
fn slot<T>(slots: &[Option<T>], index: u16) -> Option<&T> {
    slots.get(usize::from(index))?.as_ref()
}
