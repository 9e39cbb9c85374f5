//! Replies: packets of backends to clients.

use super::decider::{Decided, Decider, PacketBuffer};
use super::keys::{FlowQuery, another_port};
use super::own::is_own;
use crate::time::Now;
use crate::wire::{self, Endpoint, Kind, ParsedPacket, Replacement, low_half};
use loaded_ipc::{Cause, Outcome};
use loaded_table::{Flow, FlowState, Slot};

impl Decider {
    pub(super) fn reply(
        &mut self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        mut buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        let known = match self.find(packet, query, now) {
            Some(known) if is_own(&known.1) => return buffer.unchanged(self.own_reply(packet, query, known, now)),
            known => known.or_else(|| self.adopt_reply(packet, now)),
        };
        let Some((slot, flow)) = known else { return self.without_flow_of_a_client(packet, query, buffer, now) };
        let Some(&address) = self.setup.vip_address(flow.vip) else { return buffer.unchanged(Outcome::PassedOwn) };
        self.count_received(flow.backend, buffer.length);
        if let Some(outcome) = outcome_when_ended(packet, flow) {
            return self.answer_backend(packet, slot, outcome, buffer, now);
        }
        if !self.backends.flags(flow.backend).is_unsuspected() {
            self.note_answer(packet, flow);
            if let Some(outcome) = self.outcome_when_down(packet, flow) {
                return self.answer_backend(packet, slot, outcome, buffer, now);
            }
        }
        self.note_refusal(packet, (slot, flow), now);
        let checksum = buffer.facts.checksum;
        wire::replace(
            buffer.bytes(),
            packet,
            Endpoint::Source,
            Replacement { address: &address, port: another_port(query, flow) },
            checksum,
        );
        self.advance(slot, flow, packet, false, now);
        buffer.unchanged(Outcome::Returned)
    }

    /// Of a connection that its client has at another backend by now, the backend's side ends.
    #[cold]
    fn without_flow_of_a_client(
        &mut self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        match self.own_or_orphan(packet, query, now) {
            Outcome::DroppedOrphan if self.is_elsewhere(packet, query.port, now) => {
                match wire::reset(buffer.space, packet) {
                    Some(length) => Decided::answer(Outcome::AnsweredBackend, length),
                    None => buffer.unchanged(Outcome::DroppedOrphan),
                }
            }
            outcome => buffer.unchanged(outcome),
        }
    }

    /// Judges a reply that has gone on already.
    pub(super) fn note_reply(&mut self, packet: &ParsedPacket, (slot, flow): (Slot, Flow), now: Now) {
        if !self.backends.flags(flow.backend).is_unsuspected() {
            self.note_answer(packet, flow);
        }
        self.note_refusal(packet, (slot, flow), now);
    }

    /// A reset that answers a SYN counts against the backend.
    #[inline]
    fn note_refusal(&mut self, packet: &ParsedPacket, (slot, flow): (Slot, Flow), now: Now) {
        if flow.state == FlowState::HalfOpen
            && let Kind::Tcp(segment) = packet.kind
            && segment.resets()
            && segment.acknowledges()
            && low_half(segment.acknowledged) == self.flows.proof(slot)
        {
            let refused = (flow.backend, flow.vip_port, Cause::Refused);
            self.backends.refused(&mut self.setup, &self.counters, refused, now);
        }
    }

    /// Any packet but a reset shows that the backend works.
    #[cold]
    fn note_answer(&mut self, packet: &ParsedPacket, flow: Flow) {
        if !matches!(packet.kind, Kind::Tcp(segment) if segment.resets()) {
            self.backends.answered(flow.backend);
        }
    }

    /// How a reply ends whose backend has gone down, if that has ended its flow. A connection ends once a reset has
    /// told the client so. That reset answers the client's next packet; until then the client still gets what the
    /// backend sends.
    fn outcome_when_down(&self, packet: &ParsedPacket, flow: Flow) -> Option<Outcome> {
        if self.backends.flags(flow.backend).keeps_flows() {
            return None;
        }
        match packet.kind {
            Kind::Tcp(segment) if segment.resets() => None,
            Kind::Tcp(_) => {
                let ended = flow.state == FlowState::Reset && self.ends_by_reset(flow);
                ended.then_some(Outcome::AnsweredBackend)
            }
            _ => Some(Outcome::DroppedBackendOut),
        }
    }

    /// Answers the backend with a reset. If its packet passed, the client would see the backend's own address; if it
    /// were dropped, the backend would repeat it for minutes.
    #[cold]
    fn answer_backend(
        &mut self,
        packet: &ParsedPacket,
        slot: Slot,
        outcome: Outcome,
        buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        if outcome != Outcome::AnsweredBackend {
            return buffer.unchanged(outcome);
        }
        self.flows.refresh(slot, now.seconds);
        match wire::reset(buffer.space, packet) {
            Some(length) => Decided::answer(outcome, length),
            None => buffer.unchanged(Outcome::DroppedBackendOut),
        }
    }
}

/// How a reply ends whose flow the operator has ended; a reset is passed on, for its client may not know yet.
#[inline]
fn outcome_when_ended(packet: &ParsedPacket, flow: Flow) -> Option<Outcome> {
    match packet.kind {
        _ if flow.state != FlowState::Ended => None,
        Kind::Tcp(segment) if segment.resets() => None,
        Kind::Tcp(_) => Some(Outcome::AnsweredBackend),
        _ => Some(Outcome::DroppedBackendOut),
    }
}
