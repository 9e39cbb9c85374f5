//! What is known about a packet, for who wants to see it. Changes nothing.

use super::{Decider, Direction, Lookup, Now};
use crate::wire::Address;
use std::net::{IpAddr, Ipv6Addr};

/// The flow a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    /// Index of the service.
    pub service: u16,
    /// Its upper layer.
    pub protocol: u8,
    /// The client, and its port or ICMP identifier.
    pub client: (IpAddr, u16),
    /// The virtual IP, and its port; 0 for ICMP.
    pub vip: (IpAddr, u16),
    /// The backend's address.
    pub backend: IpAddr,
}

impl Decider {
    /// The living flow a packet belongs to. `look` must come from the packet as it came in.
    #[must_use]
    pub fn flow_of(&self, look: &Lookup, now: Now) -> Option<Told> {
        let (Ok(packet), Some(wanted)) = (&look.packet, &look.wanted) else { return None };
        let (_, flow) = self.find(packet, wanted, now)?;
        Some(Told {
            service: flow.service,
            protocol: wanted.key.protocol,
            client: (shown(&wanted.key.client), wanted.key.client_port),
            vip: (shown(self.setup.vip_address(flow.vip)?), wanted.key.service_port),
            backend: shown(self.setup.backend_address(flow.backend)?),
        })
    }

    /// Index of the service a request is for, whether it gets a flow or not.
    #[must_use]
    pub fn service_of(&self, look: &Lookup) -> Option<u16> {
        match (&look.packet, &look.wanted) {
            (Ok(packet), Some(wanted)) => match wanted.way {
                Direction::Request { vip } => self.service(packet, vip),
                Direction::Reply => None,
            },
            _ => None,
        }
    }
}

/// An address as people write it.
#[must_use]
pub fn shown(address: &Address) -> IpAddr {
    Ipv6Addr::from(*address).to_canonical()
}
