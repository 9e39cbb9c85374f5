//! From one supervisor to another: what a worker does when its queue was somebody else's before, and when it is to be
//! somebody else's.

use super::life::Stage;
use super::{PreviousWorkers, Worker, waiting};
use crate::Error;
use crate::children::child::{Backoff, dup};
use crate::children::memory::Memory;
use loaded_ipc::{TURN, ToWorker, Turn};
use loaded_queue::Orphans;
use loaded_sandbox::PidFd;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

impl Worker {
    /// Whether its first process serves, or waits for nothing but the end of those before.
    pub(crate) fn can_follow(&self) -> bool {
        self.is_ready() || self.serving.as_ref().is_some_and(|life| life.stage == Stage::Prepared)
    }

    /// Those before are these processes, and nobody's any more. What their tables hold cannot be exported now.
    pub(crate) fn comes_after(&mut self, pids: impl Iterator<Item = u32>) {
        let is_worker = |process: &PidFd| {
            fs::read_to_string(format!("/proc/{}/comm", process.pid()))
                .is_ok_and(|name| name.trim_end() == "loaded-worker")
        };
        self.before =
            PreviousWorkers::Serving(pids.filter_map(|pid| PidFd::open(pid).ok()).filter(is_worker).collect());
        if self.export.take().is_some() {
            log::error!("{}: nobody is left to export its tables: its flows are lost", self.name());
        }
    }

    /// Those before end, and its first process begins.
    pub(crate) fn follow(&mut self) {
        // Should we be killed as well, the one that waits has to know: so there is to be nothing between the two.
        let turn = self.memory.counters();
        let are_killed = self.before.end();
        match turn {
            Ok(counters) if are_killed => counters.set(TURN, Turn::Over as u64),
            Ok(_) => {}
            Err(error) => log::error!("{}: {error}", self.name()),
        }
    }

    /// The process that serves answers what it holds and goes, and the queue is free for another supervisor's.
    pub(crate) fn give_way(&mut self) {
        if let Some(life) = self.serving.as_mut().filter(|life| !matches!(life.stage, Stage::Leaving(_))) {
            life.child.tell(ToWorker::Stop);
            life.stage = Stage::Leaving(Instant::now());
        }
    }

    /// What its processes work with, for another supervisor: queue, flows, clients, counters.
    pub(crate) fn set(&self) -> Result<[OwnedFd; 4], Error> {
        let Memory { flows, clients, counters, .. } = &self.memory;
        Ok([dup(self.owner.as_fd())?, dup(flows)?, dup(clients)?, dup(counters)?])
    }

    /// Whether its tables come from an export.
    pub(crate) fn imports(&self) -> bool {
        self.export.is_some()
    }

    /// Those before have ended: takes over what was in their tables, if ours are laid out otherwise.
    pub(crate) fn import(&mut self) -> Result<(), Error> {
        if let Some(room) = self.export.take() {
            let (flows, clients) = self.memory.import(&room)?;
            log::info!("{}: {flows} flows and {clients} clients came over into tables of another layout", self.name());
        }
        Ok(())
    }

    /// Frees what somebody else's process may have held, which has ended by now, and starts one of ours.
    pub(crate) fn free_orphans(&mut self) {
        if self.serving.is_none()
            && let Ok(Some(state)) = waiting(self.owner.queue())
        {
            self.release(Orphans::Repeat, &state);
        }
        self.backoff = Backoff::new();
    }

    /// Kills its processes.
    pub(crate) fn kill(&mut self) {
        let lives = self.serving.iter_mut().chain(&mut self.next);
        lives.filter(|life| !life.child.has_ended()).for_each(|life| life.child.kill());
    }

    /// Whether no process of ours is there.
    pub(crate) fn is_vacant(&self) -> bool {
        self.serving.is_none() && self.next.is_none()
    }

    /// Where those before have ended just now: frees what they held, if they could not answer it.
    pub(super) fn settle(&mut self) {
        if self.before.settle() == Some(true)
            && let Ok(Some(state)) = waiting(self.owner.queue())
        {
            self.release(Orphans::Repeat, &state);
        }
    }
}
