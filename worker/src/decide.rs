//! The decision: which flow a packet belongs to, which backend it goes to, and what it looks like then. No I/O, no
//! clock, no random source; what the network sends can make it neither panic nor loop nor allocate.

mod admit;
mod count;
mod error;
mod explain;
mod fragments;
mod piece;
mod reply;
mod request;
mod state;
mod told;

use crate::membership::{Membership, Unknown};
use crate::setup::{Memories, Service, Setup};
use crate::wire::{self, Address, ChecksumState, Kind, Malformed, Packet, PacketFacts};
use admit::client_key;
pub use fragments::Datagram;
use fragments::Fragments;
use loaded_ipc::{Admin, BackendIndex, Idle, Mode, OnFailure, Outcome, Unserved};
use loaded_table::{AffinityTable, Counters, Flow, FlowKey, FlowTable, Hashed, Quota, Slot, Timeouts};
pub use told::{Told, shown};

/// What a worker knows, but for its tables: all memory is had.
#[derive(Debug)]
pub struct Prepared {
    setup: Setup,
    membership: Membership,
    memories: Memories,
    fragments: Fragments,
    timeouts: Box<[Timeouts]>,
    quota: Quota,
}

/// What a worker knows.
#[derive(Debug)]
pub struct Decider {
    setup: Setup,
    membership: Membership,
    memories: Memories,
    fragments: Fragments,
    flows: FlowTable,
    clients: AffinityTable,
    counters: Counters,
}

/// A moment of a monotonic clock, in the two grains that are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// For flows and clients.
    pub seconds: u32,
    /// For backends.
    pub millis: u64,
}

/// A packet where it lies.
#[derive(Debug)]
pub struct Place<'p> {
    /// Its bytes, and behind them what an answer may need more.
    pub room: &'p mut [u8],
    /// How many of them are the packet's.
    pub length: usize,
    /// What the kernel says about it.
    pub facts: PacketFacts,
}

/// What became of a packet, and how long it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Its end; the verdict goes with it.
    pub outcome: Outcome,
    /// Bytes of the room that are to be sent, if any are.
    pub length: usize,
    /// Instead of new content it gets a mark, by which it is routed to this backend as it came.
    pub direct: Option<BackendIndex>,
}

/// A packet as far as it can be looked at without changing anything; the first of three stages, between which the
/// table's memory has time to come near.
#[derive(Debug, Clone, Copy)]
pub struct Lookup {
    packet: Result<Packet, Malformed>,
    wanted: Option<Wanted>,
}

/// The flow a packet would belong to.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    way: Direction,
    key: FlowKey,
    hashed: Hashed,
}

/// Which way a packet goes, by its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    /// To this virtual IP.
    Request { vip: u16 },
    /// From a backend.
    Reply,
}

impl Prepared {
    /// Takes what memory it will ever need.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let (membership, memories) = (Membership::new(&setup), Memories::new(&setup));
        let timeouts = setup.services().map(|service| service.map_or_else(Timeouts::default, timeouts)).collect();
        let quota = setup.quota().map(|q| Quota::new(q.prefix4, q.prefix6, q.percent)).unwrap_or_default();
        Self { setup, membership, memories, fragments: Fragments::new(), timeouts, quota }
    }

    /// Number of the configuration.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.setup.generation()
    }

    /// Takes the tables, which another worker may have left: entries that name what this configuration does not have go,
    /// the others are counted. Allocates nothing.
    #[must_use]
    pub fn open(self, mut flows: FlowTable, clients: AffinityTable, counters: Counters, now: Now) -> Decider {
        let Self { setup, membership, memories, fragments, timeouts, quota } = self;
        flows.set_timeouts(timeouts);
        flows.set_quota(quota);
        let mut decider = Decider { setup, membership, memories, fragments, flows, clients, counters };
        decider.adopt();
        decider.membership.begin(&mut decider.setup, &decider.counters, now);
        decider
    }
}

impl Decider {
    /// [`Prepared::open`] in one step.
    #[must_use]
    pub fn new(setup: Setup, flows: FlowTable, clients: AffinityTable, counters: Counters, now: Now) -> Self {
        Prepared::new(setup).open(flows, clients, counters, now)
    }

