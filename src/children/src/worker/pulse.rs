//! Whether a worker answers its queue, and which packets the kernel has dropped before it could. Pure.

use loaded_queue::QueueState;
use std::time::{Duration, Instant};

/// A worker that answers nothing for this long while packets wait is hung. An honest one answers a batch in well under
/// a millisecond, and holds a packet back for a second at most; replacing it loses nothing.
const HUNG_AFTER: Duration = Duration::from_millis(1500);
/// Losses are logged once in this time, however many there are.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

/// What was last seen of a process that answers a queue. Each process has its own: a successor that has answered nothing yet must not
/// be judged by how long its predecessor stood still.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// The worker's own count of packets.
    received: u64,
    /// Since when no packet was answered while some wait.
    still: Option<Instant>,
}

/// The kernel's counts of losses, by a full queue and by a full socket, when they were last logged.
#[derive(Debug, Default)]
pub(super) struct QueueLosses {
    logged: (u32, u32),
    logged_at: Option<Instant>,
}

impl Pulse {
    /// Looks at the queue; `received` is the worker's own count. Returns for how long it has been hung, if it is.
    pub(super) fn check(&mut self, state: &QueueState, received: u64, now: Instant) -> Option<Duration> {
        if state.waiting == 0 || received != self.received {
            (self.received, self.still) = (received, None);
            return None;
        }
        let still = now.duration_since(*self.still.get_or_insert(now));
        (still >= HUNG_AFTER).then_some(still)
    }
}

impl QueueLosses {
    /// What was lost since the last call that returned something, for the log; nothing if that was a moment ago.
    pub(super) fn since_last(&mut self, state: &QueueState, now: Instant) -> Option<String> {
        let (full, socket) =
            (state.dropped_full.wrapping_sub(self.logged.0), state.dropped_socket.wrapping_sub(self.logged.1));
        let is_recent = self.logged_at.is_some_and(|at| now.duration_since(at) < LOGGED_EVERY);
        if (full, socket) == (0, 0) || is_recent {
            return None;
        }
        (self.logged, self.logged_at) = ((state.dropped_full, state.dropped_socket), Some(now));
        let causes = [
            (full, "because the queue was full (queue_len)"),
            (socket, "because the socket's buffer was full, or memory short"),
        ];
        let causes = causes.iter().filter(|(count, _)| *count > 0).map(|(count, why)| format!("{count} {why}"));
        Some(format!("packets were dropped before they could be answered: {}", causes.collect::<Vec<_>>().join(", ")))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn state(waiting: u32, dropped_full: u32, dropped_socket: u32) -> QueueState {
        QueueState { queue: 0, portid: 1, waiting, dropped_full, dropped_socket, last_id: 9 }
    }

    #[test]
    fn only_who_stands_still_while_packets_wait_is_hung() {
        let (mut pulse, start) = (Pulse::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        assert_eq!(pulse.check(&state(5, 0, 0), 7, at(0)), None);
        assert_eq!(pulse.check(&state(5, 0, 0), 7, at(500)), None, "the clock begins");
        assert_eq!(pulse.check(&state(5, 0, 0), 8, at(1900)), None, "it moves");
        assert_eq!(pulse.check(&state(0, 0, 0), 8, at(9000)), None, "nothing waits");
        assert_eq!(pulse.check(&state(1, 0, 0), 8, at(9500)), None);
        assert_eq!(pulse.check(&state(1, 0, 0), 8, at(10_900)), None);
        assert_eq!(pulse.check(&state(1, 0, 0), 8, at(11_000)), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn losses_are_told_once_a_period_and_summed() {
        let (mut losses, start) = (QueueLosses::default(), Instant::now());
        assert_eq!(losses.since_last(&state(0, 0, 0), start), None);
        assert!(losses.since_last(&state(0, 3, 0), start).unwrap().contains("3 because the queue was full"));
        assert_eq!(losses.since_last(&state(0, 50, 9), start + Duration::from_secs(9)), None);
        let told = losses.since_last(&state(0, 100, 9), start + LOGGED_EVERY).unwrap();
        assert!(told.contains("97 because the queue") && told.contains("9 because the socket's"), "{told}");
        assert_eq!(losses.since_last(&state(0, 100, 9), start + LOGGED_EVERY * 3), None);
    }
}
