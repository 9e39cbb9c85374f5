//! The Internet checksum (RFC 1071), whole and incremental (RFC 1624).
//!
//! A *sum* is a folded ones' complement sum, not inverted; a *checksum* is its inverse, as it stands in a header.

/// Sum of bytes, taken as 16-bit words in network byte order; a zero is added to an odd number of bytes.
#[must_use]
#[inline]
pub fn sum(bytes: &[u8]) -> u16 {
    // The word size does not matter to ones' complement addition (RFC 1071, 2 (C)): 32-bit words summed in 64 bits cannot
    // overflow below 16 GiB.
    let (words, rest) = bytes.as_chunks::<4>();
    let mut total = words.iter().map(|word| u64::from(u32::from_be_bytes(*word))).sum::<u64>();
    if !rest.is_empty() {
        let mut tail = [0; 4];
        tail[..rest.len()].copy_from_slice(rest);
        total += u64::from(u32::from_be_bytes(tail));
    }
    fold(total)
}

/// Writes the new bytes and returns the sum of the old ones.
#[inline]
pub(super) fn swap<const N: usize>(bytes: &mut [u8], at: usize, new: &[u8; N]) -> u16 {
    let Some(place) = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<N>) else { return 0 };
    let old = sum(place);
    *place = *new;
    old
}

/// Ones' complement sum of two sums.
#[must_use]
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// The checksum after bytes that summed up to `old` became bytes that sum up to `new` (RFC 1624, equation 3).
#[must_use]
pub fn update(checksum: u16, old: u16, new: u16) -> u16 {
    !add(add(!checksum, !old), new)
}

/// The same for a field that holds a sum, as with `CHECKSUM_PARTIAL` that of the pseudo header.
#[must_use]
pub fn update_sum(field: u16, old: u16, new: u16) -> u16 {
    add(add(field, !old), new)
}

/// Sum of the pseudo header: addresses, upper-layer length and protocol (RFC 9293 §3.1, RFC 8200 §8.1).
#[must_use]
pub fn pseudo_header(source: &[u8], destination: &[u8], protocol: u8, length: usize) -> u16 {
    fold(u64::from(sum(source)) + u64::from(sum(destination)) + u64::from(protocol) + length as u64)
}

fn fold(mut total: u64) -> u16 {
    while total > 0xffff {
        total = (total >> 16) + (total & 0xffff);
    }
    u16::try_from(total).unwrap_or(0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From scratch: one 16-bit word after the other, as RFC 1071 §1 defines it.
    fn plain(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |b| u32::from(*b));
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).expect("folded")
    }

    /// 0 and 0xffff are the same number in ones' complement.
    fn same(a: u16, b: u16) -> bool {
        a == b || matches!((a, b), (0, 0xffff) | (0xffff, 0))
    }

    #[test]
    fn the_rfc_1071_example() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn the_rfc_1624_corner_case() {
        // §4: equation 2 would give 0xffff here.
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn a_sum_is_the_plain_sum(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(same(sum(&bytes), plain(&bytes)));
        }

        #[test]
        fn an_update_is_the_checksum_from_scratch(
            mut bytes in prop::collection::vec(any::<u8>(), 40..200), new: [u8; 4], at in 0usize..9,
        ) {
            let before = !sum(&bytes);
            let at = at * 4;
            let old = sum(&bytes[at..at + 4]);
            bytes[at..at + 4].copy_from_slice(&new);
            prop_assert!(same(update(before, old, sum(&new)), !sum(&bytes)));
            prop_assert!(same(update_sum(!before, old, sum(&new)), sum(&bytes)));
        }
    }
}