    /// Flows and clients in the tables.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.flows.len(), self.clients.len())
    }

    /// Where it counts. The packets' outcomes are counted there by who asks for them.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// First stage: reads the packet and asks for the memory its flow would be in.
    #[must_use]
    #[inline]
    pub fn look(&self, bytes: &[u8], facts: PacketFacts) -> Lookup {
        let packet = match wire::parse(bytes, facts.cut) {
            Ok(packet) if facts.checksum == ChecksumState::Complete && wire::lacks_checksum(bytes, &packet) => {
                Err(Malformed::Checksum)
            }
            packet => packet,
        };
        let wanted = packet.as_ref().ok().and_then(|packet| {
            let (way, key) = self.key(packet)?;
            Some(Wanted { way, key, hashed: self.flows.prepare(&key) })
        });
        Lookup { packet, wanted }
    }

    /// Second stage: asks for the flow's own line, and for where the client of a new flow would be.
    #[inline]
    pub fn prefetch(&self, look: &Lookup) {
        if let (Ok(packet), Some(wanted)) = (&look.packet, &look.wanted)
            && !self.flows.prefetch_entry(&wanted.hashed)
            && let Direction::Request { vip } = wanted.way
            && let Some(service) = self.service(packet, vip)
            && let Some(affinity) = self.setup.service(service).and_then(|s| s.affinity)
        {
            self.clients.prepare(&client_key(packet, &affinity, service));
        }
    }

    /// Third stage: decides, and changes the packet if it is ours. `look` must come from the same bytes.
    pub fn decide(&mut self, look: &Lookup, place: Place<'_>, now: Now) -> Decided {
        let Ok(packet) = &look.packet else { return place.stays(self.malformed()) };
        let Some(wanted) = &look.wanted else {
            return match packet.kind {
                Kind::Fragment => self.piece(packet, place, now),
                _ => place.stays(self.without_flow(packet)),
            };
        };
        match (packet.kind, wanted.way) {
            _ if place.facts.cut && !self.goes_direct(packet, wanted, now) => self.cut(packet, wanted, place, now),
            (Kind::Error(quoted), way) => self.error(packet, &quoted, wanted, way, place, now),
            (_, Direction::Request { vip }) => self.request(packet, wanted, vip, place, now),
            (_, Direction::Reply) => self.reply(packet, wanted, place, now),
        }
    }

    /// What time does to backends. To be called every few milliseconds.
    pub fn tick(&mut self, now: Now) {
        self.membership.tick(&mut self.setup, &self.counters, now);
    }

    /// The packets decided about have waited for long, and others were dropped, maybe. Who cannot hear the answers of
    /// backends does not judge by them: what they have left unanswered so far is forgotten.
    #[cold]
    pub fn fall_behind(&mut self) {
        self.membership.forgive();
    }

    /// The checks say of a backend whether it is up.
    ///
    /// # Errors
    /// [`Unknown`] if there is no such backend.
    pub fn set_up(&mut self, backend: BackendIndex, up: bool, now: Now) -> Result<(), Unknown> {
        self.membership.told(&mut self.setup, &self.counters, backend.0, up, now)
    }

    /// The operator says what he wants of a backend.
    ///
    /// # Errors
    /// [`Unknown`] if there is no such backend.
    pub fn set_admin(&mut self, backend: BackendIndex, admin: Admin, now: Now) -> Result<(), Unknown> {
        self.membership.set_admin(&mut self.setup, &self.counters, backend.0, admin, now)
    }

    /// The flow a packet belongs to, if it is of a kind that has flows and goes our way.
    #[inline(always)]
    fn key(&self, packet: &Packet) -> Option<(Direction, FlowKey)> {
        let way = match self.setup.vip(&packet.destination) {
            Some(vip) => Direction::Request { vip },
            None if self.setup.is_backend(behind(packet)) => Direction::Reply,
            None => return None,
        };
        let request = way != Direction::Reply;
        let (protocol, client, client_port, service_port) = match packet.kind {
            Kind::Tcp { ports: (from, to), .. }
            | Kind::Udp { ports: (from, to) }
            | Kind::Sctp { ports: (from, to) }
                if request =>
            {
                (packet.protocol, packet.source, from, to)
            }
            Kind::Tcp { ports: (from, to), .. }
            | Kind::Udp { ports: (from, to) }
            | Kind::Sctp { ports: (from, to) } => (packet.protocol, packet.destination, to, from),
            Kind::Echo { request: true, id } if request => (packet.protocol, packet.source, id, 0),
            Kind::Echo { request: false, id } if !request => (packet.protocol, packet.destination, id, 0),
            // A request makes errors that quote client -> backend, a reply such that quote VIP -> client.
            Kind::Error(q) if request => (q.protocol, q.destination, q.ports.1, q.ports.0),
            Kind::Error(q) => (q.protocol, q.source, q.ports.0, q.ports.1),
            Kind::Other if request => (packet.protocol, packet.source, 0, 0),
            Kind::Other => (packet.protocol, packet.destination, 0, 0),
            _ => return None,
        };
        Some((way, FlowKey { protocol, client, client_port, service_port }))
    }

    /// Whether a request goes to its backend as it is, so that nothing of it need be here but its headers.
    #[cold]
    fn goes_direct(&self, packet: &Packet, wanted: &Wanted, now: Now) -> bool {
        match (wanted.way, self.find(packet, wanted, now)) {
            (Direction::Request { .. }, Some((_, flow))) => self.setup.is_direct(flow.backend),
            (Direction::Request { vip }, None) => {
                self.service(packet, vip).and_then(|s| self.setup.service(s)).is_some_and(|s| s.mode == Mode::Dsr)
            }
            (Direction::Reply, _) => false,
        }
    }

    /// The living flow a packet belongs to.
    #[inline]
    fn find(&self, packet: &Packet, wanted: &Wanted, now: Now) -> Option<(Slot, Flow)> {
        let slot = match wanted.way {
            Direction::Request { vip } => {
                self.flows.find(&wanted.hashed, &wanted.key, now.seconds, |flow| flow.vip == vip)?
            }
            Direction::Reply => self.flows.find(&wanted.hashed, &wanted.key, now.seconds, |flow| {
                let backend = self.setup.backend(flow.backend);
                backend.is_some_and(|backend| !backend.direct && backend.address == *behind(packet))
            })?,
        };
        Some((slot, self.flows.get(slot)?))
    }

    fn without_flow(&self, packet: &Packet) -> Outcome {
        match packet.kind {
            _ if self.setup.vip(&packet.destination).is_none() => match self.setup.is_backend(&packet.source) {
                true => Outcome::PassedOwn,
                false => Outcome::PassedForeign,
            },
            Kind::Neighbour => Outcome::PassedNeighbour,
            // ICMP that nothing can be balanced by: timestamp requests, replies to nobody, errors about no packet.
            _ => self.unserved(),
        }
    }

    /// A packet that is not all here cannot be sent on changed; one that would stay as it is may pass, and one that is to
    /// be answered needs no more than its headers.
    fn cut(&mut self, packet: &Packet, wanted: &Wanted, place: Place<'_>, now: Now) -> Decided {
        let known = self.find(packet, wanted, now);
        let outcome = match (wanted.way, known) {
            (Direction::Request { .. }, Some((slot, flow))) if self.is_to_be_reset(packet, flow) => {
                return self.reset_client(packet, slot, place, now);
            }
            (_, Some(_)) => Outcome::DroppedCut,
            (Direction::Request { vip }, None) if self.service(packet, vip).is_some() => Outcome::DroppedCut,
            (Direction::Request { .. }, None) if matches!(packet.kind, Kind::Error(_)) => Outcome::DroppedStrayError,
            (Direction::Request { .. }, None) => self.unserved(),
            (Direction::Reply, None) => Outcome::PassedOwn,
        };
        place.stays(outcome)
    }

    /// What becomes of a packet that does not hold together.
    #[cold]
    fn malformed(&self) -> Outcome {
        match self.setup.malformed() {
            OnFailure::Pass => Outcome::PassedMalformed,
            OnFailure::Drop => Outcome::DroppedMalformed,
        }
    }

    /// What becomes of a packet to a VIP that nothing is balanced for there.
    fn unserved(&self) -> Outcome {
        match self.setup.unserved() {
            Unserved::Pass => Outcome::PassedUnserved,
            Unserved::Drop => Outcome::DroppedUnserved,
        }
    }
}

