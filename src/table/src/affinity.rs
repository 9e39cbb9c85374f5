//! Affinity: client (an address or a prefix of it) and service → backend.
//!
//! The strategy `weighted` counts the clients of each (service, backend) itself, without walking the table: each operation
//! reports how it changes that number. One client more for each [`AffinityTable::assign`] that succeeds, one less for each
//! [`Client`] reported as removed.

use crate::bucket::Way;
use crate::error::{Damage, Error};
use crate::layout::{self, Kind};
use crate::map::{self, Hashed, KeyValue, Map, Slot, Stored};
use crate::shm::Region;
use crate::spec::TableSpec;

/// States of an entry: its client has only sent, or has shown that it hears what it is answered.
const UNPROVEN: u8 = 0;
const PROVEN: u8 = 1;

/// One client of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AffinityKey {
    /// The client's address with the bits outside its prefix zeroed; IPv4 as `::ffff:a.b.c.d`.
    pub prefix: [u8; 16],
    /// Number of the service.
    pub service: u16,
}

/// A client, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    /// Number of the service.
    pub service: u16,
    /// Stable number of the backend.
    pub backend: u16,
}

/// What [`AffinityTable::assign`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assigned {
    /// Where the client's entry is.
    pub slot: Slot,
    /// The entry that was replaced: the same client's old one, or another client's that had to make room.
    pub removed: Option<Client>,
}

/// The affinity table of one worker.
#[derive(Debug)]
pub struct AffinityTable {
    map: Map,
}

impl AffinityTable {
    /// Bytes of a region for `capacity` clients: about 80 a client.
    pub const fn bytes_for(capacity: usize) -> usize {
        layout::bytes_for(Kind::Clients, capacity)
    }

    /// Writes an empty table into `region`.
    pub fn format(region: &Region, spec: TableSpec) -> Result<(), Error> {
        map::format(region, Kind::Clients, spec)
    }

    /// Opens a region that was formatted with this `spec`, removes every torn entry, and reports each client found, so that it
    /// can be counted. A region whose header says anything else is formatted anew, see [`AffinityTable::damage`].
    ///
    /// # Errors
    /// If the region is smaller than `spec` needs.
    pub fn open(region: Region, spec: TableSpec, mut on_client: impl FnMut(Client)) -> Result<Self, Error> {
        let sound = |stored: &Stored| stored.state <= PROVEN && is_ours(&stored.record);
        let map = Map::open(region, (Kind::Clients, u64::MAX), spec, sound)?;
        map.for_each(|_, stored| on_client(client(&stored.record)));
        Ok(Self { map })
    }

    /// Clients in the table, including expired ones that no sweep has removed yet.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the table holds nothing.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// What the header said that it should not, and for which [`AffinityTable::open`] has emptied the table.
    pub fn damage(&self) -> Option<Damage> {
        self.map.damage()
    }

    /// Clients promised.
    pub fn capacity(&self) -> usize {
        self.map.capacity()
    }

    /// Number of buckets, the unit of [`AffinityTable::sweep`]'s budget.
    pub fn buckets(&self) -> usize {
        self.map.buckets()
    }

    /// First stage: hashes the key and prefetches its two header lines.
    #[inline]
    pub fn prepare(&self, key: &AffinityKey) -> Hashed {
        self.map.prepare(&key.words())
    }

    /// Second stage: prefetches the line of the entry, or of the way it would get.
    #[inline]
    pub fn prefetch_entry(&self, hashed: &Hashed) {
        self.map.prefetch_entry(hashed);
    }

    /// The client's backend, unless it was last seen more than `timeout` seconds ago.
    #[inline]
    pub fn find(&self, hashed: &Hashed, key: &AffinityKey, now: u32, timeout: u32) -> Option<(Slot, u16)> {
        let slot = self.map.find(hashed, &key.words(), |way, _| map::age(now, way.seen()) <= timeout)?;
        Some((slot, client(&self.map.read(slot)?.record).backend))
    }

    /// Seconds since a packet of the client at `slot` was last seen.
    pub fn idle(&self, slot: Slot, now: u32) -> Option<u32> {
        self.map.idle(slot, now)
    }

    /// The client at `slot`, if there is one.
    pub fn get(&self, slot: Slot) -> Option<Client> {
        Some(client(&self.map.read(slot)?.record))
    }

