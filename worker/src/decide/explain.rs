//! Tells what would become of a client's next packet. Decides as for a real packet, and changes nothing.

use super::admit::{Admission, BackendSource, Refusal};
use super::decider::{Decider, Lookup, PacketBuffer};
use super::flow_state::is_over;
use super::keys::{Direction, FlowQuery};
use super::request::{Course, unreachable};
use crate::time::Now;
use crate::wire::{self, PacketFacts, ParsedPacket, SPARE, from_ip, protocol};
use loaded_ipc::{Assumed, BackendIndex, ChoiceReason, Chosen, Explained, KnownFlow, Outcome, Question, ServiceIndex};
use loaded_table::{Flow, FlowState};
use std::net::IpAddr;

/// Bytes of an IPv6 and a TCP header, the longest packet built here.
const LONGEST: usize = 40 + 20;
const SYN: u8 = 2;
const ACK: u8 = 16;

impl Decider {
    /// What would become of a client's next packet as things are now, found by the functions that decide about real
    /// ones. One difference: a backend whose unanswered SYNs are overdue is ejected only by the next [`Decider::tick`]
    /// or SYN.
    #[must_use]
    #[cold]
    pub fn explain(&self, question: &Question, now: Now) -> Explained {
        let mut assumed = if question.protocol == protocol::TCP { Assumed::Syn } else { Assumed::Any };
        let mut space = [0; LONGEST + SPARE];
        let mut length = write(question, assumed, &mut space);
        let mut lookup = self.lookup(&space[..length], PacketFacts::WHOLE);
        if assumed == Assumed::Syn && self.goes_on(&lookup, now) {
            assumed = Assumed::Ack;
            length = write(question, assumed, &mut space);
            lookup = self.lookup(&space[..length], PacketFacts::WHOLE);
        }
        let buffer = PacketBuffer { space: &mut space, length, facts: PacketFacts::WHOLE };
        let (packet, query) = match (&lookup.packet, &lookup.query) {
            (Ok(packet), Some(query)) => (packet, query),
            (Ok(packet), None) => return ends(assumed, self.without_flow(packet)),
            (Err(_), _) => return ends(assumed, self.malformed()),
        };
        match query.direction {
            Direction::Request { vip } => self.explain_request(packet, query, vip, (assumed, buffer), now),
            // Not to a virtual IP.
            Direction::Reply | Direction::Past => ends(assumed, Outcome::PassedOwn),
        }
    }

    /// Whether the packet belongs to an open connection, so that a SYN is not what the client would send next.
    fn goes_on(&self, lookup: &Lookup, now: Now) -> bool {
        let (Ok(packet), Some(query)) = (&lookup.packet, &lookup.query) else { return false };
        let state = self.find(packet, query, now).map(|(_, flow)| flow.state);
        state.is_some_and(|state| state != FlowState::HalfOpen && !is_over(state))
    }

