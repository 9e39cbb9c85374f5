//! Which flow a packet belongs to, and what becomes of packets that have none or arrive cut short.

use super::decider::{Decided, Decider, PacketBuffer};
use super::keys::{Direction, FlowQuery, backend_side};
use super::own::is_own;
use crate::time::Now;
use crate::wire::{Address, Kind, ParsedPacket, TcpSegment};
use loaded_ipc::{Mode, OnFailure, Outcome, Unserved};
use loaded_table::{Flow, Slot};

impl Decider {
    /// The living flow a packet belongs to.
    #[inline]
    pub(super) fn find(&self, packet: &ParsedPacket, query: &FlowQuery, now: Now) -> Option<(Slot, Flow)> {
        match query.direction {
            Direction::Request { vip } => {
                self.find_by(query, now, |flow| flow.vip == vip && flow.vip_port == query.port)
            }
            Direction::Reply => self.find_at(backend_side(packet), query, now),
            Direction::Past => self.find_at(&packet.destination, query, now),
        }
    }

    /// The living flow at a backend with this address: that of a client, or else one of the backend's own.
    #[inline]
    fn find_at(&self, address: &Address, query: &FlowQuery, now: Now) -> Option<(Slot, Flow)> {
        let of_client = |flow: &Flow| !is_own(flow) && self.is_at(flow, address, (flow.vip_port, query.port));
        self.find_by(query, now, of_client).or_else(|| self.find_own(address, query, now))
    }

    #[cold]
    fn find_own(&self, address: &Address, query: &FlowQuery, now: Now) -> Option<(Slot, Flow)> {
        self.find_by(query, now, |flow| is_own(flow) && self.is_at(flow, address, (query.port, query.port)))
    }

    /// Whether a flow is at a backend with this address. Ports: the one at a backend without a port of its own, and the one in the
    /// packet.
    #[inline]
    fn is_at(&self, flow: &Flow, address: &Address, (kept, wanted): (u16, u16)) -> bool {
        self.setup.backend(flow.backend).is_some_and(|backend| {
            !backend.direct && backend.address == *address && backend.port.unwrap_or(kept) == wanted
        })
    }

    #[inline]
    fn find_by(&self, query: &FlowQuery, now: Now, accept: impl Fn(&Flow) -> bool) -> Option<(Slot, Flow)> {
        match self.flows.find_flow(&query.hashed, &query.key, now.seconds, &accept) {
            None if query.either => self.find_other(query, now, accept),
            found => found,
        }
    }

    /// The service a request is for.
    pub(super) fn service(&self, packet: &ParsedPacket, vip: u16) -> Option<u16> {
        match packet.kind {
            Kind::Tcp(TcpSegment { ports, .. }) | Kind::Udp { ports } | Kind::Sctp { ports, .. } => {
                self.setup.service_at(vip, packet.protocol, ports.1)
            }
            _ => self.setup.service_for_all(vip),
        }
    }

    /// What becomes of a packet that can have no flow.
    pub(super) fn without_flow(&self, packet: &ParsedPacket) -> Outcome {
        match packet.kind {
            _ if self.setup.vip(&packet.destination).is_none() => match self.setup.is_backend(&packet.source) {
                true => Outcome::PassedOwn,
                false => Outcome::PassedForeign,
            },
            Kind::Neighbour => Outcome::PassedNeighbour,
            // ICMP that names no flow: timestamp requests, unasked replies, errors that quote no packet.
            _ => self.unserved(),
        }
    }

    /// Whether a request goes to its backend unchanged, so that only its headers are needed here.
    #[cold]
    pub(super) fn is_forwarded_directly(&self, packet: &ParsedPacket, query: &FlowQuery, now: Now) -> bool {
        match (query.direction, self.find(packet, query, now)) {
            (Direction::Request { .. }, Some((_, flow))) => self.setup.is_direct(flow.backend),
            (Direction::Request { vip }, None) => {
                self.service(packet, vip).and_then(|s| self.setup.service(s)).is_some_and(|s| s.mode == Mode::Dsr)
            }
            (Direction::Reply | Direction::Past, _) => false,
        }
    }

    /// A packet that was cut short cannot be rewritten and sent. It may pass where it would stay unchanged, and it may
    /// be answered, since that takes only its headers.
    pub(super) fn cut(
        &mut self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        let known = self.find(packet, query, now);
        let outcome = match (query.direction, known) {
            (Direction::Request { .. }, Some(known)) if self.is_to_be_reset(packet, known) => {
                return self.reset_client(packet, known.0, buffer, now);
            }
            (Direction::Past, _) => self.past(packet, query, now),
            (Direction::Reply, Some(known)) if is_own(&known.1) => self.own_reply(packet, query, known, now),
            (_, Some(_)) => Outcome::DroppedCut,
            (Direction::Request { vip }, None) if self.service(packet, vip).is_some() => Outcome::DroppedCut,
            (Direction::Request { .. }, None) if matches!(packet.kind, Kind::Error(_)) => Outcome::DroppedStrayError,
            (Direction::Request { .. }, None) => self.unserved(),
            (Direction::Reply, None) => self.own_or_orphan(packet, query, now),
        };
        buffer.unchanged(outcome)
    }

    /// What becomes of a malformed packet.
    #[cold]
    pub(super) fn malformed(&self) -> Outcome {
        match self.setup.malformed() {
            OnFailure::Pass => Outcome::PassedMalformed,
            OnFailure::Drop => Outcome::DroppedMalformed,
        }
    }

    /// What becomes of a packet to a virtual IP where no service takes it.
    pub(super) fn unserved(&self) -> Outcome {
        match self.setup.unserved() {
            Unserved::Pass => Outcome::PassedUnserved,
            Unserved::Drop => Outcome::DroppedUnserved,
        }
    }
}
