//! Fewest clients in proportion to weight.
//!
//! The caller reports each client that is added or removed, so a choice costs O(members) however many clients there are. They
//! are this worker's clients: packets are spread over workers by a hash of the client's address, so each worker sees an even
//! share of all.
//!
//! Slow start: a member that comes back has no clients, and would get *every* new one until it has caught up. A smaller weight
//! alone does not help, since it only lowers what has to be caught up. So such a member takes part only as often as it would
//! have a turn in a round robin: at each choice it earns its share of its weight, a client costs it the sum of all weights, and
//! it never saves for more than one client. So it gets no more new clients than its weight and share give it, whatever the
//! others have. After the slow start it is a member like the others, and catches up.

use super::member::{FULL_SHARE, Member};
use super::pool::Pool;

#[derive(Debug)]
pub(super) struct FewestClients {
    clients: Box<[u64]>,
    /// What each member in its slow start has saved, by position.
    saved: Box<[u64]>,
    /// Where the search begins, so that equals take turns.
    next: usize,
}

impl FewestClients {
    pub(super) fn new(pool: &Pool, start: u16) -> Self {
        let next = usize::from(start).checked_rem(pool.len()).unwrap_or(0);
        Self { clients: vec![0; pool.len()].into(), saved: vec![0; pool.len()].into(), next }
    }

    /// The candidate for the next client, of those that `accept` takes. The caller reports the client with [`Self::added`].
    #[inline]
    pub(super) fn choose(&mut self, pool: &Pool, accept: impl Fn(&Member) -> bool) -> Option<usize> {
        let Self { clients, saved, next } = self;
        let position = fewest(pool, clients, *next, &accept, |position, earn| {
            let saved = saved.get_mut(position)?;
            *saved = earn(*saved);
            Some(*saved)
        });
        let position = position.or_else(|| fewest_of_slow(pool, clients, *next, &accept))?;
        if let Some(saved) = self.saved.get_mut(position) {
            *saved = saved.saturating_sub(pool.effective());
        }
        self.next = if position + 1 < self.clients.len() { position + 1 } else { 0 };
        Some(position)
    }

    /// What [`FewestClients::choose`] would return. Changes nothing.
    pub(super) fn next(&self, pool: &Pool, accept: impl Fn(&Member) -> bool) -> Option<usize> {
        let save = |position, earn: &dyn Fn(u64) -> u64| self.saved.get(position).map(|saved| earn(*saved));
        let position = fewest(pool, &self.clients, self.next, &accept, save);
        position.or_else(|| fewest_of_slow(pool, &self.clients, self.next, &accept))
    }

    /// To be called when the candidates have changed: a member that is none loses its savings.
    pub(super) fn settle(&mut self, pool: &Pool) {
        for (saved, _) in self.saved.iter_mut().zip(pool.members()).filter(|(_, member)| !member.is_candidate()) {
            *saved = 0;
        }
    }

    #[inline]
    pub(super) fn added(&mut self, position: usize) {
        if let Some(clients) = self.clients.get_mut(position) {
            *clients = clients.saturating_add(1);
        }
    }

    #[inline]
    pub(super) fn removed(&mut self, position: usize) {
        if let Some(clients) = self.clients.get_mut(position) {
            *clients = clients.saturating_sub(1);
        }
    }
}

/// The acceptable candidate with the smallest clients/weight, whatever they have saved: if none is acceptable but those in
/// their slow start, none is there to take over for them.
#[cold]
fn fewest_of_slow(pool: &Pool, clients: &[u64], next: usize, accept: impl Fn(&Member) -> bool) -> Option<usize> {
    fewest(pool, clients, next, accept, |_, _| Some(u64::MAX))
}

