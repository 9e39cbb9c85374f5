//! One worker as the supervisor sees it: its queue, memory and membership link, which stay, and its processes, which come
//! and go. One serves; during a reload another one is prepared beside it to take its place.

mod death;
mod ending;
mod handover;
mod parts;
mod previous;
mod process;
mod pulse;
mod questions;
mod suspicion;
mod talk;

use crate::Error;
use crate::child::{Child, ChildSpec, dup, leading_arguments, requirement_word};
use crate::memory::Memory;
use crate::restarts::Backoff;
pub use handover::WorkerDescriptor;
use loaded_fastpath::load::WorkerMaps;
use loaded_ipc::{
    CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, KEEPING_FD, LINK_FD, MEMBERSHIP_FD, QUEUE_FD, REPORTS_FD,
};
use loaded_ipc::{MembershipReader, MembershipWriter, ToWorker};
use loaded_queue::{Orphans, Owner};
use loaded_sandbox::Survival;
pub use parts::{WorkerBriefing, WorkerParts};
pub use previous::PreviousWorkers;
use process::{WorkerProcess, WorkerStage};
use pulse::QueueLosses;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child as Process;
use std::time::{Duration, Instant};
use suspicion::Suspicion;

/// How often previous workers that were told to end are looked at.
const PAUSE: Duration = Duration::from_millis(2);

/// A worker: one queue, and the processes that answer it in turn.
#[derive(Debug)]
pub struct Worker {
    /// Its number, from 0.
    pub position: u16,
    /// The core that it runs on.
    pub core: u16,
    /// Its queue.
    pub owner: Owner,
    /// Its tables and counters.
    pub memory: Memory,
    /// The supervisor's journal, for the custody of its processes.
    journal: OwnedFd,
    previous: PreviousWorkers,
    /// Memory that the predecessor exports tables to, if ours are laid out differently.
    export: Option<File>,
    /// Both ends of the link from the prober, so that either process can be started again and finds it as it was.
    membership: (MembershipWriter, MembershipReader),
    serving: Option<WorkerProcess>,
    /// The process that is to serve after it.
    next: Option<WorkerProcess>,
    /// The next process takes over as soon as the serving one has ended.
    switching: bool,
    /// At most this many packets arrive during a change: if more wait, the process has held them back.
    most_in_a_change: u32,
    losses: QueueLosses,
    backoff: Backoff,
    died: Option<Instant>,
    suspicion: Suspicion,
    /// What to do with the packets that a dead process held, if the kernel's list of queues could not be read at its death.
    unreleased: Option<Orphans>,
    /// Starts after a death.
    pub restarts: u64,
    /// Kills by its own sandbox.
    pub sandbox_kills: u64,
    /// Whether this kernel sends packets through the rules again when told to (NF_REPEAT).
    pub repeats: bool,
    /// Generation in which its tables were last opened, and so cleared of entries that this generation does not know.
    settled: u64,
}

impl Worker {
    /// A worker without a process; `queue_len` is the most packets that its queue holds.
    ///
    /// # Errors
    /// If the membership link cannot be made.
    pub fn new(position: u16, core: u16, parts: WorkerParts, queue_len: u32) -> Result<Self, Error> {
        let WorkerParts { owner, memory, journal, previous, export } = parts;
        let membership = MembershipWriter::pair()?;
        membership.0.set_nonblocking()?;
        membership.1.set_nonblocking()?;
        Ok(Self {
            position,
            core,
            owner,
            memory,
            journal,
            previous,
            export,
            membership,
            serving: None,
            next: None,
            switching: false,
            most_in_a_change: queue_len / 2,
            losses: QueueLosses::default(),
            backoff: Backoff::new(),
            died: None,
            suspicion: Suspicion::default(),
            unreleased: None,
            restarts: 0,
            sandbox_kills: 0,
            repeats: true,
            settled: 0,
        })
    }

    /// Starts a process if there is none and it is due. If it cannot be started, it is due again later.
    ///
    /// # Errors
    /// If the process cannot be started, or the packets of the one before cannot be released.
    pub fn start(&mut self, spec: &ChildSpec, briefing: impl FnOnce(&Self) -> WorkerBriefing) -> Result<(), Error> {
        if self.serving.is_some() || self.next.is_some() || !self.backoff.is_due() {
            return Ok(());
        }
        match self.release_late().and_then(|()| self.spawn(spec, briefing(self))) {
            Ok(process) => {
                self.serving = Some(process);
                self.restarts += u64::from(self.died.is_some());
                Ok(())
            }
            Err(error) => {
                self.backoff.after_failed_start();
                Err(error)
            }
        }
    }

