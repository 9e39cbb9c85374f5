//! Decides about fragments: the first one like a whole packet; the others follow it.

use super::decider::{Decided, Decider, Lookup, PacketBuffer};
use super::fragment_table::{Datagram, Disposition, FragmentStatus};
use super::keys::Direction;
use crate::time::Now;
use crate::wire::{self, ChecksumState, Endpoint, Fragment, Kind, ParsedPacket, Replacement};
use loaded_ipc::Outcome;

impl Decider {
    /// Decides about a fragment. [`Outcome::RepeatedFragment`]: the first one has not come yet, and this one should wait.
    #[cold]
    pub(super) fn fragment(&mut self, packet: &ParsedPacket, mut buffer: PacketBuffer<'_>, now: Now) -> Decided {
        let ours = self.setup.vip(&packet.destination).is_some() || self.setup.is_backend(&packet.source);
        if !ours {
            return self.fragment_past(packet, buffer, now);
        }
        if buffer.facts.cut {
            return buffer.unchanged(Outcome::DroppedCut);
        }
        let Some(fragment) = wire::fragment(buffer.bytes(), packet) else { return buffer.unchanged(self.malformed()) };
        let datagram = Datagram::of(packet, &fragment);
        match self.fragments.add(&datagram, &fragment, now.millis) {
            FragmentStatus::First => self.first(packet, &datagram, &fragment, buffer, now),
            FragmentStatus::Later(disposition) => self.later(packet, disposition, buffer),
            FragmentStatus::BeforeFirst => buffer.unchanged(Outcome::RepeatedFragment),
            FragmentStatus::Rejected => buffer.unchanged(Outcome::DroppedFragment),
        }
    }

    /// A fragment to a backend's own address, or between strangers. All pass, whatever they are; the first one of a datagram to a
    /// backend's port is noted as the beginning of a connection of its own, as a whole one would be.
    fn fragment_past(&mut self, packet: &ParsedPacket, mut buffer: PacketBuffer<'_>, now: Now) -> Decided {
        let foreign = buffer.unchanged(Outcome::PassedForeign);
        let is_first = |fragment: Fragment| fragment.offset == 0;
        if !self.setup.is_backend(&packet.destination) || !wire::fragment(buffer.bytes(), packet).is_some_and(is_first)
        {
            return foreign;
        }
        match wire::parse_first(buffer.bytes(), packet).ok().and_then(|whole| Some((whole, self.query(&whole)?))) {
            Some((whole, query)) if query.direction == Direction::Past => {
                buffer.unchanged(self.past(&whole, &query, now))
            }
            _ => foreign,
        }
    }

    /// The datagram of which a packet, not yet rewritten, is a fragment.
    #[must_use]
    pub fn datagram(lookup: &Lookup, bytes: &[u8]) -> Option<Datagram> {
        let packet = lookup.packet.as_ref().ok()?;
        Some(Datagram::of(packet, &wire::fragment(bytes, packet)?))
    }

    /// Whether the first fragment of a datagram has come, so that the others need not wait any more.
    #[must_use]
    pub fn knows(&self, datagram: &Datagram, now: Now) -> bool {
        self.fragments.knows(datagram, now.millis)
    }

    fn first(
        &mut self,
        packet: &ParsedPacket,
        datagram: &Datagram,
        fragment: &Fragment,
        mut buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        // A datagram's checksum is complete before it is fragmented.
        buffer.facts.checksum = ChecksumState::Complete;
        let malformed = self.malformed();
        let (decided, disposition) = match wire::parse_first(buffer.bytes(), packet) {
            Err(_) => (buffer.unchanged(malformed), Some(not_forwarded(malformed))),
            Ok(whole) if wire::lacks_checksum(buffer.bytes(), &whole) => {
                (buffer.unchanged(malformed), Some(not_forwarded(malformed)))
            }
            // No ICMP error is long enough to be fragmented (RFC 1812 §4.3.2.3, RFC 4443 §2.4).
            Ok(ParsedPacket { kind: Kind::Error(_), .. }) => (buffer.unchanged(Outcome::DroppedFragment), None),
            // A new checksum would take the whole packet, which is not here. No configuration needs this.
            Ok(ParsedPacket { kind: Kind::Sctp { .. }, .. }) if self.setup.changes_sctp_ports() => {
                (buffer.unchanged(Outcome::DroppedFragment), None)
            }
            Ok(whole) => self.decide_first(&whole, buffer, now),
        };
        let disposition = disposition.unwrap_or(Disposition::NotForwarded(Outcome::DroppedFragment));
        self.fragments.remember(datagram, fragment, disposition, now.millis);
        decided
    }

    fn decide_first(
        &mut self,
        whole: &ParsedPacket,
        buffer: PacketBuffer<'_>,
        now: Now,
    ) -> (Decided, Option<Disposition>) {
        let Some(query) = self.query(whole) else {
            let outcome = self.without_flow(whole);
            return (buffer.unchanged(outcome), Some(not_forwarded(outcome)));
        };
        let decided = match query.direction {
            Direction::Request { vip } => self.request(whole, &query, vip, buffer, now),
            Direction::Reply => self.reply(whole, &query, buffer, now),
            // Not ours, and never here.
            Direction::Past => buffer.unchanged(Outcome::PassedForeign),
        };
        let flow = self.find(whole, &query, now).map(|(_, flow)| flow);
        let disposition = match (decided.outcome, flow) {
            (Outcome::Forwarded | Outcome::ForwardedNew, Some(flow)) => Disposition::Request { backend: flow.backend },
            (Outcome::Returned, Some(flow)) => Disposition::Reply { backend: flow.backend, vip: flow.vip },
            (outcome, _) => not_forwarded(outcome),
        };
        (decided, Some(disposition))
    }

    fn later(&self, packet: &ParsedPacket, disposition: Disposition, mut buffer: PacketBuffer<'_>) -> Decided {
        let (endpoint, backend, address, outcome) = match disposition {
            Disposition::NotForwarded(outcome) => return buffer.unchanged(outcome),
            Disposition::Request { backend } => {
                (Endpoint::Destination, backend, self.setup.backend_address(backend), Outcome::Forwarded)
            }
            Disposition::Reply { backend, vip } => {
                (Endpoint::Source, backend, self.setup.vip_address(vip), Outcome::Returned)
            }
        };
        let Some(address) = address else { return buffer.unchanged(Outcome::DroppedFragment) };
        let direct = self.setup.is_direct(backend);
        if !direct {
            let new = Replacement { address, port: None };
            wire::replace(buffer.bytes(), packet, endpoint, new, ChecksumState::Complete);
        }
        match endpoint {
            Endpoint::Destination => self.count_sent(backend, buffer.length),
            Endpoint::Source => self.count_received(backend, buffer.length),
        }
        buffer.forwarded(outcome, backend, direct)
    }
}

/// What becomes of the other fragments of a datagram whose first one was not forwarded: if that one passed, so do they;
/// if it was dropped or answered, they are dropped.
fn not_forwarded(outcome: Outcome) -> Disposition {
    use Outcome as O;
    match outcome {
        O::PassedForeign
        | O::PassedOwn
        | O::PassedUnserved
        | O::PassedNeighbour
        | O::PassedMalformed
        | O::DroppedUnserved => Disposition::NotForwarded(outcome),
        _ => Disposition::NotForwarded(O::DroppedFragment),
    }
}
