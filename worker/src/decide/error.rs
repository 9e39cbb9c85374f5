//! ICMP errors about packets of flows. They do not keep a flow alive: anyone can send one.

use super::{Decided, Decider, Direction, Now, Place, Wanted};
use crate::wire::{self, Family, Packet, Quoted, Side};
use loaded_ipc::{Cause, Outcome};
use loaded_table::FlowState;

impl Decider {
    pub(super) fn error(
        &mut self,
        packet: &Packet,
        quoted: &Quoted,
        wanted: &Wanted,
        way: Direction,
        mut place: Place<'_>,
        now: Now,
    ) -> Decided {
        let outcome = match (way, self.find(packet, wanted, now)) {
            (Direction::Request { .. }, Some((_, flow))) if quoted.source == packet.destination => {
                let Some(backend) = self.setup.backend(flow.backend) else {
                    return place.stays(Outcome::DroppedStrayError);
                };
                // It quotes what a backend has sent under the virtual IP, and that is what the backend knows.
                if backend.direct {
                    return place.goes(Outcome::ErrorForwarded, flow.backend, true);
                }
                let backend = &backend.address;
                let outer = Some((Side::Destination, backend));
                wire::replace_in_error(place.bytes(), packet, quoted, outer, (Side::Source, backend));
                Outcome::ErrorForwarded
            }
            (Direction::Request { .. }, _) => Outcome::DroppedStrayError,
            (Direction::Reply, Some((_, flow))) if quoted.source == packet.destination => {
                let Some(&vip) = self.setup.vip_address(flow.vip) else { return place.stays(Outcome::PassedOwn) };
                // The backend's own word; a router's anyone could have sent in its name.
                if flow.state == FlowState::HalfOpen
                    && packet.source == quoted.destination
                    && is_unreachable(place.bytes(), packet)
                {
                    let refused = (flow.backend, wanted.key.service_port, Cause::Unreachable);
                    self.membership.refused(&mut self.setup, &self.counters, refused, now);
                }
                // Whoever behind us says it: clients know the VIP alone, and may not take anything from addresses of a
                // network that nobody outside can reach (RFC 5508 §4.2.2).
                let from_backend = self.setup.is_backend(&packet.source);
                let outer = Some((Side::Source, &vip));
                wire::replace_in_error(place.bytes(), packet, quoted, outer, (Side::Destination, &vip));
                if from_backend { Outcome::ErrorReturned } else { Outcome::ErrorRelayed }
            }
            (Direction::Reply, _) => Outcome::PassedOwn,
        };
        place.stays(outcome)
    }
}

/// Destination unreachable (RFC 792; RFC 4443 §3.1), but not "too big": over IPv4 that is code 4 of it (RFC 1191).
fn is_unreachable(bytes: &[u8], packet: &Packet) -> bool {
    match (packet.family, bytes.get(packet.transport..packet.transport + 2)) {
        (Family::V4, Some(&[3, code])) => code != 4,
        (Family::V6, Some(&[1, _])) => true,
        _ => false,
    }
}
