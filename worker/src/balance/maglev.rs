//! Maglev consistent hashing (Eisenbud et al., NSDI 2016, §3.4), weighted.
//!
//! Every member has a permutation of the table's places, made of its *address* and the seed; members take turns in
//! claiming the next free place of theirs. Nothing else goes in, neither their order nor their numbers nor the
//! worker's: balancers with the same seed and the same members make the same choice.
//!
//! Weights: a member's share of places is fixed first (exact to one place), then the turns are spread evenly over the
//! fill, so that the heavy do not take all good places before the light begin. A share smaller than one place in the
//! table may come out as none. Balancers that are to agree must also be on the same side of 655 configured members, where
//! the table changes its size.

use super::pool::Pool;
use siphasher::sip::SipHasher13;

/// Places for few members: prime, 100 each for 655.
const SMALL: u32 = 65_537;
/// Places for many members: prime, 100 each for 6553.
const LARGE: u32 = 655_373;

/// No member has this position, for a pool has at most `Pool::MAX_MEMBERS`.
const NOBODY: u16 = u16::MAX;

/// What a hash is for; the second half of its key.
const OFFSET: u64 = u64::from_le_bytes(*b"offset..");
const SKIP: u64 = u64::from_le_bytes(*b"skip....");
const CLIENT: u64 = u64::from_le_bytes(*b"client..");

/// Places in the table for `members` members: a prime, at least 100 for each. Two bytes of memory a place.
pub const fn table_size(members: usize) -> usize {
    if members * 100 <= SMALL as usize { SMALL as usize } else { LARGE as usize }
}

#[derive(Debug)]
pub(super) struct Maglev {
    /// Place → position of the member in the pool.
    places: Box<[u16]>,
    size: u32,
    /// By address: what all balancers agree on. Also the scratch of `refill`.
    turns: Box<[Turn]>,
    clients: SipHasher13,
    anyone: bool,
}

/// A member's walk through its permutation.
#[derive(Debug, Clone, Copy)]
struct Turn {
    position: u16,
    offset: u32,
    skip: u32,
    /// The next place to look at.
    at: u32,
    /// Places it is to get.
    share: u64,
    /// Places it has.
    taken: u64,
}

impl Maglev {
    pub(super) fn new(pool: &Pool, seed: u64) -> Self {
        let size = if table_size(pool.len()) == SMALL as usize { SMALL } else { LARGE };
        let scaled = |what: u64, address: &[u8; 16], range: u32| {
            scale(SipHasher13::new_with_keys(seed, what).hash(address), range)
        };
        let mut members: Vec<_> = (0_u16..).zip(pool.members()).collect();
        members.sort_by_key(|(_, member)| (member.address, member.weight));
        let turns = members.iter().map(|(position, member)| Turn {
            position: *position,
            offset: scaled(OFFSET, &member.address, size),
            skip: scaled(SKIP, &member.address, size - 1) + 1,
            at: 0,
            share: 0,
            taken: 0,
        });
        let mut maglev = Self {
            places: vec![NOBODY; size as usize].into(),
            size,
            turns: turns.collect(),
            clients: SipHasher13::new_with_keys(seed, CLIENT),
            anyone: false,
        };
        maglev.refill(pool);
        maglev
    }

    #[inline]
    pub(super) fn choose(&self, client: &[u8]) -> Option<usize> {
        if !self.anyone {
            return None;
        }
        let place = scale(self.clients.hash(client), self.size);
        self.places.get(place as usize).map(|position| usize::from(*position))
    }

    /// Makes the table anew for the members that are candidates now. Allocates nothing. About `size * ln(size)` looks
    /// at a place.
    pub(super) fn refill(&mut self, pool: &Pool) {
        self.places.fill(NOBODY);
        self.anyone = self.share_out(pool);
        if !self.anyone {
            return;
        }
        // As many rounds as there are places for each candidate; in each a candidate claims its part of its share.
        // Members that are away must not count: another balancer may not know them.
        let candidates = self.turns.iter().filter(|turn| turn.share > 0).count();
        let rounds = u64::from(self.size).div_ceil(candidates.max(1) as u64);
        for round in 1..=rounds {
            for turn in &mut self.turns {
                while turn.taken < turn.share * round / rounds {
                    turn.claim(&mut self.places, self.size);
                }
            }
        }
    }

    /// Gives each candidate its share of the places; `false` if there is no candidate.
    fn share_out(&mut self, pool: &Pool) -> bool {
        let weight_of = |position: u16| match pool.members().nth(usize::from(position)) {
            Some(member) if member.is_candidate() => u64::from(member.weight),
            _ => 0,
        };
        let total: u64 = self.turns.iter().map(|turn| weight_of(turn.position)).sum();
        if total == 0 {
            return false;
        }
        let size = u64::from(self.size);
        let mut left = size;
        // What all so far should have, less what they have: no share is wrong by a whole place, and none is left over.
        let mut sum = 0;
        for turn in &mut self.turns {
            sum += weight_of(turn.position);
            let share = sum * size / total - (size - left);
            left -= share;
            *turn = Turn { at: turn.offset, share, taken: 0, ..*turn };
        }
        true
    }
}

