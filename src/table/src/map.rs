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

use crate::bucket::Way;
use crate::error::{Damage, Error, TableFull};
use crate::layout::{self, Births, Bucket, Kind, LAYOUT_VERSION, MAGIC, RegionHeader, WAY_BITS, WAYS};
use crate::shm::{Array, Region, prefetch};
use crate::spec::TableSpec;
use siphasher::sip::SipHasher13;
use std::hash::Hasher;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed, Ordering::Release, fence};

/// A key's two candidate buckets and its tag. Valid for every table with the same hash key and capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    first: u32,
    second: u32,
    tag: u16,
}

impl Hashed {
    /// 16 bits that nobody can predict who does not know the table's key.
    pub(crate) fn unpredictable(&self) -> u16 {
        self.tag
    }
}

/// Where an entry is. Valid until the next insert, remove or sweep; after that it may name another entry or none, which
/// gives a wrong answer but never a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(u32);

/// What an entry holds: 192 bits of key and of data beside the key, and 32 bits of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: [u64; 3],
    pub(crate) value: u32,
}

/// A complete entry, as read from the region.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    pub(crate) record: KeyValue,
    pub(crate) state: u8,
}

/// Where an entry was put, and which one it displaced.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) slot: Slot,
    pub(crate) displaced: Option<Stored>,
    /// The score of the displaced entry, unless it had the same key.
    pub(crate) score: Option<u64>,
}

/// Where an entry can be put, and the score of the one that it would displace.
#[derive(Debug)]
pub(crate) struct Vacancy {
    slot: Slot,
    score: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Map {
    buckets: Array<Bucket>,
    kind: Kind,
    count: u32,
    capacity: usize,
    hash_key: [u64; 2],
    /// Which bits of the third key word are key; the rest is stored but not compared.
    mask: u64,
    len: usize,
    cursor: u32,
    damage: Option<Damage>,
}

/// Arbitrary odd numbers, mixed into an entry's check.
pub(crate) const CHECK: [u64; 5] =
    [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d, 0xd6e8_feb8_6659_fd93];

/// Seconds since `seen`. A time in the future (the clock went back, or the memory is damaged) counts as now.
#[inline]
pub(crate) fn age(now: u32, seen: u32) -> u32 {
    let age = now.wrapping_sub(seen);
    if age > u32::MAX / 2 { 0 } else { age }
}

/// Writes an empty map into `region`, whatever was there before.
pub(crate) fn format(region: &Region, kind: Kind, spec: TableSpec) -> Result<(), Error> {
    let count = spec.buckets()?;
    let size_error = || Error::Size { need: layout::bytes_for(kind, spec.capacity), have: region.bytes() };
    if region.bytes() < layout::bytes_for(kind, spec.capacity) {
        return Err(size_error());
    }
    let header = header(region).ok_or_else(size_error)?;
    let buckets = region.view::<Bucket>(size_of::<RegionHeader>(), count).ok_or_else(size_error)?;
    // The magic is cleared first and written last: a half-formatted region is no table.
    header.magic.store(0, Relaxed);
    fence(Release);
    for bucket in buckets {
        bucket.tags[0].store(0, Relaxed);
        bucket.tags[1].store(0, Relaxed);
    }
    let [k0, k1] = split_key(spec.hash_key);
    header.version.store(LAYOUT_VERSION, Relaxed);
    header.kind.store(kind as u32, Relaxed);
    header.capacity.store(spec.capacity as u64, Relaxed);
    header.buckets.store(count as u64, Relaxed);
    header.key[0].store(k0, Relaxed);
    header.key[1].store(k1, Relaxed);
    header.magic.store(MAGIC, Release);
    Ok(())
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
        let damage = header(&region).and_then(|header| damage_of(header, kind, spec, buckets));
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
        self.count as usize
    }