    /// A packet of the client was seen: its idle time starts again.
    #[inline]
    pub fn refresh(&self, slot: Slot, now: u32) {
        self.map.touch(slot, now);
    }

    /// The client at `slot` has shown that it hears what it is answered, which a spoofed source cannot. It is evicted only
    /// after all clients that have not.
    #[inline]
    pub fn prove(&mut self, slot: Slot) {
        self.map.set_state(slot, PROVEN);
    }

    /// Gives the client a backend, whether it had one or not; the entry is not proven yet. Always succeeds: if both buckets are
    /// full, an expired client is evicted (`timeout_of` gives each service's seconds), else the one of the unproven, else of
    /// all, that was unseen for the longest.
    ///
    /// Count one client more for (`key.service`, `backend`), and one less for `removed`. `None`: nothing was done, since
    /// `hashed` comes from another table.
    pub fn assign(
        &mut self,
        hashed: &Hashed,
        key: &AffinityKey,
        backend: u16,
        now: u32,
        timeout_of: impl Fn(u16) -> u32,
    ) -> Option<Assigned> {
        let record = KeyValue { key: key.words(), value: u32::from(backend) };
        let score = |map: &Map, way: &Way| {
            let age = map::age(now, way.seen());
            let rank: u64 = match map.key_value(way) {
                None => 3,
                Some(record) if age > timeout_of(client(&record).service) => 2,
                Some(_) => u64::from(way.state() != PROVEN),
            };
            Some(rank << 32 | u64::from(age))
        };
        let placed = self.map.place(hashed, (record, UNPROVEN, now), |_| true, score).ok()?;
        Some(Assigned { slot: placed.slot, removed: placed.displaced.map(|stored| client(&stored.record)) })
    }

    /// Removes a client, and says what to count down.
    pub fn remove(&mut self, slot: Slot) -> Option<Client> {
        Some(client(&self.map.remove(slot)?.record))
    }

    /// Looks at the next `budget_buckets` buckets, round and round, and removes the clients that were unseen for longer than
    /// their service's `timeout_of` seconds, reporting each.
    pub fn sweep(
        &mut self,
        now: u32,
        budget_buckets: usize,
        timeout_of: impl Fn(u16) -> u32,
        mut on_gone: impl FnMut(Client),
    ) {
        let expired = |stored: &Stored, age| age > timeout_of(client(&stored.record).service);
        self.map.sweep(now, budget_buckets, expired, |stored| on_gone(client(&stored.record)));
    }

    /// Removes every client that `keep` does not want, and every torn entry. Walks the table once. Reports nothing: counting
    /// starts again with what is left.
    pub fn retain(&mut self, mut keep: impl FnMut(&AffinityKey, Client) -> bool) {
        self.map.retain(|stored| {
            is_ours(&stored.record) && keep(&AffinityKey::from_key_value(&stored.record), client(&stored.record))
        });
    }

    /// Calls `visit` for every client, including expired ones that no sweep has removed yet. Walks the table.
    pub fn for_each(&self, mut visit: impl FnMut(Slot, &AffinityKey, Client)) {
        self.map
            .for_each(|slot, stored| visit(slot, &AffinityKey::from_key_value(&stored.record), client(&stored.record)));
    }
}

impl AffinityKey {
    #[inline]
    fn words(&self) -> [u64; 3] {
        let [a, b] = map::split_key(self.prefix);
        [a, b, u64::from(self.service)]
    }

    fn from_key_value(record: &KeyValue) -> Self {
        let [a, b, _] = record.key;
        let prefix = (u128::from(b) << 64 | u128::from(a)).to_le_bytes();
        Self { prefix, service: client(record).service }
    }
}

/// Whether the bits that we never write are zero.
fn is_ours(record: &KeyValue) -> bool {
    record.key[2] >> 16 == 0 && record.value >> 16 == 0
}

#[inline]
fn client(record: &KeyValue) -> Client {
    let [s0, s1, ..] = record.key[2].to_le_bytes();
    let [b0, b1, ..] = record.value.to_le_bytes();
    Client { service: u16::from_le_bytes([s0, s1]), backend: u16::from_le_bytes([b0, b1]) }
}
