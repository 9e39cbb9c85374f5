//! What the packets of clients show about a backend: whether it takes TCP connections.
//!
//! A *failed opening* is a SYN that the backend refuses (RST with ACK, RFC 9293 §3.10.7.1; it answers anything else than
//! a SYN with a RST without), that it answers with ICMP unreachable, or that it leaves unanswered. So many of them, with
//! no answer of the backend between them, take it out for new flows. What it has is not touched.
//!
//! **Remote attackers.** Whoever can send packets can try to make a sound backend look dead, with SYNs that die on the
//! way (a hop limit that ends behind us, a wrong checksum) or with packets that are answered by a reset. What is in
//! their way:
//!
//! - *Any* packet of the backend but a reset, in whatever flow, forgets all failures. A backend with work to do cannot be
//!   taken out; one without loses nothing but its turn.
//! - A reset to anything but a SYN counts neither way: it has no ACK. Of ICMP errors only the backend's own count, for
//!   anyone may send one in a router's name.
//! - A worker that is behind with its queue, as in a flood, judges nobody: the answers wait there, or were dropped.
//! - Where the service says so, only openings to one port count: on the others a sound backend may refuse.
//! - Never more than half of a pool's backends are out, and never the last that is usable ([`is_allowed`]).
//! - A hold ends by itself, and at once when the checks bring the backend up.
//!
//! What is left to an attacker: of a pool that nobody else uses, to keep half of the backends out of work.

use loaded_ipc::{Cause, Passive};

/// Openings that nobody repeats are forgotten after as long as a half-open flow lives, ms.
const FORGOTTEN: u64 = 30_000;
/// A hold is at most 2^3 times the configured one.
const MOST_DOUBLED: u32 = 3;

/// The judgement of one backend. Times are milliseconds of a monotonic clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Watch {
    /// Openings since the backend's last answer: refused, and not answered yet.
    refused: u32,
    waiting: u32,
    /// When the last of them was.
    latest: u64,
    /// When they became as many as it takes.
    full: Option<u64>,
    ejection: Option<Ejection>,
    /// How often the hold is to be doubled next time, and until when "next time" is.
    doubled: u32,
    soon: u64,
}

/// Out until then, because of that.
#[derive(Debug, Clone, Copy)]
struct Ejection {
    until: u64,
    cause: Cause,
}

impl Watch {
    /// A SYN goes to the backend.
    pub(crate) fn opening(&mut self, passive: &Passive, now: u64) {
        if now.saturating_sub(self.latest) > FORGOTTEN {
            self.forget();
        }
        self.waiting = self.waiting.saturating_add(1);
        self.note(passive, now);
    }

    /// The backend refused one. Returns whether that is one too many.
    pub(crate) fn refused(&mut self, passive: &Passive, now: u64) -> bool {
        self.waiting = self.waiting.saturating_sub(1);
        self.refused = self.refused.saturating_add(1);
        self.note(passive, now);
        self.refused >= u32::from(passive.fails)
    }

    /// Whether so many are unanswered, each of them for so long, that the backend must be dead. Those that count are the
    /// oldest, for an answer forgets all; so the time of the last that it takes is enough.
    pub(crate) fn is_overdue(&self, passive: &Passive, now: u64) -> bool {
        self.full.is_some_and(|full| now.saturating_sub(full) >= u64::from(passive.timeout))
    }

    /// The backend has answered something: all is well.
    pub(crate) fn forget(&mut self) {
        (self.refused, self.waiting, self.full) = (0, 0, None);
    }

    /// Whether there is anything to forget.
    pub(crate) fn is_pending(&self) -> bool {
        self.refused | self.waiting != 0
    }

    /// Takes the backend out, for twice as long as the last time if that has just ended.
    pub(crate) fn eject(&mut self, passive: &Passive, cause: Cause, now: u64) {
        self.forget();
        self.doubled = if now < self.soon { (self.doubled + 1).min(MOST_DOUBLED) } else { 0 };
        let hold = u64::from(passive.hold) * 1000;
        let until = now.saturating_add(hold << self.doubled);
        self.soon = until.saturating_add(hold);
        self.ejection = Some(Ejection { until, cause });
    }

    /// Lets it in again: `true` if it was out.
    pub(crate) fn readmit(&mut self) -> bool {
        self.forget();
        self.ejection.take().is_some()
    }

