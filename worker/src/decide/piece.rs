//! Pieces of datagrams: the first is decided like a whole packet, the others go the same way.

use super::fragments::{Datagram, Fate, Met};
use super::{Decided, Decider, Direction, Lookup, Now, Place, Wanted};
use crate::wire::{self, ChecksumState, Fragment, Kind, Packet, Side};
use loaded_ipc::Outcome;

impl Decider {
    /// [`Outcome::RepeatedFragment`]: the first piece has not come, and this one had better wait.
    #[cold]
    pub(super) fn piece(&mut self, packet: &Packet, mut place: Place<'_>, now: Now) -> Decided {
        let ours = self.setup.vip(&packet.destination).is_some() || self.setup.is_backend(&packet.source);
        if !ours {
            return place.stays(Outcome::PassedForeign);
        }
        if place.facts.cut {
            return place.stays(Outcome::DroppedCut);
        }
        let Some(piece) = wire::fragment(place.bytes(), packet) else { return place.stays(self.malformed()) };
        let datagram = Datagram::of(packet, &piece);
        match self.fragments.meet(&datagram, &piece, now.millis) {
            Met::First => self.first(packet, &datagram, &piece, place, now),
            Met::Later(fate) => self.later(packet, fate, place),
            Met::Early => place.stays(Outcome::RepeatedFragment),
            Met::Unfit => place.stays(Outcome::DroppedFragment),
        }
    }

    /// The datagram that a packet, not yet decided or held back, is a piece of.
    #[must_use]
    pub fn datagram(look: &Lookup, bytes: &[u8]) -> Option<Datagram> {
        let packet = look.packet.as_ref().ok()?;
        Some(Datagram::of(packet, &wire::fragment(bytes, packet)?))
    }

    /// Whether the pieces of a datagram need not wait any more.
    #[must_use]
    pub fn knows(&self, datagram: &Datagram, now: Now) -> bool {
        self.fragments.knows(datagram, now.millis)
    }

    fn first(
        &mut self,
        packet: &Packet,
        datagram: &Datagram,
        piece: &Fragment,
        mut place: Place<'_>,
        now: Now,
    ) -> Decided {
        // Who makes pieces makes the checksum before; and one of a part would be of no use.
        place.facts.checksum = ChecksumState::Complete;
        let malformed = self.malformed();
        let (decided, fate) = match wire::parse_first(place.bytes(), packet) {
            Err(_) => (place.stays(malformed), Some(staying(malformed))),
            Ok(whole) if wire::lacks_checksum(place.bytes(), &whole) => {
                (place.stays(malformed), Some(staying(malformed)))
            }
            // No error is so long that it would be cut up (RFC 1812 §4.3.2.3, RFC 4443 §2.4).
            Ok(Packet { kind: Kind::Error(_), .. }) => (place.stays(Outcome::DroppedFragment), None),
            Ok(whole) => self.decide_first(&whole, place, now),
        };
        let fate = fate.unwrap_or(Fate::Stays(Outcome::DroppedFragment));
        self.fragments.settle(datagram, piece, fate, now.millis);
        decided
    }

    fn decide_first(&mut self, whole: &Packet, place: Place<'_>, now: Now) -> (Decided, Option<Fate>) {
        let Some((way, key)) = self.key(whole) else {
            let outcome = self.without_flow(whole);
            return (place.stays(outcome), Some(staying(outcome)));
        };
        let wanted = Wanted { way, key, hashed: self.flows.prepare(&key) };
        let decided = match way {
            Direction::Request { vip } => self.request(whole, &wanted, vip, place, now),
            Direction::Reply => self.reply(whole, &wanted, place, now),
        };
        let flow = self.find(whole, &wanted, now).map(|(_, flow)| flow);
        let fate = match (decided.outcome, flow) {
            (Outcome::Forwarded | Outcome::ForwardedNew, Some(flow)) => Fate::Request { backend: flow.backend },
            (Outcome::Returned, Some(flow)) => Fate::Reply { backend: flow.backend, vip: flow.vip },
            (outcome, _) => staying(outcome),
        };
        (decided, Some(fate))
    }

    fn later(&self, packet: &Packet, fate: Fate, mut place: Place<'_>) -> Decided {
        let (side, backend, address, outcome) = match fate {
            Fate::Stays(outcome) => return place.stays(outcome),
            Fate::Request { backend } => {
                (Side::Destination, backend, self.setup.backend_address(backend), Outcome::Forwarded)
            }
            Fate::Reply { backend, vip } => (Side::Source, backend, self.setup.vip_address(vip), Outcome::Returned),
        };
        let Some(address) = address else { return place.stays(Outcome::DroppedFragment) };
        let direct = self.setup.is_direct(backend);
        if !direct {
            wire::replace(place.bytes(), packet, side, address, ChecksumState::Complete);
        }
        match side {
            Side::Destination => self.sent(backend, place.length),
            Side::Source => self.received(backend, place.length),
        }
        place.goes(outcome, backend, direct)
    }
}

/// What passes, passes in all its pieces. What was dropped or answered goes no further.
fn staying(outcome: Outcome) -> Fate {
    use Outcome as O;
    match outcome {
        O::PassedForeign
        | O::PassedOwn
        | O::PassedUnserved
        | O::PassedNeighbour
        | O::PassedMalformed
        | O::DroppedUnserved => Fate::Stays(outcome),
        _ => Fate::Stays(O::DroppedFragment),
    }
}
