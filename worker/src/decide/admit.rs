//! Letting new flows in, and remembering whose client is whose.

use super::state::first_state;
use super::{Decider, Now, Wanted, opens};
use crate::wire::{Family, Kind, Packet};
use loaded_ipc::{Affinity, Outcome, Pressure};
use loaded_table::{AffinityKey, Client, Flow, FlowKey, Hashed, Slot};

/// Why a packet begins no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// This becomes of it.
    As(Outcome),
    /// No backend of its service can be chosen.
    NoBackend { service: u16 },
}

/// The service that takes a new flow, and where its backend comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) service: u16,
    pub(super) source: Source,
}

/// Where the backend of a new flow comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// Its client has one.
    Client { slot: Slot, backend: u16 },
    /// The strategy chooses, by these bytes. With affinity they are the client's prefix, and it is then remembered.
    Choice { seed: [u8; 16], client: Option<Hashed> },
}

impl Decider {
    /// A new flow, or one whose backend is out (`old`): finds its service, its client's backend or a fresh one, and
    /// remembers both.
    pub(super) fn admit(
        &mut self,
        packet: &Packet,
        wanted: &Wanted,
        vip: u16,
        old: Option<Flow>,
        now: Now,
    ) -> Result<u16, Refusal> {
        let Claim { service, source } = self.claim(packet, wanted, vip, old, now)?;
        let backend = match source {
            Source::Client { slot, backend } => {
                self.clients.refresh(slot, now.seconds);
                backend
            }
            Source::Choice { seed, client } => {
                let backend = self.choose(service, packet.family, &seed).ok_or(Refusal::NoBackend { service })?;
                if let Some(hashed) = client {
                    self.assign(AffinityKey { prefix: seed, service }, &hashed, backend, now.seconds);
                }
                backend
            }
        };
        if self.clashes(wanted, vip, backend, now) {
            return Err(Refusal::As(Outcome::DroppedClash));
        }
        let flow = Flow { vip, backend, service, state: first_state(packet.kind) };
        let inserted = self.flows.insert(&wanted.hashed, &wanted.key, flow, now.seconds);
        let inserted = inserted.map_err(|_| Refusal::As(Outcome::DroppedTableFull))?;
        if let Some((_, displaced)) = inserted.displaced {
            self.count_removed(&displaced);
        }
        if inserted.evicted {
            self.counters.add(Pressure::Evicted.index(), 1);
        }
        self.count_added(&flow);
        if opens(packet) {
            let port = wanted.key.service_port;
            self.membership.opening(&mut self.setup, &self.counters, backend, port, now);
        }
        Ok(backend)
    }

    /// What a packet that begins a flow has a right to. Changes nothing: who only asks gets the same answer as who acts.
    #[inline]
    pub(super) fn claim(
        &self,
        packet: &Packet,
        wanted: &Wanted,
        vip: u16,
        old: Option<Flow>,
        now: Now,
    ) -> Result<Claim, Refusal> {
        // What goes on may do so in a service that takes nothing new.
        let going_on = || old.filter(|_| !opens(packet)).map(|flow| flow.service);
        let service = self.service(packet, vip).or_else(going_on);
        let service = service.ok_or_else(|| Refusal::As(self.unserved()))?;
        let affinity = self.setup.service(service).and_then(|s| s.affinity);
        let source = match affinity {
            Some(affinity) => self.client(packet, &affinity, service, now.seconds),
            None => {
                let mut seed = wanted.key.client;
                for (place, byte) in seed.iter_mut().zip(flow_salt(&wanted.key)) {
                    *place ^= byte;
                }
                Source::Choice { seed, client: None }
            }
        };
        Ok(Claim { service, source })
    }

    /// A reply is known by its backend's address. Two flows of one client that differ in nothing but the VIP would have
    /// the same replies, and the backend could not tell them apart either. Unless the replies do not come this way.
    #[inline]
    pub(super) fn clashes(&self, wanted: &Wanted, vip: u16, backend: u16, now: Now) -> bool {
        let address = self.setup.backend_address(backend);
        let translated = |flow: &Flow| !self.setup.is_direct(flow.backend);
        let clash =
            |flow: &Flow| flow.vip != vip && translated(flow) && self.setup.backend_address(flow.backend) == address;
        !self.setup.is_direct(backend) && self.flows.find(&wanted.hashed, &wanted.key, now.seconds, clash).is_some()
    }

    /// The service a request is for.
    pub(super) fn service(&self, packet: &Packet, vip: u16) -> Option<u16> {
        match packet.kind {
            Kind::Tcp { ports, .. } => self.setup.service_at(vip, false, ports.1),
            Kind::Udp { ports } => self.setup.service_at(vip, true, ports.1),
            _ => self.setup.service_for_all(vip),
        }
    }

    /// The backend of a client, by what the table says or anew. One that takes no new flows is nobody's any more.
    #[inline]
    fn client(&self, packet: &Packet, affinity: &Affinity, service: u16, now: u32) -> Source {
        let key = client_key(packet, affinity, service);
        let hashed = self.clients.prepare(&key);
        let timeout = self.memories.timeout(service);
        if let Some((slot, backend)) = self.clients.find(&hashed, &key, now, timeout)
            && self.membership.mark(backend).is_chosen()
        {
            return Source::Client { slot, backend };
        }
        Source::Choice { seed: key.prefix, client: Some(hashed) }
    }

    /// Remembers a client's backend.
    fn assign(&mut self, key: AffinityKey, hashed: &Hashed, backend: u16, now: u32) {
        let memories = &self.memories;
        let assigned = self.clients.assign(hashed, &key, backend, now, |service| memories.timeout(service));
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

    /// A flow keeps its client, unless that is to have another backend next time. `proven`: it has just shown that the
    /// client hears what it is answered.
    pub(super) fn keep_client(&mut self, flow: Flow, packet: &Packet, proven: bool, now: u32) {
        let Some(affinity) = self.setup.service(flow.service).and_then(|s| s.affinity) else { return };
        if !self.membership.mark(flow.backend).is_chosen() {
            return;
        }
        let key = client_key(packet, &affinity, flow.service);
        let hashed = self.clients.prepare(&key);
        let timeout = self.memories.timeout(flow.service);
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

/// The part of a flow beside its client's address, spread over an address's length.
fn flow_salt(key: &FlowKey) -> [u8; 16] {
    let mut salt = [0; 16];
    salt[0..2].copy_from_slice(&key.client_port.to_be_bytes());
    salt[2..4].copy_from_slice(&key.service_port.to_be_bytes());
    salt[4] = key.protocol;
    salt
}

/// The client a request comes from: the leading bits of its address; the rest is zero.
pub(super) fn client_key(packet: &Packet, affinity: &Affinity, service: u16) -> AffinityKey {
    let bits = match packet.family {
        Family::V4 => 96 + u32::from(affinity.prefix4.min(32)),
        Family::V6 => u32::from(affinity.prefix6.min(128)),
    };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    AffinityKey { prefix: (u128::from_be_bytes(packet.source) & mask).to_be_bytes(), service }
}
