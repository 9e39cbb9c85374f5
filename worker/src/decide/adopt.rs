//! Replies without a flow: connections that another balancer has begun. When it dies in the middle of a download the client
//! has nothing to say, and its backend's next packet is the first that comes here. Without this it would reach the client
//! under the backend's own address.
//!
//! A flow is made of such a packet only in services that say so (`adopt`), if exactly one place at a VIP fits: one where this
//! client's own next packet would go to this very backend and port. That is known of a client that has a backend, and where the
//! strategy chooses by the client. Whoever forges packets of a backend gains little: such a flow takes only a free place or that of
//! an expired flow, is not open until the client acknowledges what the backend has sent, and gives way like every flow that is not;
//! no client is remembered for it.

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
            Kind::Udp { ports } | Kind::Sctp { ports, opens: false } => (ports.0, FlowState::Unanswered),
            // A backend's SYN, and its INIT, is of a connection of its own.
            _ => return None,
        };
        self.setup.served_at(&packet.source, packet.protocol, port)?;
        // What backends have among themselves is no client's.
        if self.setup.is_backend(&packet.destination) {
            return None;
        }
        let mut found = None;
        for (vip, vip_port) in self.places(packet, port) {
            match self.fit(packet, (vip, vip_port), port, now) {
                Fit::No => {}
                Fit::Yes { backend, key, hashed } if found.is_none() => {
                    found = Some((Flow { vip, vip_port, backend, state }, key, hashed));
                }
                Fit::Yes { .. } | Fit::Unknown => return None,
            }
        }
        let adopts = |service| self.setup.service(service).is_some_and(|service| service.policy.adopt);
        found.filter(|(flow, ..)| adopts(self.setup.service_of(flow.backend)))
    }

    /// Whether the client of this TCP packet, which is of no flow of its backend, has a flow at another one. The backend sends from
    /// this port.
    pub(super) fn is_elsewhere(&self, packet: &ParsedPacket, port: u16, now: Now) -> bool {
        let mut places = self.places(packet, port);
        matches!(packet.kind, Kind::Tcp(_))
            && places.any(|(vip, vip_port)| {
                let Some(&address) = self.setup.vip_address(vip) else { return false };
                let request = request_for(packet, address, vip_port);
                self.query(&request).is_some_and(|query| self.find(&request, &query, now).is_some())
            })
    }

    /// The places at virtual IPs that the backend of this packet answers at, from this port.
    fn places(&self, packet: &ParsedPacket, port: u16) -> impl Iterator<Item = (u16, u16)> {
        let (source, protocol) = (packet.source, packet.protocol);
        self.setup.places_of(packet.family, protocol, port).filter(move |(vip, vip_port)| {
            let service = self.setup.service_at(*vip, protocol, *vip_port);
            service.is_some_and(|service| self.setup.is_served_by(service, (&source, protocol, port)))
        })
    }

    /// Whether the client's own packet to this place would begin a flow to the backend that has sent this packet, at this port.
    fn fit(&self, packet: &ParsedPacket, (vip, vip_port): (u16, u16), port: u16, now: Now) -> Fit {
        let Some(&address) = self.setup.vip_address(vip) else { return Fit::No };
        let request = request_for(packet, address, vip_port);
        let Some(query) = self.query(&request) else { return Fit::No };
        if self.find(&request, &query, now).is_some() {
            return Fit::No;
        }
        let Ok(Admission { service, source }) = self.admission(&request, &query, vip, None, now) else {
            return Fit::No;
        };
        let sends = |backend| {
            self.setup.backend_address(backend) == Some(&packet.source)
                && self.setup.port_at(backend, vip_port) == port
                && !self.setup.is_direct(backend)
        };
        let balancer = self.setup.balancer(service, packet.family);
        let backend = match (source, balancer) {
            (BackendSource::Affinity { backend, .. }, _) => Some(backend),
            (BackendSource::Strategy { seed, .. }, Some(balancer)) if balancer.chooses_by_client() => {
                balancer.would_choose(&seed).map(|backend| backend.0)
            }
            // Whose turn it is now says nothing of whose it was, and two flows of this client could not be told apart.
            (BackendSource::Strategy { .. } | BackendSource::Elsewhere { .. }, _) => {
                let mut members = self.setup.members(service, packet.family);
                return if members.any(sends) { Fit::Unknown } else { Fit::No };
            }
        };
        match backend.filter(|backend| sends(*backend)) {
            None => Fit::No,
            Some(backend) => {
                let (key, hashed) = self.key_at(&query, backend);
                Fit::Yes { backend, key, hashed }
            }
        }
    }
}

/// Whether a backend's packet is a reply from a place at a virtual IP.
enum Fit {
    No,
    /// Of a flow that would have this backend and this key.
    Yes {
        backend: u16,
        key: FlowKey,
        hashed: Hashed,
    },
    /// It may be.
    Unknown,
}

/// The packet that the client of a reply would send to this place.
fn request_for(reply: &ParsedPacket, vip: [u8; 16], vip_port: u16) -> ParsedPacket {
    let kind = match reply.kind {
        Kind::Tcp(segment) => Kind::Tcp(segment.with_ports((segment.ports.1, vip_port))),
        Kind::Udp { ports } => Kind::Udp { ports: (ports.1, vip_port) },
        Kind::Sctp { ports, opens } => Kind::Sctp { ports: (ports.1, vip_port), opens },
        kind => kind,
    };
    ParsedPacket { source: reply.destination, destination: vip, kind, ..*reply }
}
