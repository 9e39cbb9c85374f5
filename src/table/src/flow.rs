//! Flows: protocol, client, client port, service port → virtual IP, backend, service, state.
//!
//! One entry serves both directions. A request is found by its key and its VIP, a reply by its key and its backend;
//! entries with one key and several VIPs live side by side, and the predicate given to [`FlowTable::find`] tells them
//! apart.

use crate::bucket::Way;
use crate::error::{Error, Full};
use crate::layout;
use crate::map::{self, Hashed, Map, Record, Slot, Stored};
use crate::shm::Region;

const KIND: u32 = 1;
/// Third key word: client port, service port and protocol are key; the byte above is zero and is key too; the top 16
/// bits are the service, which is value.
const KEY_MASK: u64 = 0x0000_ffff_ffff_ffff;

/// Both ends of a flow as the client sees them, without the address of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// IP protocol number.
    pub protocol: u8,
    /// The client's address; IPv4 as `::ffff:a.b.c.d`.
    pub client: [u8; 16],
    /// The client's port, or the ICMP echo id. Host byte order.
    pub client_port: u16,
    /// The port of the service; 0 for ICMP echo. Host byte order.
    pub service_port: u16,
}

/// What a flow is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Number of the virtual IP.
    pub vip: u16,
    /// Stable number of the backend.
    pub backend: u16,
    /// Number of the service.
    pub service: u16,
    /// Decides how long the flow may be idle.
    pub state: FlowState,
}

/// Where a flow is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FlowState {
    /// TCP: the client has sent, the backend not yet. May be evicted, first of all.
    HalfOpen = 1,
    /// TCP: open. Never evicted while it lives.
    Established = 2,
    /// TCP: FIN both ways. May be evicted.
    Closing = 3,
    /// UDP, both ways. Never evicted while it lives.
    Datagram = 4,
    /// ICMP echo. May be evicted.
    Echo = 5,
    /// TCP: the client has sent FIN, the backend not: it may send for hours yet. Never evicted while it lives.
    ClientDone = 6,
    /// TCP: the backend has sent FIN, the client not. Never evicted while it lives.
    BackendDone = 7,
    /// TCP: the backend has answered, the client not yet acknowledged. May be evicted.
    Answered = 8,
    /// UDP: the client has sent, the backend not yet. May be evicted, first of all.
    Unanswered = 9,
    /// TCP: RST seen, and nothing since. May be evicted.
    Reset = 10,
}

/// Idle seconds after which a flow is forgotten, by state. A flow idle for exactly this long still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Until both sides have spoken, TCP and UDP. Default 30: longer than the 16 s between a client's fourth and fifth
    /// SYN, so its retries meet the same backend. Short because each costs an attacker one packet.
    pub half_open: u32,
    /// Default 7440 = 2 h 4 min, the least RFC 5382 REQ-5 allows: two hours until the first keep-alive, and 4 min. Also
    /// of a connection that one side has closed: the other may be silent as long.
    pub established: u32,
    /// Default 30: a peer's retransmitted FINs (200 ms doubled seven times is 25 s) still find their flow. Less than
    /// the 4 min of RFC 5382, which guards against a NAT giving the port to another; here the client owns it.
    pub closing: u32,
    /// Default 240, the least RFC 5382 REQ-5 allows for what is not open: the reset may be a forged one that both sides
    /// ignore, and their next packet shows it.
    pub reset: u32,
    /// Default 180: RFC 4787 REQ-5 wants 120 or more; 180 is what Linux conntrack gives a UDP stream.
    pub datagram: u32,
    /// Default 60, the least RFC 5508 REQ-2 allows.
    pub echo: u32,
}

/// Where [`FlowTable::insert`] put a flow, and which one it put it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// The new flow's place.
    pub slot: Slot,
    /// The entry that is gone now: the same flow's old one, an expired one, or an evicted one.
    pub displaced: Option<(FlowKey, Flow)>,
}

/// The flow table of one worker.
#[derive(Debug)]
pub struct FlowTable {
    map: Map,
    timeouts: Timeouts,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { half_open: 30, established: 2 * 3600 + 4 * 60, closing: 30, reset: 240, datagram: 180, echo: 60 }
    }
}

impl Timeouts {
    /// Idle seconds for `state`.
    #[inline]
    pub fn of(&self, state: FlowState) -> u32 {
        match state {
            FlowState::HalfOpen | FlowState::Answered | FlowState::Unanswered => self.half_open,
            FlowState::Established | FlowState::ClientDone | FlowState::BackendDone => self.established,
            FlowState::Closing => self.closing,
            FlowState::Reset => self.reset,
            FlowState::Datagram => self.datagram,
            FlowState::Echo => self.echo,
        }
    }
}

