//! What a configuration says, by index and by address.

use crate::balance::Balancer;
use crate::wire::{Address, Family, is_mapped};
use loaded_ipc::{Admin, Affinity, Mode, OnFailure, Policy, PortRange, Quota, Unserved};

/// A configuration.
#[derive(Debug)]
pub struct Setup {
    pub(super) generation: u64,
    pub(super) unserved: Unserved,
    pub(super) malformed: OnFailure,
    pub(super) quota: Option<Quota>,
    /// By index.
    pub(super) vips: Box<[Option<Vip>]>,
    /// Addresses with their indices, sorted for binary search.
    pub(super) vip_order: Box<[(Address, u16)]>,
    /// By index.
    pub(super) backends: Box<[Option<Backend>]>,
    /// Every address that replies come from, once, sorted for binary search.
    pub(super) reply_addresses: Box<[Address]>,
    /// By index.
    pub(super) services: Box<[Option<Box<Service>>]>,
    /// Which packets get another port.
    pub(super) translation: Translation,
    /// Where backends answer clients, sorted by address for binary search.
    pub(super) served: Box<[Served]>,
}

/// Ports at which a backend is served.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub(super) address: Address,
    /// That of IANA's list.
    pub(super) protocol: u8,
    pub(super) ports: PortRange,
    pub(super) backend: u16,
    /// Of a service that adopts replies: at these ports backends speak on their own behalf seldom.
    pub(super) adopts: bool,
}

/// Which packets get another port, and which keep the one they came to.
#[derive(Debug, Default)]
pub(super) struct Translation {
    /// Some backend has a port.
    pub(super) changes: bool,
    /// Some backend has none.
    pub(super) keeps: bool,
    /// Some backend of an SCTP service has a port.
    pub(super) of_sctp: bool,
    /// Where backends with ports are, sorted for binary search.
    pub(super) places: Box<[(Address, u16)]>,
}

/// A virtual IP and the services on it.
#[derive(Debug)]
pub(super) struct Vip {
    pub(super) address: Address,
    /// Sorted port ranges, each with the index of its service.
    pub(super) tcp: Vec<(PortRange, u16)>,
    pub(super) udp: Vec<(PortRange, u16)>,
    pub(super) sctp: Vec<(PortRange, u16)>,
    /// The service that takes every packet no other one does.
    pub(super) any: Option<u16>,
}

/// A backend of one service, as it is when the configuration begins.
#[derive(Debug, Clone, Copy)]
pub struct Backend {
    /// Its address.
    pub address: Address,
    /// The port that its packets get; `None`: they keep the one they came to.
    pub port: Option<u16>,
    /// Index of its service.
    pub service: u16,
    /// Packets go to it unchanged, and its replies take another way (mode "dsr").
    pub direct: bool,
    /// Used only while no other can be.
    pub backup: bool,
    /// Whether the operator has enabled, drained or disabled it.
    pub admin: Admin,
    /// Whether the active checks report it up.
    pub up: bool,
    /// Seconds since it came up; `u32::MAX`: it was never seen down.
    pub age: u32,
    /// The operator has named it, or a check has passed.
    pub confirmed: bool,
    /// Leading bits of its address, in the form of 128, that all addresses of its network share; `None`: no client is in its
    /// network, or its replies take another way anyway.
    pub link: Option<u8>,
}

/// A service.
#[derive(Debug)]
pub struct Service {
    /// How packets get to their backends.
    pub mode: Mode,
    /// Whether and how a client stays with its backend.
    pub affinity: Option<Affinity>,
    /// What happens when backends fail.
    pub policy: Policy,
    /// Some of its backends have a port.
    pub changes_ports: bool,
    /// Some of its backends have none.
    pub keeps_ports: bool,
    /// Ports in the keys of flows that meet its backends by another way: 0 where another backend with the address of one of
    /// these has a port, and the port of one of these where another backend with its address has none.
    pub crossing: Box<[u16]>,
    pub(super) v4: ServicePool,
    pub(super) v6: ServicePool,
}

/// A service's backends of one family.
#[derive(Debug)]
pub struct ServicePool {
    /// Chooses among them.
    pub balancer: Balancer,
    /// Their indices, in rising order.
    pub backends: Box<[u16]>,
}

impl Setup {
    /// Number of the configuration.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// What becomes of packets to a virtual IP that no service serves there.
    #[must_use]
    pub fn unserved(&self) -> Unserved {
        self.unserved
    }

    /// What becomes of malformed packets.
    #[must_use]
    pub fn malformed(&self) -> OnFailure {
        self.malformed
    }

    /// How many protected flows one source prefix may have; `None`: no limit.
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

    /// Whether an address belongs to a backend, of any service, whose replies come this way.
    #[must_use]
    #[inline]
    pub fn is_backend(&self, address: &Address) -> bool {
        self.reply_addresses.binary_search(address).is_ok()
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

    /// The service of a backend; without one there is none of that number.
    #[must_use]
    #[inline]
    pub fn service_of(&self, backend: u16) -> u16 {
        self.backend(backend).map_or(u16::MAX, |backend| backend.service)
    }

    /// Whether packets go to a backend unchanged, and its replies take another way (mode "dsr").
    #[must_use]
    #[inline]
    pub fn is_direct(&self, index: u16) -> bool {
        self.backend(index).is_some_and(|backend| backend.direct)
    }

    /// Every backend with its index, in rising order.
    pub fn backends(&self) -> impl Iterator<Item = (u16, &Backend)> {
        (0_u16..).zip(&self.backends).filter_map(|(index, backend)| Some((index, backend.as_ref()?)))
    }

    /// One more than the largest index of a backend.
    #[must_use]
    pub fn backend_slots(&self) -> usize {
        self.backends.len()
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

    /// Whether a table entry of this client, service and backend is possible: entries left by another worker may name what this
    /// configuration does not have or, if that worker was hostile, what does not belong together.
    #[must_use]
    pub fn belongs(&self, service: u16, backend: u16, client: &Address) -> bool {
        let backend = self.backend(backend);
        backend.is_some_and(|b| b.service == service && is_mapped(&b.address) == is_mapped(client))
    }
}

impl Backend {
    /// The family of its address.
    #[must_use]
    pub fn family(&self) -> Family {
        if is_mapped(&self.address) { Family::V4 } else { Family::V6 }
    }

    /// Whether a client is in its network. What it answers there need not pass here.
    #[must_use]
    pub fn is_beside(&self, client: &Address) -> bool {
        let differing = u128::from_be_bytes(self.address) ^ u128::from_be_bytes(*client);
        self.link.is_some_and(|bits| differing.leading_zeros() >= u32::from(bits))
    }
}

#[inline]
pub(super) fn slot<T>(slots: &[Option<T>], index: u16) -> Option<&T> {
    slots.get(usize::from(index))?.as_ref()
}
