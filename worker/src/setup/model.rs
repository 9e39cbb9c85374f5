//! What a configuration says, by index and by address.

use crate::balance::Balancer;
use crate::wire::{Address, Family, is_mapped, protocol};
use loaded_ipc::{Admin, Affinity, BackendIndex, Mode, OnFailure, Policy, PortRange, Quota, Unserved};

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

    /// Whether packets to some backend get another port.
    #[must_use]
    #[inline]
    pub fn changes_ports(&self) -> bool {
        self.translation.changes
    }

    /// Whether packets to some backend keep their port.
    #[must_use]
    pub fn keeps_ports(&self) -> bool {
        self.translation.keeps
    }

    /// Whether SCTP packets to some backend get another port.
    #[must_use]
    pub fn changes_sctp_ports(&self) -> bool {
        self.translation.of_sctp
    }

    /// Whether packets to some backend with this address get this port.
    #[must_use]
    pub fn changes_ports_to(&self, address: &Address, port: u16) -> bool {
        self.translation.places.binary_search_by(|(a, p)| (a, p).cmp(&(address, &port))).is_ok()
    }

    /// The port that a packet to this port of a VIP has at a backend.
    #[must_use]
    #[inline]
    pub fn port_at(&self, backend: u16, vip_port: u16) -> u16 {
        self.backend(backend).and_then(|backend| backend.port).unwrap_or(vip_port)
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

    /// The service for a port of a virtual IP; `protocol` is that of IANA's list.
    #[must_use]
    pub fn service_at(&self, vip: u16, protocol: u8, port: u16) -> Option<u16> {
        let vip = slot(&self.vips, vip)?;
        let ranges = match protocol {
            protocol::TCP => &vip.tcp,
            protocol::UDP => &vip.udp,
            protocol::SCTP => &vip.sctp,
            _ => return vip.any,
        };
        let after = ranges.partition_point(|(range, _)| range.low <= port);
        match after.checked_sub(1).and_then(|i| ranges.get(i)) {
            Some((range, service)) if port <= range.high => Some(*service),
            _ => vip.any,
        }
    }

    /// The places at virtual IPs, each with its port, whose replies may come from this port.
    pub(crate) fn places_of(&self, family: Family, protocol: u8, port: u16) -> impl Iterator<Item = (u16, u16)> {
        let vips = (0_u16..).zip(&self.vips).filter_map(|(n, vip)| Some((n, vip.as_ref()?)));
        vips.filter(move |(_, vip)| is_mapped(&vip.address) == (family == Family::V4)).flat_map(move |(n, vip)| {
            let ranges: &[_] = match protocol {
                protocol::TCP => &vip.tcp,
                protocol::UDP => &vip.udp,
                protocol::SCTP => &vip.sctp,
                _ => &[],
            };
            // A backend with a port of its own does not tell which port the client has used, unless there is but one.
            let only = ranges.iter().filter(|(range, _)| range.low == range.high).map(|(range, _)| range.low);
            let same = self.service_at(n, protocol, port).map(|_| port);
            same.into_iter().chain(only.filter(move |only| *only != port)).map(move |port| (n, port))
        })
    }

    /// A backend with this address that is served at this port, by a service that adopts replies (see [`Policy::adopt`]).
    #[must_use]
    pub(crate) fn served_at(&self, address: &Address, protocol: u8, port: u16) -> Option<u16> {
        self.served_here(address, protocol, port).find(|served| served.adopts).map(|served| served.backend)
    }

    /// Whether a service has a backend with this address, served with this protocol at this port.
    pub(crate) fn is_served_by(&self, service: u16, (address, protocol, port): (&Address, u8, u16)) -> bool {
        self.served_here(address, protocol, port).any(|served| self.service_of(served.backend) == service)
    }

    fn served_here(&self, address: &Address, protocol: u8, port: u16) -> impl Iterator<Item = &Served> {
        let first = self.served.partition_point(|served| served.address < *address);
        let here = self.served.get(first..).unwrap_or_default().iter();
        let here = here.take_while(move |served| served.address == *address);
        here.filter(move |s| s.protocol == protocol && s.ports.low <= port && port <= s.ports.high)
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
    pub fn pool(&mut self, index: u16, family: Family) -> Option<&mut ServicePool> {
        let service = self.services.get_mut(usize::from(index))?.as_deref_mut()?;
        Some(match family {
            Family::V4 => &mut service.v4,
            Family::V6 => &mut service.v6,
        })
    }

    /// The balancer of a service's backends of one family, for questions that change nothing.
    #[must_use]
    pub fn balancer(&self, index: u16, family: Family) -> Option<&Balancer> {
        let service = self.service(index)?;
        Some(match family {
            Family::V4 => &service.v4.balancer,
            Family::V6 => &service.v6.balancer,
        })
    }

    /// A service's backends of one family, by their indices.
    pub(crate) fn members(&self, index: u16, family: Family) -> impl Iterator<Item = u16> {
        let service = self.service(index).into_iter();
        service
            .flat_map(move |service| if family == Family::V4 { &*service.v4.backends } else { &*service.v6.backends })
            .copied()
    }

    /// The backend for a new client's packet to this port of a VIP, where no flow of these is that is given by its backend and
    /// its port at a VIP. Changes the balancer's turn.
    pub(crate) fn choose_elsewhere(
        &mut self,
        (index, vip_port): (u16, u16),
        family: Family,
        client: &[u8],
        taken: &[(u16, u16)],
    ) -> Option<BackendIndex> {
        let Self { services, backends, .. } = self;
        let service = services.get_mut(usize::from(index))?.as_deref_mut()?;
        let pool = match family {
            Family::V4 => &mut service.v4,
            Family::V6 => &mut service.v6,
        };
        pool.balancer.choose_where(client, |backend| !shares_place(backends, (backend.0, vip_port), taken))
    }

    /// What [`Setup::choose_elsewhere`] would return. Changes nothing.
    pub(crate) fn would_choose_elsewhere(
        &self,
        (index, vip_port): (u16, u16),
        family: Family,
        client: &[u8],
        taken: &[(u16, u16)],
    ) -> Option<BackendIndex> {
        let balancer = self.balancer(index, family)?;
        balancer.would_choose_where(client, |backend| !self.shares_place((backend.0, vip_port), taken))
    }

    /// Whether a flow comes to the address and port of one of these, which may be of other services. A flow is given by its
    /// backend and its port at a VIP.
    pub(crate) fn shares_place(&self, flow: (u16, u16), others: &[(u16, u16)]) -> bool {
        shares_place(&self.backends, flow, others)
    }

    /// Whether a table entry of this client, service and backend is possible: entries left by another worker may name what this
    /// configuration does not have or, if that worker was hostile, what does not belong together.
    #[must_use]
    pub fn belongs(&self, service: u16, backend: u16, client: &Address) -> bool {
        let backend = self.backend(backend);
        backend.is_some_and(|b| b.service == service && is_mapped(&b.address) == is_mapped(client))
    }

    /// Counts a client of a service at a backend, or one less.
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

    /// Whether a client is in its network. What it answers there need not pass here.
    #[must_use]
    pub fn is_beside(&self, client: &Address) -> bool {
        let differing = u128::from_be_bytes(self.address) ^ u128::from_be_bytes(*client);
        self.link.is_some_and(|bits| differing.leading_zeros() >= u32::from(bits))
    }
}

fn shares_place(backends: &[Option<Backend>], flow: (u16, u16), others: &[(u16, u16)]) -> bool {
    let place = |(backend, vip_port): (u16, u16)| {
        slot(backends, backend).map(|backend| (&backend.address, backend.port.unwrap_or(vip_port)))
    };
    others.iter().any(|&other| place(other) == place(flow))
}

#[inline]
fn slot<T>(slots: &[Option<T>], index: u16) -> Option<&T> {
    slots.get(usize::from(index))?.as_ref()
}
