//! What a worker holds to decide about packets, and the three stages of a decision. Between the stages the memory of the
//! tables has time to arrive in the cache.

use super::fragment_table::FragmentTable;
use super::keys::{Direction, FlowQuery, client_key};
use crate::membership::{BackendStates, Unknown};
use crate::setup::{AffinityTimeouts, Setup, flow_timeouts};
use crate::time::Now;
use crate::wire::{self, ChecksumState, Kind, Malformed, PacketFacts, ParsedPacket};
use loaded_fastpath::{Keeping, unseen};
use loaded_ipc::{Admin, BackendIndex, FlowsMeant, Idle, Outcome};
use loaded_table::{AffinityTable, Counters, FlowTable, QuotaTracker, Timeouts};

/// What a worker knows before it has its tables. All memory is allocated.
#[derive(Debug)]
pub struct Prepared {
    setup: Setup,
    backends: BackendStates,
    affinity_timeouts: AffinityTimeouts,
    fragments: FragmentTable,
    timeouts: Box<[Timeouts]>,
    quota: QuotaTracker,
}

/// What a worker knows.
#[derive(Debug)]
pub struct Decider {
    pub(super) setup: Setup,
    pub(super) backends: BackendStates,
    pub(super) affinity_timeouts: AffinityTimeouts,
    pub(super) fragments: FragmentTable,
    pub(super) flows: FlowTable,
    pub(super) clients: AffinityTable,
    pub(super) counters: Counters,
    /// Flows that are being ended.
    pub(super) ending: Option<EndSweep>,
}

/// An order to end flows, under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct EndSweep {
    pub(super) id: u32,
    pub(super) meant: FlowsMeant,
    /// The next bucket.
    pub(super) next: u32,
    pub(super) ended: u32,
}

/// A packet in the memory it was received into.
#[derive(Debug)]
pub struct PacketBuffer<'p> {
    /// The packet's bytes, followed by [`wire::SPARE`] bytes that an answer may need, if the packet is not too long for it.
    pub space: &'p mut [u8],
    /// Bytes of the packet.
    pub length: usize,
    /// What the kernel says about it.
    pub facts: PacketFacts,
}

/// What becomes of a packet, and its length now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// How it ends; the verdict follows from this.
    pub outcome: Outcome,
    /// Bytes of the buffer to send, if any are sent.
    pub length: usize,
    /// The packet stays unchanged and gets a mark that routes it to this backend (mode "dsr").
    pub direct: Option<BackendIndex>,
}

/// A packet that was parsed and whose flow was hashed, with nothing changed yet.
#[derive(Debug, Clone, Copy)]
pub struct Lookup {
    pub(super) packet: Result<ParsedPacket, Malformed>,
    pub(super) query: Option<FlowQuery>,
}

impl Prepared {
    /// Allocates all memory that will ever be needed.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let (backends, affinity_timeouts) = (BackendStates::new(&setup), AffinityTimeouts::new(&setup));
        let idle = |backend| setup.service(setup.service_of(backend)).map_or(Idle::STANDARD, |s| s.policy.idle);
        let numbers = 0..u16::try_from(setup.backend_slots()).unwrap_or(u16::MAX);
        let timeouts = numbers.map(|backend| flow_timeouts(&idle(backend))).collect();
        let quota = setup.quota().map(|q| QuotaTracker::new(q.prefix4, q.prefix6, q.percent)).unwrap_or_default();
        Self { setup, backends, affinity_timeouts, fragments: FragmentTable::new(), timeouts, quota }
    }

    /// Lets the kernel path see whose flows this worker keeps. They are remembered longer by as much as they may go on unseen, never
    /// shorter than their idle times.
    #[must_use]
    pub fn with_keeping(mut self, keeping: Keeping) -> Self {
        for Timeouts { half_open, established, closing, datagram, .. } in &mut self.timeouts {
            for idle in [half_open, established, closing, datagram] {
                *idle = idle.saturating_add(unseen(*idle));
            }
        }
        self.backends.set_keeping(keeping);
        self
    }

    /// Number of the configuration.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.setup.generation()
    }

    /// Takes over the tables, which an earlier worker may have filled: entries that this configuration does not know are
    /// removed, the others are counted. Allocates nothing.
    #[must_use]
    pub fn open(self, mut flows: FlowTable, clients: AffinityTable, counters: Counters, now: Now) -> Decider {
        let Self { setup, backends, affinity_timeouts, fragments, timeouts, quota } = self;
        flows.set_timeouts(timeouts);
        flows.set_quota(quota);
        let mut decider =
            Decider { setup, backends, affinity_timeouts, fragments, flows, clients, counters, ending: None };
        decider.adopt();
        decider.backends.begin(&mut decider.setup, &decider.counters, now);
        decider
    }
}

