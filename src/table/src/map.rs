//! The hash map under both tables: a key has two candidate buckets of eight ways each; entries never move, the map never
//! grows.
//!
//! **Crashes.** A way is filled in this order: tag cleared, birth, entry words, last seen, state, check, tag. A process killed
//! between any two stores leaves a free way, never half an entry, nor one with the birth of another. Against damage of other
//! kinds every entry carries a 24-bit keyed check over key and value; an entry whose check fails does not exist.
//!
//! **Hostile contents.** Indices come from the hash and are bounded by our own count; numbers of ways are 0..8 by
//! construction. Capacity and hash key are the word of whoever opens the region ([`TableSpec`]): the header is compared with
//! them and never used, and no length, index or pointer is ever read from the region.

mod births;
mod hash;
mod header;
mod place;
mod walk;

use crate::bucket::Way;
use crate::error::{Damage, Error};
use crate::layout::{self, Bucket, Kind, RegionHeader, WAY_BITS};
use crate::shm::{Array, Region, prefetch};
use crate::spec::TableSpec;
pub use hash::Hashed;
pub(crate) use hash::{CHECK, KeyValue, split_key};
use hash::{KeyHash, high, low};
use header::damage_of;
pub(crate) use header::format;
use std::sync::atomic::{Ordering::Relaxed, Ordering::Release, fence};

/// Where an entry is. Valid until the next insert, remove or sweep; after that it may name another entry or none, which
/// gives a wrong answer but never a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

/// A complete entry, as read from the region.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) record: KeyValue,
    pub(crate) state: u8,
}

#[derive(Debug)]
pub(crate) struct Map {
    buckets: Array<Bucket>,
    kind: Kind,
    hash: KeyHash,
    capacity: usize,
    len: usize,
    cursor: u32,
    damage: Option<Damage>,
}

/// Seconds since `seen`. A time in the future (the clock went back, or the memory is damaged) counts as now.
#[inline]
pub(crate) fn age(now: u32, seen: u32) -> u32 {
    let age = now.wrapping_sub(seen);
    if age > u32::MAX / 2 { 0 } else { age }
}

impl Map {
    /// Opens a region that `format` made with this `spec` and others filled. Clears every slot whose check, tag or bucket is
    /// wrong, or that `accept` refuses. Walks the map once. A region whose header says anything else is formatted anew:
    /// [`Map::damage`] then says what was found.
    pub(crate) fn open(
        region: Region,
        (kind, mask): (Kind, u64),
        spec: TableSpec,
        accept: impl Fn(&Stored) -> bool,
    ) -> Result<Self, Error> {
        let buckets = spec.buckets()?;
        let damage = damage_of(&region, kind, spec, buckets);
        if damage.is_some() {
            format(&region, kind, spec)?;
        }
        let mut map = Self { damage, ..Self::read_only(region, (kind, mask), spec)? };
        map.drop_torn(accept);
        Ok(map)
    }

    /// What the header said that it should not; the map was then formatted anew.
    pub(crate) fn damage(&self) -> Option<Damage> {
        self.damage
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(crate) fn buckets(&self) -> usize {
        self.hash.buckets as usize
    }

    /// Hashes a key and prefetches its two header lines.
    #[inline]
    pub(crate) fn prepare(&self, key: &[u64; 3]) -> Hashed {
        let hashed = self.hash.of(key);
        for index in [hashed.first, hashed.second] {
            if let Some(bucket) = self.bucket(index) {
                prefetch(bucket);
            }
        }
        hashed
    }

    /// Prefetches the line of the first entry whose tag matches or, if none does, of the way that an insert would fill, and of its
    /// birth: a store that misses holds up all stores after it. To be called when the header lines have arrived. Returns whether a
    /// tag matches: if not, there is no such entry.
    #[inline]
    pub(crate) fn prefetch_entry(&self, hashed: &Hashed) -> bool {
        let found = self.first_match(hashed, |_| true);
        let free = if found.is_none() { self.free_slot(hashed) } else { None };
        if let Some(way) = found.or(free).and_then(|slot| self.way(slot)) {
            prefetch(way.entry());
        }
        if let Some(birth) = free.and_then(|slot| self.birth(slot)) {
            prefetch(birth);
        }
        found.is_some()
    }

    /// The first entry with this key that `accept` takes.
    #[inline]
    pub(crate) fn find(
        &self,
        hashed: &Hashed,
        key: &[u64; 3],
        mut accept: impl FnMut(&Way, &KeyValue) -> bool,
    ) -> Option<Slot> {
        self.first_match(hashed, |way| match self.key_value(&way) {
            Some(record) => self.hash.same_key(&record.key, key) && accept(&way, &record),
            None => false,
        })
    }

    /// The entry at `slot`, if there is a complete one.
    #[inline]
    pub(crate) fn read(&self, slot: Slot) -> Option<Stored> {
        let way = self.way(slot)?;
        if way.tag() == 0 {
            return None;
        }
        Some(Stored { record: self.key_value(&way)?, state: way.state() })
    }

    /// Sets the entry's last-seen time and returns the one it had.
    #[inline]
    pub(crate) fn touch(&self, slot: Slot, now: u32) -> u32 {
        let Some(way) = self.way(slot) else { return now };
        let before = way.seen();
        way.touch(now);
        before
    }

    #[inline]
    pub(crate) fn set_state(&self, slot: Slot, state: u8) {
        if let Some(way) = self.way(slot) {
            way.set_state(state);
        }
    }

    /// The entry's 16 bits that neither key nor check covers.
    #[inline]
    pub(crate) fn extra(&self, slot: Slot) -> u16 {
        self.way(slot).map_or(0, |way| top(way.entry()[3].load(Relaxed)))
    }

    /// Sets them. Writes only when they change, so that the cache line stays clean.
    #[inline]
    pub(crate) fn set_extra(&self, slot: Slot, extra: u16) {
        let Some(way) = self.way(slot) else { return };
        let [.., last] = way.entry();
        let before = last.load(Relaxed);
        // There is one writer, so a load and a store suffice.
        let after = before & !(0xffff << EXTRA_SHIFT) | u64::from(extra) << EXTRA_SHIFT;
        if before != after {
            last.store(after, Relaxed);
        }
    }

    /// The random key of the hash.
    pub(crate) fn hash_key(&self) -> [u64; 2] {
        self.hash.key
    }

    /// Seconds since the entry at `slot` was last seen.
    pub(crate) fn idle(&self, slot: Slot, now: u32) -> Option<u32> {
        self.way(slot).map(|way| age(now, way.seen()))
    }

    /// Frees the way; returns its entry if that was complete.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<Stored> {
        let way = self.way(slot)?;
        if way.tag() == 0 {
            return None;
        }
        let stored = self.read(slot);
        way.set_tag(0);
        // What is written into the way next must not become visible before the way is free.
        fence(Release);
        self.len = self.len.saturating_sub(1);
        stored
    }

