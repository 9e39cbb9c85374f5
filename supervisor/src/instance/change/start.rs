//! The first start of the children: where nothing runs, beside orphans of a killed supervisor, or beside the workers of
//! a predecessor.

use super::phase::Phase;
use crate::Error;
use crate::children::START_DEADLINE;
use crate::children::worker::Worker;
use crate::handover::predecessor::{GaveWay, Predecessor};
use crate::handover::snapshot::Snapshot;
use crate::instance::Instance;
use loaded_config::plan::MetricsAddress;
use loaded_control::{InstanceVerdict, monitor_path};
use loaded_netfilter::{Installed, RuleSet, Tools};
use std::path::Path;
use std::time::Instant;

impl Instance {
    /// Starts everything where nothing runs: the children first, and the rules that bring packets last.
    ///
    /// # Errors
    /// If a child does not start or the rules cannot be installed; then call [`Instance::give_up`].
    pub(crate) fn start_fresh(&mut self, tools: &Tools) -> Result<(), Error> {
        self.host.detach_leftovers(self.current.plan.queue_base);
        // The prober uses the routes at once.
        self.host.routes.settle(&self.current.hops()?)?;
        self.write_snapshot();
        self.reach(Self::is_started)?;
        self.host.set_rules(Installed::install(&self.current.rules, tools)?);
        self.open_kernel_path();
        Ok(())
    }

    /// Starts everything beside the workers of a killed supervisor and replaces these.
    ///
    /// # Errors
    /// Only before they are replaced: they serve as before; then call [`Instance::give_up_adoption`].
    pub(crate) fn adopt_orphans(&mut self, tools: &Tools) -> Result<(), Error> {
        self.phase = Phase::AdoptingOrphans;
        self.prepare_beside(tools)?;
        // What it reports goes to the orphans, which read all of it before they end.
        self.host.detach_leftovers(self.current.plan.queue_base);
        self.children.workers.iter_mut().for_each(Worker::take_over);
        self.start_whatever_happens()?;
        self.open_kernel_path();
        self.settle_inherited_routes()
    }

    /// Starts everything beside the workers of a predecessor, asks it to give way, and replaces it.
    ///
    /// # Errors
    /// As long as the predecessor can still serve; then call [`Instance::give_up_succession`].
    pub(crate) fn succeed(&mut self, tools: &Tools, predecessor: &Predecessor) -> Result<(), Error> {
        let imports = self.children.workers.iter().any(Worker::imports);
        self.prepare_beside(tools)?;
        match predecessor.ask_to_give_way(imports)? {
            GaveWay::InOrder => self.children.workers.iter_mut().try_for_each(Worker::import)?,
            GaveWay::Killed => self.adopt_workers_of(&predecessor.snapshot()?),
        }
        self.current.roster.inherit(&predecessor.snapshot()?.roster);
        // It was told the health of before.
        self.children.prober.stop();
        if self.host.fast.is_none() {
            self.host.detach_leftovers(self.current.plan.queue_base);
        }
        self.children.workers.iter_mut().for_each(Worker::take_over);
        match self.reach(Self::is_started) {
            Ok(()) => {}
            Err(error) if matches!(error, Error::Interrupted) || !predecessor.is_dead() => return Err(error),
            // If we give up, nobody serves.
            Err(error) => {
                log::error!("{error}");
                self.start_whatever_happens()?;
            }
        }
        self.open_kernel_path();
        self.settle_inherited_routes()
    }

    /// Last of all: what the kernel path sends on needs workers that hear of it.
    fn open_kernel_path(&mut self) {
        if let Some(fast) = &mut self.host.fast {
            fast.open(&self.current.roster);
            self.recorder.set_outdated();
        }
    }

    /// Prepares children and rules beside workers that serve. An error leaves these as they are.
    fn prepare_beside(&mut self, tools: &Tools) -> Result<(), Error> {
        self.host.routes.inherit();
        self.host.routes.extend(&self.current.hops()?)?;
        self.write_snapshot();
        self.reach(|this| this.children.workers.iter().all(Worker::can_take_over))?;
        self.host.set_rules(Installed::take_over(&self.current.rules, tools)?);
        Ok(())
    }

    /// Removes routes that only the supervisor before needed.
    fn settle_inherited_routes(&mut self) -> Result<(), Error> {
        let hops = self.current.hops()?;
        self.host.settle_routes(&hops);
        Ok(())
    }