    /// Hashes a key and prefetches its two header lines.
    #[inline]
    pub(crate) fn prepare(&self, key: &[u64; 3]) -> Hashed {
        let hashed = self.hash(key);
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
            Some(record) => self.same_key(&record.key, key) && accept(&way, &record),
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

    /// Seconds since the entry at `slot` was put in; 0 in a table without births. What a hostile process has left there is no
    /// more than a wrong number.
    pub(crate) fn since_birth(&self, slot: Slot, now: u32) -> u32 {
        self.birth(slot).map_or(0, |birth| age(now, birth.load(Relaxed)))
    }

    /// Sets when the entry was put in, in a table with births.
    #[inline]
    pub(crate) fn set_birth(&self, slot: Slot, at: u32) {
        if let Some(birth) = self.birth(slot) {
            birth.store(at, Relaxed);
        }
    }

    /// The random key of the hash.
    pub(crate) fn hash_key(&self) -> [u64; 2] {
        self.hash_key
    }

    /// Puts an entry in: over the one with the same key that `same` recognizes, else into a free way of the emptier candidate
    /// bucket, else over the entry with the highest `score` (`None`: must stay).
    pub(crate) fn place(
        &mut self,
        hashed: &Hashed,
        (record, state, now): (KeyValue, u8, u32),
        same: impl Fn(&KeyValue) -> bool,
        score: impl Fn(&Self, &Way) -> Option<u64>,
    ) -> Result<Placed, TableFull> {
        let Vacancy { slot, score } = self.vacancy(hashed, &record.key, same, score).ok_or(TableFull)?;
        let displaced = self.remove(slot);
        let way = self.way(slot).ok_or(TableFull)?;
        let [a, b, c] = record.key;
        let [c0, c1, c2, _] = self.check(&record).to_le_bytes();
        let last = u64::from(u16::from_le_bytes([c0, c1])) << 32 | u64::from(record.value);
        self.set_birth(slot, now);
        way.fill([a, b, c, last], (state, c2), now, hashed.tag);
        self.len += 1;
        Ok(Placed { slot, displaced, score })
    }

    /// Where [`Map::place`] would put an entry with this key.
    #[inline]
    pub(crate) fn vacancy(
        &self,
        hashed: &Hashed,
        key: &[u64; 3],
        same: impl Fn(&KeyValue) -> bool,
        score: impl Fn(&Self, &Way) -> Option<u64>,
    ) -> Option<Vacancy> {
        let known = self.find(hashed, key, |_, found| same(found));
        match known.or_else(|| self.free_slot(hashed)) {
            Some(slot) => Some(Vacancy { slot, score: None }),
            None => self.victim(hashed, score),
        }
    }

    /// How many other entries in the bucket of `slot` have this key, which is that of the entry there, and are wanted.
    pub(crate) fn twins(&self, slot: Slot, key: &[u64; 3], want: impl Fn(&Way) -> bool) -> usize {
        let (Some(bucket), Some(way)) = (self.bucket(slot.0 >> WAY_BITS), self.way(slot)) else { return 0 };
        let mut others = bucket.matches(way.tag()) & !(1 << (slot.0 % (1 << WAY_BITS)));
        let mut count = 0;
        while others != 0 {
            let other = Way::new(bucket, others.trailing_zeros());
            others &= others - 1;
            let same = self.key_value(&other).is_some_and(|record| self.same_key(&record.key, key));
            count += usize::from(same && want(&other));
        }
        count
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

    /// Looks at the next `budget` buckets and frees the ways whose entry is torn or `expired`, given its age in seconds.
    pub(crate) fn sweep(
        &mut self,
        now: u32,
        budget: usize,
        expired: impl Fn(&Stored, u32) -> bool,
        mut on_expired: impl FnMut(&Stored),
    ) {
        for _ in 0..budget.min(self.buckets()) {
            let index = self.cursor;
            self.cursor = if index + 1 < self.count { index + 1 } else { 0 };
            let mut occupied = self.bucket(index).map_or(0, Bucket::occupied);
            while occupied != 0 {
                let slot = Slot::new(index, occupied.trailing_zeros());
                occupied &= occupied - 1;
                let Some(way) = self.way(slot) else { continue };
                let seen = way.seen();
                if now.wrapping_sub(seen) > u32::MAX / 2 {
                    // A time in the future would keep the entry for ever: its age starts again.
                    self.touch(slot, now);
                }
                match self.read(slot) {
                    Some(stored) if !expired(&stored, age(now, seen)) => {}
                    Some(stored) => {
                        self.remove(slot);
                        on_expired(&stored);
                    }
                    None => {
                        self.remove(slot);
                    }
                }
            }
        }
    }

    /// The map in a region that another process writes, to read it alone: nothing is checked or cleared.
    pub(crate) fn read_only(region: Region, (kind, mask): (Kind, u64), spec: TableSpec) -> Result<Self, Error> {
        let buckets = spec.buckets()?;
        let (need, have) = (layout::bytes_for(kind, spec.capacity), region.bytes());
        let count = u32::try_from(buckets).map_err(|_| Error::Capacity(spec.capacity))?;
        let array = Array::new(region, size_of::<RegionHeader>(), buckets).filter(|_| have >= need);
        let buckets = array.ok_or(Error::Size { need, have })?;
        let (capacity, hash_key) = (spec.capacity, split_key(spec.hash_key));
        Ok(Self { buckets, kind, count, capacity, hash_key, mask, len: 0, cursor: 0, damage: None })
    }

    /// Calls `visit` for every complete entry.
    pub(crate) fn for_each(&self, visit: impl FnMut(Slot, &Stored)) {
        self.for_each_in(0..self.count, visit);
    }

    /// The same for the entries of some buckets; those that do not exist hold none.
    pub(crate) fn for_each_in(&self, buckets: Range<u32>, mut visit: impl FnMut(Slot, &Stored)) {
        for index in buckets.start..buckets.end.min(self.count) {
            let mut occupied = self.bucket(index).map_or(0, Bucket::occupied);
            while occupied != 0 {
                let slot = Slot::new(index, occupied.trailing_zeros());
                occupied &= occupied - 1;
                if let Some(stored) = self.read(slot) {
                    visit(slot, &stored);
                }
            }
        }
    }

    /// Frees every way whose entry is torn or not wanted by `keep`. Walks the map once.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Stored) -> bool) {
        for index in 0..self.count {
            let mut occupied = self.bucket(index).map_or(0, Bucket::occupied);
            while occupied != 0 {
                let slot = Slot::new(index, occupied.trailing_zeros());
                occupied &= occupied - 1;
                if !self.read(slot).is_some_and(|stored| keep(&stored)) {
                    self.remove(slot);
                }
            }
        }
    }

    /// The contents of `way`, if its check holds.
    #[inline]
    pub(crate) fn key_value(&self, way: &Way) -> Option<KeyValue> {
        let [a, b, c, d] = way.entry();
        let last = d.load(Relaxed);
        let record = KeyValue { key: [a.load(Relaxed), b.load(Relaxed), c.load(Relaxed)], value: low(last) };
        let check = high(last) & 0xffff | u32::from(way.check()) << 16;
        (self.check(&record) == check).then_some(record)
    }

    fn drop_torn(&mut self, accept: impl Fn(&Stored) -> bool) {
        for index in 0..self.count {
            let mut occupied = self.bucket(index).map_or(0, Bucket::occupied);
            self.len += occupied.count_ones() as usize;
            while occupied != 0 {
                let slot = Slot::new(index, occupied.trailing_zeros());
                occupied &= occupied - 1;
                let whole = self.read(slot).is_some_and(|stored| {
                    let hashed = self.hash(&stored.record.key);
                    let tag = self.way(slot).map_or(0, |way| way.tag());
                    tag == hashed.tag && (index == hashed.first || index == hashed.second) && accept(&stored)
                });
                if !whole {
                    self.remove(slot);
                }
            }
        }
    }

    #[inline(always)]
    fn hash(&self, key: &[u64; 3]) -> Hashed {
        // Word by word, since the hash of a slice loops over a length that it takes to be unknown.
        let mut hasher = SipHasher13::new_with_keys(self.hash_key[0], self.hash_key[1]);
        hasher.write_u64(key[0]);
        hasher.write_u64(key[1]);
        hasher.write_u64(key[2] & self.mask);
        let hash = hasher.finish();
        // The upper bits of each half of the hash choose a bucket; the lower bits of both make the tag.
        let scale = |half: u32| high(u64::from(half) * u64::from(self.count));
        let first = scale(low(hash));
        let second = match scale(high(hash)) {
            same if same == first => (first + 1) % self.count,
            other => other,
        };
        let [_, _, a, b] = (low(hash) ^ high(hash).rotate_left(7)).to_be_bytes();
        Hashed { first, second, tag: u16::from_be_bytes([a, b]).max(1) }
    }

    #[inline]
    fn same_key(&self, a: &[u64; 3], b: &[u64; 3]) -> bool {
        a[0] == b[0] && a[1] == b[1] && (a[2] ^ b[2]) & self.mask == 0
    }

    /// 24 bits. Keyed, but only a checksum: it detects torn entries, not forged ones.
    #[inline]
    fn check(&self, record: &KeyValue) -> u32 {
        let [k0, k1] = self.hash_key;
        let [a, b, c] = record.key;
        let left = fold(a ^ k0 ^ CHECK[0], b ^ k1 ^ CHECK[1]);
        let right = fold(c ^ k1 ^ CHECK[2], u64::from(record.value) ^ k0 ^ CHECK[3]);
        high(fold(left ^ k1, right ^ CHECK[4])) >> 8
    }

    #[inline]
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.buckets.as_slice().get(index as usize)
    }

