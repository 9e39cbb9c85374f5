//! Maglev consistent hashing (Eisenbud et al., NSDI 2016, §3.4), weighted.
//!
//! Every member has a permutation of the table's places, made of its *address* and the seed alone; members take turns in
//! claiming the next free place of their permutation. Neither their order nor any number matters: balancers with the same
//! seed, the same members and the same view of them make the same choice.
//!
//! Weights: each member's number of places is fixed first, exact to one place. Then its turns are spread evenly over the
//! filling of the table, so that heavy members do not take all the early places of their permutations before light ones begin.
//! A share of less than one place may come out as none. Balancers that are to agree must also be on the same side of 655
//! configured members, where the table changes its size.
//!
//! The table holds all configured members and never changes. (The paper builds it anew for those that are up, which also moves
//! a few clients of the others.) A client whose place belongs to a member that is no candidate tries another place, given by
//! its hash and the number of the attempt. So a member that fails loses its own clients to the others, by their weights; no
//! other clients move; and when it comes back, exactly those return. After [`ATTEMPTS`] without success, which needs many
//! members down or in their slow start, rendezvous hashing decides (see [`rendezvous`]), with the same properties.
//!
//! Slow start: a member takes a client only if a hash of client and member is below its share; else the client tries on as if
//! the member were down. As the share grows clients come to it, and none moves between two others.
//!
//! Backups have a table of their own. In a common one they would own places without serving there: clients would need more
//! attempts even while all is well, and a backup added to the configuration would move clients.

use super::candidates::Tier;
use super::lookup_table::LookupTable;
use super::member::{FULL_SHARE, Member};
use super::pool::Pool;
use super::rendezvous;
use siphasher::sip::SipHasher13;

/// How many places a client tries. With half of the weight down, one client in 65,536 finds none.
const ATTEMPTS: u64 = 16;

/// What a hash is for: the second half of its key.
const CLIENT: u64 = u64::from_le_bytes(*b"client..");
const MEMBER: u64 = u64::from_le_bytes(*b"member..");

#[derive(Debug)]
pub(super) struct Maglev {
    primaries: LookupTable,
    backups: LookupTable,
    clients: SipHasher13,
    /// A hash of each member's address, by position.
    members: Box<[u64]>,
}

impl Maglev {
    pub(super) fn new(pool: &Pool, seed: u64) -> Self {
        let of_members = SipHasher13::new_with_keys(seed, MEMBER);
        Self {
            primaries: LookupTable::new(pool, false, seed),
            backups: LookupTable::new(pool, true, seed),
            clients: SipHasher13::new_with_keys(seed, CLIENT),
            members: pool.members().map(|member| member.spec.hash(&of_members)).collect(),
        }
    }

    /// Of the candidates that `accept` takes. O(1) while these are most of the members; O(members) at worst, when they are few.
    #[inline]
    pub(super) fn choose(&self, pool: &Pool, client: &[u8], accept: impl Fn(&Member) -> bool) -> Option<usize> {
        let places = match pool.candidates().tier {
            Tier::Panic | Tier::Primaries => &self.primaries,
            Tier::Backups => &self.backups,
            Tier::Last(position) => return pool.member(position).is_some_and(accept).then_some(position),
            Tier::None => return None,
        };
        let hash = self.clients.hash(client);
        let first = places.at(hash)?;
        if self.takes(pool, first, hash, &accept) {
            return Some(first);
        }
        // The steps are odd, so no two attempts of a client have the same hash.
        let attempts = (1..ATTEMPTS).map(|n| mix(hash.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        attempts
            .filter_map(|hash| places.at(hash))
            .find(|&position| self.takes(pool, position, hash, &accept))
            // Mixed twice: rendezvous must not depend on the bits that `takes` has just used.
            .or_else(|| rendezvous::choose(pool, &accept, |position| mix(self.pair(position, hash))))
    }

    /// Whether the member is a candidate, acceptable, and takes this client.
    #[inline]
    fn takes(&self, pool: &Pool, position: usize, hash: u64, accept: impl Fn(&Member) -> bool) -> bool {
        match pool.member(position).filter(|member| accept(member)).map_or(0, Member::part) {
            FULL_SHARE => true,
            0 => false,
            part => self.pair(position, hash) >> 54 < u64::from(part),
        }
    }

    /// A hash of the client and the member.
    fn pair(&self, position: usize, hash: u64) -> u64 {
        mix(hash ^ self.members.get(position).copied().unwrap_or(0))
    }
}

/// The finalizer of SplitMix64 (Steele et al., OOPSLA 2014, fig. 15, with Stafford's constants, variant 13). A bijection; its
/// input is already a keyed hash.
#[inline]
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DOWN, WELL, member, policy};
    use super::super::{Balancer, MemberSpec, Standing};
    use loaded_ipc::{BackendIndex, Strategy};
    use proptest::prelude::*;

    const CLIENTS: u32 = 20_000;

    fn members(weights: &[u16]) -> Vec<MemberSpec> {
        (0_u16..)
            .zip(weights)
            .map(|(n, weight)| MemberSpec {
                address: (0xffff_0a00_0000_u128 + u128::from(n) + 1).to_be_bytes(),
                ..member(n, *weight)
            })
            .collect()
    }

