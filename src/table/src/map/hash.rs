//! The keyed hash that finds a key's buckets (SipHash-1-3, since clients choose their keys), and the keyed checksum that tells a
//! whole entry from a torn one.

use siphasher::sip::SipHasher13;
use std::hash::Hasher;

/// A key's two candidate buckets and its tag. Valid for every table with the same hash key and capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hashed {
    pub(super) first: u32,
    pub(super) second: u32,
    pub(super) tag: u16,
}

impl Hashed {
    /// 16 bits that nobody can predict who does not know the table's key.
    pub(crate) fn unpredictable(&self) -> u16 {
        self.tag
    }
}

/// What an entry holds: 192 bits of key and of data beside the key, and 32 bits of value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: [u64; 3],
    pub(crate) value: u32,
}

/// The hash of one table.
#[derive(Debug)]
pub(super) struct KeyHash {
    pub(super) key: [u64; 2],
    pub(super) buckets: u32,
    /// Which bits of the third key word are key; the rest is stored but not compared.
    pub(super) mask: u64,
}

/// Arbitrary odd numbers, mixed into an entry's check.
pub(crate) const CHECK: [u64; 5] =
    [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0x2545_f491_4f6c_dd1d, 0xd6e8_feb8_6659_fd93];

impl KeyHash {
    /// A key's candidates.
    #[inline(always)]
    pub(super) fn of(&self, key: &[u64; 3]) -> Hashed {
        // Word by word, since the hash of a slice loops over a length that it takes to be unknown.
        let mut hasher = SipHasher13::new_with_keys(self.key[0], self.key[1]);
        hasher.write_u64(key[0]);
        hasher.write_u64(key[1]);
        hasher.write_u64(key[2] & self.mask);
        let hash = hasher.finish();
        // The upper bits of each half of the hash choose a bucket; the lower bits of both make the tag.
        let scale = |half: u32| high(u64::from(half) * u64::from(self.buckets));
        let first = scale(low(hash));
        let second = match scale(high(hash)) {
            same if same == first => (first + 1) % self.buckets,
            other => other,
        };
        let [_, _, a, b] = (low(hash) ^ high(hash).rotate_left(7)).to_be_bytes();
        Hashed { first, second, tag: u16::from_be_bytes([a, b]).max(1) }
    }

    #[inline]
    pub(super) fn same_key(&self, a: &[u64; 3], b: &[u64; 3]) -> bool {
        a[0] == b[0] && a[1] == b[1] && (a[2] ^ b[2]) & self.mask == 0
    }

    /// 24 bits. Keyed, but only a checksum: it detects torn entries, not forged ones.
    #[inline]
    pub(super) fn check(&self, record: &KeyValue) -> u32 {
        let [k0, k1] = self.key;
        let [a, b, c] = record.key;
        let left = fold(a ^ k0 ^ CHECK[0], b ^ k1 ^ CHECK[1]);
        let right = fold(c ^ k1 ^ CHECK[2], u64::from(record.value) ^ k0 ^ CHECK[3]);
        high(fold(left ^ k1, right ^ CHECK[4])) >> 8
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let [low, high] = halves(u128::from(a) * u128::from(b));
    low ^ high
}

#[inline]
pub(super) fn low(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

#[inline]
pub(super) fn high(word: u64) -> u32 {
    (word >> 32) as u32
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