/// The acceptable candidate with the smallest clients/weight; of equals the first from `next` on. `save` is given a member in
/// its slow start and how savings grow at a choice, and returns what the member has saved then.
#[inline]
fn fewest(
    pool: &Pool,
    clients: &[u64],
    next: usize,
    accept: impl Fn(&Member) -> bool,
    mut save: impl FnMut(usize, &dyn Fn(u64) -> u64) -> Option<u64>,
) -> Option<usize> {
    let price = pool.effective();
    let (before, after) = (0..next, next..pool.len());
    let mut best: Option<(usize, u64, u64)> = None;
    for position in after.chain(before) {
        let (Some(member), Some(clients)) = (pool.member(position), clients.get(position)) else { continue };
        if !member.is_candidate() || !accept(member) {
            continue;
        }
        let weight = member.effective();
        if member.part() < FULL_SHARE
            && save(position, &|saved| (saved + weight).min(price + weight)).is_none_or(|saved| saved < price)
        {
            continue;
        }
        // a/v < b/w as a*w < b*v. A table has fewer than 2^29 slots and a weight 26 bits, so nothing overflows; saturating
        // all the same, since the counts are only as good as the reports.
        if best.is_none_or(|(_, b, w)| clients.saturating_mul(w) < b.saturating_mul(weight)) {
            best = Some((position, *clients, weight));
        }
    }
    // The candidate with the largest share counts as outside its slow start: if all are acceptable, one is found.
    best.map(|(position, _, _)| position)
}

#[cfg(test)]
mod tests {
    use super::super::Balancer;
    use super::super::tests::{DOWN, WELL, of_weights};
    use loaded_ipc::{BackendIndex, Strategy};

    fn balancer(weights: &[u16], start: u16) -> Balancer {
        of_weights(Strategy::Weighted, weights, start)
    }

    fn add(balancer: &mut Balancer, count: usize) -> Vec<u16> {
        (0..count)
            .map(|_| {
                let backend = balancer.choose(&[]).expect("candidates");
                balancer.client_added(backend);
                backend.0
            })
            .collect()
    }

    fn counts(chosen: &[u16], members: u16) -> Vec<usize> {
        (0..members).map(|n| chosen.iter().filter(|c| **c == n).count()).collect()
    }

    /// The original counted only backends that had clients already, and so could never leave the first.
    #[test]
    fn a_backend_without_clients_is_a_candidate() {
        let mut balancer = balancer(&[1, 1, 1], 0);
        balancer.client_added(BackendIndex(0));
        balancer.client_added(BackendIndex(0));
        assert_eq!(add(&mut balancer, 4), [1, 2, 1, 2]);
    }

    #[test]
    fn clients_follow_the_weights() {
        assert_eq!(counts(&add(&mut balancer(&[1, 2, 5, 0], 3), 800), 4), [100, 200, 500, 0]);
    }

    #[test]
    fn equals_take_turns_from_where_the_worker_begins() {
        assert_eq!(add(&mut balancer(&[3, 3, 3], 1), 6), [1, 2, 0, 1, 2, 0]);
        let mut untold = balancer(&[1, 1, 1], 2);
        let chosen: Vec<u16> = (0..4).map(|_| untold.choose(&[]).expect("candidates").0).collect();
        assert_eq!(chosen, [2, 0, 1, 2]);
    }

    #[test]
    fn a_member_that_lost_clients_gets_the_next() {
        let mut balancer = balancer(&[1, 1], 0);
        add(&mut balancer, 100);
        for _ in 0..10 {
            balancer.client_removed(BackendIndex(1));
        }
        assert_eq!(counts(&add(&mut balancer, 10), 2), [0, 10]);
        balancer.client_removed(BackendIndex(77));
    }

    /// 1000 clients each, and one comes back with none: by the counts alone it would get every new client.
    #[test]
    fn a_member_that_comes_back_is_not_flooded_in_its_slow_start() {
        let mut balancer = balancer(&[1, 1, 2, 1], 0);
        let back = BackendIndex(1);
        for n in [0, 2, 2, 3] {
            (0..1000).for_each(|_| balancer.client_added(BackendIndex(n)));
        }
        balancer.set_standing(back, DOWN);
        balancer.set_share(back, 256);
        balancer.set_standing(back, WELL);
        // 1/4 of its weight beside 4 is 1/17 of all.
        assert_eq!(counts(&add(&mut balancer, 1700), 4)[1], 100);
        balancer.set_share(back, 1024);
        assert_eq!(counts(&add(&mut balancer, 100), 4)[1], 100);
    }
}
