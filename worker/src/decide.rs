//! The decision: which flow a packet belongs to, which backend it goes to, and what it looks like then. No I/O, no
//! clock, no random source; what the network sends can make it neither panic nor loop nor allocate.

use crate::outcome::verdict;
use crate::setup::Setup;
use crate::wire::{self, Address, Family, Field, Kind, Malformed, Packet, Quoted, Side};
use loaded_ipc::{Affinity, Outcome};
use loaded_queue::{Meta, Verdict};
use loaded_table::{AffinityKey, AffinityTable, Client, Flow, FlowKey, FlowState, FlowTable, Hashed, Slot};

/// A client's entry in the affinity table is kept alive by its flows, each at most once in so many seconds: it saves
/// a look-up a packet. A timeout is late by as much.
const AFFINITY_GRAIN: u32 = 8;

/// What a worker knows.
#[derive(Debug)]
pub struct Decider {
    setup: Setup,
    flows: FlowTable,
    clients: AffinityTable,
    /// Seconds a client of each service is remembered; 0 for a service without affinity, whose clients are its flows.
    timeouts: Vec<u32>,
}

/// A packet as far as it can be looked at without changing anything; the first of three stages, between which the
/// table's memory has time to come near.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    packet: Result<Packet, Malformed>,
    wanted: Option<Wanted>,
}

/// The flow a packet would belong to.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    way: Way,
    key: FlowKey,
    hashed: Hashed,
}

/// Which way a packet goes, by its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To this virtual IP.
    Request { vip: u16 },
    /// From this backend.
    Reply { backend: u16 },
}

impl Decider {
    /// Counts the clients found in the table for the strategies that want to know.
    #[must_use]
    pub fn new(mut setup: Setup, flows: FlowTable, clients: AffinityTable) -> Self {
        let timeouts: Vec<u32> = setup.services().map(|service| service.affinity.map_or(0, |a| a.timeout)).collect();
        clients.for_each(|_, _, client| setup.count_client(client.service, client.backend, true));
        flows.for_each(|_, _, flow| {
            if timeout_of(&timeouts, flow.service) == 0 {
                setup.count_client(flow.service, flow.backend, true);
            }
        });
        Self { setup, flows, clients, timeouts }
    }

