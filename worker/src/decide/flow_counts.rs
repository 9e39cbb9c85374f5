//! Counts flows, clients and traffic, for the strategy `weighted` and for the operator; expires table entries; takes over
//! the tables of an earlier worker. Outcomes are counted in `crate::forward`.

use super::decider::Decider;
use super::own::is_own;
use crate::wire::is_mapped;
use loaded_ipc::{BackendCounter, BackendIndex, MAX_BACKEND_INDEX, VIEWS};
use loaded_table::Flow;

impl Decider {
    /// Takes over the tables: removes entries that name an index this configuration does not have, or a service and a
    /// backend that do not belong together, and counts the rest.
    pub(super) fn adopt(&mut self) {
        let Self { setup, affinity_timeouts, flows, clients, counters, .. } = self;
        for index in 0..MAX_BACKEND_INDEX {
            for counter in [BackendCounter::Flows, BackendCounter::View] {
                counters.set(counter.index(BackendIndex(index)), 0);
            }
        }
        counters.add(VIEWS, 1);
        flows.retain(|key, flow| {
            let own = is_own(flow);
            let vip = own || setup.vip_address(flow.vip).is_some_and(|vip| is_mapped(vip) == is_mapped(&key.client));
            let service = setup.service_of(flow.backend);
            let changes = setup.backend(flow.backend).is_some_and(|backend| backend.port.is_some());
            let port = match own {
                true => flow.vip_port == flow.backend && changes == (key.service_port == 0),
                false => key.service_port == if changes { 0 } else { flow.vip_port },
            };
            let keep = vip && port && setup.belongs(service, flow.backend, &key.client);
            if keep && !own {
                counters.add(BackendCounter::Flows.index(BackendIndex(flow.backend)), 1);
                if affinity_timeouts.seconds(service) == 0 {
                    setup.count_client(service, flow.backend, true);
                }
            }
            keep
        });
        clients.retain(|key, client| {
            // A service without affinity, even if it had one before, counts its flows.
            let keep = affinity_timeouts.seconds(client.service) > 0
                && setup.belongs(client.service, client.backend, &key.prefix);
            if keep {
                setup.count_client(client.service, client.backend, true);
            }
            keep
        });
    }

    /// Removes expired flows and clients, looking at `buckets` buckets of each table. `now` is in seconds.
    pub fn sweep(&mut self, now: u32, buckets: usize) {
        let Self { setup, affinity_timeouts, flows, clients, counters, .. } = self;
        flows.sweep(now, buckets, |_, flow| {
            if is_own(flow) {
                return;
            }
            counters.take(BackendCounter::Flows.index(BackendIndex(flow.backend)));
            let service = setup.service_of(flow.backend);
            if affinity_timeouts.seconds(service) == 0 {
                setup.count_client(service, flow.backend, false);
            }
        });
        clients.sweep(
            now,
            buckets,
            |service| affinity_timeouts.seconds(service),
            |client| setup.count_client(client.service, client.backend, false),
        );
    }

    /// Counts a flow that was put into the table.
    pub(super) fn count_added(&mut self, flow: &Flow) {
        let backend = BackendIndex(flow.backend);
        self.counters.add(BackendCounter::Flows.index(backend), 1);
        self.counters.add(BackendCounter::NewFlows.index(backend), 1);
        self.count_flow(flow, true);
    }

    /// Counts a flow that has left the table. One of a backend's own was not counted.
    pub(super) fn count_removed(&mut self, flow: &Flow) {
        if is_own(flow) {
            return;
        }
        self.counters.take(BackendCounter::Flows.index(BackendIndex(flow.backend)));
        self.count_flow(flow, false);
    }

    /// Counts a packet of `bytes` bytes to a backend.
    #[inline]
    pub(super) fn count_sent(&self, backend: u16, bytes: usize) {
        self.counters.add(BackendCounter::PacketsTo.index(BackendIndex(backend)), 1);
        self.counters.add(BackendCounter::BytesTo.index(BackendIndex(backend)), bytes as u64);
    }

    /// Counts a packet of `bytes` bytes from a backend.
    #[inline]
    pub(super) fn count_received(&self, backend: u16, bytes: usize) {
        self.counters.add(BackendCounter::PacketsFrom.index(BackendIndex(backend)), 1);
        self.counters.add(BackendCounter::BytesFrom.index(BackendIndex(backend)), bytes as u64);
    }

    /// In a service without affinity each flow counts as a client.
    fn count_flow(&mut self, flow: &Flow, more: bool) {
        let service = self.setup.service_of(flow.backend);
        if self.affinity_timeouts.seconds(service) == 0 {
            self.setup.count_client(service, flow.backend, more);
        }
    }
}
