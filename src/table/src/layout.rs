//! Where each byte of a table lies. All fields are atomics (see [`crate::shm::Plain`]), read and written relaxed.
//!
//! ```text
//! 0    RegionHeader   128 bytes
//! 128  Bucket 0       320 bytes: one header line, then eight entries of 32 bytes, two a line
//! 448  Bucket 1 …
//!      Births         32 bytes for each bucket: in the flow table alone
//! ```
//! A slot takes 40 bytes, and 4 more where it has a birth; there are [`SLOTS_AN_ENTRY`] for each promised entry: 88 bytes of
//! memory for a flow, 80 for a client.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};

/// "loadedTB", little endian.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"loadedTB");

/// Changes whenever the meaning of any byte of a region changes.
pub const LAYOUT_VERSION: u32 = 6 + OTHER;

/// A build for tests claims another version than the release, so that an upgrade from one to the other exports tables.
const OTHER: u32 = if cfg!(feature = "hostile") { 1000 } else { 0 };

/// Maximum number of entries a table may promise: 2^28, 22 GiB of memory. Slots are numbered in 32 bits.
pub const MAX_CAPACITY: usize = 1 << 28;

/// Ways of a bucket (see [`crate::bucket`]).
pub(crate) const WAYS: usize = 1 << WAY_BITS;
/// Bits of a slot's number that name the way.
pub(crate) const WAY_BITS: u32 = 3;

/// Slots for each promised entry. Two, so that a table that holds all it promised is half full. Measured with entries that
/// may not be displaced, after replacing each one eight times (`src/table/tests/overflow.rs`): of 19, 22 and 24 million
/// inserts at 40, 45 and 50 % of the slots none found both buckets full; at 55 % 2 of 26 million; of a million about 4 at
/// 60 %, 250 at 66 %, 7500 at 75 %.
pub(crate) const SLOTS_AN_ENTRY: usize = 2;

/// What the entries of a table are. Its number is in the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Flows = 1,
    Clients = 2,
}

/// When each entry of a bucket was put in, in seconds of the clock that the caller passes in. They lie behind all buckets, since
/// neither finding a flow nor the kernel's program reads them. Nothing checks them: whoever reads one takes any number.
pub(crate) type Births = [AtomicU32; WAYS];

/// The start of a region. Compared with what the opener knows, and never used: any worker can write it.
#[derive(Debug)]
#[repr(C, align(128))]
pub(crate) struct RegionHeader {
    pub(crate) magic: AtomicU64,
    pub(crate) version: AtomicU32,
    pub(crate) kind: AtomicU32,
    pub(crate) capacity: AtomicU64,
    pub(crate) buckets: AtomicU64,
    pub(crate) key: [AtomicU64; 2],
    spare: [AtomicU64; 10],
}

/// Eight ways.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    /// Four 16-bit tags in each word, way 0 lowest. 0: the way is free. Written last when a way is filled.
    pub(crate) tags: [AtomicU64; 2],
    /// When a packet was last seen, in seconds of the clock that the caller passes in.
    pub(crate) seen: [AtomicU32; WAYS],
    /// In the flow table the `FlowState` and a bit, in the affinity table whether the client is proven.
    pub(crate) state: [AtomicU8; WAYS],
    /// Bits 16 to 23 of the entry's check.
    pub(crate) check: [AtomicU8; WAYS],
    /// Three key words, then from the lowest bit on 32 bits of value, bits 0 to 15 of the check, and 16 bits that neither key nor
    /// check covers: in the flow table the flow's proof, in the affinity table unused. So a new proof is one store, to a line that
    /// finding the flow has read, and a kill leaves the old one or the new one.
    pub(crate) entries: [[AtomicU64; 4]; WAYS],
}

const _: () = assert!(size_of::<RegionHeader>() == 128);
const _: () = assert!(size_of::<Bucket>() == 320);
const _: () = assert!(std::mem::offset_of!(Bucket, entries) == 64);

/// Buckets of a table that promises `capacity` entries; at least two, since a key has two candidates.
pub(crate) const fn buckets_for(capacity: usize) -> usize {
    let buckets = capacity.saturating_mul(SLOTS_AN_ENTRY).div_ceil(WAYS);
    if buckets < 2 { 2 } else { buckets }
}

/// Bytes of a region that promises `capacity` entries, page aligned.
pub(crate) const fn bytes_for(kind: Kind, capacity: usize) -> usize {
    let bytes = buckets_for(capacity).saturating_mul(kind.bucket_bytes()).saturating_add(size_of::<RegionHeader>());
    bytes.div_ceil(4096).saturating_mul(4096)
}

impl Kind {
    /// Whether its entries have a birth.
    pub(crate) const fn has_births(self) -> bool {
        matches!(self, Self::Flows)
    }

    /// Bytes of a bucket, and of what belongs to it behind all buckets.
    pub(crate) const fn bucket_bytes(self) -> usize {
        size_of::<Bucket>() + if self.has_births() { size_of::<Births>() } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_as_documented() {
        assert_eq!(bytes_for(Kind::Flows, 1_000_000), 88_002_560);
        assert_eq!(bytes_for(Kind::Clients, 1_000_000), 80_003_072);
        assert_eq!(buckets_for(1), 2);
        assert!(bytes_for(Kind::Flows, MAX_CAPACITY) < 23 << 30);
    }
}