    /// What is balanced where.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Flows and clients in the tables.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.flows.len(), self.clients.len())
    }

    /// First stage: reads the packet and asks for the memory its flow would be in.
    #[must_use]
    pub fn look(&self, bytes: &[u8], cut: bool) -> Look {
        let packet = wire::parse(bytes, cut);
        let wanted = packet.as_ref().ok().and_then(|packet| {
            let (way, key) = self.key(packet)?;
            Some(Wanted { way, key, hashed: self.flows.prepare(&key) })
        });
        Look { packet, wanted }
    }

    /// Second stage: asks for the flow's own line.
    pub fn prefetch(&self, look: &Look) {
        if let Some(wanted) = &look.wanted {
            self.flows.prefetch_entry(&wanted.hashed);
        }
    }

    /// Third stage: decides, and rewrites the packet if it is ours. `now` is in seconds of a monotonic clock;
    /// `look` must come from the same bytes.
    pub fn decide(&mut self, look: &Look, bytes: &mut [u8], meta: Meta, now: u32) -> Outcome {
        let Ok(packet) = &look.packet else { return Outcome::DroppedMalformed };
        let outcome = match &look.wanted {
            None => self.without_flow(packet),
            Some(wanted) => match (packet.kind, wanted.way) {
                (Kind::Error(quoted), way) => self.error(packet, &quoted, wanted, way, bytes, now),
                (_, Way::Request { vip }) => self.request(packet, wanted, vip, bytes, meta, now),
                (_, Way::Reply { backend }) => self.reply(packet, wanted, backend, bytes, meta, now),
            },
        };
        if meta.cut && verdict(outcome) != Verdict::Accept { Outcome::DroppedCut } else { outcome }
    }

    /// Takes expired flows and clients out, a few buckets of each table at a time.
    pub fn sweep(&mut self, now: u32, buckets: usize) {
        let Self { setup, flows, clients, timeouts } = self;
        flows.sweep(now, buckets, |_, flow| {
            if timeout_of(timeouts, flow.service) == 0 {
                setup.count_client(flow.service, flow.backend, false);
            }
        });
        clients.sweep(
            now,
            buckets,
            |service| timeout_of(timeouts, service),
            |client| setup.count_client(client.service, client.backend, false),
        );
    }

    /// The flow a packet belongs to, if it is of a kind that has flows and goes our way.
    fn key(&self, packet: &Packet) -> Option<(Way, FlowKey)> {
        let request = self.setup.vip(&packet.destination).map(|vip| Way::Request { vip });
        let way = match (request, packet.kind) {
            (Some(way), _) => way,
            // An error about a request may come from any router behind us; what it quotes names the backend.
            (None, Kind::Error(quoted)) => Way::Reply { backend: self.setup.backend(&quoted.destination)? },
            (None, _) => Way::Reply { backend: self.setup.backend(&packet.source)? },
        };
        let request = matches!(way, Way::Request { .. });
        let (protocol, client, client_port, service_port) = match packet.kind {
            Kind::Tcp { ports: (from, to), .. } | Kind::Udp { ports: (from, to) } if request => {
                (packet.protocol, packet.source, from, to)
            }
            Kind::Tcp { ports: (from, to), .. } | Kind::Udp { ports: (from, to) } => {
                (packet.protocol, packet.destination, to, from)
            }
            Kind::Echo { request: true, id } if request => (packet.protocol, packet.source, id, 0),
            Kind::Echo { request: false, id } if !request => (packet.protocol, packet.destination, id, 0),
            // A request makes errors that quote client -> backend, a reply such that quote VIP -> client.
            Kind::Error(q) if request => (q.protocol, q.destination, q.ports.1, q.ports.0),
            Kind::Error(q) => (q.protocol, q.source, q.ports.0, q.ports.1),
            _ => return None,
        };
        Some((way, FlowKey { protocol, client, client_port, service_port }))
    }

    fn without_flow(&self, packet: &Packet) -> Outcome {
        let Some(vip) = self.setup.vip(&packet.destination) else {
            return match self.setup.backend(&packet.source) {
                Some(_) => Outcome::PassedOwn,
                None => Outcome::PassedForeign,
            };
        };
        match packet.kind {
            Kind::Neighbour => Outcome::PassedNeighbour,
            Kind::Fragment => Outcome::DroppedFragment,
            Kind::Other if self.setup.service_for_all(vip).is_some() => Outcome::DroppedProtocol,
            _ => Outcome::PassedUnserved,
        }
    }

    fn request(
        &mut self,
        packet: &Packet,
        wanted: &Wanted,
        vip: u16,
        bytes: &mut [u8],
        meta: Meta,
        now: u32,
    ) -> Outcome {
        let known = self.flows.find(&wanted.hashed, &wanted.key, now, |flow| flow.vip == vip);
        let (backend, outcome) = match known.and_then(|slot| Some((slot, self.flows.get(slot)?))) {
            // A connection that begins on ports of one that is over is a new one (RFC 9293 §3.6.1).
            Some((slot, flow)) if !(flow.state == FlowState::Closing && opens(packet)) => {
                self.advance(slot, flow, packet, true, now);
                (flow.backend, Outcome::Forwarded)
            }
            _ => match self.admit(packet, wanted, vip, now) {
                Ok(backend) => (backend, Outcome::ForwardedNew),
                Err(outcome) => return outcome,
            },
        };
        let Some(address) = self.setup.backend_address(backend) else { return Outcome::DroppedNoBackend };
        wire::replace(bytes, packet, Side::Destination, address, field(meta));
        outcome
    }

    fn reply(
        &mut self,
        packet: &Packet,
        wanted: &Wanted,
        backend: u16,
        bytes: &mut [u8],
        meta: Meta,
        now: u32,
    ) -> Outcome {
        let slot = self.flows.find(&wanted.hashed, &wanted.key, now, |flow| flow.backend == backend);
        let Some((slot, flow)) = slot.and_then(|slot| Some((slot, self.flows.get(slot)?))) else {
            return Outcome::PassedOwn;
        };
        let Some(address) = self.setup.vip_address(flow.vip) else { return Outcome::PassedOwn };
        wire::replace(bytes, packet, Side::Source, address, field(meta));
        self.advance(slot, flow, packet, false, now);
        Outcome::Returned
    }

    /// An ICMP error about a packet of a flow. It does not keep the flow alive: anyone can send one.
    fn error(
        &mut self,
        packet: &Packet,
        quoted: &Quoted,
        wanted: &Wanted,
        way: Way,
        bytes: &mut [u8],
        now: u32,
    ) -> Outcome {
        let slot = self.flows.find(&wanted.hashed, &wanted.key, now, |flow| match way {
            Way::Request { vip } => flow.vip == vip,
            Way::Reply { backend } => flow.backend == backend,
        });
        let flow = slot.and_then(|slot| self.flows.get(slot));
        match (way, flow) {
            (Way::Request { .. }, Some(flow)) if quoted.source == packet.destination => {
                let Some(backend) = self.setup.backend_address(flow.backend) else {
                    return Outcome::DroppedStrayError;
                };
                let outer = Some((Side::Destination, backend));
                wire::replace_in_error(bytes, packet, quoted, outer, (Side::Source, backend));
                Outcome::ErrorForwarded
            }
            (Way::Request { .. }, _) => Outcome::DroppedStrayError,
            (Way::Reply { .. }, Some(flow)) if quoted.source == packet.destination => {
                let Some(vip) = self.setup.vip_address(flow.vip) else { return Outcome::PassedOwn };
                let from_backend = packet.source == quoted.destination;
                let outer = from_backend.then_some((Side::Source, vip));
                wire::replace_in_error(bytes, packet, quoted, outer, (Side::Destination, vip));
                if from_backend { Outcome::ErrorReturned } else { Outcome::ErrorRelayed }
            }
            (Way::Reply { .. }, _) => Outcome::PassedOwn,
        }
    }

    /// A new flow: finds its service, its client's backend or a fresh one, and remembers both.
    fn admit(&mut self, packet: &Packet, wanted: &Wanted, vip: u16, now: u32) -> Result<u16, Outcome> {
        let service = match packet.kind {
            Kind::Tcp { ports, .. } => self.setup.service_at(vip, false, ports.1),
            Kind::Udp { ports } => self.setup.service_at(vip, true, ports.1),
            _ => self.setup.service_for_all(vip),
        };
        let service = service.ok_or(Outcome::PassedUnserved)?;
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
            Kind::Tcp { closes: true, .. } => FlowState::Closing,
            Kind::Tcp { .. } => FlowState::HalfOpen,
            Kind::Udp { .. } => FlowState::Datagram,
            _ => FlowState::Echo,
        };
        let flow = Flow { vip, backend, service, state };
        let inserted = self.flows.insert(&wanted.hashed, &wanted.key, flow, now);
        let inserted = inserted.map_err(|_| Outcome::DroppedTableFull)?;
        for (flow, more) in [(inserted.displaced.map(|(_, flow)| flow), false), (Some(flow), true)] {
            if let Some(flow) = flow
                && timeout_of(&self.timeouts, flow.service) == 0
            {
                self.setup.count_client(flow.service, flow.backend, more);
            }
        }
        Ok(backend)
    }

    /// The backend of a client, by what the table says or anew.
    fn client(&mut self, packet: &Packet, affinity: &Affinity, service: u16, now: u32) -> Result<u16, Outcome> {
        let key = AffinityKey { prefix: client_prefix(packet.family, &packet.source, affinity), service };
        let hashed = self.clients.prepare(&key);
        if let Some((slot, backend)) = self.clients.find(&hashed, &key, now, affinity.timeout)
            && self.setup.backend_address(backend).is_some()
        {
            self.clients.refresh(slot, now);
            return Ok(backend);
        }
        let backend = self.choose(service, packet.family, &key.prefix)?;
        let timeouts = &self.timeouts;
        let assigned = self.clients.assign(&hashed, &key, backend, now, |service| timeout_of(timeouts, service));
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

    /// Moves a flow along and keeps it, and its client, alive.
    fn advance(&mut self, slot: Slot, flow: Flow, packet: &Packet, request: bool, now: u32) {
        let next = match (packet.kind, flow.state) {
            (Kind::Tcp { closes: true, .. }, _) => FlowState::Closing,
            // The client has seen the backend's answer, or says so: a spoofed source cannot know.
            (Kind::Tcp { acknowledges: true, opens: false, .. }, FlowState::HalfOpen) if request => {
                FlowState::Established
            }
            (_, state) => state,
        };
        let seen = self.flows.refresh(slot, now);
        if next != flow.state {
            self.flows.set_state(slot, next, now);
        }
        if request && seen / AFFINITY_GRAIN != now / AFFINITY_GRAIN {
            self.keep_client(flow, packet, now);
        }
    }

    fn keep_client(&mut self, flow: Flow, packet: &Packet, now: u32) {
        let Some(affinity) = self.setup.service(flow.service).and_then(|s| s.affinity) else { return };
        let key =
            AffinityKey { prefix: client_prefix(packet.family, &packet.source, &affinity), service: flow.service };
        let hashed = self.clients.prepare(&key);
        if let Some((slot, backend)) = self.clients.find(&hashed, &key, now, affinity.timeout)
            && backend == flow.backend
        {
            self.clients.refresh(slot, now);
        }
    }
}

fn timeout_of(timeouts: &[u32], service: u16) -> u32 {
    timeouts.get(usize::from(service)).copied().unwrap_or(0)
}

fn opens(packet: &Packet) -> bool {
    matches!(packet.kind, Kind::Tcp { opens: true, .. })
}

/// What the checksum field of a packet holds.
fn field(meta: Meta) -> Field {
    match (meta.partial, meta.gso) {
        (false, _) => Field::Complete,
        (true, false) => Field::Partial,
        (true, true) => Field::PartialGso,
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

/// The leading bits of an address that make a client; the rest is zero.
fn client_prefix(family: Family, address: &Address, affinity: &Affinity) -> Address {
    let bits = match family {
        Family::V4 => 96 + u32::from(affinity.prefix4.min(32)),
        Family::V6 => u32::from(affinity.prefix6.min(128)),
    };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    (u128::from_be_bytes(*address) & mask).to_be_bytes()
}
