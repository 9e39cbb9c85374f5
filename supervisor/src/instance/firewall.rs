//! What the firewall rules of others make of balanced packets. They are read in a thread of its own, for they may be very many
//! and the loop waits for nobody; and only after something has changed.

use loaded_config::plan::Plan;
use loaded_firewall::{Firewall, judge};
use loaded_host::{Paths, Problem, Severity};
use loaded_netfilter::Tools;
use loaded_queue::QueueState;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time from a change to the look, for whoever changes rules seldom changes one alone.
const DELAY: Duration = Duration::from_millis(200);
/// Time between two looks whether a look is over.
const STEP: Duration = Duration::from_millis(2);
/// Shortest time from one look to the next.
const LEAST_REST: Duration = Duration::from_secs(1);
/// After a look the next one waits this many times the processor time that it took, its programs' among it, however often rules
/// change: a twentieth of a core at most, and nothing while nobody changes rules.
const REST: u32 = 19;

/// The last look at the firewalls of others, and the next.
#[derive(Debug)]
pub(crate) struct FirewallWatch {
    /// `None`: once something has changed.
    due: Option<Instant>,
    /// Before that no look begins.
    rests_until: Instant,
    /// What it finds, unless this host's addresses and routes could not be read, and what it has cost.
    look: Option<JoinHandle<(Option<Vec<Problem>>, Duration)>>,
    found: Vec<Problem>,
    /// The generation that was judged.
    generation: u64,
    /// The queues that somebody read then: rules of others may give packets to those of others. `None`: not known.
    owned: Option<BTreeSet<u16>>,
}

impl FirewallWatch {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { due: Some(now), rests_until: now, look: None, found: Vec::new(), generation: 0, owned: None }
    }

    /// What the last look has found.
    pub(super) fn found(&self) -> &[Problem] {
        &self.found
    }

    /// Has the rules looked at soon: they, or this host's addresses, have changed.
    pub(super) fn expect_look(&mut self, now: Instant) {
        self.due.get_or_insert(now + DELAY);
    }

    /// Waits for the look that is under way, at most so long.
    pub(super) fn wait(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while self.look.as_ref().is_some_and(|look| !look.is_finished()) && Instant::now() < end {
            std::thread::sleep(STEP);
        }
    }

    /// Takes over what a look has found, and begins the next if it is due. `queues`: all that have an owner, as far as that is known.
    pub(super) fn look(&mut self, now: Instant, plan: &Plan, generation: u64, queues: Option<&[QueueState]>) {
        if let Some(look) = self.look.take() {
            if !look.is_finished() {
                self.look = Some(look);
                return;
            }
            // If the thread has panicked the process has ended.
            let (found, cost) = look.join().unwrap_or_default();
            match found {
                Some(found) => self.found = found,
                None => self.expect_look(now),
            }
            self.rests_until = now + LEAST_REST.max(cost * REST);
        }
        let owned = queues.map(|queues| queues.iter().map(|state| state.queue).collect());
        if owned.is_some() && self.owned != owned {
            self.owned = owned;
            self.expect_look(now);
        }
        if self.generation != generation {
            self.generation = generation;
            self.expect_look(now);
        }
        if self.due.is_none_or(|due| due > now) || now < self.rests_until {
            return;
        }
        let (plan, owned) = (plan.clone(), self.owned.clone());
        let look = move || {
            let before = cost();
            let found = match Tools::find() {
                Ok(tools) => Paths::read()
                    .ok()
                    .map(|paths| judge(&Firewall::read(&tools, Some(plan.queue_base), owned.as_ref()), &plan, paths)),
                Err(error) => Some(vec![Problem::new("programs", Severity::NoStart, error.to_string())]),
            };
            (found, cost().saturating_sub(before))
        };
        match std::thread::Builder::new().name("firewall".to_owned()).spawn(look) {
            Ok(thread) => (self.due, self.look) = (None, Some(thread)),
            Err(error) => {
                log::warn!("rules of others cannot be looked at: {error}; will try again");
                self.rests_until = now + LEAST_REST;
            }
        }
    }
}

/// Processor time of this thread, and of every program that has ended.
fn cost() -> Duration {
    let programs = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(Duration::ZERO, |usage| {
        let time = |value: TimeVal| Duration::from_micros(u64::try_from(value.num_microseconds()).unwrap_or(0));
        time(usage.user_time()) + time(usage.system_time())
    });
    programs + clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}
