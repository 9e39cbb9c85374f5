//! What is known about a packet's flow and service, for `loaded replay`. Changes nothing.

use super::decider::{Decider, Lookup};
use super::keys::Direction;
use crate::time::Now;
use crate::wire::to_ip;
use loaded_ipc::Destination;
use std::net::IpAddr;

/// The flow a packet belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowSummary {
    /// Index of the service.
    pub service: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The client, and its port or ICMP identifier.
    pub client: (IpAddr, u16),
    /// The virtual IP, and its port; 0 for ICMP.
    pub vip: (IpAddr, u16),
    /// The backend.
    pub backend: Destination,
}

impl Decider {
    /// The living flow a packet belongs to. `lookup` must come from the packet before it was rewritten.
    #[must_use]
    pub fn flow_of(&self, lookup: &Lookup, now: Now) -> Option<FlowSummary> {
        let (Ok(packet), Some(query)) = (&lookup.packet, &lookup.query) else { return None };
        let (_, flow) = self.find(packet, query, now)?;
        let backend = self.setup.backend(flow.backend)?;
        Some(FlowSummary {
            service: self.setup.service_of(flow.backend),
            protocol: query.key.protocol,
            client: (to_ip(&query.key.client), query.key.client_port),
            vip: (to_ip(self.setup.vip_address(flow.vip)?), flow.vip_port),
            backend: Destination { address: to_ip(&backend.address), port: backend.port },
        })
    }

    /// Index of the service that a request is for, whether it gets a flow or not.
    #[must_use]
    pub fn service_of(&self, lookup: &Lookup) -> Option<u16> {
        match (&lookup.packet, &lookup.query) {
            (Ok(packet), Some(query)) => match query.direction {
                Direction::Request { vip } => self.service(packet, vip),
                Direction::Reply | Direction::Past => None,
            },
            _ => None,
        }
    }
}
