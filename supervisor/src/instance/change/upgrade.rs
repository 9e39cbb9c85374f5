//! USR2: another binary takes the place of this one, step by step:
//!
//! 1. [`Instance::ask_upgrade`] writes the journal and starts the binary beside us, with our queues, tables and journal
//!    (`handover::successor`); a reload that is under way comes first.
//! 2. The new supervisor (`run::start::beside`) reads the configuration, installs its rules and routes, prepares workers of its
//!    own, and says that it is prepared.
//! 3. Our workers end, each with its last batch answered; tables of another layout are exported. We say that all is theirs.
//! 4. Its workers begin; it takes control socket and PID file and says that it serves. We pass on signals that have come
//!    meanwhile, and end.
//!
//! Until step 4 we can go on, and do so if anything fails: with our own rules, routes and workers again.

use super::phase::Phase;
use crate::children::dup;
use crate::children::worker::Worker;
use crate::fastpath::FastPath;
use crate::handover::successor::{Successor, SuccessorProgress, SuccessorStage};
use crate::handover::{Descriptor, Error};
use crate::instance::Instance;
use crate::process::daemon;
use loaded_ipc::BackendIndex;
use nix::sys::signal::Signal;
use sd_notify::NotifyState;
use std::os::fd::OwnedFd;

impl Instance {
    /// Starts the binary that is now at the path of ours, or does so after the change under way.
    pub(in crate::instance) fn ask_upgrade(&mut self) {
        if self.is_changing() {
            self.postponed.upgrade = true;
            return;
        }
        match self.start_successor() {
            Ok(successor) => self.phase = Phase::Upgrading(successor),
            Err(error) => self.operator.refuse_upgrade(error.to_string()),
        }
    }

    fn start_successor(&mut self) -> Result<Successor, Error> {
        let fail = |act| move |source| Error::Start { act, source };
        let refuse = |why: &str| Error::Succession(why.to_owned());
        if self.soft_stop.is_some() {
            return Err(refuse("this instance was told to end; loaded drain --cancel lets it stay"));
        }
        // It goes on from what is written now.
        self.write_snapshot();
        let Some(control) = &self.operator.control else {
            return Err(refuse("there is no control socket to hand over; restart"));
        };
        if std::process::id() == 1 {
            return Err(refuse("process 1 cannot be replaced: the container ends with it"));
        }
        let kernel_log = self.children.audit.descriptor().map_err(fail("pass on the kernel's log"))?;
        let mut descriptors = vec![
            (Descriptor::Journal, dup(self.recorder.custody())?),
            (Descriptor::Control, dup(control.listener())?),
            (Descriptor::KernelLog, kernel_log),
        ];
        let mut exports = Vec::new();
        for (position, worker) in self.children.workers.iter().enumerate() {
            let (of_worker, export) = worker.descriptors()?;
            descriptors.extend(of_worker.map(|(which, fd)| (Descriptor::Worker(position, which), fd)));
            exports.push(export);
        }
        descriptors.extend(self.path_descriptors()?);
        if let Some((socket, _)) = self.children.exporter.socket() {
            descriptors.push((Descriptor::Metrics(self.children.workers.len()), dup(socket)?));
        }
        Successor::start(&self.fixed.invocation, descriptors, exports)
    }

    /// The kernel path's descriptors, if there is one, and the workers' maps, which are there even if it is off by now: whoever is
    /// started beside us can make none.
    fn path_descriptors(&self) -> Result<Vec<(Descriptor, OwnedFd)>, Error> {
        let workers = self.children.workers.len();
        let program = self.host.fast.as_ref().map(FastPath::descriptors).transpose()?.unwrap_or_default();
        let mut all: Vec<_> = (0..).map(|which| Descriptor::KernelPath(workers, which)).zip(program).collect();
        for (position, worker) in self.children.workers.iter().enumerate() {
            let Some(maps) = worker.memory.maps() else { continue };
            for (which, map) in [&maps.numbers, &maps.keeping, &maps.ring].into_iter().enumerate() {
                all.push((Descriptor::KernelPathOf(workers, position, which), dup(map)?));
            }
        }
        Ok(all)
    }

