//! What would become of a packet: the questions of the decision without its acts. Nothing changes.

use super::admit::{Claim, Refusal, Source};
use super::request::{Course, unreachable};
use super::state::is_over;
use super::{Decider, Direction, Lookup, Now, Place, Wanted};
use crate::setup::address;
use crate::wire::{self, Packet, PacketFacts, SPARE, protocol};
use loaded_ipc::{Assumed, BackendIndex, Chosen, Explained, KnownFlow, Outcome, Question, ServiceIndex, Why};
use loaded_table::{Flow, FlowState};
use std::net::IpAddr;

/// An IPv6 header and one of TCP, the longest of those below.
const LONGEST: usize = 40 + 20;
const SYN: u8 = 2;
const ACK: u8 = 16;

impl Decider {
    /// What would become of a client's next packet, as things are. It is decided about by the same functions as one that
    /// comes; only what a backend has left unanswered for so long that it is to be ejected is seen at the next
    /// [`Decider::tick`].
    #[must_use]
    #[cold]
    pub fn explain(&self, question: &Question, now: Now) -> Explained {
        let mut assumed = if question.protocol == protocol::TCP { Assumed::Syn } else { Assumed::Any };
        let mut room = [0; LONGEST + SPARE];
        let mut length = write(question, assumed, &mut room);
        let mut look = self.look(&room[..length], PacketFacts::WHOLE);
        if assumed == Assumed::Syn && self.goes_on(&look, now) {
            assumed = Assumed::Ack;
            length = write(question, assumed, &mut room);
            look = self.look(&room[..length], PacketFacts::WHOLE);
        }
        let place = Place { room: &mut room, length, facts: PacketFacts::WHOLE };
        let (packet, wanted) = match (&look.packet, &look.wanted) {
            (Ok(packet), Some(wanted)) => (packet, wanted),
            (Ok(packet), None) => return ends(assumed, self.without_flow(packet)),
            (Err(_), _) => return ends(assumed, self.malformed()),
        };
        match wanted.way {
            Direction::Request { vip } => self.explain_request(packet, wanted, vip, (assumed, place), now),
            // Not to a virtual IP.
            Direction::Reply => ends(assumed, Outcome::PassedOwn),
        }
    }

    /// Whether the packet is of a flow whose next packet is hardly one that opens a connection.
    fn goes_on(&self, look: &Lookup, now: Now) -> bool {
        let (Ok(packet), Some(wanted)) = (&look.packet, &look.wanted) else { return false };
        let state = self.find(packet, wanted, now).map(|(_, flow)| flow.state);
        state.is_some_and(|state| state != FlowState::HalfOpen && !is_over(state))
    }

    fn explain_request(
        &self,
        packet: &Packet,
        wanted: &Wanted,
        vip: u16,
        (assumed, place): (Assumed, Place<'_>),
        now: Now,
    ) -> Explained {
        let known = self.find(packet, wanted, now);
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
        let course = old.map_or(Course::Anew, |flow| self.course_now(packet, flow));
        let (service, backend, why, outcome) = match (course, old) {
            (Course::Ahead, Some(flow)) => (flow.service, flow.backend, Why::Flow, Outcome::Forwarded),
            (Course::Reset, Some(flow)) => {
                let answered = wire::reset(place.room, packet).is_some();
                let outcome = if answered { Outcome::AnsweredReset } else { Outcome::DroppedNoBackend };
                return end(Some(flow.service), outcome);
            }
            (Course::Unreachable, Some(flow)) => {
                let outcome = unreachable(packet, place, Outcome::AnsweredUnreachable).outcome;
                return end(Some(flow.service), outcome);
            }
            _ => match self.would_admit(packet, wanted, vip, old, now) {
                Ok((service, backend, why)) => (service, backend, why, Outcome::ForwardedNew),
                Err((service, Refusal::As(outcome))) => return end(service, outcome),
                Err((_, Refusal::NoBackend { service })) => {
                    return end(Some(service), self.refuse(packet, service, place).outcome);
                }
            },
        };
        if self.setup.backend(backend).is_none() {
            return end(Some(service), Outcome::DroppedNoBackend);
        }
        let chosen = Some(Chosen { backend: BackendIndex(backend), why });
        Explained { chosen, ..end(Some(service), outcome) }
    }

    /// As [`Decider::admit`], without letting anything in. The service comes along as soon as it is known.
    fn would_admit(
        &self,
        packet: &Packet,
        wanted: &Wanted,
        vip: u16,
        old: Option<Flow>,
        now: Now,
    ) -> Result<(u16, u16, Why), (Option<u16>, Refusal)> {
        let Claim { service, source } = self.claim(packet, wanted, vip, old, now).map_err(|refusal| (None, refusal))?;
        let refused = |refusal| (Some(service), refusal);
        let (backend, why) = match source {
            Source::Client { slot, backend } => {
                (backend, Why::Client { idle: self.clients.idle(slot, now.seconds).unwrap_or(0) })
            }
            Source::Choice { seed, .. } => {
                let balancer = self.setup.balancer(service, packet.family);
                let none = refused(Refusal::NoBackend { service });
                let (balancer, chosen) =
                    balancer.and_then(|balancer| Some((balancer, balancer.would_choose(&seed)?))).ok_or(none)?;
                let candidates = u16::try_from(balancer.candidates()).unwrap_or(u16::MAX);
                (chosen.0, Why::Strategy { candidates })
            }
        };
        if self.clashes(wanted, vip, backend, now) {
            return Err(refused(Refusal::As(Outcome::DroppedClash)));
        }
        if !self.flows.has_room(&wanted.hashed, &wanted.key, vip, now.seconds) {
            return Err(refused(Refusal::As(Outcome::DroppedTableFull)));
        }
        Ok((service, backend, why))
    }
}

/// A packet that is no request to a virtual IP, or none that could have a flow.
fn ends(assumed: Assumed, outcome: Outcome) -> Explained {
    Explained { assumed, outcome, service: None, flow: None, chosen: None }
}

/// Writes the packet of a question, as far as decisions look at it, and returns its length: 0 if its addresses are of two
/// families.
fn write(question: &Question, assumed: Assumed, room: &mut [u8; LONGEST + SPARE]) -> usize {
    room.fill(0);
    let (from, to) = (address(question.client), address(question.vip));
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
            // The header is of five words.
            upper[12] = 5 << 4;
            upper[13] = if assumed == Assumed::Ack { ACK } else { SYN };
            20
        }
        protocol::UDP => {
            upper[..4].copy_from_slice(&ports);
            // Its length, and a checksum, which must not be missing over IPv6 (RFC 8200 §8.1).
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
    let Some(packet) = room.get_mut(..all) else { return 0 };
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