    /// The predecessor was killed while it gave way: its workers are ended like those of any killed supervisor.
    fn adopt_workers_of(&mut self, snapshot: &Snapshot<'_>) {
        log::warn!("supervisor {} was killed while it gave way; its workers are taken over", snapshot.pid);
        for worker in &mut self.children.workers {
            let queue = worker.owner.queue();
            let pids = snapshot.workers.iter().filter(|(of, _)| *of == queue).map(|(_, pid)| *pid);
            worker.adopt_previous(pids);
        }
    }

    /// Starts every child and keeps restarting those that die: nobody else serves any more. That it takes too long is
    /// only logged.
    fn start_whatever_happens(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + START_DEADLINE;
        while !self.is_started() && Instant::now() < deadline {
            self.start_children_or_log();
            self.poll_once(deadline)?;
            self.log_deaths();
        }
        if !self.is_started() {
            log::error!("not every child is ready within {START_DEADLINE:?}");
        }
        Ok(())
    }

    /// Whether all children are sandboxed, proven and at work.
    fn is_started(&self) -> bool {
        self.children.workers.iter().all(Worker::is_ready)
            && (!self.current.roster.is_probed() || self.children.prober.is_probing())
    }

    /// Starts every child and waits until `is_reached`. A child that dies, TERM, or too long a wait is an error.
    fn reach(&mut self, is_reached: impl Fn(&Self) -> bool) -> Result<(), Error> {
        let deadline = Instant::now() + START_DEADLINE;
        while !is_reached(self) {
            self.start_children()?;
            self.poll_once(deadline)?;
            if let Some((death, _)) = self.reap().into_iter().next() {
                return Err(Error::ChildFailed(death));
            }
            // Orphans are taken over first, and then ended in order.
            if !matches!(self.phase, Phase::AdoptingOrphans) && self.signals.take_end() {
                return Err(Error::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(Error::ChildFailed(format!("not ready within {START_DEADLINE:?}")));
            }
        }
        Ok(())
    }

    /// Tells a predecessor that we serve, and takes over its control socket, to `path`.
    pub(crate) fn replace_predecessor(&mut self, predecessor: Predecessor, path: &Path) {
        let replaced = predecessor.snapshot().and_then(|snapshot| {
            // Nobody listens there any more once it has ended.
            if let Some(MetricsAddress::Unix(stale)) = &snapshot.metrics
                && snapshot.metrics != self.current.plan.metrics
            {
                let _ = std::fs::remove_file(stale);
            }
            // Nobody is served there any more either; ours is made when we serve.
            let _ = std::fs::remove_file(monitor_path(&snapshot.control));
            predecessor.replace(&snapshot.control, path)
        });
        match replaced {
            Ok(control) => self.operator.control = Some(control),
            Err(error) => log::error!("{error}; nobody can ask this instance until it is started again"),
        }
        self.recorder.set_outdated();
    }

    /// After a failed fresh start: ends the children and removes what is on the host of us.
    pub(crate) fn give_up(&mut self) {
        self.children.kill();
        self.host.end_kernel_path(self.current.plan.queue_base);
        self.host.remove_routes();
    }

    /// After a failed adoption: ends our children and restores the rules that the orphans serve by.
    pub(crate) fn give_up_adoption(&mut self, tools: &Tools, before: &RuleSet) {
        self.children.kill();
        if let Err(error) = Installed::take_over(before, tools) {
            log::error!("{error}");
        }
    }

    /// After a failed succession: ends our children. The predecessor restores its own rules and routes.
    pub(crate) fn give_up_succession(&mut self) {
        self.children.kill();
    }

    /// Says what this instance serves, or that it does not: the log has the causes.
    pub(crate) fn log_serving(&mut self) {
        let verdict = match self.judge_first() {
            InstanceVerdict::Serving | InstanceVerdict::Impaired => "serving",
            InstanceVerdict::NotServing => "started, NOT SERVING",
        };
        let services = self.current.plan.services.len();
        let backends: usize = self.current.plan.services.iter().map(|service| service.backends.len()).sum();
        let workers = self.children.workers.len();
        log::info!(event = "instance"; "{verdict}: {services} service(s), {backends} backend(s), {workers} worker(s)");
    }
}
