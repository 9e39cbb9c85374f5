//! Replies: packets of backends to clients.

use super::{Decided, Decider, Now, Place, Wanted};
use crate::wire::{self, Kind, Packet, Side};
use loaded_ipc::{Cause, Outcome};
use loaded_table::{Flow, FlowState, Slot};

impl Decider {
    pub(super) fn reply(&mut self, packet: &Packet, wanted: &Wanted, mut place: Place<'_>, now: Now) -> Decided {
        let Some((slot, flow)) = self.find(packet, wanted, now) else { return place.stays(Outcome::PassedOwn) };
        let Some(&address) = self.setup.vip_address(flow.vip) else { return place.stays(Outcome::PassedOwn) };
        self.received(flow.backend, place.length);
        if !self.membership.mark(flow.backend).is_quiet() {
            self.hear(packet, flow);
            if let Some(outcome) = self.is_too_late(packet, flow) {
                return self.answer_backend(packet, slot, outcome, place, now);
            }
        }
        if flow.state == FlowState::HalfOpen
            && matches!(packet.kind, Kind::Tcp { resets: true, acknowledges: true, .. })
        {
            let refused = (flow.backend, wanted.key.service_port, Cause::Refused);
            self.membership.refused(&mut self.setup, &self.counters, refused, now);
        }
        let field = place.facts.checksum;
        wire::replace(place.bytes(), packet, Side::Source, &address, field);
        self.advance(slot, flow, packet, false, now);
        place.stays(Outcome::Returned)
    }

    /// Any packet but a reset shows that the backend is well.
    #[cold]
    fn hear(&mut self, packet: &Packet, flow: Flow) {
        if !matches!(packet.kind, Kind::Tcp { resets: true, .. }) {
            self.membership.answered(flow.backend);
        }
    }

    /// What becomes of a reply if its flow has ended because its backend is out. A connection ends with the packet that
    /// tells the client so; until then the client gets what there is, and its acknowledgement is that packet.
    fn is_too_late(&self, packet: &Packet, flow: Flow) -> Option<Outcome> {
        if self.membership.mark(flow.backend).is_kept() {
            return None;
        }
        match packet.kind {
            Kind::Tcp { resets: true, .. } => None,
            Kind::Tcp { .. } => {
                let ended = flow.state == FlowState::Reset && self.ends_by_reset(flow);
                ended.then_some(Outcome::AnsweredBackend)
            }
            _ => Some(Outcome::DroppedBackendOut),
        }
    }

    /// Without the answer, the packet would go to the client under the backend's own address, or the backend would
    /// repeat it for minutes.
    #[cold]
    fn answer_backend(&mut self, packet: &Packet, slot: Slot, outcome: Outcome, place: Place<'_>, now: Now) -> Decided {
        if outcome != Outcome::AnsweredBackend {
            return place.stays(outcome);
        }
        self.flows.refresh(slot, now.seconds);
        match wire::reset(place.room, packet) {
            Some(length) => Decided::answer(outcome, length),
            None => place.stays(Outcome::DroppedBackendOut),
        }
    }
}
