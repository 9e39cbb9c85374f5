//! A worker whose queue passes from one supervisor to another: how it takes over from previous workers, and how it gives way.

use super::death::waiting;
use super::process::WorkerStage;
use super::{PreviousWorkers, Worker};
use crate::Error;
use crate::child::dup;
use crate::memory::Memory;
use crate::restarts::Backoff;
use loaded_ipc::{TURN, Turn};
use loaded_queue::Orphans;
use loaded_sandbox::PidFd;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};

/// A descriptor of a worker's that a successor gets. Another release's binary finds it by its place here, so the order never
/// changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerDescriptor {
    /// The netlink socket that bound the queue.
    Queue,
    /// Memory of the flow table.
    Flows,
    /// Memory of the affinity table.
    Clients,
    /// Memory of the counters.
    Counters,
    /// Memory that takes an export of the two tables, should the successor lay them out differently.
    Export,
}

impl Worker {
    /// Whether its first process serves, or waits only for the previous workers to end.
    pub fn can_take_over(&self) -> bool {
        self.is_ready() || self.serving.as_ref().is_some_and(|process| process.stage == WorkerStage::Prepared)
    }

    /// Makes the workers among these processes the previous ones: their supervisor is dead, so nobody else ends them, and nobody
    /// exports their tables.
    pub fn adopt_previous(&mut self, pids: impl Iterator<Item = u32>) {
        let is_worker = |process: &PidFd| {
            fs::read_to_string(format!("/proc/{}/comm", process.pid()))
                .is_ok_and(|name| name.trim_end() == "loaded-worker")
        };
        self.previous =
            PreviousWorkers::Serving(pids.filter_map(|pid| PidFd::open(pid).ok()).filter(is_worker).collect());
        if self.export.take().is_some() {
            log::error!("{}: nobody is left to export its tables; its flows are lost", self.name());
        }
    }

    /// Ends the previous workers, upon which its first process begins to serve.
    pub fn take_over(&mut self) {
        // If we are killed too, the process that waits must know that its turn has come: so nothing may happen between the kill
        // and the word.
        let counters = self.memory.counters();
        let are_killed = self.previous.end();
        match counters {
            Ok(counters) if are_killed => counters.set(TURN, Turn::Over as u64),
            Ok(_) => {}
            Err(error) => log::error!("{}: {error}", self.name()),
        }
    }

    /// Tells the serving process to answer what it holds and end, so that the queue is free for the successor's worker.
    pub fn give_way(&mut self) {
        if let Some(serving) = self.serving.as_mut().filter(|serving| !matches!(serving.stage, WorkerStage::Leaving(_)))
        {
            serving.leave();
        }
    }

    /// What a successor's worker needs, and memory for an export of the tables.
    ///
    /// # Errors
    /// If there is no memory or no descriptor left.
    pub fn descriptors(&self) -> Result<([(WorkerDescriptor, OwnedFd); 5], File), Error> {
        let Memory { flows, clients, counters, .. } = &self.memory;
        let export = self.memory.room_for_export()?;
        let all = [
            (WorkerDescriptor::Queue, dup(self.owner.as_fd())?),
            (WorkerDescriptor::Flows, dup(flows)?),
            (WorkerDescriptor::Clients, dup(clients)?),
            (WorkerDescriptor::Counters, dup(counters)?),
            (WorkerDescriptor::Export, dup(&export)?),
        ];
        Ok((all, File::from(export)))
    }

    /// Whether its tables are to be filled from an export.
    pub fn imports(&self) -> bool {
        self.export.is_some()
    }

    /// Fills its tables from the export, if there is one. The previous workers have ended.
    ///
    /// # Errors
    /// If the export cannot be read or is not valid, or the tables cannot be mapped.
    pub fn import(&mut self) -> Result<(), Error> {
        if let Some(export) = self.export.take() {
            let (flows, clients) = self.memory.import(&export)?;
            log::info!(
                "{}: {flows} flows and {clients} clients were carried over into tables of another layout",
                self.name()
            );
        }
        Ok(())
    }

    /// Takes the queue back from a successor's process that has ended: releases what it held, and lets one of ours start.
    pub fn take_back(&mut self) {
        if self.serving.is_none()
            && let Ok(Some(state)) = waiting(self.owner.queue())
        {
            self.release(Orphans::Repeat, &state);
        }
        self.backoff = Backoff::new();
    }

    /// Kills its processes.
    pub fn kill(&mut self) {
        let processes = self.serving.iter_mut().chain(&mut self.next);
        processes.filter(|process| !process.child.has_ended()).for_each(|process| process.child.kill());
    }

    /// Whether it has no process.
    pub(crate) fn is_vacant(&self) -> bool {
        self.serving.is_none() && self.next.is_none()
    }

    /// Releases what the previous workers held, if they have just ended and could not answer it.
    pub(super) fn release_if_previous_ended(&mut self) {
        if self.previous.just_ended() == Some(true)
            && let Ok(Some(state)) = waiting(self.owner.queue())
        {
            self.release(Orphans::Repeat, &state);
        }
    }
}