impl Turn {
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
    use super::super::{Balancer, MemberSpec, Pool};
    use super::*;
    use loaded_ipc::{BackendIndex, Strategy};

    fn members(weights: &[u16]) -> Vec<MemberSpec> {
        (0_u16..)
            .zip(weights)
            .map(|(n, weight)| MemberSpec {
                backend: BackendIndex(n),
                address: (0xffff_0a00_0000_u128 + u128::from(n) + 1).to_be_bytes(),
                weight: *weight,
                eligible: true,
            })
            .collect()
    }

    fn maglev(members: &[MemberSpec], seed: u64) -> (Pool, Maglev) {
        let pool = Pool::new(members).expect("pool");
        let maglev = Maglev::new(&pool, seed);
        (pool, maglev)
    }

    fn places(maglev: &Maglev, members: usize) -> Vec<usize> {
        let mut counts = vec![0; members];
        maglev.places.iter().for_each(|position| counts[usize::from(*position)] += 1);
        counts
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
            let (_, maglev) = maglev(&members(weights), 4);
            let total: usize = weights.iter().map(|w| usize::from(*w)).sum();
            for (places, weight) in places(&maglev, weights.len()).into_iter().zip(weights) {
                let exact = maglev.places.len() * usize::from(*weight) / total;
                assert!(places.abs_diff(exact) <= 1, "{places} for {exact}");
            }
        }
    }

    #[test]
    fn clients_spread_by_weight() {
        let (_, maglev) = maglev(&members(&[1, 2, 1]), 9);
        let mut counts = [0_u32; 3];
        (0..40_000_u32).for_each(|n| counts[maglev.choose(&n.to_be_bytes()).expect("eligible")] += 1);
        for (count, expected) in counts.into_iter().zip([10_000, 20_000, 10_000_u32]) {
            assert!(count.abs_diff(expected) < expected / 20, "{count} for {expected}");
        }
    }

    #[test]
    fn taking_one_out_moves_little_and_putting_it_back_restores() {
        for (count, gone) in [(3_u16, 1_u16), (10, 0), (50, 20), (300, 299)] {
            let (mut pool, mut maglev) = maglev(&members(&vec![2; usize::from(count)]), 77);
            let before = maglev.places.clone();
            pool.set_eligible(BackendIndex(gone), false);
            maglev.refill(&pool);
            let moved = before.iter().zip(&maglev.places).filter(|(a, b)| a != b).count();
            let limit = before.len() / usize::from(count) + before.len() * 2 / 100;
            assert!(moved <= limit, "{count} members: {moved} moved, at most {limit}");
            assert!(!maglev.places.contains(&gone));
            pool.set_eligible(BackendIndex(gone), true);
            maglev.refill(&pool);
            assert_eq!(maglev.places, before);
        }
    }

    /// Another balancer numbers and orders the same backends differently, or has never heard of one that is down.
    #[test]
    fn balancers_agree_by_address() {
        let ours = members(&[1, 3, 2, 1, 5]);
        let mut theirs: Vec<MemberSpec> = ours.iter().rev().copied().collect();
        theirs.iter_mut().zip(40..).for_each(|(member, n)| member.backend = BackendIndex(n));
        theirs.remove(0);
        let mut a = Balancer::new(&ours, Strategy::Maglev { seed: 5 }, 0).expect("pool");
        let mut b = Balancer::new(&theirs, Strategy::Maglev { seed: 5 }, 3).expect("pool");
        a.set_eligible(BackendIndex(4), false);
        for client in 0..5000_u128 {
            let client = client.to_be_bytes();
            let address = |balancer: &mut Balancer| {
                let chosen = balancer.choose(&client);
                balancer.pool().members().find(|m| Some(m.backend) == chosen).map(|m| m.address)
            };
            assert_eq!(address(&mut a), address(&mut b));
        }
    }

    /// Literal: a change here means that a new version disagrees with the old ones beside it.
    #[test]
    fn the_choice_is_the_same_in_every_run_and_version() {
        let (_, maglev) = maglev(&members(&[1, 1, 1, 2]), 0x1234_5678);
        let chosen: Vec<usize> = (0..24_u128).filter_map(|n| maglev.choose(&n.to_be_bytes())).collect();
        assert_eq!(chosen, [1, 1, 3, 0, 2, 0, 1, 3, 3, 3, 0, 2, 3, 2, 3, 0, 2, 3, 3, 3, 1, 0, 1, 3]);
    }
}
