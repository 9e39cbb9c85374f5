//! Puts entries in: into a free way, or over one that may be evicted.

use super::{Hashed, KeyValue, Map, Slot, Stored};
use crate::bucket::Way;
use crate::error::TableFull;
use crate::layout::WAY_BITS;

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

impl Map {
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
        let [c0, c1, c2, _] = self.hash.check(&record).to_le_bytes();
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

    #[inline]
    pub(super) fn free_slot(&self, hashed: &Hashed) -> Option<Slot> {
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
