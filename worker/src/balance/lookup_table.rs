//! The table of Maglev: which member has which place.

use super::pool::Pool;
use siphasher::sip::SipHasher13;

/// LookupTable for few members: prime, 100 each for 655.
const SMALL: u32 = 65_537;
/// LookupTable for many members: prime, 100 each for 6553.
const LARGE: u32 = 655_373;

/// No member has this position, for a pool has at most `Pool::MAX_MEMBERS`.
const NOBODY: u16 = u16::MAX;

/// What a hash is for; the second half of its key.
const OFFSET: u64 = u64::from_le_bytes(*b"offset..");
const SKIP: u64 = u64::from_le_bytes(*b"skip....");

/// LookupTable in the table for `members` members: a prime, at least 100 for each. Two bytes of memory a place.
pub const fn table_size(members: usize) -> usize {
    if members * 100 <= SMALL as usize { SMALL as usize } else { LARGE as usize }
}

/// Place → position of the member in the pool.
#[derive(Debug)]
pub(super) struct LookupTable(Box<[u16]>);

/// A member's walk through its permutation.
struct Permutation {
    position: u16,
    skip: u32,
    /// The next place to look at.
    at: u32,
    /// LookupTable it is to get.
    share: u64,
    /// LookupTable it has.
    taken: u64,
}

impl LookupTable {
    /// The table of all the primaries, or of all the backups: empty where they have no weight. About
    /// `size * ln(size)` looks at a place.
    pub(super) fn new(pool: &Pool, backups: bool, seed: u64) -> Self {
        let mut members: Vec<_> =
            (0_u16..).zip(pool.members().map(|m| m.spec)).filter(|(_, m)| m.backup == backups).collect();
        members.sort_by_key(|(_, member)| (member.address, member.weight));
        let total: u64 = members.iter().map(|(_, member)| u64::from(member.weight)).sum();
        if total == 0 {
            return Self(Box::default());
        }
        let size = if table_size(members.len()) == SMALL as usize { SMALL } else { LARGE };
        let scaled = |what: u64, address: &[u8; 16], range: u32| {
            scale(SipHasher13::new_with_keys(seed, what).hash(address), range)
        };
        // What all so far should have, less what they have: no share is wrong by a whole place, and none is left over.
        let (mut sum, mut given) = (0, 0);
        let turns = members.iter().map(|(position, member)| {
            sum += u64::from(member.weight);
            let share = sum * u64::from(size) / total - given;
            given += share;
            let at = scaled(OFFSET, &member.address, size);
            Permutation { position: *position, skip: scaled(SKIP, &member.address, size - 1) + 1, at, share, taken: 0 }
        });
        Self::filled(turns.collect(), size)
    }

    fn filled(mut turns: Vec<Permutation>, size: u32) -> Self {
        let mut places: Box<[u16]> = vec![NOBODY; size as usize].into();
        // As many rounds as there are places for each who gets any; in each a member claims its part of its share.
        let claimants = turns.iter().filter(|turn| turn.share > 0).count();
        let rounds = u64::from(size).div_ceil(claimants.max(1) as u64);
        for round in 1..=rounds {
            for turn in &mut turns {
                while turn.taken < turn.share * round / rounds {
                    turn.claim(&mut places, size);
                }
            }
        }
        Self(places)
    }

    /// Whose place this hash comes to; `None` if the table is empty.
    #[inline]
    pub(super) fn at(&self, hash: u64) -> Option<usize> {
        let place = scale(hash, u32::try_from(self.0.len()).unwrap_or(0));
        self.0.get(place as usize).map(|position| usize::from(*position))
    }
}

impl Permutation {
    /// Takes the next free place of the permutation. There is one, for all shares together are the table.
    fn claim(&mut self, places: &mut [u16], size: u32) {
        self.taken += 1;
        for _ in 0..size {
            let at = self.at;
            self.at = if size - at > self.skip { at + self.skip } else { self.skip - (size - at) };
            match places.get_mut(at as usize) {
                Some(place) if *place == NOBODY => {
                    *place = self.position;
                    return;
                }
                _ => {}
            }
        }
    }
}

/// `hash` as a number below `range`, by its upper bits.
#[inline]
fn scale(hash: u64, range: u32) -> u32 {
    (((hash >> 32) * u64::from(range)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::super::MemberSpec;
    use super::super::tests::{member, policy};
    use super::*;

    fn counts(members: &[MemberSpec], backups: bool) -> (usize, Vec<usize>) {
        let pool = Pool::new(members, policy(0)).expect("pool");
        let places = LookupTable::new(&pool, backups, 4);
        let mut counts = vec![0; members.len()];
        places.0.iter().for_each(|position| counts[usize::from(*position)] += 1);
        (places.0.len(), counts)
    }

    #[test]
    fn sizes_are_prime_and_large_enough() {
        for size in [SMALL, LARGE] {
            assert!((2..1000).all(|n| size % n != 0));
        }
        assert!((1..=Pool::MAX_MEMBERS).all(|members| table_size(members) >= 100 * members));
    }

    #[test]
    fn places_are_the_weights_to_one_place() {
        for weights in [&[1, 1, 1][..], &[1, 2, 3, 0, 10], &[65535, 1, 1, 65535], &[1; 655], &[7; 656]] {
            let members: Vec<MemberSpec> = (0..).zip(weights).map(|(n, weight)| member(n, *weight)).collect();
            let (size, counts) = counts(&members, false);
            let total: usize = weights.iter().map(|w| usize::from(*w)).sum();
            for (places, weight) in counts.into_iter().zip(weights) {
                let exact = size * usize::from(*weight) / total;
                assert!(places.abs_diff(exact) <= 1, "{places} for {exact}");
            }
        }
    }

    #[test]
    fn primaries_and_backups_have_tables_of_their_own() {
        let mut members = [member(0, 1), member(1, 2), member(2, 3), member(3, 0)];
        assert_eq!(counts(&members, true), (0, vec![0; 4]));
        members[1].backup = true;
        members[3].backup = true;
        assert_eq!(counts(&members, true), (65_537, vec![0, 65_537, 0, 0]));
        assert_eq!(counts(&members, false), (65_537, vec![16_384, 0, 49_153, 0]));
    }
}
