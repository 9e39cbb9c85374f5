//! What a new supervisor starts from: the last snapshot in the journal of the previous one, and the queue and memory of
//! each of its workers.

use super::journal::Journal;
use super::snapshot::Snapshot;
use crate::Error;
use loaded_children::dup;
use loaded_children::memory::Memory;
use loaded_children::worker::{PreviousWorkers, WorkerParts};
use loaded_config::plan::{Plan, immutable_change};
use loaded_ipc::counter_layout;
use loaded_queue::Owner;
use loaded_queue::queue_owners;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;

/// What the previous supervisor has left.
#[derive(Debug)]
pub struct Inheritance {
    /// The last that it wrote down.
    pub snapshot: Snapshot<'static>,
    /// By queue. A queue whose worker is dead too is missing.
    pub workers: BTreeMap<u16, InheritedWorker>,
    /// Locks of dead supervisors' journals, so that nobody else takes the same workers over. To be kept until these have
    /// ended.
    pub locks: Vec<File>,
}

/// Queue and memory of a worker.
#[derive(Debug)]
pub struct InheritedWorker {
    pub(crate) queue: OwnedFd,
    pub(crate) flows: OwnedFd,
    pub(crate) clients: OwnedFd,
    pub(crate) counters: OwnedFd,
    pub(crate) previous: PreviousWorkers,
    /// Memory that takes an export of the tables, if somebody is alive to make one.
    pub(crate) export: Option<OwnedFd>,
    /// What somebody alive hands over of the kernel path: numbers, bytes of backends, ring of reports.
    pub(crate) kernel_path: Option<[OwnedFd; 3]>,
}

/// Why an instance with this plan, and these cores with their queues, cannot continue from a snapshot; `None` if it
/// can.
pub fn misfit(snapshot: &Snapshot<'_>, plan: &Plan, queues: &[(u16, u16)]) -> Option<String> {
    if *snapshot.queues != *queues {
        return Some("workers are to run on other cores".to_owned());
    }
    immutable_change(&snapshot.plan, plan).or_else(|| snapshot.steering.uncovered(plan))
}

impl InheritedWorker {
    /// Makes parts of a worker of it, after a check of each: a hostile process may have had them.
    ///
    /// # Errors
    /// If one of them is not what it should be.
    pub fn into_parts(
        self,
        queue: u16,
        plan: &Plan,
        snapshot: &Snapshot<'_>,
        journal: &Journal,
    ) -> Result<WorkerParts, Error> {
        let portid = queue_owners()?.into_iter().find(|state| state.queue == queue).map_or(0, |state| state.portid);
        let owner = Owner::adopt(self.queue, queue, portid).map_err(Error::Queue)?;
        let (tables, export) = match snapshot.keys_of(queue) {
            Some(keys) => (Some((self.flows, self.clients, keys)), None),
            None => (None, self.export.map(File::from)),
        };
        // Counters in another order start at zero.
        let counters = Some(self.counters).filter(|_| snapshot.counters == counter_layout());
        let memory = Memory::with(tables, counters, self.kernel_path, plan)?;
        Ok(WorkerParts { owner, memory, journal: dup(journal.custody())?, previous: self.previous, export })
    }
}
