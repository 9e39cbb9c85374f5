//! Connections that backends have of their own: opened by a backend from a port that is served, or by somebody at a backend's own
//! address, past the virtual IPs. Nothing of them is rewritten. They are noted so that what belongs to nobody, and would reach a
//! client under a backend's own address, can be told from them.
//!
//! One is a flow at no virtual IP, with the number of its backend in the place of the port there: two connections from one port of a
//! client to two backends have one key, and differ in this. It goes through the states of every other, with whoever has opened it as
//! the client. It takes only a free place or that of an expired flow, gives way like every flow that is not open, and until it is open
//! is in no other's way. So whoever forges either side's packets gains nothing that clients would lose.

use super::decider::Decider;
use super::flow_state::{first_state, is_over};
use super::keys::{FlowQuery, opens};
use crate::time::Now;
use crate::wire::{Kind, ParsedPacket, low_half};
use loaded_ipc::Outcome;
use loaded_table::{Flow, FlowState, Slot};

/// Stands for the virtual IP of a flow that somebody has opened at a backend's own address. Above all numbers of virtual IPs.
const AT_BACKEND: u16 = u16::MAX;
/// The same, of one that the backend has opened.
const BY_BACKEND: u16 = u16::MAX - 1;

/// Whether a flow is a backend's own.
#[inline]
pub(super) fn is_own(flow: &Flow) -> bool {
    flow.vip >= BY_BACKEND
}

impl Decider {
    /// What becomes of a backend's packet that is of no flow. It may open a connection of its own; in the middle of one that nobody
    /// has seen begin it is an orphan, where its port is served.
    #[cold]
    pub(super) fn own_or_orphan(&mut self, packet: &ParsedPacket, query: &FlowQuery, now: Now) -> Outcome {
        let Some(backend) = self.setup.served_at(&packet.source, packet.protocol, query.port) else {
            return Outcome::PassedOwn;
        };
        // What backends have among themselves reaches no client.
        if self.setup.is_backend(&packet.destination) {
            return Outcome::PassedOwn;
        }
        if !opens(packet) && !matches!(packet.kind, Kind::Sctp { opens: true, .. }) {
            return Outcome::DroppedOrphan;
        }
        self.note_own(packet, query, (BY_BACKEND, backend), now);
        Outcome::PassedOwn
    }

    /// A backend's packet of a connection of its own.
    #[cold]
    pub(super) fn own_reply(
        &mut self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        known: (Slot, Flow),
        now: Now,
    ) -> Outcome {
        self.advance_own(packet, query, known, BY_BACKEND, now);
        Outcome::PassedOwn
    }

    /// A packet to a backend's own address. In the middle of a connection it is noted too: another balancer may have seen its
    /// beginning.
    #[cold]
    pub(super) fn past(&mut self, packet: &ParsedPacket, query: &FlowQuery, now: Now) -> Outcome {
        match self.find(packet, query, now) {
            Some(known) if is_own(&known.1) => self.advance_own(packet, query, known, AT_BACKEND, now),
            // With these ports the client has a connection by a virtual IP: its backend could not tell the two apart either.
            Some(_) => {}
            None => match self.setup.served_at(&packet.destination, packet.protocol, query.port) {
                Some(backend) => self.note_own(packet, query, (AT_BACKEND, backend), now),
                None => return Outcome::PassedForeign,
            },
        }
        Outcome::PassedOwn
    }

    /// `sender` names the side as the flow would if that had opened it.
    fn advance_own(
        &mut self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        (slot, flow): (Slot, Flow),
        sender: u16,
        now: Now,
    ) {
        if opens(packet) && is_over(flow.state) {
            self.flows.remove(slot);
            return self.note_own(packet, query, (sender, flow.backend), now);
        }
        if sender == flow.vip || moves(flow, packet.kind) {
            self.step(slot, flow, packet, sender == flow.vip, now);
        }
    }

    fn note_own(&mut self, packet: &ParsedPacket, query: &FlowQuery, (vip, backend): (u16, u16), now: Now) {
        let (key, hashed) = self.key_at(query, backend);
        if !self.flows.has_free_room(&hashed, &key, (vip, backend), now.seconds) {
            return;
        }
        let flow = Flow { vip, vip_port: backend, backend, state: first_state(packet.kind) };
        let Ok(inserted) = self.flows.insert(&hashed, &key, flow, now.seconds) else { return };
        if let Kind::Tcp(segment) = packet.kind {
            self.flows.set_proof(inserted.slot, low_half(segment.end));
        }
        if let Some((_, expired)) = inserted.displaced {
            self.count_removed(&expired);
        }
    }
}

/// Whether a packet of the other side moves a flow. Who has opened one at a backend's own address speaks with a backend, whose packets
/// come by the way to it. Of one that a backend has opened nothing shows where the other side's packets come from: they may answer the
/// opening, and neither end an open connection nor keep it.
fn moves(flow: Flow, kind: Kind) -> bool {
    match kind {
        Kind::Tcp(segment) if flow.vip == BY_BACKEND => {
            !segment.resets() && matches!(flow.state, FlowState::HalfOpen | FlowState::Answered)
        }
        _ => true,
    }
}
