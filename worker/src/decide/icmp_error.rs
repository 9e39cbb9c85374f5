//! ICMP errors about packets of flows. They do not keep a flow alive, since anyone can send one.

use super::decider::{Decided, Decider, PacketBuffer};
use super::keys::{Direction, FlowQuery, another_port};
use crate::time::Now;
use crate::wire::{self, Endpoint, Family, ParsedPacket, Quoted, Replacement};
use loaded_ipc::{Cause, Outcome};
use loaded_table::FlowState;

impl Decider {
    pub(super) fn icmp_error(
        &mut self,
        packet: &ParsedPacket,
        quoted: &Quoted,
        query: &FlowQuery,
        direction: Direction,
        mut buffer: PacketBuffer<'_>,
        now: Now,
    ) -> Decided {
        let outcome = match (direction, self.find(packet, query, now)) {
            (Direction::Request { .. }, Some((_, flow))) if quoted.source == packet.destination => {
                let Some(backend) = self.setup.backend(flow.backend) else {
                    return buffer.unchanged(Outcome::DroppedStrayError);
                };
                // It quotes what a direct backend has sent from the virtual IP, so the backend understands it unchanged.
                if backend.direct {
                    return buffer.forwarded(Outcome::ErrorForwarded, flow.backend, true);
                }
                let new = Replacement { address: &backend.address, port: backend.port };
                let outer = Some((Endpoint::Destination, new.address));
                wire::replace_in_error(buffer.bytes(), packet, quoted, outer, (Endpoint::Source, new));
                Outcome::ErrorForwarded
            }
            (Direction::Request { .. }, _) => Outcome::DroppedStrayError,
            (Direction::Reply, Some((slot, flow))) if quoted.source == packet.destination => {
                let Some(&vip) = self.setup.vip_address(flow.vip) else { return buffer.unchanged(Outcome::PassedOwn) };
                // Only the backend's own errors count against it, and only about the very SYN that was sent; anyone could send one in
                // a router's name.
                if flow.state == FlowState::HalfOpen
                    && packet.source == quoted.destination
                    && quoted.end == self.flows.proof(slot)
                    && is_unreachable(buffer.bytes(), packet)
                {
                    let refused = (flow.backend, flow.vip_port, Cause::Unreachable);
                    self.backends.refused(&mut self.setup, &self.counters, refused, now);
                }
                // Whichever host behind us sent it, it leaves with the VIP as its source: clients know no other
                // address, and nobody outside may see addresses of a private network (RFC 5508 §4.2.2).
                let from_backend = self.setup.is_backend(&packet.source);
                let outer = Some((Endpoint::Source, &vip));
                let new = Replacement { address: &vip, port: another_port(query, flow) };
                wire::replace_in_error(buffer.bytes(), packet, quoted, outer, (Endpoint::Destination, new));
                if from_backend { Outcome::ErrorReturned } else { Outcome::ErrorRelayed }
            }
            (Direction::Reply | Direction::Past, _) => Outcome::PassedOwn,
        };
        buffer.unchanged(outcome)
    }
}

/// Whether it is "destination unreachable" (RFC 792; RFC 4443 §3.1), but not "packet too big", which in IPv4 is code 4 of
/// it (RFC 1191).
fn is_unreachable(bytes: &[u8], packet: &ParsedPacket) -> bool {
    match (packet.family, bytes.get(packet.transport..packet.transport + 2)) {
        (Family::V4, Some(&[3, code])) => code != 4,
        (Family::V6, Some(&[1, _])) => true,
        _ => false,
    }
}