    #[inline]
    fn way(&self, slot: Slot) -> Option<Way<'_>> {
        Some(Way::new(self.bucket(slot.0 >> WAY_BITS)?, slot.0))
    }

    #[inline]
    fn birth(&self, slot: Slot) -> Option<&AtomicU32> {
        let births = self.kind.has_births().then(|| self.buckets.behind::<Births>())??;
        births.get((slot.0 >> WAY_BITS) as usize)?.get(slot.0 as usize % WAYS)
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

    #[inline]
    fn free_slot(&self, hashed: &Hashed) -> Option<Slot> {
        let first = self.bucket(hashed.first)?.matches(0);
        let second = self.bucket(hashed.second)?.matches(0);
        let (index, free) =
            if second.count_ones() > first.count_ones() { (hashed.second, second) } else { (hashed.first, first) };
        (free != 0).then(|| Slot::new(index, free.trailing_zeros()))
    }

    /// The way with the highest score. Ages are whole seconds, so many are equal. Among those the tag decides where to begin:
    /// if it were always the same way, entries there would soon be gone while their neighbours stay.
    #[cold]
    fn victim(&self, hashed: &Hashed, score: impl Fn(&Self, &Way) -> Option<u64>) -> Option<Vacancy> {
        let all = 0..2_u32 << WAY_BITS;
        all.filter_map(|n| {
            let turn = n ^ (u32::from(hashed.tag) % (2 << WAY_BITS));
            let bucket = if turn >> WAY_BITS == 0 { hashed.first } else { hashed.second };
            let slot = Slot::new(bucket, turn % (1 << WAY_BITS));
            score(self, &self.way(slot)?).map(|points| (points, slot))
        })
        .max_by_key(|(points, _)| *points)
        .map(|(points, slot)| Vacancy { slot, score: Some(points) })
    }
}

