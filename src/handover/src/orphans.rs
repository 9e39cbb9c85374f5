//! Takes over workers orphaned by a killed supervisor. They go on without it, each with its queue, its tables and the dead
//! supervisor's journal in its custody.
//!
//! `pidfd_getfd` takes the very sockets and memories out of an unprivileged, non-dumpable worker, and needs CAP_SYS_PTRACE
//! (tried: nobody else can). So there is no need for a further process (a keeper can be killed like any other), a service
//! manager, a path in the file system, or one more system call in the worker's sandbox.

use super::inheritance::{Inheritance, InheritedWorker, misfit};
use super::journal::{self, UnreadableJournal};
use super::snapshot::Snapshot;
use crate::Error;
use loaded_children::worker::PreviousWorkers;
use loaded_config::plan::Plan;
use loaded_ipc::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, QUEUE_FD};
use loaded_queue::is_port;
use loaded_queue::{QueueState, queue_holders, queue_owner, queue_owners};
use loaded_sandbox::PidFd;
use loaded_table::LAYOUT_VERSION;
use nix::sys::stat::fstat;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long orphans that cannot be taken over may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(2);

/// Finds the orphans that answer our queues, and takes what they work with; `workers` are core and queue of each worker we
/// are to have. Orphans that do not fit the plan are killed. Needs CAP_SYS_PTRACE.
///
/// # Errors
/// [`Error::QueueBusy`] if another program answers one of the queues, or an instance whose supervisor is alive.
pub fn find(plan: &Plan, workers: &[(u16, u16)]) -> Result<Option<Inheritance>, Error> {
    let queues: Vec<u16> = workers.iter().map(|(_, queue)| *queue).collect();
    let states = queue_owners()?;
    warn_of_others(&states, &queues);
    let Some(ours) = states.iter().find(|state| queues.contains(&state.queue)) else { return Ok(None) };
    let busy = || -> Result<Error, Error> {
        let owner = queue_owner(ours.queue)?.unwrap_or_else(|| "a process that has just ended".to_owned());
        Ok(Error::QueueBusy { queue: ours.queue, owner })
    };
    let mut dead = DeadSupervisors::default();
    if dead.orphans(ours)?.is_none() {
        return Err(busy()?);
    }
    let known = dead.latest().map_or(queues, |snapshot| snapshot.queues.iter().map(|(_, queue)| *queue).collect());
    let mut orphans = BTreeMap::new();
    for state in states.iter().filter(|state| known.contains(&state.queue)) {
        // Another instance may meanwhile have got the queue of a worker that had died.
        let Some(processes) = dead.orphans(state)? else { return Err(busy()?) };
        orphans.insert(state.queue, processes);
    }
    if !dead.are_of_one_instance() {
        return Err(busy()?);
    }
    match fitting(dead.latest(), plan, workers) {
        Ok(snapshot) => {
            let taken = orphans.into_iter().map(|(queue, processes)| Ok((queue, take(processes)?)));
            let workers = taken.collect::<Result<_, Error>>()?;
            log::warn!("supervisor {} was killed; its workers continue, and are taken over", snapshot.pid);
            Ok(Some(Inheritance { snapshot, workers, locks: dead.locks() }))
        }
        Err(problem) => {
            log::error!(
                "workers of a killed supervisor cannot be taken over ({problem}): they are ended, and their flows are lost"
            );
            end(orphans.into_values().flatten().collect());
            Ok(None)
        }
    }
}

/// The last snapshot, if we can go on from it, or why we cannot.
fn fitting(
    latest: Result<Snapshot<'static>, UnreadableJournal>,
    plan: &Plan,
    workers: &[(u16, u16)],
) -> Result<Snapshot<'static>, String> {
    let snapshot = latest.map_err(|error| format!("its journal: {error}"))?;
    // Nobody is alive to export them.
    if snapshot.tables != LAYOUT_VERSION {
        return Err(format!("their tables have layout {}, and this binary knows {LAYOUT_VERSION}", snapshot.tables));
    }
    if !snapshot.queues.iter().all(|&(_, queue)| snapshot.keys_of(queue).is_some()) {
        return Err("their supervisor has not written down the keys of their tables".to_owned());
    }
    match misfit(&snapshot, plan, workers) {
        Some(problem) => Err(problem),
        None => Ok(snapshot),
    }
}

