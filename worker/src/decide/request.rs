//! Requests: packets of clients to a virtual IP.

use super::admit::Refusal;
use super::decider::{Decided, Decider, PacketBuffer};
use super::flow_state::{Sender, claim, is_over, is_proof, keeps_alive, next_state, next_state_one_sided, proof_after};
use super::keys::{FlowQuery, opens};
use crate::setup::Backend;
use crate::time::Now;
use crate::wire::{self, Endpoint, Kind, ParsedPacket, Replacement};
use loaded_ipc::{Admin, AllDown, BackendCounter, BackendIndex, OnBackendDown, Outcome, Pressure};
use loaded_table::{Flow, FlowState, Slot};

/// How long an open connection must have been silent, in seconds, before a SYN on its ports may replace it while its
/// backend is down or takes no new flows. A client gives up repeating its SYN after about as long
/// (net.ipv4.tcp_syn_retries: the sixth repetition is sent after 63 s).
const SILENT: u32 = 60;

/// What becomes of a packet of a known flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Course {
    /// It goes to the flow's backend.
    Forward,
    /// It begins a new flow in place of the old one.
    NewFlow,
    /// Its connection has ended: the client gets a reset.
    Reset,
    /// Its datagram flow has ended: the client gets an ICMP error.
    Unreachable,
}

impl Decider {
    pub(super) fn request(
        &mut self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        vip: u16,
        mut buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        let known = self.find(packet, query, now);
        let course = known.map_or(Course::NewFlow, |known| self.course(packet, query, known, now));
        let (backend, outcome) = match (course, known) {
            (Course::Forward, Some((slot, flow))) => {
                self.advance(slot, flow, packet, true, now);
                (flow.backend, Outcome::Forwarded)
            }
            (Course::Reset, Some((slot, _))) => return self.reset_client(packet, slot, buffer, now),
            (Course::Unreachable, Some(known)) => {
                self.tell_unreachable(known, now);
                return unreachable(packet, buffer, Outcome::AnsweredUnreachable, Outcome::DroppedNoBackend);
            }
            _ => match self.admit(packet, query, vip, known.map(|(_, flow)| flow), now) {
                Ok(backend) => (backend, Outcome::ForwardedNew),
                Err(refusal) => return self.refuse(packet, refusal, buffer),
            },
        };
        let Some(Backend { address, port, direct, .. }) = self.setup.backend(backend) else {
            return buffer.unchanged(Outcome::DroppedNoBackend);
        };
        if !direct {
            let checksum = buffer.facts.checksum;
            let new = Replacement { address, port: *port };
            wire::replace(buffer.bytes(), packet, Endpoint::Destination, new, checksum);
        }
        self.count_sent(backend, buffer.length);
        buffer.forwarded(outcome, backend, *direct)
    }

    /// What becomes of a packet of a known flow. A SYN that is sent again counts as unanswered by the backend, unless the two
    /// are in one network: there the answer may have passed us by.
    #[inline]
    fn course(&mut self, packet: &ParsedPacket, query: &FlowQuery, known: (Slot, Flow), now: Now) -> Course {
        let (_, flow) = known;
        if opens(packet) && flow.state == FlowState::HalfOpen {
            if self.is_beside(flow.backend, packet) {
                self.counters.add(BackendCounter::Beside.index(BackendIndex(flow.backend)), 1);
            } else if self.backends.flags(flow.backend).takes_new_flows() {
                self.backends.opening(&mut self.setup, &self.counters, flow.backend, query.port, now);
            }
        }
        self.course_now(packet, known, now)
    }

    /// The same, without counting anything.
    #[inline]
    pub(super) fn course_now(&self, packet: &ParsedPacket, (slot, flow): (Slot, Flow), now: Now) -> Course {
        if flow.state == FlowState::Ended {
            return self.course_when_ended(packet, (slot, flow));
        }
        let opens = opens(packet);
        // A new connection may reuse the ports of one that has ended (RFC 9293 §3.6.1). Knowing the ports is not enough
        // to move a connection that has not ended: its backend answers the SYN with an ACK (RFC 5961 §4), or accepts it
        // if it has lost the old connection. How a connection to a direct backend ends is not seen here.
        if opens && is_over(flow.state) && !self.setup.is_direct(flow.backend) {
            return Course::NewFlow;
        }
        match self.backends.flags(flow.backend) {
            flags if flags.is_serving() => Course::Forward,
            flags if opens && (flags.keeps_flows() || self.is_drained_when_down(flow)) => {
                self.course_of_syn(slot, flow, now)
            }
            flags if flags.keeps_flows() => Course::Forward,
            _ => self.course_when_down(packet, flow),
        }
    }