impl FlowTable {
    /// Bytes of a region for `capacity` flows: about 80 a flow.
    pub const fn bytes_for(capacity: usize) -> usize {
        layout::bytes_for(capacity)
    }

    /// Writes an empty table for `capacity` flows (1..=[`crate::MAX_CAPACITY`]) into `region`. `hash_key` must be
    /// random and secret: who knows it can aim flows at one bucket.
    pub fn format(region: &Region, capacity: usize, hash_key: [u8; 16]) -> Result<(), Error> {
        map::format(region, KIND, capacity, hash_key)
    }

    /// Opens a formatted region and drops every entry that is torn. Walks the table once.
    pub fn open(region: Region, timeouts: Timeouts) -> Result<Self, Error> {
        let map = Map::open(region, KIND, KEY_MASK, |stored| {
            FlowState::from_u8(stored.state).is_some() && stored.record.key[2] >> 40 & 0xff == 0
        })?;
        Ok(Self { map, timeouts })
    }

    /// Flows in the table, expired ones that no sweep has met yet included.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the table holds nothing.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// Flows promised at `format`.
    pub fn capacity(&self) -> usize {
        self.map.capacity()
    }

    /// Buckets, the unit of [`FlowTable::sweep`]'s budget.
    pub fn buckets(&self) -> usize {
        self.map.buckets()
    }

    /// First stage: hashes the key and asks for its two header lines.
    #[inline]
    pub fn prepare(&self, key: &FlowKey) -> Hashed {
        self.map.prepare(&key.words())
    }

    /// Second stage, once the header lines have had time to arrive: asks for the line of the entry, or of the place it would get.
    /// `false` if there is certainly no such flow.
    #[inline]
    pub fn prefetch_entry(&self, hashed: &Hashed) -> bool {
        self.map.prefetch_entry(hashed)
    }

    /// Third stage: the living flow with this key for which `accept` holds (its VIP, or its backend).
    #[inline]
    pub fn find(&self, hashed: &Hashed, key: &FlowKey, now: u32, accept: impl Fn(&Flow) -> bool) -> Option<Slot> {
        self.map.find(hashed, &key.words(), |way, record| match FlowState::from_u8(way.state()) {
            Some(state) => {
                map::age(now, way.seen()) <= self.timeouts.of(state) && accept(&Flow::from_record(record, state))
            }
            None => false,
        })
    }

    /// The flow at `slot`, if there is one.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<Flow> {
        unpack(&self.map.read(slot)?).map(|(_, flow)| flow)
    }

    /// A packet of the flow was seen: its idle time begins again. Returns when the last one was.
    #[inline]
    pub fn refresh(&self, slot: Slot, now: u32) -> u32 {
        self.map.touch(slot, now)
    }

    /// Changes the state; the idle time begins again.
    #[inline]
    pub fn set_state(&mut self, slot: Slot, state: FlowState, now: u32) {
        self.map.touch(slot, now);
        self.map.set_state(slot, state as u8);
    }

    /// Puts a flow in. The same key with the same VIP is replaced. Where both buckets are full, an expired entry
    /// makes room, else the oldest half-open one, else the oldest of the closing and echo ones; where there is none,
    /// `Full`: an open connection or a living datagram flow is never given up for a new one.
    pub fn insert(&mut self, hashed: &Hashed, key: &FlowKey, flow: Flow, now: u32) -> Result<Inserted, Full> {
        let timeouts = self.timeouts;
        let placed = self.map.place(
            hashed,
            (flow.to_record(key), flow.state as u8, now),
            |record| Flow::vip_of(record) == flow.vip,
            |_, way| eviction_score(&timeouts, way, now),
        )?;
        Ok(Inserted { slot: placed.slot, displaced: placed.displaced.as_ref().and_then(unpack) })
    }

    /// Whether [`FlowTable::insert`] would find room for a flow with this key and VIP.
    pub fn has_room(&self, hashed: &Hashed, key: &FlowKey, vip: u16, now: u32) -> bool {
        let score = |_: &Map, way: &Way| eviction_score(&self.timeouts, way, now);
        self.map.room(hashed, &key.words(), |record| Flow::vip_of(record) == vip, score).is_some()
    }

    /// Seconds since a packet of the flow at `slot` was last seen.
    pub fn idle(&self, slot: Slot, now: u32) -> Option<u32> {
        self.map.idle(slot, now)
    }

    /// Takes a flow out.
    pub fn remove(&mut self, slot: Slot) -> Option<Flow> {
        unpack(&self.map.remove(slot)?).map(|(_, flow)| flow)
    }

    /// Looks at the next `budget_buckets` buckets (of [`FlowTable::buckets`]; goes round) and takes out what has
    /// expired. A call with a fixed small budget every so many packets keeps the cost even.
    pub fn sweep(&mut self, now: u32, budget_buckets: usize, mut on_expired: impl FnMut(&FlowKey, &Flow)) {
        let timeouts = self.timeouts;
        let expired = |stored: &Stored, age| match FlowState::from_u8(stored.state) {
            Some(state) => age > timeouts.of(state),
            None => true,
        };
        self.map.sweep(now, budget_buckets, expired, |stored| {
            if let Some((key, flow)) = unpack(stored) {
                on_expired(&key, &flow);
            }
        });
    }

    /// Takes out every flow that `keep` does not want, and every entry that is torn. Walks the table once; who comes
    /// from another configuration can count what is left in the same walk.
    pub fn retain(&mut self, mut keep: impl FnMut(&FlowKey, &Flow) -> bool) {
        self.map.retain(|stored| unpack(stored).is_some_and(|(key, flow)| keep(&key, &flow)));
    }

    /// Calls `visit` for every flow, expired ones that no sweep has met yet included. Walks the table.
    pub fn for_each(&self, mut visit: impl FnMut(Slot, &FlowKey, &Flow)) {
        self.map.for_each(|slot, stored| {
            if let Some((key, flow)) = unpack(stored) {
                visit(slot, &key, &flow);
            }
        });
    }
}

