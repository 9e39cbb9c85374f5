//! Which port is in the key of a flow. Both directions must make the same key, each from its own packet: a request
//! names the port at the VIP, a reply the port at the backend.
//!
//! A backend without a port of its own is reached at the port that the client names, so that port is in the key. A
//! backend with a port is reached there, whatever the client names, so the key has 0. The port at the VIP is then
//! stored beside the VIP, and all flows from one port of a client through changed ports share a key: at most sixteen of
//! them, two buckets of eight, can exist at once. In return, a key depends on one fact of the configuration alone,
//! whether its backend has a port, and that does not change as long as there is that backend; and flows that clash at a
//! backend are found by their key (see `super::clash`).
//!
//! Where some backends have a port and others have none, a request does not tell which of the two keys its flow has.
//! The likelier one is tried first, then the other. Where no backend has a port, all this costs is the test of one bit.

use super::decider::Decider;
use super::keys::{Direction, FlowQuery, backend_side, flow_key};
use crate::time::Now;
use crate::wire::{Kind, ParsedPacket, protocol};
use loaded_table::{Flow, FlowKey, Hashed, Slot};

/// The key's port where the client and the backend use different ones.
const CHANGED: u16 = 0;

impl Decider {
    /// The flow a packet would belong to, if it is of a kind that has flows and is addressed to a VIP or comes from a backend.
    #[inline(always)]
    pub(super) fn query(&self, packet: &ParsedPacket) -> Option<FlowQuery> {
        let direction = match self.setup.vip(&packet.destination) {
            Some(vip) => Direction::Request { vip },
            None if self.setup.is_backend(backend_side(packet)) => Direction::Reply,
            None if is_ported(packet) && self.setup.is_backend(&packet.destination) => Direction::Past,
            None => return None,
        };
        let mut key = flow_key(packet, direction)?;
        let (port, mut either) = (key.service_port, false);
        if self.setup.changes_ports() && protocol::has_ports(key.protocol) {
            (key.service_port, either) = self.key_port(packet, direction, &key);
        }
        Some(FlowQuery { direction, key, hashed: self.flows.prepare(&key), port, either })
    }

    /// The port of the likelier key of a packet, and whether its flow may have the other key. `named` has the packet's port.
    #[inline(never)]
    fn key_port(&self, packet: &ParsedPacket, direction: Direction, named: &FlowKey) -> (u16, bool) {
        let port = named.service_port;
        if !self.setup.keeps_ports() {
            return (CHANGED, false);
        }
        match direction {
            Direction::Request { vip } => {
                let service =
                    self.setup.service_at(vip, named.protocol, port).and_then(|index| self.setup.service(index));
                let changes = service.is_some_and(|service| service.changes_ports);
                (if changes { CHANGED } else { port }, true)
            }
            Direction::Reply | Direction::Past => {
                let backend = if direction == Direction::Past { &packet.destination } else { backend_side(packet) };
                let changes = self.setup.changes_ports_to(backend, port);
                (if changes { CHANGED } else { port }, changes)
            }
        }
    }

    /// The key that a packet's flow has at this backend.
    pub(super) fn key_at(&self, query: &FlowQuery, backend: u16) -> (FlowKey, Hashed) {
        let changes = self.setup.backend(backend).is_some_and(|backend| backend.port.is_some());
        self.with_port(query, if changes { CHANGED } else { query.port })
    }

    /// The packet's key with this port.
    pub(super) fn with_port(&self, query: &FlowQuery, port: u16) -> (FlowKey, Hashed) {
        if query.key.service_port == port {
            return (query.key, query.hashed);
        }
        let key = FlowKey { service_port: port, ..query.key };
        (key, self.flows.prepare(&key))
    }

    /// Looks for the flow under the less likely key.
    #[cold]
    pub(super) fn find_other(
        &self,
        query: &FlowQuery,
        now: Now,
        accept: impl Fn(&Flow) -> bool,
    ) -> Option<(Slot, Flow)> {
        let (key, hashed) = self.with_port(query, if query.key.service_port == CHANGED { query.port } else { CHANGED });
        self.flows.find_flow(&hashed, &key, now.seconds, accept)
    }

    /// Removes a flow that continues at another backend, under another key.
    #[cold]
    pub(super) fn remove_left_behind(&mut self, query: &FlowQuery, vip: u16, old: Flow, now: Now) {
        let (key, hashed) = self.key_at(query, old.backend);
        let is_old = |flow: &Flow| (flow.vip, flow.vip_port, flow.backend) == (vip, query.port, old.backend);
        if let Some(slot) = self.flows.find(&hashed, &key, now.seconds, is_old)
            && let Some(flow) = self.flows.remove(slot)
        {
            self.count_removed(&flow);
        }
    }
}

/// Whether it is of a protocol whose connections past the virtual IPs are noted.
fn is_ported(packet: &ParsedPacket) -> bool {
    matches!(packet.kind, Kind::Tcp(_) | Kind::Udp { .. } | Kind::Sctp { .. })
}
