//! Workers for a start, fresh or over what others have left, and the kernel path beside them.

use super::acquired::Acquired;
use super::checked::Checked;
use crate::Error;
use crate::children::worker::{Worker, WorkerParts};
use crate::fastpath::{FastPath, Off};
use crate::handover::Error as HandoverError;
use crate::handover::inheritance::InheritedWorker;
use crate::handover::journal::Journal;
use crate::handover::predecessor::Predecessor;
use crate::handover::snapshot::Snapshot;
use crate::instance::generation::Generation;
use crate::roster::Roster;
use loaded_config::plan::{Fast, Plan};
use loaded_ipc::OnFailure;
use loaded_netfilter::Steering;
use loaded_queue::{Overflow, Owner, OwnerError, queue_owner};
use std::collections::BTreeMap;
use std::time::Instant;

/// Fresh workers, and the kernel path beside them, if it is wanted and can be had.
pub(super) fn workers_with_path(
    checked: &Checked,
    journal: &Journal,
    steering: &Steering,
) -> Result<(Vec<Worker>, Result<FastPath, Off>), Error> {
    let mut why = Off::NotWanted;
    if checked.plan.fast == Fast::Auto {
        let made = fresh_workers(checked, journal, true).and_then(|workers| {
            let roster = Roster::empty().next(&checked.plan, &[], 0, Instant::now())?;
            let fast = FastPath::load(&workers, steering, &roster, checked.plan.queue_base)?;
            Ok((workers, Ok(fast)))
        });
        match made {
            Ok(both) => return Ok(both),
            Err(error) => why = Off::Refused(error.to_string()).told(),
        }
    }
    Ok((fresh_workers(checked, journal, false)?, Err(why)))
}

/// A kernel path over tables that were taken over. It is attached when our workers serve. That it cannot be had is no error
/// here: the queue serves.
pub(super) fn inherited_path(checked: &Checked, acquired: &Acquired, current: &Generation) -> Result<FastPath, Off> {
    if checked.plan.fast == Fast::Off {
        return Err(Off::NotWanted);
    }
    if acquired.workers.iter().any(|worker| worker.memory.maps().is_none()) {
        return Err(Off::StartedWithout.told());
    }
    let base = checked.plan.queue_base;
    FastPath::load(&acquired.workers, &acquired.steering, &current.roster, base)
        .map_err(|error| Off::Refused(error.to_string()).told())
}

/// The kernel path that a predecessor hands over. It stays attached, and nothing is loaded: the sandbox that this process has
/// inherited forbids that.
pub(super) fn handed_path(checked: &Checked, workers: &[Worker], snapshot: &Snapshot<'_>) -> Result<FastPath, Off> {
    if checked.plan.fast == Fast::Off {
        return Err(Off::NotWanted);
    }
    let handover = snapshot.kernel_path.ok_or_else(|| Off::StartedWithout.told())?;
    // Tables of another layout were made anew, where no program reads them.
    if workers.iter().any(|worker| worker.memory.maps().is_none()) {
        return Err(Off::OtherProgram.told());
    }
    let path = Predecessor::kernel_path(snapshot.queues.len())
        .map_err(Error::from)
        .and_then(|descriptors| FastPath::inherit(handover, descriptors, checked.plan.queue_base));
    path.map_err(|error| Off::Refused(error.to_string()).told())?.ok_or_else(|| Off::OtherProgram.told())
}

/// Workers with empty tables, on queues that are opened for them.
fn fresh_workers(checked: &Checked, journal: &Journal, fast: bool) -> Result<Vec<Worker>, Error> {
    let plan = &checked.plan;
    make_workers(checked, |queue| Ok(WorkerParts::fresh(open_queue(queue, plan)?, plan, journal.custody(), fast)?))
}

/// Workers with queues and tables of previous ones. Where a previous worker is missing, it is dead: those are fresh.
pub(super) fn inherited_workers(
    checked: &Checked,
    journal: &Journal,
    snapshot: &Snapshot<'_>,
    mut previous: BTreeMap<u16, InheritedWorker>,
) -> Result<Vec<Worker>, Error> {
    let plan = &checked.plan;
    make_workers(checked, |queue| match previous.remove(&queue) {
        Some(worker) => Ok(worker.into_parts(queue, plan, snapshot, journal)?),
        None => Ok(WorkerParts::fresh(open_queue(queue, plan)?, plan, journal.custody(), false)?),
    })
}

fn make_workers(
    checked: &Checked,
    mut parts: impl FnMut(u16) -> Result<WorkerParts, Error>,
) -> Result<Vec<Worker>, Error> {
    let numbered = (0..).zip(&checked.workers);
    let make = |(position, &(core, queue))| Ok(Worker::new(position, core, parts(queue)?, checked.plan.queue_len)?);
    numbered.map(make).collect()
}

fn open_queue(queue: u16, plan: &Plan) -> Result<Owner, Error> {
    let overflow = match plan.on_failure.queue_full {
        OnFailure::Drop => Overflow::Drop,
        OnFailure::Pass => Overflow::Pass,
    };
    Owner::open_for(queue, plan.queue_len, overflow).map_err(|error| match error {
        OwnerError::Refused(queue) => match queue_owner(queue) {
            Ok(Some(owner)) => HandoverError::QueueBusy { queue, owner }.into(),
            _ => Error::Queue(error),
        },
        other => Error::Queue(other),
    })
}