impl Slot {
    #[inline]
    fn new(bucket: u32, way: u32) -> Self {
        Self(bucket << WAY_BITS | way)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let [low, high] = halves(u128::from(a) * u128::from(b));
    low ^ high
}

#[inline]
fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

#[inline]
fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

/// Where an entry's last word has the bits that neither key nor check covers.
const EXTRA_SHIFT: u32 = 48;

#[inline]
fn top(word: u64) -> u16 {
    (word >> EXTRA_SHIFT) as u16
}

/// Sixteen bytes as two words.
#[inline]
pub(crate) fn split_key(key: [u8; 16]) -> [u64; 2] {
    halves(u128::from_le_bytes(key))
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is wanted")]
fn halves(whole: u128) -> [u64; 2] {
    [whole as u64, (whole >> 64) as u64]
}

fn header(region: &Region) -> Option<&RegionHeader> {
    region.view::<RegionHeader>(0, 1).and_then(<[_]>::first)
}

/// The first field of a header that is not as [`format`] writes it. Nothing else is done with what it says.
fn damage_of(header: &RegionHeader, kind: Kind, spec: TableSpec, buckets: usize) -> Option<Damage> {
    let fields = [
        ("magic", header.magic.load(Relaxed), MAGIC),
        ("layout version", header.version.load(Relaxed).into(), LAYOUT_VERSION.into()),
        ("kind", header.kind.load(Relaxed).into(), kind as u64),
        ("capacity", header.capacity.load(Relaxed), spec.capacity as u64),
        ("number of buckets", header.buckets.load(Relaxed), buckets as u64),
    ];
    let wrong = fields.into_iter().find(|(_, found, expected)| found != expected);
    let other_key = || [&header.key[0], &header.key[1]].map(|word| word.load(Relaxed)) != split_key(spec.hash_key);
    match wrong {
        Some((field, found, expected)) => Some(Damage::Field { field, found, expected }),
        None => other_key().then_some(Damage::HashKey),
    }
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
