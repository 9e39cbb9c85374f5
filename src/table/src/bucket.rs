//! Operations on a bucket's header line and on its ways. Where each byte lies is said in [`crate::layout`].
//!
//! *Way* is the word for a position in a set-associative cache: a bucket is a set of eight ways, and a key may be in any of
//! them.

use crate::layout::{Bucket, WAYS};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release};

/// One of the eight positions of a bucket. `index` is 0..8.
pub(crate) struct Way<'a> {
    bucket: &'a Bucket,
    index: usize,
}

impl<'a> Way<'a> {
    /// Way `index` (its lowest three bits) of `bucket`.
    #[inline]
    pub(crate) fn new(bucket: &'a Bucket, index: u32) -> Self {
        Self { bucket, index: index as usize % WAYS }
    }
}

impl Way<'_> {
    #[inline]
    pub(crate) fn seen(&self) -> u32 {
        self.bucket.seen[self.index].load(Relaxed)
    }

    #[inline]
    pub(crate) fn state(&self) -> u8 {
        self.bucket.state[self.index].load(Relaxed)
    }

    /// Sets the last-seen time. Writes only when the second has changed, so that the cache line stays clean.
    #[inline]
    pub(crate) fn touch(&self, now: u32) {
        let seen = &self.bucket.seen[self.index];
        if seen.load(Relaxed) != now {
            seen.store(now, Relaxed);
        }
    }

    #[inline]
    pub(crate) fn set_state(&self, state: u8) {
        self.bucket.state[self.index].store(state, Relaxed);
    }

    /// Bits 16 to 23 of the check.
    #[inline]
    pub(crate) fn check(&self) -> u8 {
        self.bucket.check[self.index].load(Relaxed)
    }

    #[inline]
    pub(crate) fn entry(&self) -> &[AtomicU64; 4] {
        &self.bucket.entries[self.index]
    }

    #[inline]
    pub(crate) fn tag(&self) -> u16 {
        let word = self.bucket.tags[self.index / 4].load(Relaxed);
        (word >> (self.index % 4 * 16) & 0xffff) as u16
    }

    #[inline]
    pub(crate) fn set_tag(&self, tag: u16) {
        // There is one writer, so a load and a store suffice. The word is stored at once: a kill leaves the old or the new tags.
        let word = &self.bucket.tags[self.index / 4];
        let shift = self.index % 4 * 16;
        word.store(word.load(Relaxed) & !(0xffff << shift) | u64::from(tag) << shift, Release);
    }

    /// Fills a free way. The tag publishes it, and is written last.
    #[inline]
    pub(crate) fn fill(&self, words: [u64; 4], (state, check): (u8, u8), now: u32, tag: u16) {
        for (place, word) in self.entry().iter().zip(words) {
            place.store(word, Relaxed);
        }
        self.bucket.seen[self.index].store(now, Relaxed);
        self.bucket.state[self.index].store(state, Relaxed);
        self.bucket.check[self.index].store(check, Relaxed);
        self.set_tag(tag);
    }
}

impl Bucket {
    /// A bit for each way whose tag is `tag`.
    #[inline]
    pub(crate) fn matches(&self, tag: u16) -> u32 {
        let pattern = u64::from(tag) * 0x0001_0001_0001_0001;
        let [low, high] = &self.tags;
        zero_lanes([low.load(Relaxed) ^ pattern, high.load(Relaxed) ^ pattern])
    }

    #[inline]
    pub(crate) fn occupied(&self) -> u32 {
        !self.matches(0) & 0xff
    }
}

/// A bit for each of the eight 16-bit lanes that is zero. Exact: no lane depends on its neighbours.
#[inline]
fn zero_lanes(words: [u64; 2]) -> u32 {
    const LOW15: u64 = 0x7fff_7fff_7fff_7fff;
    // The top bit of each lane that is zero.
    let [low, high] = words.map(|x| !(((x & LOW15) + LOW15) | x | LOW15));
    // Bits 0, 16, 32, 48, and four above each of them, gathered into the eight bits from 48; all other products are below.
    ((low >> 15 | high >> 11).wrapping_mul(1 << 48 | 1 << 33 | 1 << 18 | 1 << 3) >> 48) as u32 & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_zero_lane_is_found() {
        for lanes in 0..256_u32 {
            for other in [1_u64, 0x7fff, 0x8000, 0xffff] {
                let word =
                    |from: u32| (0..4).map(move |i| if lanes >> (from + i) & 1 == 1 { 0 } else { other << (16 * i) });
                let words = [0, 4].map(|from| word(from).sum());
                assert_eq!(zero_lanes(words), lanes, "{words:#x?}");
            }
        }
    }
}
