//! From one configuration to the next: read and check everything, have everything ready beside what runs, and only then
//! change over. What goes wrong before that moment changes nothing.
//!
//! A worker never learns a new configuration. Another worker process is started for the same queue and tables and
//! prepared; the one that serves finishes its batch and goes; the other takes over. Packets wait in the kernel meanwhile.

use super::Instance;
use crate::Error;
use crate::children::briefing;
use crate::children::worker::Worker;
use crate::hops::hops;
use crate::preflight::{check_discovery, check_host};
use crate::roster::Roster;
use loaded_config as config;
use loaded_config::plan::{Plan, diff, immutable_change};
use loaded_netfilter::RuleSet;
use loaded_netfilter::routes::Hops;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// How long a reload waits for workers to take over before it is done with it; a worker that cannot is started again and
/// again with the new configuration all the same.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a queue may be without a server because the other workers are not prepared yet.
const LONELY: Duration = Duration::from_secs(1);
/// How long a change that nobody has asked for rests when it went wrong.
pub(super) const REST: Duration = Duration::from_secs(10);

/// A change under way.
#[derive(Debug)]
pub(super) struct Reload {
    plan: Plan,
    roster: Roster,
    rules: RuleSet,
    hops: Hops,
    why: Why,
    changes: Vec<String>,
    begun: Instant,
    /// `None`: the workers prepare. Since then: they change over.
    switched: Option<Instant>,
}

/// Who wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Operator,
    /// Nodes were discovered.
    Discovery,
    /// What was to leave has left.
    Departure,
}

/// How the operator's last reload went.
#[derive(Debug, Clone)]
pub(super) struct LastReload {
    pub(super) at: SystemTime,
    pub(super) ok: bool,
    pub(super) text: String,
}

impl Instance {
    /// HUP: reads the files again and begins to change over.
    pub(super) fn ask_reload(&mut self) {
        if self.is_changing() {
            self.again = true;
            return;
        }
        match self.next_plan(&self.options.config.clone()) {
            Ok(plan) => {
                let changes: Vec<_> = diff(&self.plan, &plan).iter().map(ToString::to_string).collect();
                if changes.is_empty() && plan == self.plan {
                    self.conclude(true, "the configuration is the same; nothing to do".to_owned());
                    return;
                }
                if let Err(error) = self.begin(plan, Why::Operator, changes) {
                    self.refuse(&error);
                }
            }
            Err(error) => self.refuse(&error),
        }
    }

    /// The plan of these files, if this instance can change to it.
    pub(super) fn next_plan(&self, files: &[PathBuf]) -> Result<Plan, Error> {
        let loaded = config::load(files, &self.options.overrides)?;
        for note in &loaded.notes {
            log::info!("{note}");
        }
        if let Some(text) = immutable_change(&self.plan, &loaded.plan) {
            return Err(Error::Immutable(text));
        }
        if let Some(text) = self.steering.uncovered(&loaded.plan) {
            return Err(Error::Immutable(text));
        }
        check_host(&loaded.plan)?;
        check_discovery(&loaded.plan)?;
        Ok(loaded.plan)
    }

    fn refuse(&mut self, error: &Error) {
        self.conclude(false, error.to_string());
    }

    fn conclude(&mut self, ok: bool, text: String) {
        match ok {
            true => log::info!("reload: {text}"),
            false => log::error!("reload refused, everything stays as it is: {text}"),
        }
        self.last_reload = Some(LastReload { at: SystemTime::now(), ok, text });
    }

    /// Starts the workers of the next generation.
    pub(super) fn begin(&mut self, plan: Plan, why: Why, changes: Vec<String>) -> Result<(), Error> {
        let now = Instant::now();
        let settled = self.workers.iter().map(Worker::settled).min().unwrap_or(0);
        let found: Vec<_> = if why == Why::Discovery { self.found.iter().copied().collect() } else { Vec::new() };
        let roster = self.roster.next(&plan, &found, settled, now)?;
        let rules = RuleSet::new(&roster.reach(&plan), &self.queues, &self.steering);
        let hops = hops(&roster)?;
        let reload = Reload { plan, roster, rules, hops, why, changes, begun: now, switched: None };
        for worker in &mut self.workers {
            let orders = briefing::to_worker(&reload.roster, worker, now);
            if let Err(error) = worker.prepare(&self.terms.0, orders) {
                self.workers.iter_mut().for_each(Worker::abort);
                return Err(error);
            }
        }
        self.reload = Some(reload);
        Ok(())
    }