/// Journals of killed supervisors, each with its lock. Mostly there is one; two where the second supervisor was killed while
/// it took over the first one's workers, and had replaced some of them.
#[derive(Debug, Default)]
struct DeadSupervisors(Vec<(OwnedFd, File)>);

impl DeadSupervisors {
    /// The orphans that answer a queue; `None` if somebody else answers it, or their supervisor is alive.
    fn orphans(&mut self, state: &QueueState) -> Result<Option<Vec<PidFd>>, Error> {
        let mut processes = Vec::new();
        for (process, custody) in workers_of(state)? {
            if !self.0.iter().any(|(known, _)| is_same(known, &custody)) {
                let Ok(lock) = journal::lock_soon(custody.as_fd()) else { return Ok(None) };
                self.0.push((custody, lock));
            }
            processes.push(process);
        }
        Ok(Some(processes).filter(|processes| !processes.is_empty()))
    }

    fn snapshots(&self) -> impl Iterator<Item = Result<Snapshot<'static>, UnreadableJournal>> {
        self.0.iter().map(|(custody, _)| journal::read(custody.as_fd()))
    }

    /// The youngest snapshot. It includes all that older ones knew.
    fn latest(&self) -> Result<Snapshot<'static>, UnreadableJournal> {
        let latest = self.snapshots().filter_map(Result::ok).max_by_key(|snapshot| snapshot.at);
        latest.map_or_else(|| self.snapshots().next().unwrap_or(Err(UnreadableJournal::Empty)), Ok)
    }

    /// Whether they have followed one another: then they steer by the same secret.
    fn are_of_one_instance(&self) -> bool {
        let steering: Vec<_> = self.snapshots().filter_map(|snapshot| Some(snapshot.ok()?.steering)).collect();
        steering.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn locks(self) -> Vec<File> {
        self.0.into_iter().map(|(_, lock)| lock).collect()
    }
}

/// Names orphans that answer other queues than ours: unless somebody is told of them, they run for ever.
fn warn_of_others(states: &[QueueState], queues: &[u16]) {
    for state in states.iter().filter(|state| !queues.contains(&state.queue)) {
        let workers = workers_of(state).unwrap_or_default();
        let mut orphans = workers.iter().filter(|(_, custody)| journal::lock(custody.as_fd()).is_ok());
        if let Some((worker, _)) = orphans.next() {
            log::warn!(
                "queue {} is answered by worker {} of a supervisor that was killed: start that instance again (it goes on \
                 from there), or kill the worker",
                state.queue,
                worker.pid()
            );
        }
    }
}

/// Takes what the processes that answer a queue work with. One of them may be about to end while another lives.
fn take(processes: Vec<PidFd>) -> Result<InheritedWorker, Error> {
    let all = |process: &PidFd| {
        let take = |number| process.take(number).ok();
        Some((take(QUEUE_FD)?, take(FLOWS_FD)?, take(CLIENTS_FD)?, take(COUNTERS_FD)?))
    };
    let taken = processes.iter().find_map(all);
    let (queue, flows, clients, counters) = taken.ok_or(Error::WorkerEnded)?;
    Ok(InheritedWorker {
        queue,
        flows,
        clients,
        counters,
        previous: PreviousWorkers::Serving(processes),
        export: None,
        kernel_path: None,
    })
}

/// The processes that hold a queue's socket as a worker does, each with the journal in its custody. Both are checked after
/// the process is held: until then its pid may come to mean another process.
fn workers_of(state: &QueueState) -> Result<Vec<(PidFd, OwnedFd)>, Error> {
    let worker = |pid| {
        let process = PidFd::open(pid).ok()?;
        let socket = process.take(QUEUE_FD).ok()?;
        let custody = process.take(JOURNAL_FD).ok()?;
        let is_worker = is_port(socket.as_fd(), state.portid) && journal::is_one(custody.as_fd());
        is_worker.then_some((process, custody))
    };
    Ok(queue_holders(state)?.into_iter().filter_map(worker).collect())
}

/// Whether two descriptors mean the same memory.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    let file = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    file(one).is_some_and(|one| file(other) == Some(one))
}

/// Kills them, and waits until they have ended.
fn end(processes: Vec<PidFd>) {
    let until = Instant::now() + DEATH;
    for process in &processes {
        if let Err(error) = process.kill() {
            log::error!("{error}");
        }
    }
    while !processes.iter().all(PidFd::has_ended) && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
}
