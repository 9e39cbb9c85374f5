use loaded_ipc::BackendIndex;
use thiserror::Error;

/// One backend of a service, as the configuration gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberSpec {
    /// The backend's stable number.
    pub backend: BackendIndex,
    /// Its address; IPv4 as `::ffff:a.b.c.d`. Maglev's permutations come from it, and from nothing else.
    pub address: [u8; 16],
    /// Its share relative to the others: 0..=65535. 0 takes no new clients.
    pub weight: u16,
    /// Whether it may be given to new clients now.
    pub eligible: bool,
}

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
pub struct Pool {
    members: Box<[MemberSpec]>,
}

impl Pool {
    /// Most members: the largest Maglev table has 655,373 places, 100 for each.
    pub const MAX_MEMBERS: usize = 6553;

    /// Takes the members, in any order.
    pub fn new(members: &[MemberSpec]) -> Result<Self, PoolError> {
        if members.len() > Self::MAX_MEMBERS {
            return Err(PoolError::TooMany(members.len()));
        }
        let mut members: Box<[MemberSpec]> = members.into();
        members.sort_unstable_by_key(|member| member.backend);
        match members.windows(2).find(|pair| pair[0].backend == pair[1].backend) {
            Some(pair) => Err(PoolError::Twice(pair[0].backend)),
            None => Ok(Self { members }),
        }
    }

    /// The members, by rising backend number.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &MemberSpec> {
        self.members.iter()
    }

    /// How many members there are, eligible or not.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn set_eligible(&mut self, backend: BackendIndex, eligible: bool) -> bool {
        match self.position(backend).and_then(|position| self.members.get_mut(position)) {
            Some(member) if member.eligible != eligible => {
                member.eligible = eligible;
                true
            }
            _ => false,
        }
    }

    #[inline]
    pub(super) fn position(&self, backend: BackendIndex) -> Option<usize> {
        self.members.binary_search_by_key(&backend, |member| member.backend).ok()
    }

    #[inline]
    pub(super) fn backend(&self, position: usize) -> Option<BackendIndex> {
        self.members.get(position).map(|member| member.backend)
    }

    #[inline]
    pub(super) fn is_candidate(&self, position: usize) -> bool {
        self.members.get(position).is_some_and(MemberSpec::is_candidate)
    }
}

impl MemberSpec {
    #[inline]
    pub(super) fn is_candidate(&self) -> bool {
        self.eligible && self.weight > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(n: u16) -> MemberSpec {
        MemberSpec { backend: BackendIndex(n), address: [0; 16], weight: 1, eligible: true }
    }

    #[test]
    fn a_pool_knows_its_members() {
        let mut pool = Pool::new(&[member(9), member(2), member(4)]).expect("pool");
        assert_eq!(pool.members().map(|m| m.backend.0).collect::<Vec<_>>(), [2, 4, 9]);
        assert_eq!(pool.position(BackendIndex(4)), Some(1));
        assert_eq!(pool.position(BackendIndex(5)), None);
        assert!(pool.set_eligible(BackendIndex(4), false));
        assert!(!pool.set_eligible(BackendIndex(4), false));
        assert!(!pool.is_candidate(1));
    }

    #[test]
    fn what_is_no_pool_is_refused() {
        assert_eq!(Pool::new(&[member(1), member(2), member(1)]).err(), Some(PoolError::Twice(BackendIndex(1))));
        let many: Vec<MemberSpec> = (0..6554).map(member).collect();
        assert_eq!(Pool::new(&many).err(), Some(PoolError::TooMany(6554)));
    }
}
