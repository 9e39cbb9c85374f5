//! From one generation of the configuration to the next: read and check everything, prepare everything beside what runs, and
//! only then change over. What goes wrong before that moment changes nothing.
//!
//! A worker never learns a new configuration. Another process is started for the same queue and tables and prepared; the one
//! that serves finishes its batch and ends; the other takes over. Packets wait in the kernel meanwhile.

use super::phase::{Phase, Reconfiguration, Stage, Trigger};
use crate::Error;
use crate::children::exporter::ListenerChange;
use crate::children::to_worker;
use crate::children::worker::Worker;
use crate::instance::Instance;
use crate::instance::generation::Generation;
use crate::preflight::{check_accounts, check_host_for_a_change};
use crate::process::output;
use loaded_config as config;
use loaded_config::plan::{Plan, diff, immutable_change};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long workers may take to take over until the change counts as done. A worker that is late is started again and again
/// with the new configuration all the same.
const TAKE_OVER_WAIT: Duration = Duration::from_secs(5);

/// How long a queue may have no worker because the other workers are not prepared yet.
const LONGEST_GAP: Duration = Duration::from_secs(1);

impl Instance {
    /// HUP: reads the files again and begins to change over, or does so after the change under way.
    pub(in crate::instance) fn ask_reload(&mut self) {
        if self.is_changing() {
            self.postponed.reload = true;
            return;
        }
        let loaded = match self.next_plan(&self.fixed.options.config) {
            Ok(loaded) => loaded,
            Err(error) => return self.operator.conclude_reload(false, error.to_string()),
        };
        let changes = diff(&self.current.plan, &loaded.plan);
        if changes.is_empty() && loaded.plan == self.current.plan {
            self.take_texts(loaded);
            match self.write_missing_rules() {
                Ok(missing) => self.operator.conclude_reload(true, unchanged(&missing)),
                Err(error) => self.operator.conclude_reload(false, error.to_string()),
            }
            return;
        }
        let changes = changes.iter().map(ToString::to_string).chain(loaded.forgotten.iter().cloned()).collect();
        if let Err(error) = self.begin_reconfiguration(loaded, Trigger::Operator, changes) {
            self.operator.conclude_reload(false, error.to_string());
        }
    }

    /// The files are other ones, but the plan is the same: what was changed at run time may stand in them now.
    fn take_texts(&mut self, loaded: config::LoadedPlan) {
        let config::LoadedPlan { sources, amendments, forgotten, .. } = loaded;
        (self.current.sources, self.current.amendments) = (sources, amendments);
        forgotten.iter().for_each(|line| log::info!(event = "configuration"; "{}: {line}", Trigger::Operator));
        self.record_changes(Trigger::Operator, &forgotten);
        self.recorder.set_outdated();
    }

    /// The plan of these files and of what was changed at run time, if this instance can change to it.
    pub(in crate::instance) fn next_plan(&self, files: &[PathBuf]) -> Result<config::LoadedPlan, Error> {
        let loaded = self.fixed.options.load_amended(files, &self.current.amendments)?;
        for note in &loaded.notes {
            log::info!("{note}");
        }
        self.check_next(&loaded.plan)?;
        Ok(loaded)
    }

    /// Whether this instance can change to a plan.
    pub(in crate::instance) fn check_next(&self, plan: &Plan) -> Result<(), Error> {
        if let Some(text) = immutable_change(&self.current.plan, plan) {
            return Err(Error::Immutable(text));
        }
        if let Some(text) = self.fixed.steering.uncovered(plan) {
            return Err(Error::Immutable(text));
        }
        check_accounts(plan)?;
        check_host_for_a_change(plan)
    }

    /// Starts workers of the next generation. Only while nothing is changing.
    pub(in crate::instance) fn begin_reconfiguration(
        &mut self,
        loaded: config::LoadedPlan,
        trigger: Trigger,
        changes: Vec<String>,
    ) -> Result<(), Error> {
        let since = Instant::now();
        let settled = self.children.workers.iter().map(Worker::settled).min().unwrap_or(0);
        let found: Vec<_> = match trigger {
            Trigger::Discovery => self.survey.found.iter().copied().collect(),
            Trigger::Operator | Trigger::Amendment | Trigger::Departure => Vec::new(),
        };
        let rules_of = (self.fixed.queues.as_slice(), &self.fixed.steering);
        let listener = self.children.exporter.prepare(&self.current.plan, &loaded.plan)?;
        let next = Box::new(Generation::after(&self.current.roster, loaded, &found, settled, rules_of)?);
        let hops = next.hops()?;
        for worker in &mut self.children.workers {
            let briefing = to_worker(&next.roster, worker, since);
            if let Err(error) = worker.prepare(&self.children.specs.worker, briefing) {
                self.children.workers.iter_mut().for_each(Worker::abort);
                return Err(error.into());
            }
        }
        let stage = Stage::Preparing { next, since };
        self.phase = Phase::Reconfiguring(Reconfiguration { trigger, changes, hops, listener, stage });
        Ok(())
    }

    /// Whether a change is under way, or a worker process of one that was given up has not ended yet.
    pub(in crate::instance) fn is_changing(&self) -> bool {
        self.phase.is_change() || self.children.workers.iter().any(Worker::has_next)
    }

