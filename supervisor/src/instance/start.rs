//! The start of an instance, where nothing is or beside workers that serve already, and what is written down for the one
//! that comes after.

use super::Instance;
use crate::Error;
use crate::children::child::START_DEADLINE;
use crate::children::worker::Worker;
use crate::handover::journal;
use crate::handover::monotonic;
use crate::handover::orphans;
use crate::handover::predecessor::{Answer, Predecessor};
use crate::hops::hops;
use loaded_control::Control;
use loaded_ipc::counter_layout;
use loaded_netfilter::{Installed, RuleSet, Tools};
use loaded_sandbox::Role;
use loaded_sandbox::policy::print;
use loaded_table::LAYOUT_VERSION;
use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two writes of the journal, beside those that must not wait.
const WRITTEN_EVERY: Duration = Duration::from_millis(100);

impl Instance {
    /// Starts everything where nothing is: the children first, and the rules that bring packets last.
    pub(crate) fn start_anew(&mut self, tools: &Tools) -> Result<(), Error> {
        // The prober uses them at once.
        self.routes.settle(&hops(&self.roster)?)?;
        self.write_down();
        self.start()?;
        self.serves_by(Installed::install(&self.rules, tools)?);
        Ok(())
    }

    /// Starts everything beside workers that serve; then rules, workers and prober change over, as in a reload. An error
    /// before the workers change leaves those that serve as they are.
    pub(crate) fn take_over(&mut self, tools: &Tools, predecessor: Option<&Predecessor>) -> Result<(), Error> {
        let imports = self.workers.iter().any(Worker::imports);
        self.adopts = predecessor.is_none();
        self.routes.inherit();
        self.routes.extend(&hops(&self.roster)?)?;
        self.write_down();
        self.reach(|this| this.workers.iter().all(Worker::can_follow))?;
        self.serves_by(Installed::take_over(&self.rules, tools)?);
        if let Some(predecessor) = predecessor {
            match predecessor.ask(imports)? {
                Answer::Yours => {
                    for worker in &mut self.workers {
                        worker.import()?;
                    }
                }
                Answer::Dead => self.comes_after(&predecessor.state()?),
            }
            self.roster.inherit(&predecessor.state()?.roster);
            // It was told what was believed before.
            self.prober.stop();
        }
        self.workers.iter_mut().for_each(Worker::follow);
        match predecessor.map(|predecessor| (predecessor, self.start())) {
            Some((_, Ok(()))) => {}
            Some((predecessor, Err(error))) if matches!(error, Error::Interrupted) || !predecessor.is_dead() => {
                return Err(error);
            }
            // Nobody goes on if we do not.
            Some((_, Err(error))) => {
                log::error!("{error}");
                self.start_come_what_may()?;
            }
            None => self.start_come_what_may()?,
        }
        if let Err(error) = self.routes.settle(&hops(&self.roster)?) {
            log::error!("{error}; to be tried again");
        }
        Ok(())
    }

    /// The predecessor was killed while it gave way: its workers are nobody's, and are ended like those of any dead supervisor.
    fn comes_after(&mut self, state: &journal::State<'_>) {
        log::warn!("supervisor {} was killed while it gave way; its workers are taken over", state.pid);
        for worker in &mut self.workers {
            let queue = worker.owner.queue();
            let theirs = state.workers.iter().filter(|(of, _)| *of == queue).map(|(_, pid)| *pid);
            worker.comes_after(theirs);
        }
    }

    /// Nobody serves any more, so a child that dies now is started again as ever; only that it takes too long is said.
    fn start_come_what_may(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.is_started() && Instant::now() < deadline {
            if let Err(error) = self.launch() {
                log::error!("{error}; to be tried again");
            }
            self.turn(deadline)?;
            for death in self.bury() {
                log::error!("{death}");
            }
        }
        if !self.is_started() {
            log::error!("not every child is ready within {START_DEADLINE:?}");
        }
        Ok(())
    }

