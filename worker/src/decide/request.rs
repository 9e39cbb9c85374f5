//! Requests: packets of clients to a virtual IP.

use super::admit::Refusal;
use super::state::{is_over, is_proof, next_state, next_state_one_sided};
use super::{Decided, Decider, Now, Place, Wanted, opens};
use crate::setup::Backend;
use crate::wire::{self, Kind, Packet, Side};
use loaded_ipc::{Admin, AllDown, OnBackendDown, Outcome, Pressure};
use loaded_table::{Flow, FlowState, Slot};

/// What becomes of a packet of a known flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// It goes the way of its flow.
    Ahead,
    /// It begins a flow of its own.
    Anew,
    /// Its connection has ended, and the client is told so.
    Reset,
    /// So has what a datagram belonged to.
    Unreachable,
}

impl Decider {
    pub(super) fn request(
        &mut self,
        packet: &Packet,
        wanted: &Wanted,
        vip: u16,
        mut place: Place<'_>,
        now: Now,
    ) -> Decided {
        let known = self.find(packet, wanted, now);
        let course = known.map_or(Course::Anew, |(_, flow)| self.course(packet, wanted, flow, now));
        let (backend, outcome) = match (course, known) {
            (Course::Ahead, Some((slot, flow))) => {
                self.advance(slot, flow, packet, true, now);
                (flow.backend, Outcome::Forwarded)
            }
            (Course::Reset, Some((slot, _))) => return self.reset_client(packet, slot, place, now),
            (Course::Unreachable, Some((slot, _))) => {
                if let Some(flow) = self.flows.remove(slot) {
                    self.count_removed(&flow);
                }
                return unreachable(packet, place, Outcome::AnsweredUnreachable);
            }
            _ => match self.admit(packet, wanted, vip, known.map(|(_, flow)| flow), now) {
                Ok(backend) => (backend, Outcome::ForwardedNew),
                Err(Refusal::As(outcome)) => return place.stays(outcome),
                Err(Refusal::NoBackend { service }) => return self.refuse(packet, service, place),
            },
        };
        let Some(&Backend { address, direct, .. }) = self.setup.backend(backend) else {
            return place.stays(Outcome::DroppedNoBackend);
        };
        if !direct {
            let field = place.facts.checksum;
            wire::replace(place.bytes(), packet, Side::Destination, &address, field);
        }
        self.sent(backend, place.length);
        place.goes(outcome, backend, direct)
    }

    /// Where a packet of a known flow is to go. Of a backend that is sound there is one question only.
    #[inline]
    fn course(&mut self, packet: &Packet, wanted: &Wanted, flow: Flow, now: Now) -> Course {
        if opens(packet) && flow.state == FlowState::HalfOpen && self.membership.mark(flow.backend).is_chosen() {
            // Once more: the last one was not answered.
            let port = wanted.key.service_port;
            self.membership.opening(&mut self.setup, &self.counters, flow.backend, port, now);
        }
        self.course_now(packet, flow)
    }

    /// The same as the backends stand now. Changes nothing.
    #[inline]
    pub(super) fn course_now(&self, packet: &Packet, flow: Flow) -> Course {
        let opens = opens(packet);
        // A connection that begins on ports of one that is over is a new one (RFC 9293 §3.6.1).
        if opens && is_over(flow.state) {
            return Course::Anew;
        }
        match self.membership.mark(flow.backend) {
            mark if mark.is_sound() => Course::Ahead,
            mark if mark.is_kept() => self.of_one_that_takes_no_new(opens, flow),
            _ => self.course_when_down(packet, flow),
        }
    }

    /// Of a backend that is drained, ejected or not needed: what it has goes on, but a connection that the client only
    /// begins can as well begin elsewhere. On a drained one that is every SYN, whatever was on its ports before.
    #[cold]
    fn of_one_that_takes_no_new(&self, opens: bool, flow: Flow) -> Course {
        let drains = || self.membership.admin(flow.backend) == Some(Admin::Draining);
        match opens && (flow.state == FlowState::HalfOpen || drains()) {
            true => Course::Anew,
            false => Course::Ahead,
        }
    }

