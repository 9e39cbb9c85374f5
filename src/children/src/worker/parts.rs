//! What a worker is made of, and what its process is told.

use super::PreviousWorkers;
use crate::Error;
use crate::child::dup;
use crate::memory::Memory;
use loaded_config::plan::Plan;
use loaded_ipc::ToWorker;
use loaded_queue::Owner;
use loaded_sandbox::Survival;
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts {
    /// The queue.
    pub owner: Owner,
    /// Tables and counters.
    pub memory: Memory,
    /// The supervisor's journal, for the custody of its processes.
    pub journal: OwnedFd,
    /// Who has answered the queue until now.
    pub previous: PreviousWorkers,
    /// Memory that the predecessor exports tables to, if ours are laid out differently.
    pub export: Option<File>,
}

/// Everything a worker's process is told at its start: its configuration.
#[derive(Debug)]
pub struct WorkerBriefing {
    pub(crate) generation: u64,
    pub(crate) survival: Survival,
    pub(crate) messages: Vec<ToWorker>,
}

impl WorkerParts {
    /// A worker with empty tables, on a queue that was just opened, and with this journal in its custody.
    ///
    /// # Errors
    /// If there is no memory, the kernel path's maps cannot be made, or no descriptor is left.
    pub fn fresh(owner: Owner, plan: &Plan, journal: BorrowedFd<'_>, fast: bool) -> Result<Self, Error> {
        let (memory, journal) = (Memory::new(plan, fast)?, dup(journal)?);
        Ok(Self { owner, memory, journal, previous: PreviousWorkers::None, export: None })
    }
}
