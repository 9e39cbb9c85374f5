//! The members of one (service, family), and what the weight of each comes to.

use super::candidates::Candidates;
use super::member::{FULL_SHARE, Member, MemberSpec, Standing};
use loaded_ipc::{BackendIndex, Policy};
use thiserror::Error;

/// Why a pool cannot be built.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PoolError {
    /// More members than the largest Maglev table serves well.
    #[error("pool: {0} members, at most {max} are possible", max = Pool::MAX_MEMBERS)]
    TooMany(usize),
    /// A backend is named twice.
    #[error("pool: {0} is a member twice")]
    Twice(BackendIndex),
}

/// The members of one (service, family). Sorted by backend number; a member's *position* in that order is how the
/// strategies name it.
#[derive(Debug)]
pub(super) struct Pool {
    members: Box<[Member]>,
    policy: Policy,
    candidates: Candidates,
    /// Sum over all candidates.
    effective: u64,
    /// How often a member has failed.
    failures: u64,
}

impl Pool {
    /// Maximum number of members: the largest Maglev table has 655,373 places, 100 for each member.
    pub(super) const MAX_MEMBERS: usize = 6553;

    /// Takes the members, in any order. All begin enabled and up.
    pub(super) fn new(members: &[MemberSpec], policy: Policy) -> Result<Self, PoolError> {
        if members.len() > Self::MAX_MEMBERS {
            return Err(PoolError::TooMany(members.len()));
        }
        let mut members: Box<[Member]> = members.iter().copied().map(Member::new).collect();
        members.sort_unstable_by_key(|member| member.spec.backend);
        if let Some(pair) = members.windows(2).find(|pair| pair[0].spec.backend == pair[1].spec.backend) {
            return Err(PoolError::Twice(pair[0].spec.backend));
        }
        let candidates = Candidates::among(&members, &policy);
        let mut pool = Self { members, policy, candidates, effective: 0, failures: 0 };
        pool.weigh();
        Ok(pool)
    }

    /// The members, sorted by backend number.
    pub(super) fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.iter()
    }

    /// How many members there are, candidates or not.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn candidates(&self) -> &Candidates {
        &self.candidates
    }

    /// Sum of the candidates' effective weights, in 1/1024.
    #[inline]
    pub(super) fn effective(&self) -> u64 {
        self.effective
    }

    /// Returns whether that is a change.
    pub(super) fn set_standing(&mut self, backend: BackendIndex, standing: Standing) -> bool {
        let Some(member) = self.position(backend).and_then(|position| self.members.get_mut(position)) else {
            return false;
        };
        if member.standing == standing {
            return false;
        }
        let was_well = member.standing.is_well();
        member.standing = standing;
        if was_well && !standing.is_well() {
            self.failures += 1;
            member.last_failure = self.failures;
        }
        self.candidates = Candidates::among(&self.members, &self.policy);
        self.weigh();
        true
    }

    pub(super) fn set_share(&mut self, backend: BackendIndex, share: u16) {
        if let Some(member) = self.position(backend).and_then(|position| self.members.get_mut(position)) {
            member.share = share.min(FULL_SHARE);
            self.weigh();
        }
    }

    #[inline]
    pub(super) fn position(&self, backend: BackendIndex) -> Option<usize> {
        self.members.binary_search_by_key(&backend, |member| member.spec.backend).ok()
    }

    #[inline]
    pub(super) fn backend(&self, position: usize) -> Option<BackendIndex> {
        self.members.get(position).map(|member| member.spec.backend)
    }

    #[inline]
    pub(super) fn member(&self, position: usize) -> Option<&Member> {
        self.members.get(position)
    }

    /// Computes each candidate's effective weight.
    fn weigh(&mut self) {
        let candidates = self.candidates;
        let is_candidate = |position: usize, member: &Member| candidates.has(position, member);
        let shares = self.members.iter().enumerate().filter(|(p, m)| is_candidate(*p, m)).map(|(_, m)| m.share);
        // If all candidates are in their slow start none is there to take over for them: all get their full share.
        let most = u32::from(shares.max().unwrap_or(0).max(1));
        self.effective = 0;
        for (position, member) in self.members.iter_mut().enumerate() {
            (member.part, member.effective) = (0, 0);
            if is_candidate(position, member) {
                let share = u32::from(member.share.max(1));
                member.part = u16::try_from(share * u32::from(FULL_SHARE) / most).unwrap_or(FULL_SHARE);
                member.effective = u64::from(member.spec.weight) * u64::from(member.part);
                self.effective += member.effective;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{WELL, member, policy};
    use super::*;

    #[test]
    fn members_are_found_by_backend() {
        let mut pool = Pool::new(&[member(9, 1), member(2, 1), member(4, 1)], policy(0)).expect("pool");
        assert_eq!(pool.members().map(|m| m.spec.backend.0).collect::<Vec<_>>(), [2, 4, 9]);
        assert_eq!(pool.position(BackendIndex(4)), Some(1));
        assert_eq!(pool.position(BackendIndex(5)), None);
        assert!(pool.set_standing(BackendIndex(4), Standing { up: false, ..WELL }));
        assert!(!pool.set_standing(BackendIndex(4), Standing { up: false, ..WELL }));
        assert!(!pool.set_standing(BackendIndex(5), Standing { up: false, ..WELL }));
        assert!(!pool.member(1).is_some_and(Member::is_candidate));
    }

    #[test]
    fn a_share_is_relative_to_the_largest_and_never_nothing() {
        let mut pool = Pool::new(&[member(0, 3), member(1, 5)], policy(0)).expect("pool");
        let effective = |pool: &Pool| pool.members().map(Member::effective).collect::<Vec<_>>();
        assert_eq!(effective(&pool), [3 * 1024, 5 * 1024]);
        pool.set_share(BackendIndex(1), 0);
        assert_eq!(effective(&pool), [3 * 1024, 5]);
        pool.set_share(BackendIndex(1), 300);
        assert_eq!((effective(&pool), pool.effective()), (vec![3 * 1024, 5 * 300], 3 * 1024 + 5 * 300));
        pool.set_share(BackendIndex(0), 150);
        assert_eq!(effective(&pool), [3 * 512, 5 * 1024]);
        pool.set_standing(BackendIndex(0), Standing { ejected: true, ..WELL });
        assert_eq!(effective(&pool), [0, 5 * 1024]);
        pool.set_share(BackendIndex(1), u16::MAX);
        pool.set_share(BackendIndex(7), 1);
        assert_eq!(effective(&pool), [0, 5 * 1024]);
    }

    #[test]
    fn what_is_no_pool_is_refused() {
        let twice = [member(1, 1), member(2, 1), member(1, 1)];
        assert_eq!(Pool::new(&twice, policy(0)).err(), Some(PoolError::Twice(BackendIndex(1))));
        let many: Vec<MemberSpec> = (0..6554).map(|n| member(n, 1)).collect();
        assert_eq!(Pool::new(&many, policy(0)).err(), Some(PoolError::TooMany(6554)));
    }
}
