//! The start of an instance, where nothing is or beside workers that serve already, and what is written down for the one
//! that comes after.

use super::Instance;
use crate::Error;
use crate::adopt;
use crate::child::START_DEADLINE;
use crate::control::Control;
use crate::elder::Elder;
use crate::journal;
use crate::routes;
use crate::rules::{Installed, Tools};
use crate::worker::Worker;
use loaded_ipc::counted;
use loaded_jail::Role;
use loaded_jail::policy::print;
use loaded_table::LAYOUT_VERSION;
use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

impl Instance {
    /// Starts everything where nothing is: the children first, and the rules that bring packets last.
    pub(crate) fn start_anew(&mut self, tools: &Tools) -> Result<(), Error> {
        // The prober uses them at once.
        self.routes.settle(&routes::hops(&self.roster)?)?;
        self.write_down();
        self.start()?;
        self.serves_by(Installed::install(&self.rules, tools)?);
        Ok(())
    }

    /// Starts everything beside workers that serve; then rules, workers and prober change over, as in a reload. An error
    /// before the workers change leaves those that serve as they are.
    pub(crate) fn take_over(&mut self, tools: &Tools, elder: Option<&Elder>) -> Result<(), Error> {
        let imports = self.workers.iter().any(Worker::imports);
        self.routes.extend(&routes::hops(&self.roster)?)?;
        self.write_down();
        self.reach(|this| this.workers.iter().all(Worker::can_follow))?;
        self.serves_by(Installed::take_over(&self.rules, tools)?);
        if let Some(elder) = elder {
            elder.ask(imports)?;
            self.roster.inherit(&elder.state()?.roster);
        }
        for worker in &mut self.workers {
            worker.import()?;
            worker.follow();
        }
        self.start()?;
        if let Err(error) = self.routes.settle(&routes::hops(&self.roster)?) {
            log::error!("{error}; to be tried again");
        }
        Ok(())
    }

    /// The control socket and the place of a supervisor that waits for nothing but this.
    pub(crate) fn follow(&mut self, elder: Elder, path: &Path) {
        let followed = elder.state().and_then(|state| Ok(elder.follow(&state.control, path)?));
        match followed {
            Ok(control) => self.control = Some(control),
            Err(error) => log::error!("{error}; nobody can ask this instance until it is started again"),
        }
        self.unwritten = true;
    }

    /// After an error at the start: what was started ends, and what was not there before is taken away.
    pub(crate) fn give_up(&mut self, is_inherited: bool) {
        self.workers.iter_mut().for_each(Worker::kill);
        self.prober.stop();
        if !is_inherited && let Err(error) = self.routes.remove() {
            log::warn!("{error}");
        }
    }

    fn serves_by(&mut self, installed: Installed) {
        for note in installed.notes() {
            log::warn!("{note}");
        }
        self.installed = Some(installed);
    }

    /// Writes down what another supervisor has to know to go on.
    pub(super) fn write_down(&mut self) {
        self.unwritten = false;
        let state = journal::State {
            format: journal::FORMAT,
            tables: LAYOUT_VERSION,
            counters: counted().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            adoptable: adopt::is_possible().is_ok(),
            fence: print(Role::Supervisor).into(),
            control: self.control.as_ref().map_or(Path::new(""), Control::path).into(),
            queues: self.workers.iter().map(|worker| (worker.core, worker.owner.queue())).collect(),
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
        self.reach(|this| this.workers.iter().all(Worker::is_ready) && (!this.is_probed() || this.prober.is_probing()))
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
            if self.signals.take_end() {
                return Err(Error::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(Error::ChildFailed(format!("not ready within {START_DEADLINE:?}")));
            }
        }
        Ok(())
    }
}