    /// The map in a region that another process writes, to read it alone: nothing is checked or cleared.
    pub(crate) fn read_only(region: Region, (kind, mask): (Kind, u64), spec: TableSpec) -> Result<Self, Error> {
        let buckets = spec.buckets()?;
        let (need, have) = (layout::bytes_for(kind, spec.capacity), region.bytes());
        let count = u32::try_from(buckets).map_err(|_| Error::Capacity(spec.capacity))?;
        let array = Array::new(region, size_of::<RegionHeader>(), buckets).filter(|_| have >= need);
        let buckets = array.ok_or(Error::Size { need, have })?;
        let hash = KeyHash { key: split_key(spec.hash_key), buckets: count, mask };
        Ok(Self { buckets, kind, hash, capacity: spec.capacity, len: 0, cursor: 0, damage: None })
    }

    /// The contents of `way`, if its check holds.
    #[inline]
    pub(crate) fn key_value(&self, way: &Way) -> Option<KeyValue> {
        let [a, b, c, d] = way.entry();
        let last = d.load(Relaxed);
        let record = KeyValue { key: [a.load(Relaxed), b.load(Relaxed), c.load(Relaxed)], value: low(last) };
        let check = high(last) & 0xffff | u32::from(way.check()) << 16;
        (self.hash.check(&record) == check).then_some(record)
    }

    #[inline]
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.buckets.as_slice().get(index as usize)
    }

    #[inline]
    fn way(&self, slot: Slot) -> Option<Way<'_>> {
        Some(Way::new(self.bucket(slot.0 >> WAY_BITS)?, slot.0))
    }

    /// The first way with the tag for which `want` holds.
    #[inline]
    fn first_match(&self, hashed: &Hashed, mut want: impl FnMut(Way) -> bool) -> Option<Slot> {
        for index in [hashed.first, hashed.second] {
            let bucket = self.bucket(index)?;
            let mut matches = bucket.matches(hashed.tag);
            while matches != 0 {
                let way = matches.trailing_zeros();
                matches &= matches - 1;
                if want(Way::new(bucket, way)) {
                    return Some(Slot::new(index, way));
                }
            }
        }
        None
    }

    /// How many other entries in the bucket of `slot` have this key, which is that of the entry there, and are wanted.
    pub(crate) fn twins(&self, slot: Slot, key: &[u64; 3], want: impl Fn(&Way) -> bool) -> usize {
        let (Some(bucket), Some(way)) = (self.bucket(slot.0 >> WAY_BITS), self.way(slot)) else { return 0 };
        let mut others = bucket.matches(way.tag()) & !(1 << (slot.0 % (1 << WAY_BITS)));
        let mut count = 0;
        while others != 0 {
            let other = Way::new(bucket, others.trailing_zeros());
            others &= others - 1;
            let same = self.key_value(&other).is_some_and(|record| self.hash.same_key(&record.key, key));
            count += usize::from(same && want(&other));
        }
        count
    }
}

impl Slot {
    #[inline]
    fn new(bucket: u32, way: u32) -> Self {
        Self(bucket << WAY_BITS | way)
    }
}

/// Where an entry's last word has the bits that neither key nor check covers.
const EXTRA_SHIFT: u32 = 48;

#[inline]
fn top(word: u64) -> u16 {
    (word >> EXTRA_SHIFT) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_survives_the_wrap_and_a_clock_that_went_back() {
        assert_eq!(age(10, 4), 6);
        assert_eq!(age(3, u32::MAX), 4);
        assert_eq!(age(4, 10), 0);
    }
}