    /// What becomes of a SYN on the ports of a known connection whose backend keeps its flows but takes no new ones: it
    /// is draining, ejected, a backup that is not needed, or down with the policy "drain". A half-open connection may
    /// just as well open elsewhere. An open one must not be moved by somebody who merely knows its ports: only a long
    /// silence ends it, as the backend may be dead. A draining backend is alive, however long its connections stay
    /// idle.
    #[cold]
    fn course_of_syn(&self, slot: Slot, flow: Flow, now: Now) -> Course {
        let drains = self.backends.admin(flow.backend) == Some(Admin::Draining);
        let silent = !drains && self.flows.idle(slot, now.seconds).is_none_or(|idle| idle >= SILENT);
        match silent || flow.state == FlowState::HalfOpen {
            true => Course::NewFlow,
            false => Course::Forward,
        }
    }

    /// What becomes of a packet whose backend is down or disabled.
    #[cold]
    fn course_when_down(&self, packet: &ParsedPacket, flow: Flow) -> Course {
        match (packet.kind, self.on_backend_down(flow)) {
            (Kind::Tcp(segment), _) if segment.opens() => Course::NewFlow,
            // A reset is never answered. It is passed on, in case the backend can still receive it.
            (Kind::Tcp(segment), OnBackendDown::Reset | OnBackendDown::Drain) if segment.resets() => Course::Forward,
            (Kind::Tcp(_), OnBackendDown::Reset) => Course::Reset,
            (Kind::Tcp(_), OnBackendDown::Rehash) => Course::NewFlow,
            // The policy "drain" is for backends that are down; flows of a disabled one end.
            (Kind::Tcp(_), OnBackendDown::Drain) if self.is_disabled(flow) => Course::Reset,
            (Kind::Tcp(_), OnBackendDown::Drain) => Course::Forward,
            (Kind::Udp { .. }, OnBackendDown::Reset) => Course::Unreachable,
            _ => Course::NewFlow,
        }
    }

    /// Whether this flow continues although its backend is down.
    fn is_drained_when_down(&self, flow: Flow) -> bool {
        self.on_backend_down(flow) == OnBackendDown::Drain && !self.is_disabled(flow)
    }

    fn is_disabled(&self, flow: Flow) -> bool {
        self.backends.admin(flow.backend) == Some(Admin::Disabled)
    }

    /// Whether connections of an unavailable backend end with a reset.
    pub(super) fn ends_by_reset(&self, flow: Flow) -> bool {
        match self.on_backend_down(flow) {
            OnBackendDown::Reset => true,
            OnBackendDown::Rehash => false,
            OnBackendDown::Drain => self.is_disabled(flow),
        }
    }

    pub(super) fn on_backend_down(&self, flow: Flow) -> OnBackendDown {
        self.setup
            .service(self.setup.service_of(flow.backend))
            .map_or(OnBackendDown::Reset, |service| service.policy.on_backend_down)
    }

    /// Whether a packet of this flow is to be answered with a reset.
    pub(super) fn is_to_be_reset(&self, packet: &ParsedPacket, (slot, flow): (Slot, Flow)) -> bool {
        if flow.state == FlowState::Ended {
            return self.course_when_ended(packet, (slot, flow)) == Course::Reset;
        }
        let kept = self.backends.flags(flow.backend).keeps_flows();
        !kept && self.course_when_down(packet, flow) == Course::Reset
    }

    /// Answers the client with a reset. The flow stays, so that the backend gets a reset too if it still sends.
    pub(super) fn reset_client(
        &mut self,
        packet: &ParsedPacket,
        slot: Slot,
        buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        match self.flows.get(slot) {
            Some(Flow { state: FlowState::Ended, .. }) => {
                self.flows.refresh(slot, now.seconds);
            }
            _ => {
                self.flows.set_state(slot, FlowState::Reset, now.seconds);
            }
        }
        match wire::reset(buffer.space, packet) {
            Some(length) => Decided::answer(Outcome::AnsweredReset, length),
            None => buffer.unchanged(Outcome::DroppedNoBackend),
        }
    }

