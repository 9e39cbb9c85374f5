//! The decision: which flow a packet belongs to, which backend it goes to, and what it looks like then. No I/O, no
//! clock, no random source; what the network sends can make it neither panic nor loop nor allocate.

mod admit;

use crate::setup::Setup;
use crate::wire::{self, Field, Kind, Malformed, Packet, Quoted, Side};
use admit::{Memory, client_key, memory_of, timeout_of};
use loaded_ipc::Outcome;
use loaded_queue::Meta;
use loaded_table::{AffinityTable, Flow, FlowKey, FlowState, FlowTable, Hashed, Slot};

/// What a worker knows.
#[derive(Debug)]
pub struct Decider {
    setup: Setup,
    flows: FlowTable,
    clients: AffinityTable,
    /// How long a client of each service is remembered.
    memories: Vec<Memory>,
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
        let memories: Vec<_> = setup.services().map(|service| Memory::of(service.affinity.as_ref())).collect();
        clients.for_each(|_, _, client| setup.count_client(client.service, client.backend, true));
        flows.for_each(|_, _, flow| {
            if timeout_of(&memories, flow.service) == 0 {
                setup.count_client(flow.service, flow.backend, true);
            }
        });
        Self { setup, flows, clients, memories }
    }

    /// Flows and clients in the tables.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.flows.len(), self.clients.len())
    }

    /// First stage: reads the packet and asks for the memory its flow would be in.
    #[must_use]
    #[inline]
    pub fn look(&self, bytes: &[u8], cut: bool) -> Look {
        let packet = wire::parse(bytes, cut);
        let wanted = packet.as_ref().ok().and_then(|packet| {
            let (way, key) = self.key(packet)?;
            Some(Wanted { way, key, hashed: self.flows.prepare(&key) })
        });
        Look { packet, wanted }
    }

    /// Second stage: asks for the flow's own line, and for where the client of a new flow would be.
    #[inline]
    pub fn prefetch(&self, look: &Look) {
        if let (Ok(packet), Some(wanted)) = (&look.packet, &look.wanted)
            && !self.flows.prefetch_entry(&wanted.hashed)
            && let Way::Request { vip } = wanted.way
            && let Some(service) = self.service(packet, vip)
            && let Some(affinity) = self.setup.service(service).and_then(|s| s.affinity)
        {
            self.clients.prepare(&client_key(packet, &affinity, service));
        }
    }

    /// Third stage: decides, and rewrites the packet if it is ours. `now` is in seconds of a monotonic clock;
    /// `look` must come from the same bytes.
    pub fn decide(&mut self, look: &Look, bytes: &mut [u8], meta: Meta, now: u32) -> Outcome {
        let Ok(packet) = &look.packet else { return Outcome::DroppedMalformed };
        let Some(wanted) = &look.wanted else { return self.without_flow(packet) };
        match (packet.kind, wanted.way) {
            _ if meta.cut => self.cut(packet, wanted, now),
            (Kind::Error(quoted), way) => self.error(packet, &quoted, wanted, way, bytes, now),
            (_, Way::Request { vip }) => self.request(packet, wanted, vip, bytes, meta, now),
            (_, Way::Reply { .. }) => self.reply(packet, wanted, bytes, meta, now),
        }
    }

    /// Takes expired flows and clients out, a few buckets of each table at a time.
    pub fn sweep(&mut self, now: u32, buckets: usize) {
        let Self { setup, flows, clients, memories } = self;
        flows.sweep(now, buckets, |_, flow| {
            if timeout_of(memories, flow.service) == 0 {
                setup.count_client(flow.service, flow.backend, false);
            }
        });
        clients.sweep(
            now,
            buckets,
            |service| timeout_of(memories, service),
            |client| setup.count_client(client.service, client.backend, false),
        );
    }

    /// The flow a packet belongs to, if it is of a kind that has flows and goes our way.
    #[inline(always)]
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

    /// The living flow a packet belongs to.
    #[inline]
    fn find(&self, wanted: &Wanted, now: u32) -> Option<(Slot, Flow)> {
        let slot = self.flows.find(&wanted.hashed, &wanted.key, now, |flow| match wanted.way {
            Way::Request { vip } => flow.vip == vip,
            Way::Reply { backend } => flow.backend == backend,
        })?;
        Some((slot, self.flows.get(slot)?))
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

    /// A packet that is not all here cannot be sent on changed; one that would stay as it is may pass.
    fn cut(&self, packet: &Packet, wanted: &Wanted, now: u32) -> Outcome {
        let known = self.find(wanted, now).is_some();
        match wanted.way {
            Way::Request { vip } if known || self.service(packet, vip).is_some() => Outcome::DroppedCut,
            Way::Request { .. } if matches!(packet.kind, Kind::Error(_)) => Outcome::DroppedStrayError,
            Way::Request { .. } => Outcome::PassedUnserved,
            Way::Reply { .. } if known => Outcome::DroppedCut,
            Way::Reply { .. } => Outcome::PassedOwn,
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
        let (backend, outcome) = match self.find(wanted, now) {
            // A connection that begins on ports of one that is over is a new one (RFC 9293 §3.6.1).
            Some((slot, flow)) if !(is_over(flow.state) && opens(packet)) => {
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

    fn reply(&mut self, packet: &Packet, wanted: &Wanted, bytes: &mut [u8], meta: Meta, now: u32) -> Outcome {
        let Some((slot, flow)) = self.find(wanted, now) else { return Outcome::PassedOwn };
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
        match (way, self.find(wanted, now)) {
            (Way::Request { .. }, Some((_, flow))) if quoted.source == packet.destination => {
                let Some(backend) = self.setup.backend_address(flow.backend) else {
                    return Outcome::DroppedStrayError;
                };
                let outer = Some((Side::Destination, backend));
                wire::replace_in_error(bytes, packet, quoted, outer, (Side::Source, backend));
                Outcome::ErrorForwarded
            }
            (Way::Request { .. }, _) => Outcome::DroppedStrayError,
            (Way::Reply { .. }, Some((_, flow))) if quoted.source == packet.destination => {
                let Some(vip) = self.setup.vip_address(flow.vip) else { return Outcome::PassedOwn };
                // Any backend: to clients there are none.
                let from_backend = self.setup.backend(&packet.source).is_some();
                let outer = from_backend.then_some((Side::Source, vip));
                wire::replace_in_error(bytes, packet, quoted, outer, (Side::Destination, vip));
                if from_backend { Outcome::ErrorReturned } else { Outcome::ErrorRelayed }
            }
            (Way::Reply { .. }, _) => Outcome::PassedOwn,
        }
    }

    /// Moves a flow along and keeps it, and its client, alive.
    fn advance(&mut self, slot: Slot, flow: Flow, packet: &Packet, request: bool, now: u32) {
        let next = next_state(flow.state, packet.kind, request);
        let seen = self.flows.refresh(slot, now);
        if next != flow.state {
            self.flows.set_state(slot, next, now);
        }
        if request && !memory_of(&self.memories, flow.service).is_fresh(seen, now) {
            self.keep_client(flow, packet, now);
        }
    }
}

/// Where a flow is after a packet of one of its sides. What lives long needs both sides to have spoken, and the client
/// to have acknowledged after the backend: a spoofed source can send, but must guess when and what the backend answers.
fn next_state(state: FlowState, kind: Kind, request: bool) -> FlowState {
    use FlowState as S;
    match (kind, state, request) {
        // Only what was open can turn out to be open still.
        (Kind::Tcp { resets: true, .. }, S::HalfOpen | S::Answered | S::Closing, _) => S::Closing,
        (Kind::Tcp { resets: true, .. }, ..) => S::Reset,
        // Without ACK, FIN or not, it is a SYN or what a backend drops without a reset (RFC 9293 §3.10.7).
        (Kind::Tcp { acknowledges: false, .. }, _, true) => state,
        (Kind::Tcp { .. }, S::HalfOpen, false) => S::Answered,
        (Kind::Tcp { finishes: true, .. }, S::BackendDone, true)
        | (Kind::Tcp { finishes: true, .. }, S::ClientDone, false) => S::Closing,
        (Kind::Tcp { finishes: true, .. }, S::Established | S::Answered | S::Reset, true) => S::ClientDone,
        (Kind::Tcp { finishes: true, .. }, S::Established | S::Reset, false) => S::BackendDone,
        // Both sides answer what comes after a real reset with another; so what comes last tells.
        (Kind::Tcp { acknowledges: true, .. }, S::Reset, _) => S::Established,
        (Kind::Tcp { acknowledges: true, opens: false, .. }, S::Answered, true) => S::Established,
        (Kind::Udp { .. }, S::Unanswered, false) => S::Datagram,
        _ => state,
    }
}

/// Whether a flow's connection has ended, so that another may begin on the same ports (RFC 9293 §3.6.1).
fn is_over(state: FlowState) -> bool {
    matches!(state, FlowState::Closing | FlowState::Reset)
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
