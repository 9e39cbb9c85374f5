//! Flows that cannot have one backend together. A reply names its backend and its client but not the VIP, so a client's two
//! flows through two VIPs to one backend must differ in a port; the backend could not tell them apart either. A new flow
//! that would clash gets another backend, and its client keeps the one it has for its other flows.

use super::admit::BackendSource;
use super::decider::Decider;
use super::keys::{FlowQuery, client_key};
use crate::time::Now;
use crate::wire::ParsedPacket;
use loaded_ipc::{BackendIndex, Mode};
use loaded_table::Flow;
use std::cell::Cell;

/// Maximum number of flows of one key: it can lie in two buckets of eight.
const MOST: usize = 16;

/// The backends of the flows that a new one would clash with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    backends: [u16; MOST],
    count: usize,
}

impl Taken {
    pub(super) fn as_slice(&self) -> &[u16] {
        self.backends.get(..self.count).unwrap_or_default()
    }

    fn with(mut self, backend: u16) -> Self {
        if let Some(place) = self.backends.get_mut(self.count) {
            *place = backend;
            self.count += 1;
        }
        self
    }
}

impl Decider {
    /// The same source, or another one if the backend it gives is taken. Changes nothing.
    #[inline]
    pub(super) fn without_clash(
        &self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        (vip, service): (u16, u16),
        source: BackendSource,
        now: Now,
    ) -> BackendSource {
        match self.flows.find(&query.hashed, &query.key, now.seconds, |flow| self.may_clash(flow, vip)) {
            None => source,
            Some(_) => self.around_taken(packet, query, (vip, service), source, now).unwrap_or(source),
        }
    }

    /// Where the backend comes from if the one that the source gives is taken.
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
        let clashes = mode == Mode::Nat && self.setup.shares_address(first, self.taken(query, vip, now).as_slice());
        clashes.then_some(BackendSource::Elsewhere { seed, client, instead_of: BackendIndex(first) })
    }

    /// The backends of all flows that a new one to this VIP would clash with.
    pub(super) fn taken(&self, query: &FlowQuery, vip: u16, now: Now) -> Taken {
        let taken = Cell::new(Taken::default());
        let note = |flow: &Flow| {
            if self.may_clash(flow, vip) {
                taken.set(taken.get().with(flow.backend));
            }
            false
        };
        // Refuses every flow, so all are seen.
        let _ = self.flows.find(&query.hashed, &query.key, now.seconds, note);
        taken.get()
    }

    /// Whether a new flow of the same key to this VIP cannot have the backend of this flow.
    fn may_clash(&self, flow: &Flow, vip: u16) -> bool {
        flow.vip != vip && !self.setup.is_direct(flow.backend)
    }
}
