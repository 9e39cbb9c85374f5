//! Replies: packets of backends to clients.

use super::decider::{Decided, Decider, PacketBuffer};
use super::keys::FlowQuery;
use crate::time::Now;
use crate::wire::{self, Endpoint, Kind, ParsedPacket};
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
        let Some((slot, flow)) = self.find(packet, query, now) else { return buffer.unchanged(Outcome::PassedOwn) };
        let Some(&address) = self.setup.vip_address(flow.vip) else { return buffer.unchanged(Outcome::PassedOwn) };
        self.count_received(flow.backend, buffer.length);
        if !self.backends.flags(flow.backend).is_unsuspected() {
            self.note_answer(packet, flow);
            if let Some(outcome) = self.outcome_when_down(packet, flow) {
                return self.answer_backend(packet, slot, outcome, buffer, now);
            }
        }
        self.note_refusal(packet, (slot, flow), query.key.service_port, now);
        let checksum = buffer.facts.checksum;
        wire::replace(buffer.bytes(), packet, Endpoint::Source, &address, checksum);
        self.advance(slot, flow, packet, false, now);
        buffer.unchanged(Outcome::Returned)
    }

    /// Judges a reply that has gone on already.
    pub(super) fn note_reply(&mut self, packet: &ParsedPacket, (slot, flow): (Slot, Flow), port: u16, now: Now) {
        if !self.backends.flags(flow.backend).is_unsuspected() {
            self.note_answer(packet, flow);
        }
        self.note_refusal(packet, (slot, flow), port, now);
    }

    /// A reset that answers a SYN to this port counts against the backend.
    #[inline]
    fn note_refusal(&mut self, packet: &ParsedPacket, (slot, flow): (Slot, Flow), port: u16, now: Now) {
        if flow.state == FlowState::HalfOpen
            && let Kind::Tcp(segment) = packet.kind
            && segment.resets()
            && segment.acknowledges()
            && segment.acknowledged == self.flows.proof(slot)
        {
            self.backends.refused(&mut self.setup, &self.counters, (flow.backend, port, Cause::Refused), now);
        }
    }

    /// Any packet but a reset shows that the backend works.
    #[cold]
    fn note_answer(&mut self, packet: &ParsedPacket, flow: Flow) {
        if !matches!(packet.kind, Kind::Tcp(segment) if segment.resets()) {
            self.backends.answered(flow.backend);
        }
    }

    /// What becomes of a reply whose backend went down, if its flow has ended by that. A connection ends with the reset that
    /// tells the client so. That answers the client's next packet, so until the client sends one it gets what the backend
    /// still sends.
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

    /// Resets the connection towards the backend. A packet that passed would reach the client under the backend's own address,
    /// one that was dropped would be repeated for minutes.
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
