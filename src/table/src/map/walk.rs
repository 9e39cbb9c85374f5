//! Walks over all entries: to sweep, to list, to keep some, and once when a region is opened.

use super::{Map, Slot, Stored, age};
use crate::layout::Bucket;
use std::iter;
use std::ops::Range;

impl Map {
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
            self.cursor = if index + 1 < self.hash.buckets { index + 1 } else { 0 };
            for slot in self.occupied(index) {
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

    /// Calls `visit` for every complete entry.
    pub(crate) fn for_each(&self, visit: impl FnMut(Slot, &Stored)) {
        self.for_each_in(0..self.hash.buckets, visit);
    }

    /// The same for the entries of some buckets; those that do not exist hold none.
    pub(crate) fn for_each_in(&self, buckets: Range<u32>, mut visit: impl FnMut(Slot, &Stored)) {
        for index in buckets.start..buckets.end.min(self.hash.buckets) {
            for slot in self.occupied(index) {
                if let Some(stored) = self.read(slot) {
                    visit(slot, &stored);
                }
            }
        }
    }

    /// Frees every way whose entry is torn or not wanted by `keep`. Walks the map once.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Stored) -> bool) {
        for index in 0..self.hash.buckets {
            for slot in self.occupied(index) {
                if !self.read(slot).is_some_and(|stored| keep(&stored)) {
                    self.remove(slot);
                }
            }
        }
    }

    pub(super) fn drop_torn(&mut self, accept: impl Fn(&Stored) -> bool) {
        for index in 0..self.hash.buckets {
            for slot in self.occupied(index) {
                self.len += 1;
                let whole = self.read(slot).is_some_and(|stored| {
                    let hashed = self.hash.of(&stored.record.key);
                    let tag = self.way(slot).map_or(0, |way| way.tag());
                    tag == hashed.tag && (index == hashed.first || index == hashed.second) && accept(&stored)
                });
                if !whole {
                    self.remove(slot);
                }
            }
        }
    }

    /// The slots of a bucket that hold an entry now.
    fn occupied(&self, index: u32) -> impl Iterator<Item = Slot> + use<> {
        let mut occupied = self.bucket(index).map_or(0, Bucket::occupied);
        iter::from_fn(move || {
            let way = (occupied != 0).then(|| occupied.trailing_zeros())?;
            occupied &= occupied - 1;
            Some(Slot::new(index, way))
        })
    }
}