impl Decider {
    /// [`Prepared::new`] and [`Prepared::open`] in one step.
    #[must_use]
    pub fn new(setup: Setup, flows: FlowTable, clients: AffinityTable, counters: Counters, now: Now) -> Self {
        Prepared::new(setup).open(flows, clients, counters, now)
    }

    /// Number of flows and of clients in the tables.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        (self.flows.len(), self.clients.len())
    }

    /// The worker's counters. The caller of [`Decider::decide`] counts the outcome.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// First stage: parses the packet and prefetches where its flow would be.
    #[must_use]
    #[inline]
    pub fn lookup(&self, bytes: &[u8], facts: PacketFacts) -> Lookup {
        let packet = match wire::parse(bytes, facts.cut) {
            Ok(packet) if facts.checksum == ChecksumState::Complete && wire::lacks_checksum(bytes, &packet) => {
                Err(Malformed::Checksum)
            }
            packet => packet,
        };
        let query = packet.as_ref().ok().and_then(|packet| self.query(packet));
        Lookup { packet, query }
    }

    /// Second stage: prefetches the flow's entry, or where the client of a new flow would be.
    #[inline]
    pub fn prefetch(&self, lookup: &Lookup) {
        if let (Ok(packet), Some(query)) = (&lookup.packet, &lookup.query)
            && !self.flows.prefetch_entry(&query.hashed)
            && let Direction::Request { vip } = query.direction
            && let Some(service) = self.service(packet, vip)
            && let Some(affinity) = self.setup.service(service).and_then(|s| s.affinity)
        {
            self.clients.prepare(&client_key(packet, &affinity, service));
        }
    }

    /// Third stage: decides, and rewrites the packet if it belongs to a flow of ours. `lookup` must come from the same bytes.
    pub fn decide(&mut self, lookup: &Lookup, buffer: PacketBuffer<'_>, now: Now) -> Decided {
        let Ok(packet) = &lookup.packet else { return buffer.unchanged(self.malformed()) };
        let Some(query) = &lookup.query else {
            return match packet.kind {
                Kind::Fragment => self.fragment(packet, buffer, now),
                _ => buffer.unchanged(self.without_flow(packet)),
            };
        };
        match (packet.kind, query.direction) {
            _ if buffer.facts.cut && !self.is_forwarded_directly(packet, query, now) => {
                self.cut(packet, query, buffer, now)
            }
            (Kind::Error(quoted), direction) => self.icmp_error(packet, &quoted, query, direction, buffer, now),
            (_, Direction::Request { vip }) => self.request(packet, query, vip, buffer, now),
            (_, Direction::Reply) => self.reply(packet, query, buffer, now),
            (_, Direction::Past) => buffer.unchanged(self.past(packet, query, now)),
        }
    }

    /// Advances the timers of backends: ejections end, slow starts progress, SYNs that stay unanswered count. Call it
    /// every few milliseconds.
    pub fn tick(&mut self, now: Now) {
        self.backends.tick(&mut self.setup, &self.counters, now);
    }

    /// Call this when the worker has fallen behind: packets wait long in its queue, and some may have been dropped
    /// there, answers of backends among them. So nothing that seems unanswered is held against a backend.
    #[cold]
    pub fn fall_behind(&mut self) {
        self.backends.forgive();
    }

    /// The active checks report that a backend is up or down.
    ///
    /// # Errors
    /// [`Unknown`] if there is no such backend.
    pub fn set_up(&mut self, backend: BackendIndex, up: bool, now: Now) -> Result<(), Unknown> {
        self.backends.set_up(&mut self.setup, &self.counters, backend.0, up, now)
    }

    /// The operator enables, drains or disables a backend.
    ///
    /// # Errors
    /// [`Unknown`] if there is no such backend.
    pub fn set_admin(&mut self, backend: BackendIndex, admin: Admin, now: Now) -> Result<(), Unknown> {
        self.backends.set_admin(&mut self.setup, &self.counters, backend.0, admin, now)
    }
}

impl Decided {
    /// An answer of this length replaces the packet.
    pub(super) fn answer(outcome: Outcome, length: usize) -> Self {
        Self { outcome, length, direct: None }
    }
}

impl PacketBuffer<'_> {
    /// The packet's bytes.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        let length = self.length.min(self.space.len());
        &mut self.space[..length]
    }

    /// The packet ends like this and is not answered.
    pub(super) fn unchanged(&self, outcome: Outcome) -> Decided {
        Decided::answer(outcome, self.length)
    }

    /// The packet goes on to this backend: routed there unchanged if `is_direct`, else with the address that was written
    /// into it.
    pub(super) fn forwarded(&self, outcome: Outcome, backend: u16, is_direct: bool) -> Decided {
        Decided { direct: is_direct.then_some(BackendIndex(backend)), ..self.unchanged(outcome) }
    }
}
