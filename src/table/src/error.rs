use std::io;
use thiserror::Error;

/// What can go wrong while memory is created, mapped or opened. None of this can happen once a table is open.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused an operation on a memfd.
    #[error("shared memory {name}: {act}: {source}")]
    Memory {
        /// The name given to `create`, or "region".
        name: String,
        /// The operation: "memfd_create", "ftruncate", "seal", "mmap", "populate"…
        act: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The descriptor is no memfd sealed against shrinking: whoever has it could take pages away under us.
    #[error("shared memory: map: the descriptor is not sealed against shrinking (seals {seals:#x})")]
    NotSealed {
        /// What F_GET_SEALS said.
        seals: i32,
    },
    /// The region is smaller than its table needs.
    #[error("table: open: region has {have} bytes, {need} needed")]
    Size {
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// The promised number of entries is 0 or more than [`crate::MAX_CAPACITY`].
    #[error("table: capacity {0} is outside 1..={max}", max = crate::MAX_CAPACITY)]
    Capacity(usize),
}

/// What a region's header said that its opener knows better. The table was formatted anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Damage {
    /// A number.
    #[error("the header says {field} {found}, not {expected}")]
    Field {
        /// Its name.
        field: &'static str,
        /// In the region.
        found: u64,
        /// As it should be.
        expected: u64,
    },
    /// The key of the hash, which is secret.
    #[error("the header has another hash key")]
    HashKey,
}

/// Both candidate buckets are full of entries that must not be evicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("table: insert: both buckets are full of live entries")]
pub struct TableFull;
