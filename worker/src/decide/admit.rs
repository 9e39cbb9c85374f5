//! Lets new flows in: finds the service, the client's backend or a fresh one, and remembers both.

use super::decider::Decider;
use super::flow_state::first_state;
use super::keys::{FlowQuery, client_key, flow_seed, key_of_client, opens};
use crate::time::Now;
use crate::wire::{Address, Family, Kind, ParsedPacket, low_half};
use loaded_ipc::{Affinity, BackendIndex, Outcome, Pressure};
use loaded_table::{AffinityKey, Client, Flow, Hashed, Slot};

/// Why a packet begins no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The packet ends like this.
    As(Outcome),
    /// No backend of its service can be chosen.
    NoBackend { service: u16 },
    /// At every backend that can be chosen it would clash with another flow of its client.
    Clash,
}

/// What a new flow is entitled to: a service, and a backend from this source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission {
    pub(super) service: u16,
    pub(super) source: BackendSource,
}

/// Where the backend of a new flow comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum BackendSource {
    /// Its client has one.
    Affinity { slot: Slot, backend: u16 },
    /// The strategy chooses by these bytes. With affinity they are the client's prefix, and the choice is remembered.
    Strategy { seed: [u8; 16], client: Option<Hashed> },
    /// The strategy again, but only among the backends where the flow does not clash. It would clash at `instead_of`,
    /// which the client has or the strategy would choose. The client keeps that backend for its other flows.
    Elsewhere { seed: [u8; 16], client: Option<Hashed>, instead_of: BackendIndex },
}

impl Decider {
    /// Begins a flow, perhaps in place of one whose backend went down (`old`). Returns the backend.
    pub(super) fn admit(
        &mut self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        vip: u16,
        old: Option<Flow>,
        now: Now,
    ) -> Result<u16, Refusal> {
        let Admission { service, source } = self.admission(packet, query, vip, old, now)?;
        let backend = match source {
            BackendSource::Affinity { slot, backend } => {
                self.clients.refresh(slot, now.seconds);
                backend
            }
            BackendSource::Strategy { seed, client } => {
                let backend = self.choose(service, packet.family, &seed).ok_or(Refusal::NoBackend { service })?;
                if let Some(hashed) = client {
                    self.assign(AffinityKey { prefix: seed, service }, &hashed, backend, now.seconds);
                }
                backend
            }
            BackendSource::Elsewhere { seed, client, .. } => {
                let taken = self.taken(query, (vip, service), now);
                let place = (service, query.port);
                let choose = |taken| self.setup.choose_elsewhere(place, packet.family, &seed, taken);
                let BackendIndex(backend) = taken.all().and_then(choose).ok_or(Refusal::Clash)?;
                if let Some(hashed) = client {
                    self.assign(AffinityKey { prefix: seed, service }, &hashed, backend, now.seconds);
                }
                self.counters.add(Pressure::ClashAvoided.index(), 1);
                backend
            }
        };
        let flow = Flow { vip, vip_port: query.port, backend, state: first_state(packet.kind) };
        let (key, hashed) = if query.either { self.key_at(query, backend) } else { (query.key, query.hashed) };
        let inserted = self.flows.insert(&hashed, &key, flow, now.seconds);
        let inserted = inserted.map_err(|_| Refusal::As(Outcome::DroppedTableFull))?;
        // If the backend refuses, its refusal has to acknowledge this number.
        if let Kind::Tcp(segment) = packet.kind {
            self.flows.set_proof(inserted.slot, low_half(segment.end));
        }
        if let Some((_, displaced)) = inserted.displaced {
            self.count_removed(&displaced);
        }
        if inserted.evicted {
            self.counters.add(Pressure::Evicted.index(), 1);
        }
        self.count_added(&flow);
        if let Some(old) = old.filter(|_| query.either)
            && self.key_at(query, old.backend).0 != key
        {
            self.remove_left_behind(query, vip, old, now);
        }
        // A client beside the backend may be answered past us, so its openings say nothing of the backend.
        if opens(packet) && !self.is_beside(backend, packet) {
            self.backends.opening(&mut self.setup, &self.counters, backend, query.port, now);
        }
        Ok(backend)
    }

