//! Fewest clients for its weight.
//!
//! The counts are kept by being told of each client that comes and goes, so a choice costs O(members) however many
//! clients there are. They are this worker's clients: workers split clients by a hash of the address, so each sees its
//! even share of all.

use super::pool::Pool;

#[derive(Debug)]
pub(super) struct FewestClients {
    clients: Box<[u64]>,
    /// Where the search begins, so that among equals the turn goes round.
    next: usize,
}

impl FewestClients {
    pub(super) fn new(pool: &Pool, start: u16) -> Self {
        let next = usize::from(start).checked_rem(pool.len()).unwrap_or(0);
        Self { clients: vec![0; pool.len()].into(), next }
    }

    /// The candidate with the smallest clients/weight; of several the first from `next` on.
    #[inline]
    pub(super) fn choose(&mut self, pool: &Pool) -> Option<usize> {
        let all = || self.clients.iter().zip(pool.members()).enumerate();
        let rotated = all().skip(self.next).chain(all().take(self.next));
        let mut best: Option<(usize, u64, u64)> = None;
        for (position, (clients, member)) in rotated {
            if !member.is_candidate() {
                continue;
            }
            let weight = u64::from(member.weight);
            // a/v < b/w as a*w < b*v. A table has fewer than 2^29 slots and a weight 16 bits: no overflow; saturating
            // all the same, for the counts are only as good as the reports.
            if best.is_none_or(|(_, b, w)| clients.saturating_mul(w) < b.saturating_mul(weight)) {
                best = Some((position, *clients, weight));
            }
        }
        let (position, _, _) = best?;
        self.next = if position + 1 < self.clients.len() { position + 1 } else { 0 };
        Some(position)
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

#[cfg(test)]
mod tests {
    use super::super::Balancer;
    use super::super::tests::of_weights;
    use loaded_ipc::{BackendIndex, Strategy};

    fn balancer(weights: &[u16], start: u16) -> Balancer {
        of_weights(Strategy::Weighted, weights, start)
    }

    fn add(balancer: &mut Balancer, count: usize) -> Vec<u16> {
        (0..count)
            .map(|_| {
                let backend = balancer.choose(&[]).expect("eligible");
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
        let chosen: Vec<u16> = (0..4).map(|_| untold.choose(&[]).expect("eligible").0).collect();
        assert_eq!(chosen, [2, 0, 1, 2]);
    }

    #[test]
    fn who_lost_clients_gets_the_next() {
        let mut balancer = balancer(&[1, 1], 0);
        add(&mut balancer, 100);
        for _ in 0..10 {
            balancer.client_removed(BackendIndex(1));
        }
        assert_eq!(counts(&add(&mut balancer, 10), 2), [0, 10]);
        balancer.client_removed(BackendIndex(77));
    }
}