    /// The control socket and the place of a supervisor that waits for nothing but this.
    pub(crate) fn follow(&mut self, predecessor: Predecessor, path: &Path) {
        let followed = predecessor.state().and_then(|state| Ok(predecessor.follow(&state.control, path)?));
        match followed {
            Ok(control) => self.control = Some(control),
            Err(error) => log::error!("{error}; nobody can ask this instance until it is started again"),
        }
        self.unwritten = true;
    }

    /// After an error at the start: what was started ends, what was not there before is taken away, and what others serve by
    /// (`rules`, of those before) is as it was. A predecessor sees to its own.
    pub(crate) fn give_up(&mut self, tools: &Tools, before: Option<&RuleSet>, predecessor: Option<&Predecessor>) {
        self.workers.iter_mut().for_each(Worker::kill);
        self.prober.stop();
        match before {
            Some(rules) if predecessor.is_none() => {
                if let Err(error) = Installed::take_over(rules, tools) {
                    log::error!("{error}");
                }
            }
            Some(_) => {}
            None => {
                if let Err(error) = self.routes.remove() {
                    log::warn!("{error}");
                }
            }
        }
    }

    fn serves_by(&mut self, installed: Installed) {
        for note in installed.notes() {
            log::warn!("{note}");
        }
        self.installed = Some(installed);
    }

    /// Keeps the journal: not more often than a prober's changes of mind are worth.
    pub(super) fn keep_written(&mut self) {
        let (at, workers) = &self.written;
        if (self.unwritten || *workers != self.serving()) && at.elapsed() >= WRITTEN_EVERY {
            self.write_down();
        }
    }

    /// Queues and the processes that answer them.
    fn serving(&self) -> Vec<(u16, u32)> {
        let of = |worker: &Worker| worker.processes().map(|(pid, ..)| (worker.owner.queue(), pid)).collect::<Vec<_>>();
        self.workers.iter().flat_map(of).collect()
    }

    /// Writes down what another supervisor has to know to go on.
    pub(super) fn write_down(&mut self) {
        self.unwritten = false;
        self.written = (Instant::now(), self.serving());
        let state = journal::State {
            format: journal::FORMAT,
            tables: LAYOUT_VERSION,
            counters: counter_layout().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            at: monotonic::clock(),
            adoptable: orphans::is_possible().is_ok(),
            fence: print(Role::Supervisor).into(),
            control: self.control.as_ref().map_or(Path::new(""), Control::path).into(),
            queues: self.workers.iter().map(|worker| (worker.core, worker.owner.queue())).collect(),
            workers: Cow::Borrowed(&self.written.1),
            steering: self.steering,
            plan: Cow::Borrowed(&self.plan),
            roster: Cow::Borrowed(&self.roster),
            history: Cow::Borrowed(&self.history),
        };
        if let Err(error) = self.journal.write(&state) {
            log::error!("write the journal: {error}; to be tried again");
            self.unwritten = true;
        }
    }

    /// Starts every child and waits until all are jailed, proven and at work.
    fn start(&mut self) -> Result<(), Error> {
        self.reach(Self::is_started)
    }

    fn is_started(&self) -> bool {
        self.workers.iter().all(Worker::is_ready) && (!self.is_probed() || self.prober.is_probing())
    }

    /// Starts every child and waits until it is so.
    fn reach(&mut self, is_so: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + START_DEADLINE;
        while !is_so(self) {
            self.launch()?;
            self.turn(deadline)?;
            if let Some(death) = self.bury().into_iter().next() {
                return Err(Error::ChildFailed(death));
            }
            // Workers of a dead supervisor are taken over first, and then ended in order.
            if !self.adopts && self.signals.take_end() {
                return Err(Error::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(Error::ChildFailed(format!("not ready within {START_DEADLINE:?}")));
            }
        }
        Ok(())
    }
}
