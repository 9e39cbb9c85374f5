//! Letting new flows in, and remembering whose client is whose.

use super::{Decider, Wanted};
use crate::wire::{Family, Kind, Packet};
use loaded_ipc::{Affinity, Outcome};
use loaded_table::{AffinityKey, Client, Flow, FlowKey, FlowState};

/// A client's entry in the affinity table is kept alive by its flows, but by each only once in this part of its
/// timeout: it saves a look-up a packet. The client is remembered longer by as much, never less long.
const GRAINS: u32 = 16;

/// How long a client of a service is remembered.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Memory {
    /// Seconds; 0 for a service without affinity, whose clients are its flows.
    timeout: u32,
    /// Times that are the same but for so many low bits count as one.
    grain: u32,
}

impl Decider {
    /// A new flow: finds its service, its client's backend or a fresh one, and remembers both.
    pub(super) fn admit(&mut self, packet: &Packet, wanted: &Wanted, vip: u16, now: u32) -> Result<u16, Outcome> {
        let service = self.service(packet, vip).ok_or(Outcome::PassedUnserved)?;
        let affinity = self.setup.service(service).and_then(|s| s.affinity);
        let backend = match affinity {
            Some(affinity) => self.client(packet, &affinity, service, now)?,
            None => {
                let mut seed = wanted.key.client;
                for (place, byte) in seed.iter_mut().zip(flow_salt(&wanted.key)) {
                    *place ^= byte;
                }
                self.choose(service, packet.family, &seed)?
            }
        };
        // A reply is known by its backend. Two flows of one client that differ in nothing but the VIP would have the
        // same replies, and the backend could not tell them apart either.
        let clash = |flow: &Flow| flow.backend == backend && flow.vip != vip;
        if self.flows.find(&wanted.hashed, &wanted.key, now, clash).is_some() {
            return Err(Outcome::DroppedClash);
        }
        let state = match packet.kind {
            Kind::Tcp { finishes: true, .. } | Kind::Tcp { resets: true, .. } => FlowState::Closing,
            Kind::Tcp { .. } => FlowState::HalfOpen,
            Kind::Udp { .. } => FlowState::Unanswered,
            _ => FlowState::Echo,
        };
        let flow = Flow { vip, backend, service, state };
        let inserted = self.flows.insert(&wanted.hashed, &wanted.key, flow, now);
        let inserted = inserted.map_err(|_| Outcome::DroppedTableFull)?;
        for (flow, more) in [(inserted.displaced.map(|(_, flow)| flow), false), (Some(flow), true)] {
            if let Some(flow) = flow
                && timeout_of(&self.memories, flow.service) == 0
            {
                self.setup.count_client(flow.service, flow.backend, more);
            }
        }
        Ok(backend)
    }

    /// The service a request is for.
    pub(super) fn service(&self, packet: &Packet, vip: u16) -> Option<u16> {
        match packet.kind {
            Kind::Tcp { ports, .. } => self.setup.service_at(vip, false, ports.1),
            Kind::Udp { ports } => self.setup.service_at(vip, true, ports.1),
            _ => self.setup.service_for_all(vip),
        }
    }

    /// The backend of a client, by what the table says or anew.
    fn client(&mut self, packet: &Packet, affinity: &Affinity, service: u16, now: u32) -> Result<u16, Outcome> {
        let key = client_key(packet, affinity, service);
        let hashed = self.clients.prepare(&key);
        let timeout = timeout_of(&self.memories, service);
        if let Some((slot, backend)) = self.clients.find(&hashed, &key, now, timeout)
            && self.setup.backend_address(backend).is_some()
        {
            self.clients.refresh(slot, now);
            return Ok(backend);
        }
        let backend = self.choose(service, packet.family, &key.prefix)?;
        let memories = &self.memories;
        let assigned = self.clients.assign(&hashed, &key, backend, now, |service| timeout_of(memories, service));
        if let Some(assigned) = assigned {
            self.setup.count_client(service, backend, true);
            if let Some(Client { service, backend }) = assigned.removed {
                self.setup.count_client(service, backend, false);
            }
        }
        Ok(backend)
    }

    fn choose(&mut self, service: u16, family: Family, client: &[u8; 16]) -> Result<u16, Outcome> {
        let balancer = self.setup.balancer(service, family).ok_or(Outcome::DroppedNoBackend)?;
        balancer.choose(client).map(|backend| backend.0).ok_or(Outcome::DroppedNoBackend)
    }

    pub(super) fn keep_client(&mut self, flow: Flow, packet: &Packet, now: u32) {
        let Some(affinity) = self.setup.service(flow.service).and_then(|s| s.affinity) else { return };
        let key = client_key(packet, &affinity, flow.service);
        let hashed = self.clients.prepare(&key);
        let timeout = timeout_of(&self.memories, flow.service);
        if let Some((slot, backend)) = self.clients.find(&hashed, &key, now, timeout)
            && backend == flow.backend
        {
            self.clients.refresh(slot, now);
        }
    }
}

impl Memory {
    pub(super) fn of(affinity: Option<&Affinity>) -> Self {
        let Some(affinity) = affinity else { return Self::default() };
        let grain = (affinity.timeout / GRAINS).checked_ilog2().unwrap_or(0);
        Self { timeout: affinity.timeout.saturating_add((1 << grain) - 1), grain }
    }

    /// Whether a client seen then need not be seen again now.
    pub(super) fn is_fresh(self, seen: u32, now: u32) -> bool {
        self.timeout == 0 || seen >> self.grain == now >> self.grain
    }
}

pub(super) fn memory_of(memories: &[Memory], service: u16) -> Memory {
    memories.get(usize::from(service)).copied().unwrap_or_default()
}

pub(super) fn timeout_of(memories: &[Memory], service: u16) -> u32 {
    memory_of(memories, service).timeout
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