    /// Of a backend that is down or disabled.
    #[cold]
    fn course_when_down(&self, packet: &Packet, flow: Flow) -> Course {
        match (packet.kind, self.on_backend_down(flow)) {
            (Kind::Tcp { opens: true, .. }, _) => Course::Anew,
            // Nobody is to answer a reset. If the backend hears it, so much the better.
            (Kind::Tcp { resets: true, .. }, OnBackendDown::Reset | OnBackendDown::Drain) => Course::Ahead,
            (Kind::Tcp { .. }, OnBackendDown::Reset) => Course::Reset,
            (Kind::Tcp { .. }, OnBackendDown::Rehash) => Course::Anew,
            // The policy is for what is down; what the operator has disabled, or let drain long enough, ends.
            (Kind::Tcp { .. }, OnBackendDown::Drain) if self.is_disabled(flow) => Course::Reset,
            (Kind::Tcp { .. }, OnBackendDown::Drain) => Course::Ahead,
            (Kind::Udp { .. }, OnBackendDown::Reset) => Course::Unreachable,
            _ => Course::Anew,
        }
    }

    fn is_disabled(&self, flow: Flow) -> bool {
        self.membership.admin(flow.backend) == Some(Admin::Disabled)
    }

    /// Whether connections of a backend that is out end with a reset.
    pub(super) fn ends_by_reset(&self, flow: Flow) -> bool {
        match self.on_backend_down(flow) {
            OnBackendDown::Reset => true,
            OnBackendDown::Rehash => false,
            OnBackendDown::Drain => self.is_disabled(flow),
        }
    }

    pub(super) fn on_backend_down(&self, flow: Flow) -> OnBackendDown {
        self.setup.service(flow.service).map_or(OnBackendDown::Reset, |service| service.policy.on_backend_down)
    }

    /// Whether a packet of this flow is to be answered by a reset.
    pub(super) fn is_to_be_reset(&self, packet: &Packet, flow: Flow) -> bool {
        let kept = self.membership.mark(flow.backend).is_kept();
        !kept && self.course_when_down(packet, flow) == Course::Reset
    }

    /// Ends a connection towards the client. The flow stays, so that the backend, should it speak yet, is told as well.
    pub(super) fn reset_client(&mut self, packet: &Packet, slot: Slot, place: Place<'_>, now: Now) -> Decided {
        self.flows.set_state(slot, FlowState::Reset, now.seconds);
        match wire::reset(place.room, packet) {
            Some(length) => Decided::answer(Outcome::AnsweredReset, length),
            None => place.stays(Outcome::DroppedNoBackend),
        }
    }

    /// A packet for which there is no backend.
    pub(super) fn refuse(&self, packet: &Packet, service: u16, place: Place<'_>) -> Decided {
        let all_down = self.setup.service(service).map(|service| service.policy.all_down);
        match packet.kind {
            _ if all_down != Some(AllDown::Reject) => place.stays(Outcome::DroppedNoBackend),
            Kind::Tcp { resets: false, .. } => match wire::reset(place.room, packet) {
                Some(length) => Decided::answer(Outcome::RefusedReset, length),
                None => place.stays(Outcome::DroppedNoBackend),
            },
            Kind::Udp { .. } => unreachable(packet, place, Outcome::RefusedUnreachable),
            _ => place.stays(Outcome::DroppedNoBackend),
        }
    }

    /// Moves a flow along and keeps it, and its client, alive.
    #[inline]
    pub(super) fn advance(&mut self, slot: Slot, flow: Flow, packet: &Packet, request: bool, now: Now) {
        let next = match self.setup.is_direct(flow.backend) {
            false => next_state(flow.state, packet.kind, request),
            true => next_state_one_sided(flow.state, packet.kind),
        };
        let seen = self.flows.refresh(slot, now.seconds);
        let mut proven = false;
        if next != flow.state {
            if !self.flows.set_state(slot, next, now.seconds) {
                self.counters.add(Pressure::Unprotected.index(), 1);
            }
            proven = request && is_proof(next);
        }
        if request && (proven || !self.memories.of(flow.service).is_fresh(seen, now.seconds)) {
            self.keep_client(flow, packet, proven, now.seconds);
        }
    }
}

/// Answers a datagram by ICMP port unreachable.
pub(super) fn unreachable(packet: &Packet, place: Place<'_>, outcome: Outcome) -> Decided {
    match wire::unreachable(place.room, place.length, packet) {
        Some(length) => Decided::answer(outcome, length),
        None => place.stays(Outcome::DroppedNoBackend),
    }
}
