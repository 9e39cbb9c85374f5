//! All children of an instance together: its workers, its prober and its exporter.

use super::briefing::to_worker;
use super::child::{ChildSpec, DeathReport};
use super::exporter::Exporter;
use super::prober::Prober;
use super::worker::Worker;
use crate::Error;
use loaded_config::plan::Plan;
use loaded_host::AuditLog;
use loaded_ipc::{BackendCounter, BackendIndex};
use loaded_roster::Roster;
use std::os::fd::BorrowedFd;
use std::process::Child as Process;
use std::time::Instant;

/// All children of an instance.
#[derive(Debug)]
pub struct Children {
    /// One a queue, in the order of their positions.
    pub workers: Vec<Worker>,
    /// The one that checks backends.
    pub prober: Prober,
    /// The one that serves metrics.
    pub exporter: Exporter,
    /// What each of them has to be.
    pub specs: ChildSpecs,
    /// Knows which system call a child was killed for.
    pub audit: AuditLog,
}

/// What the children of an instance have to be.
#[derive(Debug, Clone)]
pub struct ChildSpecs {
    /// A worker.
    pub worker: ChildSpec,
    /// The prober.
    pub prober: ChildSpec,
    /// The exporter.
    pub exporter: ChildSpec,
}

impl Children {
    /// Starts every child that is due, the prober only if it `may_probe`, and the exporter by this plan, if any. Returns the first
    /// error, after trying all.
    ///
    /// # Errors
    /// The first of them.
    pub fn start(&mut self, roster: &Roster, may_probe: bool, exports: Option<&Plan>) -> Result<(), Error> {
        let mut first = Ok(());
        for worker in &mut self.workers {
            let briefing = |worker: &Worker| to_worker(roster, worker, Instant::now());
            first = first.and(worker.start(&self.specs.worker, briefing));
        }
        if may_probe {
            first = first.and(self.prober.start(&self.specs.prober, roster, &self.workers));
        }
        exports.map_or(Ok(()), |plan| self.exporter.start(&self.specs.exporter, plan)).and(first)
    }

    /// The links to wait on, and for each whether there is something to send.
    pub fn links(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.workers.iter().flat_map(Worker::links).chain(self.prober.link()).chain(self.exporter.link())
    }

    /// The children that have died.
    pub fn reap(&mut self, roster: &Roster) -> Vec<DeathReport> {
        let mut deaths: Vec<_> = self.workers.iter_mut().flat_map(Worker::reap).collect();
        deaths.extend(self.prober.reap(roster, &self.workers));
        deaths.extend(self.exporter.reap());
        deaths
    }

    /// Kills all of them.
    pub fn kill(&mut self) {
        self.workers.iter_mut().for_each(Worker::kill);
        self.prober.stop();
        self.exporter.kill();
    }

    /// Tells all of them to end. Returns the processes to wait for.
    pub fn dismiss(&mut self) -> Vec<Process> {
        let mut leaving: Vec<_> = self.workers.iter_mut().flat_map(Worker::dismiss).collect();
        leaving.extend(self.prober.dismiss());
        leaving.extend(self.exporter.dismiss());
        leaving
    }

    /// Whether none is left that works with packets or backends.
    pub fn have_ended(&self) -> bool {
        self.workers.iter().all(Worker::is_vacant) && self.prober.process().is_none()
    }

    /// Their process ids.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        let workers = self.workers.iter().flat_map(Worker::processes).map(|(pid, ..)| pid);
        workers.chain(self.prober.process().map(|(pid, ..)| pid)).chain(self.exporter.pids())
    }

    /// Queue and process id of each worker's process.
    pub fn by_queue(&self) -> Vec<(u16, u32)> {
        let of = |worker: &Worker| worker.processes().map(|(pid, ..)| (worker.owner.queue(), pid)).collect::<Vec<_>>();
        self.workers.iter().flat_map(of).collect()
    }

    /// Queues of workers whose flow table is a map of a kernel path.
    pub fn mapped(&self) -> Vec<u16> {
        let mapped = self.workers.iter().filter(|worker| worker.memory.maps().is_some());
        mapped.map(|worker| worker.owner.queue()).collect()
    }

    /// The sum of one of the workers' counters.
    pub fn sum(&self, index: usize) -> u64 {
        let each = self.workers.iter().filter_map(|worker| worker.memory.seen.get(index));
        each.fold(0, u64::saturating_add)
    }

    /// The sum of one of the workers' counters for a backend. Hostile workers may make it any number.
    pub fn count(&self, index: BackendIndex, counter: BackendCounter) -> u64 {
        self.sum(counter.index(index))
    }
}
