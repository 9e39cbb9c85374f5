//! Counters in shared memory: one process writes them, others read.
#![deny(unsafe_code)]

use super::{Array, Region};
use crate::error::Error;
use nix::sys::mman::ProtFlags;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};

/// The writing end of a fixed array of counters: one writer, any number of readers.
#[derive(Debug)]
pub struct Counters {
    words: Array<AtomicU64>,
}

impl Counters {
    /// Bytes to `create` for `count` counters.
    pub const fn bytes_for(count: usize) -> usize {
        count.saturating_mul(size_of::<u64>())
    }

    /// Maps the counters in `fd` for writing. They go on from the values of an earlier writer.
    pub fn map(fd: impl AsFd) -> Result<Self, Error> {
        Ok(Self { words: words(Region::map(fd)?)? })
    }

    /// The same, never unmapped; see [`Region::for_good`].
    #[must_use]
    pub fn for_good(mut self) -> Self {
        self.words.region.for_good = true;
        self
    }

    /// Adds `n` to counter `index`; wraps at 2^64. An index that does not exist is ignored.
    #[inline]
    pub fn add(&self, index: usize, n: u64) {
        // There is one writer, so a load and a store suffice: no locked instruction in the packet path.
        if let Some(counter) = self.words.as_slice().get(index) {
            counter.store(counter.load(Relaxed).wrapping_add(n), Relaxed);
        }
    }

    /// Takes 1 from counter `index`, unless it is 0. An index that does not exist is ignored.
    #[inline]
    pub fn take(&self, index: usize) {
        if let Some(counter) = self.words.as_slice().get(index) {
            counter.store(counter.load(Relaxed).saturating_sub(1), Relaxed);
        }
    }

    /// Sets counter `index`. An index that does not exist is ignored.
    #[inline]
    pub fn set(&self, index: usize, value: u64) {
        if let Some(counter) = self.words.as_slice().get(index) {
            counter.store(value, Relaxed);
        }
    }

    /// Sets counter `index` to `after` if it is `before`, atomically: if several try at once, one succeeds. Returns whether this
    /// one did. It then sees everything that was written before the counter was set to `before`.
    pub fn exchange(&self, index: usize, before: u64, after: u64) -> bool {
        let counter = self.words.as_slice().get(index);
        counter.is_some_and(|counter| counter.compare_exchange(before, after, AcqRel, Relaxed).is_ok())
    }

    /// The value of counter `index`, if it exists.
    pub fn get(&self, index: usize) -> Option<u64> {
        self.words.as_slice().get(index).map(|counter| counter.load(Relaxed))
    }
}

/// The reading end. The writer may be hostile: what is read are numbers that may be absurd and may go backwards.
#[derive(Debug)]
pub struct CounterReader {
    words: Array<AtomicU64>,
}

impl CounterReader {
    /// Maps the counters in `fd` read-only.
    pub fn map(fd: impl AsFd) -> Result<Self, Error> {
        Ok(Self { words: words(Region::map_as(fd, ProtFlags::PROT_READ)?)? })
    }

    /// The value of counter `index`, if it exists.
    pub fn get(&self, index: usize) -> Option<u64> {
        self.words.as_slice().get(index).map(|counter| counter.load(Relaxed))
    }

    /// All values, in order.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        self.words.as_slice().iter().map(|counter| counter.load(Relaxed))
    }
}

/// A whole region as words.
fn words(region: Region) -> Result<Array<AtomicU64>, Error> {
    let have = region.bytes();
    Array::new(region, 0, have / size_of::<u64>()).ok_or(Error::Size { need: size_of::<u64>(), have })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::create;

    #[test]
    fn counters_are_seen_by_the_reader() {
        let fd = create("counters", Counters::bytes_for(4)).expect("create");
        let writer = Counters::map(&fd).expect("map");
        let reader = CounterReader::map(&fd).expect("map");
        writer.add(0, 1);
        writer.add(3, 41);
        writer.add(3, 1);
        writer.add(4, 1);
        assert_eq!(reader.iter().collect::<Vec<_>>(), [1, 0, 0, 42]);
        assert_eq!(reader.get(4), None);
        writer.take(3);
        writer.take(2);
        writer.set(1, 7);
        writer.set(4, 1);
        assert_eq!(reader.iter().collect::<Vec<_>>(), [1, 7, 0, 41]);
        assert!(writer.exchange(1, 7, 8));
        assert!(!writer.exchange(1, 7, 9) && !writer.exchange(4, 1, 2));
        assert_eq!(reader.get(1), Some(8));
        drop(writer);
        Counters::map(&fd).expect("map").add(0, u64::MAX);
        assert_eq!(reader.get(0), Some(0));
    }
}