    fn explain_request(
        &self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        vip: u16,
        (assumed, buffer): (Assumed, PacketBuffer<'_>),
        now: Now,
    ) -> Explained {
        let known = self.find(packet, query, now);
        let flow = known.map(|(slot, flow)| KnownFlow {
            backend: BackendIndex(flow.backend),
            state: flow.state as u8,
            idle: self.flows.idle(slot, now.seconds).unwrap_or(0),
        });
        let old = known.map(|(_, flow)| flow);
        let end = |service: Option<u16>, outcome| {
            let service = service.map(ServiceIndex);
            Explained { assumed, outcome, service, flow, chosen: None }
        };
        let course = known.map_or(Course::NewFlow, |known| self.course_now(packet, known, now));
        let (service, backend, reason, outcome) = match (course, old) {
            (Course::Forward, Some(flow)) => {
                let service = self.setup.service_of(flow.backend);
                (service, flow.backend, ChoiceReason::Flow, Outcome::Forwarded)
            }
            (Course::Reset, Some(flow)) => {
                let answered = wire::reset(buffer.space, packet).is_some();
                let outcome = if answered { Outcome::AnsweredReset } else { Outcome::DroppedNoBackend };
                return end(Some(self.setup.service_of(flow.backend)), outcome);
            }
            (Course::Unreachable, Some(flow)) => {
                let outcome =
                    unreachable(packet, buffer, Outcome::AnsweredUnreachable, Outcome::DroppedNoBackend).outcome;
                return end(Some(self.setup.service_of(flow.backend)), outcome);
            }
            _ => match self.would_admit(packet, query, vip, old, now) {
                Ok((service, backend, reason)) => (service, backend, reason, Outcome::ForwardedNew),
                Err((service, refusal)) => return end(service, self.refuse(packet, refusal, buffer).outcome),
            },
        };
        if self.setup.backend(backend).is_none() {
            return end(Some(service), Outcome::DroppedNoBackend);
        }
        let chosen = Some(Chosen { backend: BackendIndex(backend), reason });
        Explained { chosen, ..end(Some(service), outcome) }
    }

    /// As [`Decider::admit`], without letting anything in. The error names the service too, if it is known.
    fn would_admit(
        &self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        vip: u16,
        old: Option<Flow>,
        now: Now,
    ) -> Result<(u16, u16, ChoiceReason), (Option<u16>, Refusal)> {
        let Admission { service, source } =
            self.admission(packet, query, vip, old, now).map_err(|refusal| (None, refusal))?;
        let refused = |refusal| (Some(service), refusal);
        let (backend, reason) = match source {
            BackendSource::Affinity { slot, backend } => {
                (backend, ChoiceReason::Client { idle: self.clients.idle(slot, now.seconds).unwrap_or(0) })
            }
            BackendSource::Strategy { seed, .. } => {
                let balancer = self.setup.balancer(service, packet.family);
                let none = refused(Refusal::NoBackend { service });
                let (balancer, chosen) =
                    balancer.and_then(|balancer| Some((balancer, balancer.would_choose(&seed)?))).ok_or(none)?;
                let candidates = u16::try_from(balancer.candidates()).unwrap_or(u16::MAX);
                (chosen.0, ChoiceReason::Strategy { candidates })
            }
            BackendSource::Elsewhere { seed, instead_of, .. } => {
                let (taken, place) = (self.taken(query, (vip, service), now), (service, query.port));
                let choose = |taken| self.setup.would_choose_elsewhere(place, packet.family, &seed, taken);
                (taken.all().and_then(choose).ok_or(refused(Refusal::Clash))?.0, ChoiceReason::Clash { instead_of })
            }
        };
        let (key, hashed) = self.key_at(query, backend);
        if !self.flows.has_room(&hashed, &key, (vip, query.port), now.seconds) {
            return Err(refused(Refusal::As(Outcome::DroppedTableFull)));
        }
        Ok((service, backend, reason))
    }
}

/// The answer for a packet that is not a request to a virtual IP, or that cannot have a flow.
fn ends(assumed: Assumed, outcome: Outcome) -> Explained {
    Explained { assumed, outcome, service: None, flow: None, chosen: None }
}

/// Writes the packet of a question, as far as decisions look at it, and returns its length: 0 if its two addresses are of
/// different families.
fn write(question: &Question, assumed: Assumed, space: &mut [u8; LONGEST + SPARE]) -> usize {
    space.fill(0);
    let (from, to) = (from_ip(question.client), from_ip(question.vip));
    let ([a, b], [c, d]) = (question.client_port.to_be_bytes(), question.vip_port.to_be_bytes());
    let ports = [a, b, c, d];
    let (header, echo) = match (question.client, question.vip) {
        (IpAddr::V4(_), IpAddr::V4(_)) => (20, (protocol::ICMP, 8)),
        (IpAddr::V6(_), IpAddr::V6(_)) => (40, (protocol::ICMP6, 128)),
        _ => return 0,
    };
    let mut upper = [0; 20];
    let length: u8 = match question.protocol {
        protocol::TCP => {
            upper[..4].copy_from_slice(&ports);
            // Length of the header: five 32-bit words.
            upper[12] = 5 << 4;
            upper[13] = if assumed == Assumed::Ack { ACK } else { SYN };
            20
        }
        protocol::UDP => {
            upper[..4].copy_from_slice(&ports);
            // The length, and any checksum but 0, which UDP over IPv6 must not have (RFC 8200 §8.1).
            upper[4..8].copy_from_slice(&[0, 8, 0xff, 0xff]);
            8
        }
        protocol::SCTP => {
            upper[..4].copy_from_slice(&ports);
            12
        }
        icmp if icmp == echo.0 => {
            upper[0] = echo.1;
            upper[4..6].copy_from_slice(&ports[..2]);
            8
        }
        _ => 8,
    };
    let all = header + usize::from(length);
    let Some(packet) = space.get_mut(..all) else { return 0 };
    if header == 20 {
        // RFC 791 §3.1: version and length in words, the whole length, don't fragment, time to live, protocol.
        packet[..10].copy_from_slice(&[0x45, 0, 0, 20 + length, 0, 0, 0x40, 0, 64, question.protocol]);
        packet[12..16].copy_from_slice(&from[12..]);
        packet[16..20].copy_from_slice(&to[12..]);
    } else {
        // RFC 8200 §3: version, the length behind the header, next header, hop limit.
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, length, question.protocol, 64]);
        packet[8..24].copy_from_slice(&from);
        packet[24..40].copy_from_slice(&to);
    }
    packet[header..].copy_from_slice(&upper[..usize::from(length)]);
    all
}
