//! Replies without a flow: connections that another balancer has begun. When it dies in the middle of a download the client
//! has nothing to say, and its backend's next packet is the first that comes here. Without this it would reach the client
//! under the backend's own address.
//!
//! A flow is made of such a packet only in services that say so (`adopt`), if exactly one place at a VIP fits: one where this
//! client's own next packet would go to this very backend and port. Whoever forges packets of a backend gains little: such a
//! flow takes only a free place or that of an expired flow, is not open until the client acknowledges what the backend has
//! sent, and gives way like every flow that is not; no client is remembered for it.

use super::admit::{Admission, BackendSource};
use super::decider::Decider;
use crate::time::Now;
use crate::wire::{Kind, ParsedPacket};
use loaded_table::{Flow, FlowKey, FlowState, Hashed, Slot};

impl Decider {
    /// The flow that a backend's packet begins, if it begins one. The packet has none, and has not been counted yet.
    #[cold]
    pub(super) fn adopt_reply(&mut self, packet: &ParsedPacket, now: Now) -> Option<(Slot, Flow)> {
        let (flow, key, hashed) = self.adoptable(packet, now)?;
        if !self.flows.has_free_room(&hashed, &key, (flow.vip, flow.vip_port), now.seconds) {
            return None;
        }
        let inserted = self.flows.insert(&hashed, &key, flow, now.seconds).ok()?;
        if let Some((_, expired)) = inserted.displaced {
            self.count_removed(&expired);
        }
        self.count_added(&flow);
        Some((inserted.slot, flow))
    }

    /// The only flow that this packet can be a reply of. Changes nothing.
    fn adoptable(&self, packet: &ParsedPacket, now: Now) -> Option<(Flow, FlowKey, Hashed)> {
        let (port, state) = match packet.kind {
            // It ends what it begins, and refuses nothing.
            Kind::Tcp(segment) if segment.resets() => (segment.ports.0, FlowState::Closing),
            Kind::Tcp(segment) if segment.acknowledges() => (segment.ports.0, FlowState::HalfOpen),
            Kind::Udp { ports } => (ports.0, FlowState::Unanswered),
            // A backend's SYN is of a connection of its own.
            _ => return None,
        };
        let mut fitting = self.setup.adopting(packet.family, packet.protocol, port).filter_map(|(vip, vip_port)| {
            let (backend, key, hashed) = self.fits(packet, (vip, vip_port), port, now)?;
            Some((Flow { vip, vip_port, backend, state }, key, hashed))
        });
        let found = fitting.next()?;
        fitting.next().is_none().then_some(found)
    }

    /// The backend and the key of the flow that the client's own packet to this place would begin, if that backend has sent
    /// this packet, from this port.
    fn fits(
        &self,
        packet: &ParsedPacket,
        (vip, vip_port): (u16, u16),
        port: u16,
        now: Now,
    ) -> Option<(u16, FlowKey, Hashed)> {
        let request = request_for(packet, *self.setup.vip_address(vip)?, vip_port);
        let query = self.query(&request)?;
        if self.find(&request, &query, now).is_some() {
            return None;
        }
        let Admission { service, source } = self.admission(&request, &query, vip, None, now).ok()?;
        let backend = match source {
            BackendSource::Affinity { backend, .. } => backend,
            BackendSource::Strategy { seed, .. } => self.setup.balancer(service, packet.family)?.would_choose(&seed)?.0,
            // Two flows of this client could not be told apart.
            BackendSource::Elsewhere { .. } => return None,
        };
        let is_sender = self.setup.backend_address(backend) == Some(&packet.source)
            && self.setup.port_at(backend, vip_port) == port
            && !self.setup.is_direct(backend);
        let (key, hashed) = self.key_at(&query, backend);
        is_sender.then_some((backend, key, hashed))
    }
}

/// The packet that the client of a reply would send to this place.
fn request_for(reply: &ParsedPacket, vip: [u8; 16], vip_port: u16) -> ParsedPacket {
    let kind = match reply.kind {
        Kind::Tcp(segment) => Kind::Tcp(segment.with_ports((segment.ports.1, vip_port))),
        Kind::Udp { ports } => Kind::Udp { ports: (ports.1, vip_port) },
        kind => kind,
    };
    ParsedPacket { source: reply.destination, destination: vip, kind, ..*reply }
}