    /// Moves a change of the configuration along as far as it can be now, or begins a reload that was postponed.
    pub(in crate::instance) fn continue_reconfiguration(&mut self) {
        let workers = &self.children.workers;
        let Phase::Reconfiguring(reconfiguration) = &self.phase else {
            self.begin_ordered();
            if self.postponed.reload && !self.is_changing() {
                self.postponed.reload = false;
                self.ask_reload();
            }
            return;
        };
        match reconfiguration.stage {
            Stage::Preparing { .. } if workers.iter().any(Worker::has_failed) => {
                self.abandon("a worker with it could not be prepared (see above)".to_owned());
            }
            Stage::Preparing { .. } if workers.iter().all(Worker::is_prepared) => self.change_over(),
            // A queue has had no worker since its process died, and its next process waits for the others.
            Stage::Preparing { since, .. }
                if since.elapsed() > LONGEST_GAP && workers.iter().any(Worker::is_left_alone) =>
            {
                self.postponed.reload |= reconfiguration.trigger == Trigger::Operator;
                self.abandon("a worker died meanwhile".to_owned());
            }
            Stage::Preparing { .. } => {}
            Stage::TakingOver { since } => {
                if self.all_serve_current() || since.elapsed() > TAKE_OVER_WAIT {
                    self.finish();
                }
            }
        }
    }

    /// Whether every worker serves by the current generation.
    fn all_serve_current(&self) -> bool {
        let generation = self.current.roster.generation();
        self.children.workers.iter().all(|worker| worker.serves(generation))
    }

    /// Gives up the change under way before it has changed anything.
    fn abandon(&mut self, why: String) {
        if let Some(reconfiguration) = self.phase.take_reconfiguration() {
            self.give_up_change(reconfiguration.trigger, why);
        }
    }

    fn give_up_change(&mut self, trigger: Trigger, why: String) {
        self.children.workers.iter_mut().for_each(Worker::abort);
        match trigger {
            Trigger::Operator => self.operator.conclude_reload(false, why),
            Trigger::Amendment => self.refuse_ordered(&why),
            Trigger::Discovery | Trigger::Departure => {
                log::error!("{trigger}: {why}; will try again");
                self.survey.rest();
            }
        }
    }

    /// The moment of change: routes, rules, then workers, then the prober. Routes and rules can be taken back; workers and
    /// prober cannot fail.
    fn change_over(&mut self) {
        let Some(Reconfiguration { trigger, changes, hops, listener, stage }) = self.phase.take_reconfiguration()
        else {
            return;
        };
        let Stage::Preparing { mut next, .. } = stage else { return };
        if let Err(error) = self.host.routes.extend(&hops) {
            self.give_up_change(trigger, error.to_string());
            return;
        }
        // What somebody has removed is written too.
        let is_missing = self.host.missing_rules().is_ok_and(|missing| !missing.is_empty());
        if (next.rules != self.current.rules || is_missing)
            && let Err(error) = self.host.update_rules(&next.rules)
        {
            if let Err(error) = self.current.hops().and_then(|hops| Ok(self.host.routes.settle(&hops)?)) {
                log::error!("{error}");
            }
            self.give_up_change(trigger, error.to_string());
            return;
        }
        next.roster.inherit(&self.current.roster);
        self.current = *next;
        output::set_level(self.current.plan.log_level);
        self.host.follow_wish(self.current.plan.fast, &self.current.roster);
        // Before a worker can use a number that only the new roster knows.
        self.write_snapshot();
        self.children.workers.iter_mut().for_each(Worker::switch);
        self.children.prober.stop();
        self.children.exporter.change(listener);
        self.open_for_monitors();
        let roster = &self.current.roster;
        self.survey.found.retain(|(service, address)| roster.may_join(*service, *address));
        let (listener, stage) = (ListenerChange::None, Stage::TakingOver { since: Instant::now() });
        self.phase = Phase::Reconfiguring(Reconfiguration { trigger, changes, hops, listener, stage });
    }

    /// The workers have taken over, or have had the time for it.
    fn finish(&mut self) {
        let Some(Reconfiguration { trigger, changes, hops, .. }) = self.phase.take_reconfiguration() else { return };
        // A worker that still serves by the old generation may use any mark of it.
        if self.all_serve_current() {
            self.host.settle_routes(&hops);
        }
        for change in &changes {
            log::info!(event = "configuration"; "{trigger}: {change}");
        }
        self.record_changes(trigger, &changes);
        let generation = self.current.roster.generation();
        match trigger {
            Trigger::Operator => {
                let text = format!("generation {generation}, {} change(s)", changes.len());
                self.operator.conclude_reload(true, text);
            }
            Trigger::Amendment => self.conclude_ordered(&changes),
            Trigger::Discovery | Trigger::Departure => {
                log::info!(event = "configuration"; "{trigger}: generation {generation}");
            }
        }
    }
}

/// How a reload ends that finds no change; `missing`: rules that were written again.
fn unchanged(missing: &[String]) -> String {
    match missing {
        [] => "the configuration is the same; nothing to do".to_owned(),
        missing => {
            format!("the configuration is the same; rules were missing and are put back: {}", missing.join(", "))
        }
    }
}
