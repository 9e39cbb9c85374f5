//! When each entry was put in, in a table whose kind has births. They lie behind the buckets (docs/decisions/0032). What a hostile
//! process has left there is no more than a wrong number.

use super::{Map, Slot, age};
use crate::layout::{Births, WAY_BITS, WAYS};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

impl Map {
    /// Seconds since the entry at `slot` was put in; 0 in a table without births.
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

    #[inline]
    pub(super) fn birth(&self, slot: Slot) -> Option<&AtomicU32> {
        let births = self.kind.has_births().then(|| self.buckets.behind::<Births>())??;
        births.get((slot.0 >> WAY_BITS) as usize)?.get(slot.0 as usize % WAYS)
    }
}