    /// Starts the process that is to serve next, beside the one that serves.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn prepare(&mut self, spec: &ChildSpec, briefing: WorkerBriefing) -> Result<(), Error> {
        self.next = Some(self.spawn(spec, briefing)?);
        Ok(())
    }

    /// Whether there is a next process, dead or alive.
    pub fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Whether the next process is prepared and waits.
    pub fn is_prepared(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.stage == WorkerStage::Prepared && !next.child.has_ended())
    }

    /// Whether the next process has died, or was never started.
    pub fn has_failed(&self) -> bool {
        self.next.as_ref().is_none_or(|next| next.child.has_ended())
    }

    /// Kills the next process.
    pub fn abort(&mut self) {
        if let Some(next) = self.next.as_mut().filter(|next| !next.child.has_ended()) {
            next.child.kill();
        }
    }

    /// Lets the next process take over, as soon as the serving one has answered the packets it holds and ended.
    pub fn switch(&mut self) {
        self.switching = true;
        match &mut self.serving {
            Some(serving) => serving.leave(),
            None => self.promote(),
        }
    }

    /// Whether the next process is prepared and no process serves.
    pub fn is_left_alone(&self) -> bool {
        self.serving.is_none() && self.is_prepared()
    }

    /// Whether a process of this generation or a later one serves.
    pub fn serves(&self, generation: u64) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.is_serving() && serving.generation >= generation)
    }

    /// Generation in which its tables were last opened, and so cleared of entries that this generation does not know.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Makes the next process the serving one.
    fn promote(&mut self) {
        if let Some(mut process) = self.next.take() {
            process.child.tell(ToWorker::Go);
            process.stage = WorkerStage::Opening;
            self.serving = Some(process);
        }
        self.switching = false;
    }

    fn spawn(&self, spec: &ChildSpec, briefing: WorkerBriefing) -> Result<WorkerProcess, Error> {
        let Memory { flows, clients, counters, .. } = &self.memory;
        let descriptors = vec![
            (dup(self.owner.as_fd())?, QUEUE_FD),
            (dup(&self.membership.1)?, MEMBERSHIP_FD),
            (dup(flows)?, FLOWS_FD),
            (dup(clients)?, CLIENTS_FD),
            (dup(counters)?, COUNTERS_FD),
            (dup(&self.journal)?, JOURNAL_FD),
            (self.of_kernel_path(|maps| &maps.keeping)?, KEEPING_FD),
            (self.of_kernel_path(|maps| &maps.ring)?, REPORTS_FD),
        ];
        let mut words = leading_arguments("worker", &spec.identity);
        let survival = if briefing.survival == Survival::Outlives { "outlives" } else { "dies" }.to_owned();
        words.extend([
            self.core.to_string(),
            std::process::id().to_string(),
            requirement_word(spec.requirement),
            survival,
            if self.memory.maps().is_some() { "fast" } else { "queue" }.to_owned(),
        ]);
        let admin = |message: &ToWorker| match *message {
            ToWorker::Backend { index, admin, .. } => Some((index, admin)),
            _ => None,
        };
        let told = briefing.messages.iter().filter_map(admin).collect();
        let child = Child::spawn(&words, LINK_FD, descriptors, briefing.messages)?;
        Ok(WorkerProcess::new(child, briefing.generation, told))
    }

    /// A map of the kernel path, or /dev/null without one.
    fn of_kernel_path(&self, map: impl Fn(&WorkerMaps) -> &OwnedFd) -> Result<OwnedFd, Error> {
        let null = || File::open("/dev/null").map(OwnedFd::from);
        let fail = |source| Error::Start { act: "open /dev/null", source };
        self.memory.maps().map_or_else(|| null().map_err(fail), |maps| dup(map(maps)))
    }

    /// The prober's end of the membership link.
    pub(crate) fn membership(&self) -> &MembershipWriter {
        &self.membership.0
    }

    /// The links to wait on, and for each whether there is something to send.
    pub fn links(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.serving.iter().chain(&self.next).filter_map(|process| process.child.link())
    }

    /// Whether a process serves.
    pub fn is_ready(&self) -> bool {
        self.serves(0)
    }

    /// When something is to be done about it that no descriptor announces: start a process, or end one that is late.
    pub fn due(&self) -> Option<Instant> {
        let start = (self.serving.is_none() && self.next.is_none()).then_some(self.backoff.due);
        let start = start.into_iter().chain(self.previous.is_ending().then(|| Instant::now() + PAUSE));
        let alive = self.serving.iter().chain(&self.next).filter(|process| !process.child.has_ended());
        alive.filter_map(WorkerProcess::deadline).chain(start).min()
    }

    /// Tells its processes to end. Returns the processes to wait for.
    pub fn dismiss(&mut self) -> Vec<Process> {
        let processes = [self.serving.take(), self.next.take()].into_iter().flatten();
        processes.map(|process| process.child.dismiss(Some(ToWorker::Stop))).collect()
    }

    /// Its name in logs: `worker[0]`.
    pub fn name(&self) -> String {
        format!("worker[{}]", self.position)
    }

    /// Its processes: pid, stage, age.
    pub fn processes(&self) -> impl Iterator<Item = (u32, &'static str, Duration)> {
        let processes = self.serving.iter().chain(&self.next);
        processes.map(|process| (process.child.pid(), process.stage.text(), process.child.age()))
    }

    /// How long until a dead one is started again.
    pub fn wait(&self) -> Option<Duration> {
        self.serving.is_none().then(|| self.backoff.due.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