    /// Whether a packet comes from the network of a backend.
    pub(super) fn is_beside(&self, backend: u16, packet: &ParsedPacket) -> bool {
        self.setup.backend(backend).is_some_and(|backend| backend.is_beside(&packet.source))
    }

    /// What a packet that begins a flow is entitled to. Changes nothing, so that `explain` and `admit` agree.
    #[inline]
    pub(super) fn admission(
        &self,
        packet: &ParsedPacket,
        query: &FlowQuery,
        vip: u16,
        old: Option<Flow>,
        now: Now,
    ) -> Result<Admission, Refusal> {
        // A connection that moves to another backend stays in its service, even if that takes nothing new.
        let continued = || old.filter(|_| !opens(packet)).map(|flow| self.setup.service_of(flow.backend));
        let service = self.service(packet, vip).or_else(continued);
        let service = service.ok_or_else(|| Refusal::As(self.unserved()))?;
        let affinity = self.setup.service(service).and_then(|s| s.affinity);
        let source = match affinity {
            Some(affinity) => self.client(packet, &affinity, service, now.seconds),
            None => BackendSource::Strategy { seed: flow_seed(query), client: None },
        };
        let source = self.without_clash(packet, query, (vip, service), source, now);
        Ok(Admission { service, source })
    }

    /// Where the backend of a client comes from: the affinity table, unless that backend takes no new flows.
    #[inline]
    fn client(&self, packet: &ParsedPacket, affinity: &Affinity, service: u16, now: u32) -> BackendSource {
        let key = client_key(packet, affinity, service);
        let hashed = self.clients.prepare(&key);
        let timeout = self.affinity_timeouts.seconds(service);
        if let Some((slot, backend)) = self.clients.find(&hashed, &key, now, timeout)
            && self.backends.flags(backend).takes_new_flows()
        {
            return BackendSource::Affinity { slot, backend };
        }
        BackendSource::Strategy { seed: key.prefix, client: Some(hashed) }
    }

    /// Remembers a client's backend.
    fn assign(&mut self, key: AffinityKey, hashed: &Hashed, backend: u16, now: u32) {
        let timeouts = &self.affinity_timeouts;
        let assigned = self.clients.assign(hashed, &key, backend, now, |service| timeouts.seconds(service));
        if let Some(assigned) = assigned {
            self.setup.count_client(key.service, backend, true);
            if let Some(Client { service, backend }) = assigned.removed {
                self.setup.count_client(service, backend, false);
            }
        }
    }

    fn choose(&mut self, service: u16, family: Family, client: &[u8; 16]) -> Option<u16> {
        self.setup.pool(service, family)?.balancer.choose(client).map(|backend| backend.0)
    }

    /// A packet of a flow keeps its client's affinity alive, unless the client is to get another backend next time.
    /// `proven`: the client has just shown that it receives the answers.
    pub(super) fn keep_client(&mut self, flow: Flow, client: (Family, &Address), proven: bool, now: u32) {
        let service = self.setup.service_of(flow.backend);
        let Some(affinity) = self.setup.service(service).and_then(|s| s.affinity) else { return };
        if !self.backends.flags(flow.backend).takes_new_flows() {
            return;
        }
        let key = key_of_client(client, &affinity, service);
        let hashed = self.clients.prepare(&key);
        let timeout = self.affinity_timeouts.seconds(service);
        if let Some((slot, backend)) = self.clients.find(&hashed, &key, now, timeout)
            && backend == flow.backend
        {
            self.clients.refresh(slot, now);
            if proven {
                self.clients.prove(slot);
            }
        }
    }
}