    /// Moves an upgrade along, or begins one that was postponed. `true`: the successor serves, and this process must end
    /// without touching rules, queues or tables.
    pub(in crate::instance) fn continue_upgrade(&mut self) -> bool {
        let Phase::Upgrading(successor) = &mut self.phase else {
            if self.postponed.upgrade && !self.is_changing() {
                self.postponed.upgrade = false;
                self.ask_upgrade();
            }
            return false;
        };
        match successor.hear() {
            Ok(None) => {}
            Ok(Some(SuccessorProgress::Prepared)) => self.give_way(),
            Ok(Some(SuccessorProgress::Serving)) => {
                log::info!(event = "instance"; "upgrade: pid {} serves now, and this process ends", successor.pid());
                self.pass_on_requests();
                return true;
            }
            Err(problem) => {
                self.fail_upgrade(&problem);
                return false;
            }
        }
        self.hand_over_queues();
        false
    }

    /// The successor is prepared: our children end.
    fn give_way(&mut self) {
        // Should we be killed now, the successor knows for whose end to wait.
        self.write_snapshot();
        self.children.workers.iter_mut().for_each(Worker::give_way);
        self.children.prober.stop();
        // Whoever connects from now on waits for the successor's.
        self.children.exporter.stop();
    }

    /// Once our children have ended, the queues are the successor's, and the tables are exported if it wants that.
    fn hand_over_queues(&mut self) {
        let stage = self.phase.successor().map(Successor::stage);
        let Some(SuccessorStage::GivingWay { export }) = stage else { return };
        if !self.children.have_ended() {
            return;
        }
        self.write_snapshot();
        let roster = &self.current.roster;
        let service_of = |backend| roster.backend(BackendIndex(backend)).map_or(u16::MAX, |entry| entry.service.0);
        let Phase::Upgrading(successor) = &mut self.phase else { return };
        let mut pairs = self.children.workers.iter().zip(successor.exports()).filter(|_| export);
        match pairs.try_for_each(|(worker, target)| worker.memory.export(target, service_of)) {
            Ok(()) => successor.hand_over_queues(),
            Err(error) => self.fail_upgrade(&error.to_string()),
        }
    }

    /// What was asked of us meanwhile is asked of the successor; a service manager that may believe only us is told of it.
    fn pass_on_requests(&self) {
        let Some(successor) = self.phase.successor() else { return };
        daemon::notify(NotifyState::MainPid(successor.pid()));
        if self.signals.take_end() {
            successor.signal(Signal::SIGTERM);
        } else if self.signals.take_reload() || self.postponed.reload {
            successor.signal(Signal::SIGHUP);
        }
    }

    /// The successor does not serve: it is ended, its changes are taken back, and we go on.
    fn fail_upgrade(&mut self, problem: &str) {
        let Some(successor) = self.phase.take_successor() else { return };
        let had_given_way = successor.stage() != SuccessorStage::Preparing;
        let why = successor.end(problem, self.children.pids());
        // It may have got as far as its rules and routes.
        if let Err(error) = self.host.update_rules(&self.current.rules) {
            log::error!("{error}");
        }
        self.host.mend_routes();
        if let Some(fast) = &mut self.host.fast {
            fast.look(&self.current.roster);
        }
        if had_given_way {
            self.children.workers.iter_mut().for_each(Worker::take_back);
        }
        self.operator.refuse_upgrade(why);
    }

    /// Ends a successor that does not serve yet, because we are to end ourselves.
    pub(super) fn stop_upgrade(&mut self) {
        if let Some(successor) = self.phase.take_successor() {
            successor.end("", self.children.pids());
            self.host.mend_routes();
        }
    }
}
