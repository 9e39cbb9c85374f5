//! Passive observation: what the packets of clients show about a backend, namely whether it accepts TCP connections.
//!
//! A *failed opening* is a SYN that the backend refuses (RST with ACK, RFC 9293 §3.10.7.1; its RST to anything but a SYN has
//! no ACK), answers with ICMP unreachable, or leaves unanswered. A configured number of them, with no answer of the backend
//! in between, *ejects* the backend: it gets no new flows for the time of the *hold*. The flows it has go on.
//!
//! **Remote attackers.** Whoever can send packets can try to make a healthy backend look dead, with SYNs that are lost
//! behind us (a small hop limit, a wrong checksum) or with packets that are answered with a reset. What stops them:
//!
//! - *Any* packet of the backend but a reset, in whatever flow, clears all failures. So a busy backend cannot be ejected; an
//!   idle one loses nothing but its turn.
//! - A reset to anything but a SYN does not count, since it has no ACK. Of ICMP errors only the backend's own count, since
//!   anyone can send one in a router's name.
//! - Openings of clients in the backend's own network do not count, for its answers to them may pass this host by.
//! - What comes in a backend's name by another interface than the route to it leads through never gets here: the rules ask.
//! - A worker that is behind with its queue, as in a flood, judges no backend: the answers wait there, or were dropped.
//! - Where the service says so, only openings to one port count: a healthy backend may refuse others.
//! - Never more than half of a pool's backends are ejected, and never the last usable one ([`is_allowed`]).
//! - A hold ends by itself, and at once when the active checks report the backend up.
//!
//! What an attacker can still do: in a pool that nobody else uses, keep half of the backends idle.

use loaded_ipc::{Cause, Passive};

/// Milliseconds after which openings that are not repeated are forgotten: the default life of a half-open flow.
const FORGET_AFTER_MS: u64 = 30_000;
/// A hold lasts at most 2^3 times as long as configured.
const MAX_DOUBLINGS: u32 = 3;

/// The failed openings and the ejection of one backend. Times are milliseconds of a monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PassiveHealth {
    /// Openings since the backend's last answer that it refused, and that it has not answered yet.
    refused: u32,
    unanswered: u32,
    /// When the latest of them was.
    latest: u64,
    /// When they became as many as it takes for an ejection.
    enough_since: Option<u64>,
    ejection: Option<Hold>,
    /// How often the hold was doubled, and until when another ejection doubles it again.
    doublings: u32,
    doubles_until: u64,
}

/// No new flows until then, for this reason.
#[derive(Debug, Clone, Copy)]
struct Hold {
    until: u64,
    cause: Cause,
}

impl PassiveHealth {
    /// A SYN goes to the backend.
    pub(crate) fn opening(&mut self, passive: &Passive, now: u64) {
        if now.saturating_sub(self.latest) > FORGET_AFTER_MS {
            self.forget();
        }
        self.unanswered = self.unanswered.saturating_add(1);
        self.note_failure(passive, now);
    }

    /// The backend refused one. Returns whether that was one too many.
    pub(crate) fn refused(&mut self, passive: &Passive, now: u64) -> bool {
        self.unanswered = self.unanswered.saturating_sub(1);
        self.refused = self.refused.saturating_add(1);
        self.note_failure(passive, now);
        self.refused >= u32::from(passive.fails)
    }

    /// Whether so many have been unanswered for so long that the backend must be dead. An answer clears all, so those that
    /// count are the oldest, and it is enough to know when the last of them came.
    pub(crate) fn is_overdue(&self, passive: &Passive, now: u64) -> bool {
        self.enough_since.is_some_and(|since| now.saturating_sub(since) >= u64::from(passive.timeout))
    }

    /// The backend has answered something: clears all failures.
    pub(crate) fn forget(&mut self) {
        (self.refused, self.unanswered, self.enough_since) = (0, 0, None);
    }

    /// Whether there are failures to clear.
    pub(crate) fn is_pending(&self) -> bool {
        self.refused | self.unanswered != 0
    }

    /// Ejects the backend, for twice as long as the last time if that has ended only recently.
    pub(crate) fn eject(&mut self, passive: &Passive, cause: Cause, now: u64) {
        self.forget();
        self.doublings = if now < self.doubles_until { (self.doublings + 1).min(MAX_DOUBLINGS) } else { 0 };
        let hold = u64::from(passive.hold) * 1000;
        let until = now.saturating_add(hold << self.doublings);
        self.doubles_until = until.saturating_add(hold);
        self.ejection = Some(Hold { until, cause });
    }

    /// Ends the ejection; `true` if there was one.
    pub(crate) fn readmit(&mut self) -> bool {
        self.forget();
        self.ejection.take().is_some()
    }

