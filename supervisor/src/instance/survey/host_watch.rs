//! What was found of this host. With thousands of backends a whole look takes milliseconds, so one is made when the kernel has
//! announced a change or a setting is another than it was; in between only what announces nothing is read again.

use super::account::Account;
use crate::conditions::chroot;
use loaded_config::plan::Plan;
use loaded_host::{HostReport, Problem, check_discovery};
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Time between two looks at what announces nothing: settings, the directory of the children, their account.
const EVERY: Duration = Duration::from_secs(2);
/// A whole look is made after this time whatever was announced, should there be a change that nobody announces.
const RENEWED: Duration = Duration::from_secs(60);
/// After a whole look the next one waits this many times as long, however often something is announced: on a host with very many
/// routes, where a look takes long, looks never take more than a five-hundredth of a core.
const REST: u32 = 500;
/// A look that takes less processor time than this is short, and the next one waits no longer than `SHORT_REST`: each change is told
/// within five seconds.
const SHORT: Duration = Duration::from_millis(20);
const SHORT_REST: Duration = Duration::from_millis(1500);

/// The last look at the host, and the next.
#[derive(Debug)]
pub(in crate::instance) struct HostWatch {
    report: HostReport,
    /// What keeps discovery from its networks; like the report it changes only with what is announced.
    discovery: Vec<Problem>,
    /// The generation that was asked for.
    generation: u64,
    /// The kernel has announced a change since.
    changed: bool,
    made: Instant,
    /// Before that there is no whole look.
    rests_until: Instant,
    due: Instant,
    account: Account,
    found: Vec<Problem>,
    /// The last look has failed.
    unread: bool,
}

impl HostWatch {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            report: HostReport::default(),
            discovery: Vec::new(),
            generation: 0,
            changed: true,
            made: now,
            rests_until: now,
            due: now,
            account: Account::default(),
            found: Vec::new(),
            unread: false,
        }
    }

    /// The kernel has announced a change of interfaces, addresses, routes or settings; or may have, while nobody listened.
    pub(in crate::instance) fn note_change(&mut self) {
        self.changed = true;
    }

    /// What keeps packets from being balanced.
    pub(in crate::instance) fn found(&self) -> &[Problem] {
        &self.found
    }

    /// Looks at what may have changed, if that is due. `hears`: changes are announced.
    pub(in crate::instance) fn look(&mut self, now: Instant, plan: &Plan, generation: u64, hears: bool) {
        if now < self.due {
            return;
        }
        self.due = now + EVERY;
        if now >= self.rests_until && (!hears || self.is_outdated(now, generation)) {
            self.look_at_everything(now, plan, generation);
        }
        let known = self.report.problems.iter().chain(&self.discovery).cloned();
        self.found = known.chain(chroot()).chain(self.account.look(&plan.user)).collect();
    }

    /// The same at once, for something was changed here.
    pub(in crate::instance) fn look_again(&mut self, now: Instant, plan: &Plan, generation: u64) {
        (self.due, self.rests_until, self.changed) = (now, now, true);
        self.look(now, plan, generation, true);
    }

    fn is_outdated(&self, now: Instant, generation: u64) -> bool {
        self.changed
            || self.generation != generation
            || now.duration_since(self.made) >= RENEWED
            || !self.report.is_current()
    }

    fn look_at_everything(&mut self, now: Instant, plan: &Plan, generation: u64) {
        let before = processor_time();
        // What is announced from now on is for the next look.
        (self.changed, self.generation, self.made) = (false, generation, now);
        match HostReport::of(plan) {
            Ok(report) => {
                (self.report, self.unread) = (report, false);
                self.discovery = check_discovery(plan);
            }
            // No word that anything has changed: what was known stands until there is one.
            Err(error) => {
                if !std::mem::replace(&mut self.unread, true) {
                    log::warn!(
                        "this host cannot be looked at: {error}; will try again, and say no more of it until then"
                    );
                }
                self.changed = true;
            }
        }
        self.rests_until = now + rest_after(processor_time().saturating_sub(before));
    }
}

/// How long after a look that took this much processor time there is no other.
fn rest_after(look: Duration) -> Duration {
    let rest = look * REST;
    if look < SHORT { rest.min(SHORT_REST) } else { rest }
}

/// Time that this thread has used, by the kernel's account.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_look_may_be_followed_by_another_soon_and_a_long_one_not() {
        let of = |millis| rest_after(Duration::from_millis(millis));
        assert_eq!([of(1), of(2), of(3), of(19)].map(|rest| rest.as_millis()), [500, 1000, 1500, 1500]);
        assert_eq!(of(100), Duration::from_secs(50));
    }
}
