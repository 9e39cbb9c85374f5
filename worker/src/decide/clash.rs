//! Flows that cannot share a backend. A reply names its backend and its client, but not the VIP and the port that the
//! client used. So two flows of one client to one backend, through two VIPs or through two ports that become one, must
//! differ in a port: otherwise neither this worker nor the backend could tell them apart. A new flow that would clash
//! gets another backend, and its client keeps the one it has for its other flows.

use super::admit::BackendSource;
use super::decider::Decider;
use super::keys::{FlowQuery, client_key};
use super::own::is_own;
use crate::time::Now;
use crate::wire::{ParsedPacket, protocol};
use loaded_ipc::{BackendIndex, Mode};
use loaded_table::Flow;
use std::cell::Cell;

/// Maximum number of flows with one key: those of two buckets of eight. A new flow may clash with flows of several
/// keys, but two keys that both have flows are rare.
const MOST: usize = 16;

/// The flows that a new one may clash with: each by its backend and its port at a VIP.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    flows: [(u16, u16); MOST],
    /// How many there are, which may be more than are noted.
    count: usize,
}

impl Taken {
    /// All of them; `None`: there are more than can be noted, so nothing is known to be free.
    pub(super) fn all(&self) -> Option<&[(u16, u16)]> {
        self.flows.get(..self.count)
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// `port` is in the flow's key.
    fn with(mut self, flow: &Flow, port: u16) -> Self {
        if let Some(place) = self.flows.get_mut(self.count) {
            *place = (flow.backend, if is_own(flow) { port } else { flow.vip_port });
        }
        self.count += 1;
        self
    }
}

impl Decider {
    /// Returns `source`, or another one if the flow would clash at its backend. Changes nothing.
    #[inline]
    pub(super) fn without_clash(
        &self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        (vip, service): (u16, u16),
        source: BackendSource,
        now: Now,
    ) -> BackendSource {
        let may_clash = |flow: &Flow| self.may_clash(flow, query, vip);
        let met = self.flows.find(&query.hashed, &query.key, now.seconds, may_clash).is_some();
        match met || query.either && !self.taken(query, (vip, service), now).is_empty() {
            false => source,
            true => self.around_taken(packet, query, (vip, service), source, now).unwrap_or(source),
        }
    }

    /// Where the backend comes from if the flow would clash at the one that `source` gives.
    #[cold]
    fn around_taken(
        &self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        (vip, service): (u16, u16),
        source: BackendSource,
        now: Now,
    ) -> Option<BackendSource> {
        let (affinity, mode) = self.setup.service(service).map(|service| (service.affinity, service.mode))?;
        let (first, seed, client) = match source {
            BackendSource::Affinity { backend, .. } => (backend, client_key(packet, &affinity?, service).prefix, None),
            BackendSource::Strategy { seed, client } => {
                (self.setup.balancer(service, packet.family)?.would_choose(&seed)?.0, seed, client)
            }
            BackendSource::Elsewhere { .. } => return None,
        };
        // Replies of direct backends do not come this way.
        let taken = self.taken(query, (vip, service), now);
        let clashes =
            mode == Mode::Nat && taken.all().is_none_or(|taken| self.setup.shares_place((first, query.port), taken));
        clashes.then_some(BackendSource::Elsewhere { seed, client, instead_of: BackendIndex(first) })
    }

    /// All flows that a new one to this VIP and service may clash with.
    pub(super) fn taken(&self, query: &FlowQuery, (vip, service): (u16, u16), now: Now) -> Taken {
        let taken = Cell::new(Taken::default());
        let note = |flow: &Flow, port: u16| {
            if self.may_clash(flow, query, vip) {
                taken.set(taken.get().with(flow, port));
            }
            false
        };
        // `note` accepts no flow, so the search shows it all of them.
        let named = query.key.service_port;
        let _ = self.flows.find(&query.hashed, &query.key, now.seconds, |flow| note(flow, named));
        let service = self.setup.service(service).filter(|_| query.either);
        let crossing = service.iter().flat_map(|service| service.crossing.iter().copied());
        let own = service.filter(|service| service.keeps_ports).map(|_| query.port);
        for port in crossing.chain(own).filter(|port| *port != query.key.service_port) {
            let (key, hashed) = self.with_port(query, port);
            let _ = self.flows.find(&hashed, &key, now.seconds, |flow| note(flow, port));
        }
        taken.get()
    }

    /// Whether a new flow of the same client's port to this VIP may not have the backend of this flow. A connection of a backend's own
    /// that is not open may be forged, and is in nobody's way; and without TCP's numbers nothing shows that it is open: to a forged
    /// SCTP packet every host answers, by an ABORT at least.
    fn may_clash(&self, flow: &Flow, query: &FlowQuery, vip: u16) -> bool {
        (flow.vip, flow.vip_port) != (vip, query.port)
            && !self.setup.is_direct(flow.backend)
            && (!is_own(flow) || flow.state.is_kept() && query.key.protocol == protocol::TCP)
    }
}
