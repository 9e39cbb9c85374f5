//! Which backend gets a new client: pure decisions, without I/O, clock or random source.
//!
//! A [`Balancer`] is built once for each service and family, before the worker is locked down. After that nothing here
//! allocates: what a change of eligibility needs (the Maglev table and the scratch to refill it) is there already.

mod maglev;
mod pool;
mod rr;
mod weighted;

pub use maglev::table_size;
pub use pool::{MemberSpec, Pool, PoolError};

use loaded_ipc::{BackendIndex, Strategy};
use maglev::Maglev;
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
    /// Builds the balancer; all memory it will ever use is allocated here.
    ///
    /// `start` is the worker's number: workers with different numbers begin with different backends. Maglev ignores
    /// it, for there all must agree.
    pub fn new(members: &[MemberSpec], strategy: Strategy, start: u16) -> Result<Self, PoolError> {
        let pool = Pool::new(members)?;
        let chooser = match strategy {
            Strategy::RoundRobin => Chooser::RoundRobin(RoundRobin::new(&pool, start)),
            Strategy::Weighted => Chooser::Weighted(FewestClients::new(&pool, start)),
            Strategy::Maglev { seed } => Chooser::Maglev(Maglev::new(&pool, seed)),
        };
        Ok(Self { pool, chooser })
    }

    /// The backend for a new client, or `None` if no member is eligible. Never one that is not.
    ///
    /// `client` is what identifies the client: its address or prefix (16 bytes) where it has affinity, the bytes of
    /// the flow where it has none. Only Maglev looks at it; balancers that are to agree must pass the same bytes.
    #[inline]
    pub fn choose(&mut self, client: &[u8]) -> Option<BackendIndex> {
        let position = match &mut self.chooser {
            Chooser::RoundRobin(rr) => rr.choose(&self.pool),
            Chooser::Weighted(weighted) => weighted.choose(&self.pool),
            Chooser::Maglev(maglev) => maglev.choose(client),
        }?;
        self.pool.backend(position)
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

    /// Says whether the backend may be given to new clients. Returns whether that changed anything; a backend that is
    /// no member changes nothing. With Maglev a change refills the table: 1 to 4 ms for
    /// 65,537 places, about 50 ms for 655,373 (more than 655 members).
    pub fn set_eligible(&mut self, backend: BackendIndex, eligible: bool) -> bool {
        let changed = self.pool.set_eligible(backend, eligible);
        if changed {
            match &mut self.chooser {
                Chooser::RoundRobin(rr) => rr.rejoin(self.pool.position(backend)),
                Chooser::Weighted(_) => {}
                Chooser::Maglev(maglev) => maglev.refill(&self.pool),
            }
        }
        changed
    }

    /// Whether the backend is a member that may be given to new clients.
    #[inline]
    pub fn is_eligible(&self, backend: BackendIndex) -> bool {
        self.pool.position(backend).is_some_and(|position| self.pool.is_candidate(position))
    }

    /// The members.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRATEGIES: [Strategy; 3] = [Strategy::RoundRobin, Strategy::Weighted, Strategy::Maglev { seed: 1 }];

    /// Backends 0, 1, … of these weights, all eligible.
    pub(super) fn of_weights(strategy: Strategy, weights: &[u16], start: u16) -> Balancer {
        let backends = (0..).map(BackendIndex).zip(weights);
        let members: Vec<_> = backends
            .map(|(backend, &weight)| MemberSpec { backend, address: [0; 16], weight, eligible: true })
            .collect();
        Balancer::new(&members, strategy, start).expect("pool")
    }

    fn members(count: u16) -> Vec<MemberSpec> {
        (0..count)
            .map(|n| MemberSpec {
                backend: BackendIndex(n * 3 + 5),
                address: u128::from(n + 1).to_be_bytes(),
                weight: 1 + n % 3,
                eligible: true,
            })
            .collect()
    }

    #[test]
    fn one_that_is_not_eligible_is_never_chosen() {
        for strategy in STRATEGIES {
            let mut balancer = Balancer::new(&members(5), strategy, 2).expect("pool");
            let mut state = 1_u32;
            for step in 0..200_u32 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let backend = BackendIndex(u16::try_from(state >> 16).expect("16 bits") % 5 * 3 + 5);
                balancer.set_eligible(backend, state >> 8 & 1 == 1);
                for client in 0..20_u32 {
                    let any = balancer.pool().members().any(|member| member.eligible);
                    let chosen = balancer.choose(&(client + step).to_be_bytes());
                    assert_eq!(chosen.is_some(), any, "{strategy}");
                    if let Some(chosen) = chosen {
                        assert!(balancer.is_eligible(chosen), "{strategy}");
                        balancer.client_added(chosen);
                    }
                }
            }
        }
    }

    #[test]
    fn none_where_there_is_none() {
        for strategy in STRATEGIES {
            assert_eq!(Balancer::new(&[], strategy, 0).expect("pool").choose(b"client"), None);
            let mut refusing = members(3);
            refusing.iter_mut().for_each(|member| member.eligible = false);
            let mut balancer = Balancer::new(&refusing, strategy, 9).expect("pool");
            assert_eq!(balancer.choose(b"client"), None);
            assert!(balancer.set_eligible(BackendIndex(8), true));
            assert_eq!(balancer.choose(b"client"), Some(BackendIndex(8)));
            assert!(!balancer.set_eligible(BackendIndex(7), true));
            let mut weightless = members(2);
            weightless.iter_mut().for_each(|member| member.weight = 0);
            assert_eq!(Balancer::new(&weightless, strategy, 0).expect("pool").choose(b"client"), None);
        }
    }
}