/// Higher goes first: expired, unanswered, then what is not open; within one kind the older.
fn eviction_score(timeouts: &Timeouts, way: &Way, now: u32) -> Option<u64> {
    let age = map::age(now, way.seen());
    let rank: u64 = match FlowState::from_u8(way.state()) {
        None => 3,
        Some(state) if age > timeouts.of(state) => 3,
        Some(FlowState::HalfOpen | FlowState::Unanswered) => 2,
        Some(FlowState::Answered | FlowState::Closing | FlowState::Reset | FlowState::Echo) => 1,
        Some(FlowState::Established | FlowState::ClientDone | FlowState::BackendDone | FlowState::Datagram) => {
            return None;
        }
    };
    Some(rank << 32 | u64::from(age))
}

fn unpack(stored: &Stored) -> Option<(FlowKey, Flow)> {
    let state = FlowState::from_u8(stored.state)?;
    Some((FlowKey::from_record(&stored.record), Flow::from_record(&stored.record, state)))
}

impl FlowState {
    /// The state of this number.
    #[inline]
    pub fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::HalfOpen,
            2 => Self::Established,
            3 => Self::Closing,
            4 => Self::Datagram,
            5 => Self::Echo,
            6 => Self::ClientDone,
            7 => Self::BackendDone,
            8 => Self::Answered,
            9 => Self::Unanswered,
            10 => Self::Reset,
            _ => return None,
        })
    }
}

impl FlowKey {
    #[inline]
    fn words(&self) -> [u64; 3] {
        let [a, b] = crate::map::split_key(self.client);
        let [p0, p1] = self.client_port.to_le_bytes();
        let [s0, s1] = self.service_port.to_le_bytes();
        [a, b, u64::from_le_bytes([p0, p1, s0, s1, self.protocol, 0, 0, 0])]
    }

    fn from_record(record: &Record) -> Self {
        let [a, b, c] = record.key;
        let [p0, p1, s0, s1, protocol, ..] = c.to_le_bytes();
        Self {
            protocol,
            client: (u128::from(b) << 64 | u128::from(a)).to_le_bytes(),
            client_port: u16::from_le_bytes([p0, p1]),
            service_port: u16::from_le_bytes([s0, s1]),
        }
    }
}

impl Flow {
    #[inline]
    fn to_record(self, key: &FlowKey) -> Record {
        let [a, b, c] = key.words();
        let [v0, v1] = self.vip.to_le_bytes();
        let [b0, b1] = self.backend.to_le_bytes();
        Record { key: [a, b, c | u64::from(self.service) << 48], value: u32::from_le_bytes([v0, v1, b0, b1]) }
    }

    #[inline]
    fn from_record(record: &Record, state: FlowState) -> Self {
        let [v0, v1, b0, b1] = record.value.to_le_bytes();
        let [.., s0, s1] = record.key[2].to_le_bytes();
        Self {
            vip: u16::from_le_bytes([v0, v1]),
            backend: u16::from_le_bytes([b0, b1]),
            service: u16::from_le_bytes([s0, s1]),
            state,
        }
    }

    fn vip_of(record: &Record) -> u16 {
        let [v0, v1, ..] = record.value.to_le_bytes();
        u16::from_le_bytes([v0, v1])
    }
}