    /// Answers or drops a packet that begins no flow.
    pub(super) fn refuse(&self, packet: &ParsedPacket, refusal: Refusal, buffer: PacketBuffer<'_>) -> Decided {
        let (reset, unreached, dropped) = match refusal {
            Refusal::As(outcome) => return buffer.unchanged(outcome),
            Refusal::Clash => (Outcome::RefusedClash, Outcome::RefusedClash, Outcome::DroppedClash),
            Refusal::NoBackend { service } => {
                let all_down = self.setup.service(service).map(|service| service.policy.all_down);
                if all_down != Some(AllDown::Reject) {
                    return buffer.unchanged(Outcome::DroppedNoBackend);
                }
                (Outcome::RefusedReset, Outcome::RefusedUnreachable, Outcome::DroppedNoBackend)
            }
        };
        match packet.kind {
            Kind::Tcp(segment) if !segment.resets() => match wire::reset(buffer.space, packet) {
                Some(length) => Decided::answer(reset, length),
                None => buffer.unchanged(dropped),
            },
            Kind::Udp { .. } => unreachable(packet, buffer, unreached, dropped),
            _ => buffer.unchanged(dropped),
        }
    }

    /// Which side sent this packet of a flow, and whether the packet proves it.
    #[inline]
    fn sender(&self, slot: Slot, flow: Flow, packet: &ParsedPacket, request: bool) -> Sender {
        let claimed = claim(flow.state, packet.kind, request);
        let proven = claimed.is_some_and(|number| number == self.flows.proof(slot));
        if request { Sender::Client { proven } } else { Sender::Backend { proven } }
    }

    /// Moves a flow to its next state, and keeps it and its client's affinity alive.
    #[inline]
    pub(super) fn advance(&mut self, slot: Slot, flow: Flow, packet: &ParsedPacket, request: bool, now: Now) {
        let (next, seen) = self.step(slot, flow, packet, request, now);
        let is_new_second = seen != now.seconds;
        let proven = next != flow.state && request && is_proof(next);
        // The kernel path lets few packets of a client come this way: an answer that comes stands for those it answers.
        let is_due = || is_new_second && (request || self.backends.has_kernel_path());
        let is_fresh = || self.affinity_timeouts.of(self.setup.service_of(flow.backend)).is_fresh(seen, now.seconds);
        if proven || is_due() && !is_fresh() {
            let client = if request { &packet.source } else { &packet.destination };
            self.keep_client(flow, (packet.family, client), proven, now.seconds);
        }
    }

    /// Moves a flow to its next state and keeps it alive. Returns that state, and when a packet of it was seen before, seconds.
    #[inline]
    pub(super) fn step(
        &mut self,
        slot: Slot,
        flow: Flow,
        packet: &ParsedPacket,
        request: bool,
        now: Now,
    ) -> (FlowState, u32) {
        let sender = self.sender(slot, flow, packet, request);
        let seen = match keeps_alive(flow.state, sender) {
            true => self.flows.refresh(slot, now.seconds),
            false => self.flows.seen(slot, now.seconds),
        };
        let next = match self.setup.is_direct(flow.backend) {
            false => {
                let next = next_state(flow.state, packet.kind, sender);
                if let Some(proof) = proof_after((flow.state, next), packet.kind, sender, seen != now.seconds) {
                    self.flows.set_proof(slot, proof);
                }
                next
            }
            true => next_state_one_sided(flow.state, packet.kind),
        };
        if next != flow.state && !self.flows.set_state(slot, next, now.seconds) {
            self.counters.add(Pressure::Unprotected.index(), 1);
        }
        (next, seen)
    }
}

/// Answers a datagram with ICMP "port unreachable", or drops one that must not be answered.
pub(super) fn unreachable(
    packet: &ParsedPacket,
    buffer: PacketBuffer<'_>,
    answered: Outcome,
    dropped: Outcome,
) -> Decided {
    match wire::unreachable(buffer.space, buffer.length, packet) {
        Some(length) => Decided::answer(answered, length),
        None => buffer.unchanged(dropped),
    }
}
