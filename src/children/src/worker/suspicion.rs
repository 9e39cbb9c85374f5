//! What becomes of the packets that a dead worker held. Pure.
//!
//! A kill from outside (by an operator, or by the kernel when memory is short) says nothing against the packets. A worker that
//! dies by itself, or hangs, may do so because of the packet it had in hand. Once is no proof, and that packet is repeated
//! like the others; the second time the packet in hand is dropped, and only that one.

use loaded_queue::Orphans;
use std::time::{Duration, Instant};

/// Deaths further apart than this have nothing to do with each other.
const WINDOW: Duration = Duration::from_secs(10);
/// After this many deaths within that time without a packet in hand, all packets that were held are dropped.
const BLIND: usize = 3;

/// The deaths of a worker that packets may have caused.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// The latest, oldest first; at most [`BLIND`].
    deaths: Vec<Instant>,
}

impl Suspicion {
    /// What becomes of the held packets after such a death; `hand`: the id of the packet in hand.
    pub(super) fn after(&mut self, hand: Option<u32>, now: Instant) -> Orphans {
        self.deaths.retain(|death| now.duration_since(*death) < WINDOW);
        if self.deaths.len() == BLIND {
            self.deaths.remove(0);
        }
        self.deaths.push(now);
        match (hand, self.deaths.len()) {
            (Some(id), 2..) => Orphans::RepeatWithout(id),
            (None, BLIND..) => Orphans::Drop,
            _ => Orphans::Repeat,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_death_drops_the_packet_in_hand_and_no_other() {
        let (mut suspicion, start) = (Suspicion::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(suspicion.after(Some(7), at(0)), Orphans::Repeat);
        assert_eq!(suspicion.after(Some(9), at(1)), Orphans::RepeatWithout(9));
        assert_eq!(suspicion.after(Some(11), at(2)), Orphans::RepeatWithout(11));
        assert_eq!(suspicion.after(Some(13), at(12)), Orphans::Repeat, "long ago");
    }

    #[test]
    fn deaths_without_a_packet_in_hand_give_up_everything_at_last() {
        let (mut suspicion, start) = (Suspicion::default(), Instant::now());
        assert_eq!(suspicion.after(None, start), Orphans::Repeat);
        assert_eq!(suspicion.after(None, start), Orphans::Repeat);
        for _ in 0..9 {
            assert_eq!(suspicion.after(None, start), Orphans::Drop);
        }
        assert_eq!(suspicion.after(None, start + WINDOW), Orphans::Repeat);
    }
}