    /// As [`PassiveHealth::readmit`], and the next hold is not doubled.
    pub(crate) fn absolve(&mut self) -> bool {
        (self.doublings, self.doubles_until) = (0, 0);
        self.readmit()
    }

    /// Why it is ejected, if it is.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.ejection.map(|ejection| ejection.cause)
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejection.is_some()
    }

    /// Whether the hold is over.
    pub(crate) fn is_hold_over(&self, now: u64) -> bool {
        self.ejection.is_some_and(|ejection| now >= ejection.until)
    }

    fn note_failure(&mut self, passive: &Passive, now: u64) {
        self.latest = now;
        if self.refused.saturating_add(self.unanswered) >= u32::from(passive.fails) {
            self.enough_since.get_or_insert(now);
        }
    }
}

/// Whether one more backend may be ejected, by the numbers of primaries that are usable, enabled and already ejected.
pub(crate) fn is_allowed(usable: usize, enabled: usize, ejected: usize) -> bool {
    usable >= 2 && (ejected + 1) * 2 <= enabled
}

/// Whether an opening to this port counts.
pub(crate) fn counts(passive: &Passive, port: u16) -> bool {
    passive.port.is_none_or(|only| only == port)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSIVE: Passive = Passive { fails: 3, timeout: 500, hold: 10, port: None };

    #[test]
    fn refusals_count_until_the_backend_answers() {
        let mut health = PassiveHealth::default();
        for n in 1..=2 {
            health.opening(&PASSIVE, n);
            assert!(!health.refused(&PASSIVE, n));
        }
        health.forget();
        assert!(!health.is_pending());
        let outcomes = [3, 4, 5].map(|n| {
            health.opening(&PASSIVE, n);
            health.refused(&PASSIVE, n)
        });
        assert_eq!(outcomes, [false, false, true]);
    }

    #[test]
    fn each_unanswered_opening_may_wait_for_the_timeout() {
        let mut health = PassiveHealth::default();
        health.opening(&PASSIVE, 1000);
        health.opening(&PASSIVE, 1000);
        assert!(!health.is_overdue(&PASSIVE, 9000), "two are too few, however old");
        health.opening(&PASSIVE, 9000);
        assert!(!health.is_overdue(&PASSIVE, 9499), "the third may yet be answered");
        assert!(health.is_overdue(&PASSIVE, 9500));
        health.opening(&PASSIVE, 9500);
        assert!(health.is_overdue(&PASSIVE, 9501), "more of them do not restart the wait");
        health.forget();
        assert!(!health.is_overdue(&PASSIVE, 99_000));
        // Refused and unanswered openings add up.
        health.opening(&PASSIVE, 100_000);
        health.refused(&PASSIVE, 100_001);
        health.opening(&PASSIVE, 100_002);
        health.opening(&PASSIVE, 100_003);
        assert!(!health.is_overdue(&PASSIVE, 100_502) && health.is_overdue(&PASSIVE, 100_503));
    }

    #[test]
    fn old_openings_are_forgotten() {
        let mut health = PassiveHealth::default();
        for n in 0..10 {
            health.opening(&PASSIVE, n * 30_001);
            assert!(!health.is_overdue(&PASSIVE, n * 30_001 + 30_000));
        }
    }

    #[test]
    fn a_hold_doubles_while_the_backend_fails_again_soon() {
        let mut health = PassiveHealth::default();
        let mut now = 1_000_000;
        for hold in [10_000, 20_000, 40_000, 80_000, 80_000] {
            health.eject(&PASSIVE, Cause::Refused, now);
            assert!(!health.is_hold_over(now + hold - 1) && health.is_hold_over(now + hold), "{hold}");
            now += hold;
            assert!(health.readmit() && !health.readmit());
            // Just within the time in which another ejection doubles the hold.
            now += 9_999;
        }
        now += 80_000;
        health.eject(&PASSIVE, Cause::ConnectTimeout, now);
        now += 10_000;
        assert!(health.is_hold_over(now));
        health.readmit();
        now += 10_000;
        health.eject(&PASSIVE, Cause::Refused, now);
        assert!(health.is_hold_over(now + 10_000), "it had worked for a while");
        assert!(health.absolve());
        health.eject(&PASSIVE, Cause::Refused, now + 1);
        assert!(health.is_hold_over(now + 10_001), "the checks have reported it up");
    }

    #[test]
    fn never_the_last_and_never_more_than_half() {
        for enabled in 0..20_usize {
            let mut ejected = 0;
            while is_allowed(enabled - ejected, enabled, ejected) {
                ejected += 1;
            }
            assert_eq!(ejected, enabled / 2);
            // Others are down: the last usable one stays.
            assert!(!is_allowed(1, enabled, 0) && !is_allowed(0, enabled, 0));
        }
    }
}
