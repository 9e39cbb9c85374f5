//! Ports: which service takes a packet to one, and which ones packets have at backends.

use super::model::{Served, Setup, slot};
use crate::wire::{Address, Family, is_mapped, protocol};

impl Setup {
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

    /// The service that takes everything to a virtual IP.
    #[must_use]
    pub fn service_for_all(&self, vip: u16) -> Option<u16> {
        slot(&self.vips, vip)?.any
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

    /// A backend with this address that is served at this port, by a service that adopts replies (see
    /// [`loaded_ipc::Policy::adopt`]).
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
}