impl Decided {
    /// A packet of this length in the place of the one that came.
    fn answer(outcome: Outcome, length: usize) -> Self {
        Self { outcome, length, direct: None }
    }
}

impl Place<'_> {
    fn bytes(&mut self) -> &mut [u8] {
        let length = self.length.min(self.room.len());
        &mut self.room[..length]
    }

    fn stays(&self, outcome: Outcome) -> Decided {
        Decided::answer(outcome, self.length)
    }

    /// Goes on to this backend: by routing, as it is, or with the address that it has by now.
    fn goes(&self, outcome: Outcome, backend: u16, is_direct: bool) -> Decided {
        Decided { direct: is_direct.then_some(BackendIndex(backend)), ..self.stays(outcome) }
    }
}

/// The address that makes a packet one from behind us. An error about a request may come from any router there; what it
/// quotes names the backend.
#[inline]
fn behind(packet: &Packet) -> &Address {
    match &packet.kind {
        Kind::Error(quoted) => &quoted.destination,
        _ => &packet.source,
    }
}

/// How long flows of a service may be idle. One that was reset no longer than an open one: the reset may be a forgery that
/// both sides ignore.
fn timeouts(service: &Service) -> Timeouts {
    let Idle { tcp, half_open, closing, udp, echo } = service.policy.idle;
    let reset = tcp.min(Timeouts::default().reset);
    Timeouts { half_open, established: tcp, closing, reset, datagram: udp, echo }
}