    fn balancer(weights: &[u16], seed: u64) -> Balancer {
        Balancer::new(&members(weights), Strategy::Maglev { seed }, 0, policy(0)).expect("pool")
    }

    fn choices(balancer: &mut Balancer, clients: u32) -> Vec<u16> {
        (0..clients).map(|n| balancer.choose(&n.to_be_bytes()).expect("candidates").0).collect()
    }

    fn count(chosen: &[u16], backend: u16) -> usize {
        chosen.iter().filter(|c| **c == backend).count()
    }

    #[test]
    fn clients_spread_by_weight_over_the_members_that_are_left() {
        let mut balancer = balancer(&[1, 2, 1, 4], 9);
        balancer.set_standing(BackendIndex(3), DOWN);
        let chosen = choices(&mut balancer, 40_000);
        for (n, expected) in (0..).zip([10_000, 20_000, 10_000_usize]) {
            assert!(count(&chosen, n).abs_diff(expected) < expected / 20, "{} for {expected}", count(&chosen, n));
        }
    }

    #[test]
    fn a_member_that_fails_loses_its_clients_and_gets_them_back() {
        for (members, gone) in [(3_u16, 1_u16), (10, 0), (50, 20), (300, 299)] {
            let mut balancer = balancer(&vec![2; usize::from(members)], 77);
            let before = choices(&mut balancer, CLIENTS);
            balancer.set_standing(BackendIndex(gone), DOWN);
            let without = choices(&mut balancer, CLIENTS);
            assert_eq!(count(&without, gone), 0);
            let moved = before.iter().zip(&without).filter(|(a, b)| a != b).count();
            assert_eq!(moved, count(&before, gone));
            balancer.set_standing(BackendIndex(gone), WELL);
            assert_eq!(choices(&mut balancer, CLIENTS), before);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

        /// At any change of one member, standing or share, a client moves only from it or only to it. With many out and
        /// small shares most choices are by rendezvous hashing.
        #[test]
        fn a_change_moves_only_the_changed_members_clients(
            weights in prop::collection::vec(1..=20_u16, 2..40),
            steps in prop::collection::vec((any::<prop::sample::Index>(), any::<bool>(), 0..=1024_u16), 1..40),
        ) {
            let mut balancer = balancer(&weights, 3);
            let mut before = choices(&mut balancer, 500);
            for (n, up, share) in steps {
                // The first stays at full share, so that the shares of the others stay relative to the same.
                let n = u16::try_from(1 + n.index(weights.len() - 1)).expect("few");
                balancer.set_standing(BackendIndex(n), Standing { up, ..WELL });
                let between = choices(&mut balancer, 500);
                balancer.set_share(BackendIndex(n), share);
                let after = choices(&mut balancer, 500);
                for (a, b) in [(&before, &between), (&between, &after)] {
                    let (mut came, mut went) = (0, 0);
                    for (a, b) in a.iter().zip(b).filter(|(a, b)| a != b) {
                        prop_assert!(*a == n || *b == n, "{n} changed, and one of {a} moved to {b}");
                        came += usize::from(*b == n);
                        went += usize::from(*a == n);
                    }
                    prop_assert!(came == 0 || went == 0, "{came} came and {went} went");
                }
                before = after;
            }
        }
    }

    /// Another balancer numbers and orders the same backends differently.
    #[test]
    fn balancers_agree_by_address() {
        let ours = members(&[1, 3, 2, 1, 5, 2, 1, 1, 1, 1, 1, 1]);
        let mut theirs: Vec<MemberSpec> = ours.iter().rev().copied().collect();
        theirs.iter_mut().zip(40..).for_each(|(member, n)| member.backend = BackendIndex(n));
        let strategy = Strategy::Maglev { seed: 5 };
        let mut a = Balancer::new(&ours, strategy, 0, policy(0)).expect("pool");
        let mut b = Balancer::new(&theirs, strategy, 3, policy(0)).expect("pool");
        // So many down that rendezvous hashing decides.
        for out in 0..11 {
            a.set_share(BackendIndex(out + 1), 700);
            b.set_share(BackendIndex(50 - out), 700);
            for client in 0..2000_u128 {
                let [ours, theirs] = [&mut a, &mut b].map(|balancer| {
                    let chosen = balancer.choose(&client.to_be_bytes());
                    balancer.pool.members().map(|m| m.spec).find(|m| Some(m.backend) == chosen).map(|m| m.address)
                });
                assert_eq!(ours, theirs);
            }
            a.set_standing(BackendIndex(out), DOWN);
            b.set_standing(BackendIndex(51 - out), DOWN);
        }
    }

    /// Literal values: a change here means that a new version disagrees with the old ones running beside it.
    #[test]
    fn the_choice_is_the_same_in_every_run_and_version() {
        let mut balancer = balancer(&[1, 1, 1, 2], 0x1234_5678);
        let mut chosen =
            || (0..24_u128).filter_map(|n| balancer.choose(&n.to_be_bytes())).map(|b| b.0).collect::<Vec<_>>();
        assert_eq!(chosen(), [1, 1, 3, 0, 2, 0, 1, 3, 3, 3, 0, 2, 3, 2, 3, 0, 2, 3, 3, 3, 1, 0, 1, 3]);
    }
}
