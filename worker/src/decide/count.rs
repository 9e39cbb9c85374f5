//! What is counted of flows and clients: for the strategy that wants to know, and for the operator.

use super::Decider;
use crate::wire::is_mapped;
use loaded_ipc::{BackendCounter, BackendIndex, MAX_BACKEND_INDEX};
use loaded_table::Flow;

impl Decider {
    /// Takes over the tables: drops what names an index that this configuration does not have, or things that do not
    /// belong together, and counts the rest.
    pub(super) fn adopt(&mut self) {
        let Self { setup, memories, flows, clients, counters, .. } = self;
        for index in 0..MAX_BACKEND_INDEX {
            for counter in [BackendCounter::Flows, BackendCounter::View] {
                counters.set(counter.index(BackendIndex(index)), 0);
            }
        }
        flows.retain(|key, flow| {
            let vip = setup.vip_address(flow.vip).is_some_and(|vip| is_mapped(vip) == is_mapped(&key.client));
            let keep = vip && setup.belongs(flow.service, flow.backend, &key.client);
            if keep {
                counters.add(BackendCounter::Flows.index(BackendIndex(flow.backend)), 1);
                if memories.timeout(flow.service) == 0 {
                    setup.count_client(flow.service, flow.backend, true);
                }
            }
            keep
        });
        clients.retain(|key, client| {
            // A service that has lost its affinity counts its flows.
            let keep =
                memories.timeout(client.service) > 0 && setup.belongs(client.service, client.backend, &key.prefix);
            if keep {
                setup.count_client(client.service, client.backend, true);
            }
            keep
        });
    }

    /// Takes expired flows and clients out, a few buckets of each table at a time. `now` is in seconds.
    pub fn sweep(&mut self, now: u32, buckets: usize) {
        let Self { setup, memories, flows, clients, counters, .. } = self;
        flows.sweep(now, buckets, |_, flow| {
            counters.take(BackendCounter::Flows.index(BackendIndex(flow.backend)));
            if memories.timeout(flow.service) == 0 {
                setup.count_client(flow.service, flow.backend, false);
            }
        });
        clients.sweep(
            now,
            buckets,
            |service| memories.timeout(service),
            |client| setup.count_client(client.service, client.backend, false),
        );
    }

    /// A flow is in the table now.
    pub(super) fn count_added(&mut self, flow: &Flow) {
        let backend = BackendIndex(flow.backend);
        self.counters.add(BackendCounter::Flows.index(backend), 1);
        self.counters.add(BackendCounter::NewFlows.index(backend), 1);
        self.count_flow(flow, true);
    }

    /// A flow is in the table no more.
    pub(super) fn count_removed(&mut self, flow: &Flow) {
        self.counters.take(BackendCounter::Flows.index(BackendIndex(flow.backend)));
        self.count_flow(flow, false);
    }

    /// A packet of so many bytes is sent to a backend.
    #[inline]
    pub(super) fn sent(&self, backend: u16, bytes: usize) {
        self.counters.add(BackendCounter::PacketsTo.index(BackendIndex(backend)), 1);
        self.counters.add(BackendCounter::BytesTo.index(BackendIndex(backend)), bytes as u64);
    }

    /// A backend has sent a packet of so many bytes.
    #[inline]
    pub(super) fn received(&self, backend: u16, bytes: usize) {
        self.counters.add(BackendCounter::PacketsFrom.index(BackendIndex(backend)), 1);
        self.counters.add(BackendCounter::BytesFrom.index(BackendIndex(backend)), bytes as u64);
    }

    /// Where a service has no affinity, its flows are its clients.
    fn count_flow(&mut self, flow: &Flow, more: bool) {
        if self.memories.timeout(flow.service) == 0 {
            self.setup.count_client(flow.service, flow.backend, more);
        }
    }
}
