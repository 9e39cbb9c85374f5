//! What a table is by the word of its maker.

use crate::error::Error;
use crate::layout::{MAX_CAPACITY, buckets_for};
use std::fmt;

/// What the maker of a table has decided, and whoever opens it must know: it is never read from the region, which others can
/// write.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TableSpec {
    /// Entries promised, 1..=[`MAX_CAPACITY`].
    pub capacity: usize,
    /// Must be random and secret: whoever knows it can aim entries at one bucket.
    pub hash_key: [u8; 16],
}

impl TableSpec {
    /// A table for `capacity` entries with this key.
    #[must_use]
    pub const fn new(capacity: usize, hash_key: [u8; 16]) -> Self {
        Self { capacity, hash_key }
    }

    /// Its number of buckets.
    ///
    /// # Errors
    /// [`Error::Capacity`] outside its limits.
    pub fn buckets(self) -> Result<usize, Error> {
        match self.capacity {
            1..=MAX_CAPACITY => Ok(buckets_for(self.capacity)),
            _ => Err(Error::Capacity(self.capacity)),
        }
    }
}

impl fmt::Debug for TableSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableSpec").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}