    /// As [`Watch::readmit`], and whatever was before counts no more.
    pub(crate) fn absolve(&mut self) -> bool {
        (self.doubled, self.soon) = (0, 0);
        self.readmit()
    }

    /// Why it is out, if it is.
    pub(crate) fn cause(&self) -> Option<Cause> {
        self.ejection.map(|ejection| ejection.cause)
    }

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejection.is_some()
    }

    /// Whether the hold is over.
    pub(crate) fn is_served(&self, now: u64) -> bool {
        self.ejection.is_some_and(|ejection| now >= ejection.until)
    }

    fn note(&mut self, passive: &Passive, now: u64) {
        self.latest = now;
        if self.refused.saturating_add(self.waiting) >= u32::from(passive.fails) {
            self.full.get_or_insert(now);
        }
    }
}

/// Whether one more may go, of so many primaries that are usable, enabled and ejected before.
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
        let mut watch = Watch::default();
        for n in 1..=2 {
            watch.opening(&PASSIVE, n);
            assert!(!watch.refused(&PASSIVE, n));
        }
        watch.forget();
        assert!(!watch.is_pending());
        let outcomes = [3, 4, 5].map(|n| {
            watch.opening(&PASSIVE, n);
            watch.refused(&PASSIVE, n)
        });
        assert_eq!(outcomes, [false, false, true]);
    }

    #[test]
    fn each_of_the_unanswered_has_its_time() {
        let mut watch = Watch::default();
        watch.opening(&PASSIVE, 1000);
        watch.opening(&PASSIVE, 1000);
        assert!(!watch.is_overdue(&PASSIVE, 9000), "two are too few, however old");
        watch.opening(&PASSIVE, 9000);
        assert!(!watch.is_overdue(&PASSIVE, 9499), "the third may yet be answered");
        assert!(watch.is_overdue(&PASSIVE, 9500));
        watch.opening(&PASSIVE, 9500);
        assert!(watch.is_overdue(&PASSIVE, 9501), "more of them do not begin anew");
        watch.forget();
        assert!(!watch.is_overdue(&PASSIVE, 99_000));
        // Refused and unanswered ones add up.
        watch.opening(&PASSIVE, 100_000);
        watch.refused(&PASSIVE, 100_001);
        watch.opening(&PASSIVE, 100_002);
        watch.opening(&PASSIVE, 100_003);
        assert!(!watch.is_overdue(&PASSIVE, 100_502) && watch.is_overdue(&PASSIVE, 100_503));
    }

    #[test]
    fn openings_of_long_ago_are_forgotten() {
        let mut watch = Watch::default();
        for n in 0..10 {
            watch.opening(&PASSIVE, n * 30_001);
            assert!(!watch.is_overdue(&PASSIVE, n * 30_001 + 30_000));
        }
    }

    #[test]
    fn a_hold_doubles_while_the_backend_fails_again_soon() {
        let mut watch = Watch::default();
        let mut now = 1_000_000;
        for hold in [10_000, 20_000, 40_000, 80_000, 80_000] {
            watch.eject(&PASSIVE, Cause::Refused, now);
            assert!(!watch.is_served(now + hold - 1) && watch.is_served(now + hold), "{hold}");
            now += hold;
            assert!(watch.readmit() && !watch.readmit());
            // Just within the hold after its return.
            now += 9_999;
        }
        now += 80_000;
        watch.eject(&PASSIVE, Cause::ConnectTimeout, now);
        now += 10_000;
        assert!(watch.is_served(now));
        watch.readmit();
        now += 10_000;
        watch.eject(&PASSIVE, Cause::Refused, now);
        assert!(watch.is_served(now + 10_000), "it had been well for a while");
        assert!(watch.absolve());
        watch.eject(&PASSIVE, Cause::Refused, now + 1);
        assert!(watch.is_served(now + 10_001), "the checks have said that it is well");
    }

    #[test]
    fn never_the_last_and_never_more_than_half() {
        for enabled in 0..20_usize {
            let mut ejected = 0;
            while is_allowed(enabled - ejected, enabled, ejected) {
                ejected += 1;
            }
            assert_eq!(ejected, enabled / 2);
            // Others are down: one that is usable stays.
            assert!(!is_allowed(1, enabled, 0) && !is_allowed(0, enabled, 0));
        }
    }
}
