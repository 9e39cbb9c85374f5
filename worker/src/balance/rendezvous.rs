//! Weighted rendezvous hashing: each candidate draws a lot for the client, and the best lot wins.
//!
//! With `u` a uniform hash of client and member, the smallest lot `-log2(u) / weight` wins, which gives each member clients in
//! proportion to its weight (Efraimidis and Spirakis, Information Processing Letters 97, 2006). A lot depends on no other
//! member, so a change of one member moves only the clients that it wins or loses. O(members): for the few clients for whom
//! the lookup table has no answer.

use super::member::Member;
use super::pool::Pool;

/// Of the candidates that `accept` takes. `lot` gives each position's hash for the client.
pub(super) fn choose(pool: &Pool, accept: impl Fn(&Member) -> bool, lot: impl Fn(usize) -> u64) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    let acceptable = |member: &Member| member.is_candidate() && accept(member);
    for (position, member) in pool.members().enumerate().filter(|(_, member)| acceptable(member)) {
        let (cost, weight) = (minus_log2(lot(position)), member.effective());
        // a/v < b/w as a*w < b*v, which has at most 31 + 26 bits. `minus_log2` rounds, so lots can be equal; then the smaller
        // address and port win, since positions differ between balancers.
        let is_better = best.is_none_or(|(other, b, w)| {
            let place = |position| pool.member(position).map(|member| member.spec.place());
            (cost * w, place(position)) < (b * weight, place(other))
        });
        if is_better {
            best = Some((position, cost, weight));
        }
    }
    best.map(|(position, _, _)| position)
}

/// `-log2(hash / 2^64)` in 1/2^24: 0 to just over 64 * 2^24. The digits of the logarithm come from squaring (Knuth,
/// TAOCP 1, §1.2.2), so that every machine has the same without a float.
fn minus_log2(hash: u64) -> u64 {
    const DIGITS: u32 = 24;
    let hash = hash.max(1);
    let zeros = hash.leading_zeros();
    // 1.x with 31 binary digits after the point.
    let mut x = (hash << zeros) >> 32;
    let mut log = 0_u64;
    for _ in 0..DIGITS {
        x = (x * x) >> 31;
        let digit = x >> 32;
        x >>= digit;
        log = log << 1 | digit;
    }
    (u64::from(zeros + 1) << DIGITS) - log
}

#[cfg(test)]
mod tests {
    use super::super::maglev::mix;
    use super::super::tests::{member, policy};
    use super::*;
    use loaded_ipc::BackendIndex;

    #[test]
    fn the_logarithm_is_one() {
        for (hash, expected) in [(1 << 63, 1 << 24), (1 << 62, 2 << 24), (1, 64 << 24), (0, 64 << 24)] {
            assert_eq!(minus_log2(hash), expected);
        }
        assert!(minus_log2(u64::MAX) < 4);
        for n in 1..2000 {
            let hash = mix(n);
            let (expected, got) = (64.0 - (hash as f64).log2(), minus_log2(hash) as f64 / f64::from(1 << 24));
            assert!((expected - got).abs() < 1e-5, "{hash:#x}: {got} for {expected}");
        }
    }

    #[test]
    fn lots_follow_weight_and_share() {
        let mut pool = Pool::new(&[member(0, 1), member(1, 2), member(2, 5), member(3, 4)], policy(0)).expect("pool");
        pool.set_share(BackendIndex(3), 512);
        let mut counts = [0_u32; 4];
        for client in 0..50_000_u64 {
            counts[choose(&pool, |_| true, |position| mix(client << 8 | position as u64)).expect("candidates")] += 1;
        }
        for (count, expected) in counts.into_iter().zip([5_000, 10_000, 25_000, 10_000_u32]) {
            assert!(count.abs_diff(expected) < expected / 20, "{count} for {expected}");
        }
    }
}