fn opens(packet: &Packet) -> bool {
    matches!(packet.kind, Kind::Tcp { opens: true, .. })
}

/// One service for all of 192.0.2.1, of generation 7, with backend 5.
#[cfg(test)]
pub(crate) fn example(now: Now) -> Decider {
    use crate::setup::Assembly;
    use loaded_ipc::{ALL_COUNTERS, AllDown, OnBackendDown, Policy, Protocol, ServiceIndex, Strategy, ToWorker};
    use loaded_table::{Region, Timeouts, shm};
    let policy = Policy {
        on_backend_down: OnBackendDown::Reset,
        all_down: AllDown::Reject,
        panic_threshold: 0,
        slow_start: 0,
        idle: loaded_ipc::Idle::STANDARD,
        passive: None,
    };
    let (strategy, affinity, protocol, mode) = (Strategy::RoundRobin, None, Protocol::Any, Mode::Nat);
    let backend = |index, address: &str| ToWorker::Backend {
        index: BackendIndex(index),
        address: address.parse().expect("address"),
        weight: 1,
        backup: false,
        admin: Admin::Enabled,
        up: true,
        age: u32::MAX,
    };
    let messages = [
        ToWorker::Begin { generation: 7, unserved: Unserved::Pass, malformed: OnFailure::Drop },
        ToWorker::Vip { index: 0, address: "192.0.2.1".parse().expect("address") },
        ToWorker::Service { index: ServiceIndex(0), protocol, mode, strategy, affinity, policy },
        ToWorker::Listen { vip: 0 },
        backend(5, "10.0.0.1"),
        ToWorker::Commit,
    ];
    let mut assembly = Assembly::default();
    let mut taken = messages.into_iter().map(|message| assembly.take(message, 0).expect("in step"));
    let setup = taken.find_map(|setup| setup).expect("a setup");
    let memory = |bytes| shm::create("example", bytes).expect("create");
    let flows = Region::map(memory(FlowTable::bytes_for(8))).expect("map");
    FlowTable::format(&flows, 8, [1; 16]).expect("format");
    let clients = Region::map(memory(AffinityTable::bytes_for(8))).expect("map");
    AffinityTable::format(&clients, 8, [1; 16]).expect("format");
    let flows = FlowTable::open(flows, Timeouts::default()).expect("open");
    let clients = AffinityTable::open(clients, |_| {}).expect("open");
    let counters = Counters::map(memory(Counters::bytes_for(ALL_COUNTERS))).expect("map");
    Decider::new(setup, flows, clients, counters, now)
}
