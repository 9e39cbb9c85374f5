//! Flows that the operator ends (`loaded flows --end`). The table is looked through a piece at a time, between batches. A flow that is
//! ended stays in the table, so that both sides can be told: TCP by a reset to whoever sends next, whatever `on_backend_down` says, for a
//! connection that went on to another backend would not have ended; UDP as `on_backend_down` says. The kernel path does not know the
//! state, and leaves all its packets to the worker.

use super::decider::{Decider, EndSweep};
use super::own::is_own;
use super::request::Course;
use crate::time::Now;
use crate::wire::{Kind, ParsedPacket, from_ip, is_mapped};
use loaded_ipc::{FlowsMeant, OnBackendDown};
use loaded_table::{Flow, FlowKey, FlowState, Slot};

/// The proof of a datagram flow that has ended, once its client was told so; 0 before.
const TOLD: u16 = 1;

impl Decider {
    /// Begins to end flows, in place of an order that is under way. [`Decider::end_some`] does it, until [`Decider::end_is_said`].
    pub fn begin_to_end(&mut self, id: u32, meant: FlowsMeant) {
        self.ending = Some(EndSweep { id, meant, next: 0, ended: 0 });
    }

    /// Whether there is an order to end flows.
    #[must_use]
    #[inline]
    pub fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// The order was carried out, and whoever gave it knows.
    #[cold]
    pub fn end_is_said(&mut self) {
        self.ending = None;
    }

    /// Ends the flows that are meant in the next `buckets` buckets of the table. After the last one, every time: the order's id, and how
    /// many were ended.
    #[cold]
    pub fn end_some(&mut self, buckets: u32, now: Now) -> Option<(u32, u32)> {
        let EndSweep { id, meant, next, ended } = self.ending.as_mut()?;
        let end = next.saturating_add(buckets);
        let setup = &self.setup;
        let is_meant = |key: &FlowKey, flow: &Flow| {
            let backend = setup.backend(flow.backend);
            // Nothing of a backend's own connections is listed, or rewritten.
            !is_own(flow)
                && meant.client.is_none_or(|client| is_in(&key.client, client))
                && meant.service.is_none_or(|service| setup.service_of(flow.backend) == service.0)
                && meant.state.is_none_or(|state| flow.state as u8 == state)
                && meant
                    .backend
                    .is_none_or(|address| backend.is_some_and(|backend| backend.address == from_ip(address)))
                && meant.port.is_none_or(|port| backend.is_some_and(|backend| backend.port == Some(port)))
        };
        *ended = ended.saturating_add(self.flows.end(*next..end, now.seconds, is_meant));
        *next = end;
        (end as usize >= self.flows.buckets()).then_some((*id, *ended))
    }

    /// The client of a datagram flow is told that it has ended. One that the operator has ended stays, for its backend may still send,
    /// and what that sends would begin the flow anew.
    #[cold]
    pub(super) fn tell_unreachable(&mut self, (slot, flow): (Slot, Flow), now: Now) {
        if flow.state == FlowState::Ended {
            self.flows.set_proof(slot, TOLD);
            self.flows.refresh(slot, now.seconds);
        } else if let Some(flow) = self.flows.remove(slot) {
            self.count_removed(&flow);
        }
    }

    /// What becomes of a client's packet whose flow the operator has ended.
    #[cold]
    pub(super) fn course_when_ended(&self, packet: &ParsedPacket, (slot, flow): (Slot, Flow)) -> Course {
        match packet.kind {
            Kind::Tcp(segment) if segment.opens() => Course::NewFlow,
            // A reset is never answered. It tells the backend.
            Kind::Tcp(segment) if segment.resets() => Course::Forward,
            Kind::Tcp(_) => Course::Reset,
            Kind::Udp { .. }
                if self.on_backend_down(flow) == OnBackendDown::Reset && self.flows.proof(slot) != TOLD =>
            {
                Course::Unreachable
            }
            _ => Course::NewFlow,
        }
    }
}

/// Whether a client is in a network: an address, and the number of its leading bits that count.
fn is_in(client: &[u8; 16], (network, length): (std::net::IpAddr, u8)) -> bool {
    if is_mapped(client) != network.is_ipv4() {
        return false;
    }
    // IPv4 has 96 bits before it.
    let length = u32::from(length) + if network.is_ipv4() { 96 } else { 0 };
    let differs = u128::from_be_bytes(*client) ^ u128::from_be_bytes(from_ip(network));
    128_u32.checked_sub(length).is_some_and(|rest| differs.checked_shr(rest).unwrap_or(0) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::mapped;

    #[test]
    fn a_client_is_in_its_network_and_in_no_other() {
        let v4 = mapped([203, 0, 113, 9]);
        let network = |text: &str, length| (text.parse().expect("address"), length);
        for (client, network, is_it) in [
            (v4, network("203.0.113.0", 24), true),
            (v4, network("203.0.113.9", 32), true),
            (v4, network("203.0.113.8", 32), false),
            (v4, network("0.0.0.0", 0), true),
            (v4, network("2001:db8::", 32), false),
            (v4, network("::", 0), false),
            (from_ip("2001:db8::9".parse().expect("address")), network("2001:db8::", 64), true),
            (from_ip("2001:db8::9".parse().expect("address")), network("0.0.0.0", 0), false),
            (from_ip("2001:db8::9".parse().expect("address")), network("::", 0), true),
        ] {
            assert_eq!(is_in(&client, network), is_it, "{network:?}");
        }
    }
}
