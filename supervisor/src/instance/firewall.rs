//! What the firewall rules of others make of balanced packets. They are read in a thread of its own, for they may be very many
//! and the loop waits for nobody; and only after something has changed.

use loaded_config::plan::Plan;
use loaded_firewall::{Firewall, judge};
use loaded_host::{Paths, Problem};
use loaded_netfilter::Tools;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Time from a change to the look, for whoever changes rules seldom changes one alone.
const DELAY: Duration = Duration::from_millis(200);
/// Shortest time from one look to the next.
const LEAST_REST: Duration = Duration::from_secs(1);
/// After a look the next one waits this many times as long as it took, however often rules change: they take a tenth of a core
/// at most, and nothing while nobody changes rules.
const REST: u32 = 9;

/// The last look at the firewalls of others, and the next.
#[derive(Debug)]
pub(crate) struct FirewallWatch {
    /// `None`: once something has changed.
    due: Option<Instant>,
    /// Before that no look begins.
    rests_until: Instant,
    look: Option<(Instant, JoinHandle<Vec<Problem>>)>,
    found: Vec<Problem>,
    /// The generation that was judged.
    generation: u64,
}

impl FirewallWatch {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { due: Some(now), rests_until: now, look: None, found: Vec::new(), generation: 0 }
    }

    /// What the last look has found.
    pub(super) fn found(&self) -> &[Problem] {
        &self.found
    }

    /// Has the rules looked at soon: they, or this host's addresses, have changed.
    pub(super) fn expect_look(&mut self, now: Instant) {
        self.due.get_or_insert(now + DELAY);
    }

    /// Takes over what a look has found, and begins the next if it is due.
    pub(super) fn look(&mut self, now: Instant, plan: &Plan, generation: u64) {
        if let Some((begun, look)) = self.look.take() {
            if !look.is_finished() {
                self.look = Some((begun, look));
                return;
            }
            self.rests_until = now + LEAST_REST.max(now.duration_since(begun) * REST);
            // If the thread has panicked the process has ended.
            self.found = look.join().unwrap_or_default();
        }
        if self.generation != generation {
            self.generation = generation;
            self.expect_look(now);
        }
        if self.due.is_none_or(|due| due > now) || now < self.rests_until {
            return;
        }
        let plan = plan.clone();
        let look = move || {
            let Ok(tools) = Tools::find() else { return Vec::new() };
            judge(&Firewall::read(&tools, Some(plan.queue_base)), &plan, Paths::read())
        };
        match std::thread::Builder::new().name("firewall".to_owned()).spawn(look) {
            Ok(thread) => (self.due, self.look) = (None, Some((now, thread))),
            Err(error) => {
                log::warn!("rules of others cannot be looked at: {error}; will try again");
                self.rests_until = now + LEAST_REST;
            }
        }
    }
}
