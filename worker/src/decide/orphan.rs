//! Packets of backends that belong to no flow: another balancer had their connection until now, its flow was forgotten or given to
//! another backend, or the backend opened the connection itself.
//!
//! A reply is *adopted*, that is sent on as the VIP's, if one service alone fits its source and would send this client to this
//! backend. Nothing is remembered of it. The flow begins with the client's next packet, as any flow does: the strategy chooses
//! this backend for it, and it is open once the client has shown that it hears the backend. So whoever forges replies opens
//! nothing and takes nobody's place. All other replies are dropped: no client knows a backend's own address.

use super::admit::{Admission, BackendSource};
use super::decider::{Decided, Decider, PacketBuffer};
use super::keys::{Direction, FlowQuery, backend_side, opens};
use crate::setup::Origin;
use crate::time::Now;
use crate::wire::{self, Endpoint, Kind, ParsedPacket, Quoted, Replacement};
use loaded_ipc::Outcome;
use loaded_table::Flow;

/// SCTP: the chunk that opens an association, INIT (RFC 9260 §3.2), and where a packet's first chunk begins.
const INIT: u8 = 1;
const FIRST_CHUNK: usize = 12;

/// Whose a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The backend's: it opened the connection itself, or its port is not known to serve anything.
    Backend,
    /// A client's of this port of this virtual IP.
    Client { vip: u16, vip_port: u16, backend: u16 },
    /// Nobody's any more: the client's connection is at another backend.
    Moved,
    /// Nobody's.
    Nobody,
}

impl Decider {
    /// Decides about a packet of a backend that belongs to no flow.
    #[cold]
    pub(super) fn orphan(
        &mut self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        mut buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        let is_opening = opens(packet) || self::is_init(packet, buffer.bytes());
        match self.owner(packet, query, is_opening, now) {
            Owner::Backend => buffer.unchanged(Outcome::PassedOwn),
            Owner::Moved if matches!(packet.kind, Kind::Tcp(segment) if !segment.resets()) => {
                self.reset_backend(packet, buffer)
            }
            Owner::Moved | Owner::Nobody => buffer.unchanged(Outcome::DroppedOrphan),
            Owner::Client { .. } if buffer.facts.cut => buffer.unchanged(Outcome::DroppedCut),
            Owner::Client { vip, vip_port, backend } => {
                let Some(&address) = self.setup.vip_address(vip) else {
                    return buffer.unchanged(Outcome::DroppedOrphan);
                };
                self.count_received(backend, buffer.length);
                let port = (vip_port != query.port).then_some(vip_port);
                let (new, checksum) = (Replacement { address: &address, port }, buffer.facts.checksum);
                wire::replace(buffer.bytes(), packet, Endpoint::Source, new, checksum);
                buffer.unchanged(Outcome::Returned)
            }
        }
    }

    /// The client goes on elsewhere, and would reset whatever this backend sends. So the backend need not repeat it for minutes.
    fn reset_backend(&self, packet: &ParsedPacket, buffer: PacketBuffer<'_>) -> Decided {
        match wire::reset(buffer.space, packet) {
            Some(length) => Decided::answer(Outcome::AnsweredBackend, length),
            None => buffer.unchanged(Outcome::DroppedOrphan),
        }
    }

    /// The same about an ICMP error that quotes a packet to a backend.
    #[cold]
    pub(super) fn orphaned_error(
        &mut self,
        packet: &ParsedPacket,
        quoted: &Quoted,
        query: &FlowQuery,
        mut buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        let outcome = match self.owner(packet, query, false, now) {
            Owner::Backend => Outcome::PassedOwn,
            Owner::Client { vip, vip_port, .. } if quoted.source == packet.destination => {
                let Some(vip) = self.setup.vip_address(vip) else { return buffer.unchanged(Outcome::DroppedOrphan) };
                let new = Replacement { address: vip, port: (vip_port != query.port).then_some(vip_port) };
                let outer = Some((Endpoint::Source, vip));
                wire::replace_in_error(buffer.bytes(), packet, quoted, outer, (Endpoint::Destination, new));
                let from_backend = self.setup.is_backend(&packet.source);
                if from_backend { Outcome::ErrorReturned } else { Outcome::ErrorRelayed }
            }
            _ => Outcome::DroppedOrphan,
        };
        buffer.unchanged(outcome)
    }

    fn owner(&mut self, packet: &ParsedPacket, query: &FlowQuery, is_opening: bool, now: Now) -> Owner {
        let origin = self.setup.origin(backend_side(packet), query.key.protocol, query.port);
        let (Origin::Place { backend, .. } | Origin::Several { backend }) = origin else { return Owner::Backend };
        let is_own = |flow: &Flow| {
            let address = self.setup.backend_address(flow.backend);
            flow.is_own() && flow.vip_port == query.port && address == Some(backend_side(packet))
        };
        if let Some((slot, _)) = self.find_by(query, now, is_own) {
            if !matches!(packet.kind, Kind::Error(_)) {
                self.flows.refresh(slot, now.seconds);
            }
            return Owner::Backend;
        }
        if is_opening {
            let own = Flow::own(backend, query.port);
            let inserted = self.flows.insert_own(&query.hashed, &query.key, own, now.seconds);
            if let Some((_, gone)) = inserted.and_then(|inserted| inserted.displaced) {
                self.count_removed(&gone);
            }
            return Owner::Backend;
        }
        self.client_of(packet, query, origin, now)
    }

    /// Whose reply it is: that of the client for whose next packet this very backend would be chosen.
    fn client_of(&self, packet: &ParsedPacket, query: &FlowQuery, origin: Origin, now: Now) -> Owner {
        let Origin::Place { vip, vip_port, service, backend } = origin else { return Owner::Nobody };
        let Some(&address) = self.setup.vip_address(vip) else { return Owner::Nobody };
        // The packet that the client would send. Of its kind only the ports count: it opens nothing.
        let (client, protocol) = (query.key.client, query.key.protocol);
        let kind = Kind::Udp { ports: (query.key.client_port, vip_port) };
        let request = ParsedPacket { source: client, destination: address, protocol, kind, ..*packet };
        let Some(query) = self.query(&request).filter(|query| query.direction == Direction::Request { vip }) else {
            return Owner::Nobody;
        };
        if self.find(&request, &query, now).is_some() {
            return Owner::Moved;
        }
        let Ok(admission) = self.admission(&request, &query, vip, None, now) else { return Owner::Nobody };
        let chosen = match admission {
            Admission { service: admitted, .. } if admitted != service => None,
            Admission { source: BackendSource::Affinity { backend, .. }, .. } => Some(backend),
            Admission { source: BackendSource::Strategy { seed, .. }, .. } => {
                let balancer = self.setup.balancer(service, packet.family);
                let balancer = balancer.filter(|balancer| balancer.is_same_everywhere());
                balancer.and_then(|balancer| balancer.would_choose(&seed)).map(|chosen| chosen.0)
            }
            Admission { source: BackendSource::Elsewhere { .. }, .. } => None,
        };
        if chosen == Some(backend) { Owner::Client { vip, vip_port, backend } } else { Owner::Nobody }
    }
}

/// Whether an SCTP packet opens an association.
fn is_init(packet: &ParsedPacket, bytes: &[u8]) -> bool {
    matches!(packet.kind, Kind::Sctp { .. }) && bytes.get(packet.transport + FIRST_CHUNK) == Some(&INIT)
}
