//! The strategies: which backend gets a new client. Pure: no I/O, no clock, no random source.
//!
//! A [`Balancer`] is built once for each service and family, before the sandbox closes. After that nothing here allocates. The
//! [`Standing`] of its members changes; `candidates` says which of them may be chosen. A member in its slow start has a share
//! of its weight, at least 1/[`FULL_SHARE`], and gets at most that part of the new clients that its weight would give it,
//! whatever the strategy.
//!
//! - `member`, `pool`: the backends of a service and family, and what the weight of each comes to
//! - `candidates`: which members may be chosen (usable, backups, panic, `all_down`)
//! - `rr`, `weighted`, `maglev`: the strategies; `lookup_table` and `rendezvous` belong to Maglev

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
    /// Builds the balancer and allocates all its memory. All members begin enabled, up, not ejected and at their full share.
    ///
    /// `start` is the worker's number: workers with different numbers begin with different backends. Maglev ignores it, since
    /// there all workers must agree. Of the policy, `panic_threshold` and `all_down` are used. Maglev's table is built here,
    /// and one more for the backups if there are any: 1 to 4 ms each for 65,537 places, about 50 ms for 655,373 (more than 655
    /// members).
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

    /// The backend for a new client: always a candidate, or `None` if there is none.
    ///
    /// `client` identifies the client: its address or prefix (16 bytes) with affinity, the bytes of the flow without. Only
    /// Maglev uses it; balancers that are to agree must be given the same bytes.
    #[inline]
    pub fn choose(&mut self, client: &[u8]) -> Option<BackendIndex> {
        self.choose_where(client, |_| true)
    }

    /// The same among the candidates that `accept` takes. The others are as good as down for this one client: they earn no
    /// turn by it, and Maglev moves the client as it would if they had failed. At most O(members) calls of `accept`.
    #[inline]
    pub fn choose_where(&mut self, client: &[u8], accept: impl Fn(BackendIndex) -> bool) -> Option<BackendIndex> {
        let accept = |member: &Member| accept(member.spec.backend);
        let position = match &mut self.chooser {
            Chooser::RoundRobin(rr) => rr.choose(&self.pool, accept),
            Chooser::Weighted(weighted) => weighted.choose(&self.pool, accept),
            Chooser::Maglev(maglev) => maglev.choose(&self.pool, client, accept),
        }?;
        self.pool.backend(position)
    }

    /// What [`Balancer::choose`] would return now. Changes nothing.
    #[must_use]
    pub fn would_choose(&self, client: &[u8]) -> Option<BackendIndex> {
        self.would_choose_where(client, |_| true)
    }

    /// What [`Balancer::choose_where`] would return now. Changes nothing.
    #[must_use]
    pub fn would_choose_where(&self, client: &[u8], accept: impl Fn(BackendIndex) -> bool) -> Option<BackendIndex> {
        let accept = |member: &Member| accept(member.spec.backend);
        let position = match &self.chooser {
            Chooser::RoundRobin(rr) => rr.next(&self.pool, accept),
            Chooser::Weighted(weighted) => weighted.next(&self.pool, accept),
            Chooser::Maglev(maglev) => maglev.choose(&self.pool, client, accept),
        }?;
        self.pool.backend(position)
    }

    /// Whether the choice depends on the client alone, so that every balancer with the same members chooses alike.
    #[must_use]
    pub fn chooses_by_client(&self) -> bool {
        matches!(self.chooser, Chooser::Maglev(_))
    }

    /// How many members may be chosen.
    #[must_use]
    pub fn candidates(&self) -> usize {
        self.pool.members().filter(|member| member.is_candidate()).count()
    }

    /// One client more (in the affinity table; a flow, without affinity) has this backend.
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

    /// Sets the standing of a backend. Returns whether that is a change; a backend that is no member changes nothing.
    /// O(members).
    ///
    /// If it comes back with a slow start, call [`Self::set_share`] before.
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

    /// Sets how much of its weight a backend has: 0..=[`FULL_SHARE`]; more counts as all, and 0 as 1, since a candidate always
    /// has a share. Shares are relative to the largest among the candidates, so that a slow start of all at once has no
    /// effect. O(members).
    pub fn set_share(&mut self, backend: BackendIndex, share: u16) {
        self.pool.set_share(backend, share);
    }

    /// Whether the backend is a member that may be chosen.
    #[inline]
    pub fn is_candidate(&self, backend: BackendIndex) -> bool {
        let position = self.pool.position(backend);
        position.and_then(|position| self.pool.member(position)).is_some_and(Member::is_candidate)
    }

    /// How many primaries are usable (enabled, up, not ejected), and how many are enabled: for the limits of ejection.
    pub fn usable(&self) -> (usize, usize) {
        let candidates = self.pool.candidates();
        (candidates.usable, candidates.enabled)
    }

    /// Whether so few primaries are usable that all enabled ones are candidates.
    pub fn is_panicking(&self) -> bool {
        self.pool.candidates().tier == Tier::Panic
    }
}