    /// Whether a change is under way, or what is left of one that was given up.
    pub(super) fn is_changing(&self) -> bool {
        self.reload.is_some() || self.upgrade.is_some() || self.workers.iter().any(Worker::has_next)
    }

    /// Moves a change along as far as it can be now.
    pub(super) fn step(&mut self) {
        let Some(reload) = &self.reload else {
            if self.again && !self.is_changing() {
                self.again = false;
                self.ask_reload();
            }
            return;
        };
        match reload.switched {
            None if self.workers.iter().any(Worker::has_failed) => {
                self.abandon("a worker with it could not be prepared (see above)".to_owned());
            }
            None if self.workers.iter().all(Worker::is_prepared) => self.change_over(),
            // Its queue has had no server since it died, and the successor waits for the others.
            None if reload.begun.elapsed() > LONELY && self.workers.iter().any(Worker::is_left_alone) => {
                self.again = reload.why == Why::Operator;
                self.abandon("a worker died meanwhile".to_owned());
            }
            None => {}
            Some(since) => {
                let generation = self.roster.generation();
                if self.workers.iter().all(|worker| worker.serves(generation)) || since.elapsed() > PATIENCE {
                    self.finish();
                }
            }
        }
    }

    fn abandon(&mut self, why: String) {
        self.workers.iter_mut().for_each(Worker::abort);
        if let Some(reload) = self.reload.take() {
            match reload.why {
                Why::Operator => self.conclude(false, why),
                _ => {
                    log::error!("{}: {why}; to be tried again", reload.why);
                    self.watch.rest(REST);
                }
            }
        }
    }

    /// The moment of change: rules, then workers, then the prober. Each step can be taken back but for the last two, which
    /// cannot fail.
    fn change_over(&mut self) {
        let Some(mut reload) = self.reload.take() else { return };
        if let Err(error) = self.routes.extend(&reload.hops) {
            self.reload = Some(reload);
            self.abandon(error.to_string());
            return;
        }
        if reload.rules != self.rules
            && let Some(installed) = &mut self.installed
            && let Err(error) = installed.update(&reload.rules)
        {
            let back = hops(&self.roster).and_then(|hops| self.routes.settle(&hops));
            back.unwrap_or_else(|error| log::error!("{error}"));
            self.reload = Some(reload);
            self.abandon(error.to_string());
            return;
        }
        reload.roster.inherit(&self.roster);
        std::mem::swap(&mut self.roster, &mut reload.roster);
        self.plan = reload.plan.clone();
        self.rules = reload.rules.clone();
        // Before a worker can use a number that only the new roster knows.
        self.write_down();
        self.workers.iter_mut().for_each(Worker::switch);
        self.prober.stop();
        let known = &self.roster;
        self.found.retain(|(service, address)| known.may_join(*service, *address));
        reload.switched = Some(Instant::now());
        self.reload = Some(reload);
    }

    fn finish(&mut self) {
        let Some(reload) = self.reload.take() else { return };
        let generation = self.roster.generation();
        // A worker that still serves by the old configuration may use any mark of it.
        if self.workers.iter().all(|worker| worker.serves(generation))
            && let Err(error) = self.routes.settle(&reload.hops)
        {
            log::error!("{error}; to be tried again");
        }
        for change in &reload.changes {
            log::info!("{}: {change}", reload.why);
        }
        self.record_changes(reload.why, &reload.changes);
        match reload.why {
            Why::Operator => {
                self.conclude(true, format!("generation {generation}, {} change(s)", reload.changes.len()));
            }
            Why::Discovery | Why::Departure => log::info!("{}: generation {generation}", reload.why),
        }
    }
}

impl Reload {
    /// Whether the workers change over: the roster is the new one.
    pub(super) fn is_switched(&self) -> bool {
        self.switched.is_some()
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operator => "reload",
            Self::Discovery => "discovery",
            Self::Departure => "departure",
        })
    }
}
