//! Which backend gets a new client: pure decisions, without I/O, clock or random source.
//!
//! A [`Balancer`] is built once for each service and family, before the worker is locked down. After that nothing here
//! allocates. Members come and go by their [`Standing`]; who of them are candidates is said in `candidates.rs`. A member
//! in its slow start has a share of its weight, 1/[`FULL_SHARE`] at least, and gets at most that part of the new clients
//! that its weight would give it, whatever the strategy.

mod candidates;
mod lookup_table;
mod maglev;
mod member;
mod pool;
mod rendezvous;
mod rr;
#[cfg(test)]
mod tests;
mod weighted;

pub use lookup_table::table_size;
pub use member::{FULL_SHARE, MemberSpec, Standing};
pub use pool::PoolError;

use candidates::Tier;
use loaded_ipc::{BackendIndex, Policy, Strategy};
use maglev::Maglev;
use member::Member;
use pool::Pool;
use rr::RoundRobin;
use weighted::FewestClients;

/// The members of one (service, family) and the strategy that chooses among them.
#[derive(Debug)]
pub struct Balancer {
    pool: Pool,
    chooser: Chooser,
}

#[derive(Debug)]
enum Chooser {
    RoundRobin(RoundRobin),
    Weighted(FewestClients),
    Maglev(Maglev),
}

impl Balancer {
    /// Builds the balancer; all memory it will ever use is allocated here. All members begin enabled, up, not ejected and
    /// at their full share.
    ///
    /// `start` is the worker's number: workers with different numbers begin with different backends. Maglev ignores
    /// it, for there all must agree. Of the policy, `panic_threshold` and `all_down` are used. With Maglev the table is
    /// made here, one more for the backups if there are any: 1 to 4 ms each for 65,537 places, about 50 ms for 655,373
    /// (more than 655 members).
    ///
    /// # Errors
    /// [`PoolError`] if a backend is named twice or there are too many.
    pub fn new(members: &[MemberSpec], strategy: Strategy, start: u16, policy: Policy) -> Result<Self, PoolError> {
        let pool = Pool::new(members, policy)?;
        let chooser = match strategy {
            Strategy::RoundRobin => Chooser::RoundRobin(RoundRobin::new(&pool, start)),
            Strategy::Weighted => Chooser::Weighted(FewestClients::new(&pool, start)),
            Strategy::Maglev { seed } => Chooser::Maglev(Maglev::new(&pool, seed)),
        };
        Ok(Self { pool, chooser })
    }

    /// The backend for a new client, or `None` if there is no candidate. Never one that is none.
    ///
    /// `client` is what identifies the client: its address or prefix (16 bytes) where it has affinity, the bytes of
    /// the flow where it has none. Only Maglev looks at it; balancers that are to agree must pass the same bytes.
    #[inline]
    pub fn choose(&mut self, client: &[u8]) -> Option<BackendIndex> {
        let position = match &mut self.chooser {
            Chooser::RoundRobin(rr) => rr.choose(&self.pool),
            Chooser::Weighted(weighted) => weighted.choose(&self.pool),
            Chooser::Maglev(maglev) => maglev.choose(&self.pool, client),
        }?;
        self.pool.backend(position)
    }

    /// What [`Balancer::choose`] would answer now; nothing changes.
    #[must_use]
    pub fn would_choose(&self, client: &[u8]) -> Option<BackendIndex> {
        let position = match &self.chooser {
            Chooser::RoundRobin(rr) => rr.next(&self.pool),
            Chooser::Weighted(weighted) => weighted.next(&self.pool),
            Chooser::Maglev(maglev) => maglev.choose(&self.pool, client),
        }?;
        self.pool.backend(position)
    }

    /// How many members may be given to new clients.
    #[must_use]
    pub fn candidates(&self) -> usize {
        self.pool.members().filter(|member| member.is_candidate()).count()
    }

    /// One client (of the affinity table; a flow, where there is no affinity) more has this backend.
    #[inline]
    pub fn client_added(&mut self, backend: BackendIndex) {
        if let (Chooser::Weighted(weighted), Some(position)) = (&mut self.chooser, self.pool.position(backend)) {
            weighted.added(position);
        }
    }

    /// One client less has this backend.
    #[inline]
    pub fn client_removed(&mut self, backend: BackendIndex) {
        if let (Chooser::Weighted(weighted), Some(position)) = (&mut self.chooser, self.pool.position(backend)) {
            weighted.removed(position);
        }
    }

    /// Says how a backend stands. Returns whether it stood differently before; a backend that is no member changes
    /// nothing. O(members).
    ///
    /// If it comes back to a slow start, call [`Self::set_share`] before.
    pub fn set_standing(&mut self, backend: BackendIndex, standing: Standing) -> bool {
        let changed = self.pool.set_standing(backend, standing);
        if changed {
            match &mut self.chooser {
                Chooser::RoundRobin(rr) => rr.settle(&self.pool),
                Chooser::Weighted(weighted) => weighted.settle(&self.pool),
                Chooser::Maglev(_) => {}
            }
        }
        changed
    }

    /// Says how much of its weight a backend is to have: 0..=[`FULL_SHARE`], more is as much as all. 0 is as 1, for a
    /// candidate is never without a share. Shares are relative to the largest among the candidates, so that a slow start
    /// of all at once is none. O(members).
    pub fn set_share(&mut self, backend: BackendIndex, share: u16) {
        self.pool.set_share(backend, share);
    }

    /// Whether the backend is a member that may be given to new clients.
    #[inline]
    pub fn is_candidate(&self, backend: BackendIndex) -> bool {
        let position = self.pool.position(backend);
        position.and_then(|position| self.pool.member(position)).is_some_and(Member::is_candidate)
    }

    /// How many primaries are usable (enabled, up, not ejected), and how many are enabled. For the limit of passive
    /// judgement: to be asked before one is ejected.
    pub fn usable(&self) -> (usize, usize) {
        let candidates = self.pool.candidates();
        (candidates.usable, candidates.enabled)
    }

    /// Whether so few primaries are usable that all enabled ones are candidates.
    pub fn is_panicking(&self) -> bool {
        self.pool.candidates().tier == Tier::Panic
    }
}
