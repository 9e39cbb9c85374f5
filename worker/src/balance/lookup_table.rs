//! Maglev's lookup table: which member owns which place.

use super::member::MemberSpec;
use super::pool::Pool;
use siphasher::sip::SipHasher13;

/// Places for up to 655 members: a prime, 100 for each.
const SMALL: u32 = 65_537;
/// Places for up to 6553 members: a prime, 100 for each.
const LARGE: u32 = 655_373;

/// A free place. No member has this position, since a pool has at most `Pool::MAX_MEMBERS`.
const FREE: u16 = u16::MAX;

/// What a hash is for: the second half of its key.
const OFFSET: u64 = u64::from_le_bytes(*b"offset..");
const SKIP: u64 = u64::from_le_bytes(*b"skip....");

/// Places in the table for `members` members: a prime, at least 100 for each. A place takes two bytes.
pub const fn table_size(members: usize) -> usize {
    if members * 100 <= SMALL as usize { SMALL as usize } else { LARGE as usize }
}

/// For each place, the position of its member in the pool.
#[derive(Debug)]
pub(super) struct LookupTable(Box<[u16]>);

/// A member's permutation of the places, and how far it has gone through it.
struct Permutation {
    position: u16,
    skip: u32,
    /// The next place to try.
    at: u32,
    /// Places it is to own.
    share: u64,
    /// Places it owns so far.
    taken: u64,
}

impl LookupTable {
    /// The table of all primaries, or of all backups; empty if they have no weight. Tries about `size * ln(size)` places.
    pub(super) fn new(pool: &Pool, backups: bool, seed: u64) -> Self {
        let mut members: Vec<_> =
            (0_u16..).zip(pool.members().map(|m| m.spec)).filter(|(_, m)| m.backup == backups).collect();
        members.sort_by_key(|(_, member)| (member.place(), member.weight));
        let total: u64 = members.iter().map(|(_, member)| u64::from(member.weight)).sum();
        if total == 0 {
            return Self(Box::default());
        }
        let size = if table_size(members.len()) == SMALL as usize { SMALL } else { LARGE };
        let scaled = |what: u64, member: &MemberSpec, range: u32| {
            scale(member.hash(&SipHasher13::new_with_keys(seed, what)), range)
        };
        // What all members so far should have less what they have got: no share is wrong by a whole place, and none is left.
        let (mut sum, mut given) = (0, 0);
        let permutations = members.iter().map(|(position, member)| {
            sum += u64::from(member.weight);
            let share = sum * u64::from(size) / total - given;
            given += share;
            let at = scaled(OFFSET, member, size);
            Permutation { position: *position, skip: scaled(SKIP, member, size - 1) + 1, at, share, taken: 0 }
        });
        Self::filled(permutations.collect(), size)
    }

    fn filled(mut permutations: Vec<Permutation>, size: u32) -> Self {
        let mut places: Box<[u16]> = vec![FREE; size as usize].into();
        // As many rounds as places for each member that gets any; in each round a member claims its part of its share.
        let claimants = permutations.iter().filter(|member| member.share > 0).count();
        let rounds = u64::from(size).div_ceil(claimants.max(1) as u64);
        for round in 1..=rounds {
            for member in &mut permutations {
                while member.taken < member.share * round / rounds {
                    member.claim(&mut places, size);
                }
            }
        }
        Self(places)
    }

    /// The position of the member that owns the place of this hash; `None` if the table is empty.
    #[inline]
    pub(super) fn at(&self, hash: u64) -> Option<usize> {
        let place = scale(hash, u32::try_from(self.0.len()).unwrap_or(0));
        self.0.get(place as usize).map(|position| usize::from(*position))
    }
}

impl Permutation {
    /// Takes the next free place of the permutation. There is one, since all shares together make up the table.
    fn claim(&mut self, places: &mut [u16], size: u32) {
        self.taken += 1;
        for _ in 0..size {
            let at = self.at;
            self.at = if size - at > self.skip { at + self.skip } else { self.skip - (size - at) };
            match places.get_mut(at as usize) {
                Some(place) if *place == FREE => {
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
