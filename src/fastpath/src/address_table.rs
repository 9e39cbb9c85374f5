//! Places addresses for the program: a hash table of buckets, in which each address is in the one bucket that its hash names.
//! The program then looks at one or two cache lines, for foreign packets too. Pure.

use crate::shared::{ADDRESS_BITS, ADDRESS_BUCKETS, ADDRESS_SLOTS};

/// Seeds that are tried before the addresses are said not to fit.
const TRIES: u64 = 32;

/// The two odd numbers that the hash multiplies an address's words by.
pub type Seed = [u64; 2];

/// Where each address goes: its slot of the whole table.
#[derive(Debug, PartialEq, Eq)]
pub struct Placement {
    /// For the program.
    pub seed: Seed,
    /// In the order of the addresses.
    pub slots: Vec<usize>,
}

/// The bucket of an address.
#[must_use]
pub fn bucket_of(address: &[u8; 16], seed: Seed) -> usize {
    let [low, high] =
        [0, 8].map(|at| address[at..at + 8].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    let hash = low.wrapping_mul(seed[0]).wrapping_add(high.wrapping_mul(seed[1]));
    usize::try_from(hash >> (64 - ADDRESS_BITS)).unwrap_or(0)
}

/// Places addresses, each once. `random` should be secret: who may choose addresses of backends could else fill a bucket, after
/// which the kernel path is off. `None`: they are too many or too alike.
#[must_use]
pub fn place(addresses: &[[u8; 16]], random: Seed) -> Option<Placement> {
    (0..TRIES).find_map(|n| {
        // Odd, so that no bit of an address is lost.
        let seed = random.map(|word| word.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
        place_with(addresses, seed).map(|slots| Placement { seed, slots })
    })
}

fn place_with(addresses: &[[u8; 16]], seed: Seed) -> Option<Vec<usize>> {
    let mut used = vec![0_usize; ADDRESS_BUCKETS];
    addresses
        .iter()
        .map(|address| {
            let bucket = bucket_of(address, seed);
            let slot = used[bucket];
            used[bucket] += 1;
            (slot < ADDRESS_SLOTS).then_some(bucket * ADDRESS_SLOTS + slot)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn v4(n: u32) -> [u8; 16] {
        (0xffff << 32 | u128::from(n)).to_be_bytes()
    }

    #[test]
    fn each_address_has_a_slot_of_its_own_in_its_bucket() {
        let addresses: Vec<_> =
            (0..4096).map(|n| v4(0x0a00_0000 + n)).chain((0..64_u128).map(|n| (n << 64).to_be_bytes())).collect();
        let Placement { seed, slots } =
            place(&addresses, [0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321]).expect("room");
        assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), addresses.len());
        for (address, slot) in addresses.iter().zip(slots) {
            assert_eq!(slot / ADDRESS_SLOTS, bucket_of(address, seed));
        }
    }

    #[test]
    fn too_many_are_refused() {
        let addresses: Vec<_> = (0..40_000).map(v4).collect();
        assert_eq!(place(&addresses, [3, 5]), None);
    }
}
