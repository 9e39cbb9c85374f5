//! What a supervisor finds that comes after one that was killed: workers that go on without, each with its queue, its
//! tables and the dead one's journal in its custody.
//!
//! Tried, and taken for this: `pidfd_getfd` gives the very sockets and memories out of an unprivileged, non-dumpable
//! worker to who has CAP_SYS_PTRACE, and to nobody else. It needs no further process (a keeper can be killed like
//! anybody), no service manager, no path in the file system, and nothing of the worker: not even a system call more in its
//! fence.

use crate::Error;
use crate::children::child::dup;
use crate::children::memory::Memory;
use crate::children::worker::{PreviousWorkers, WorkerParts};
use crate::handover::journal::{self, Journal, State, Unreadable};
use caps::{CapSet, Capability};
use loaded_config::plan::{Plan, immutable_change};
use loaded_ipc::counter_layout;
use loaded_ipc::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, QUEUE_FD};
use loaded_queue::{Owner, is_port};
use loaded_queue::{QueueState, queue_holders, queue_owner, queue_owners};
use loaded_sandbox::PidFd;
use loaded_table::LAYOUT_VERSION;
use nix::sys::stat::fstat;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long workers that nobody can go on from may take to die of SIGKILL.
const DEATH: Duration = Duration::from_secs(2);

/// What there is to go on from.
#[derive(Debug)]
pub(crate) struct Inheritance {
    pub(crate) state: State<'static>,
    /// By queue. Of a worker that has died too, nothing is left.
    pub(crate) sets: BTreeMap<u16, InheritedWorker>,
    /// Of the dead ones' journals: nobody else takes the same over.
    locks: Vec<File>,
}

/// What a worker worked with.
#[derive(Debug)]
pub(crate) struct InheritedWorker {
    pub(crate) queue: OwnedFd,
    pub(crate) flows: OwnedFd,
    pub(crate) clients: OwnedFd,
    pub(crate) counters: OwnedFd,
    pub(crate) before: PreviousWorkers,
    /// Room for an export of the tables, if there is who can make one.
    pub(crate) export: Option<OwnedFd>,
}

static POSSIBLE: OnceLock<Result<(), &'static str>> = OnceLock::new();

/// Whether descriptors can be taken out of workers here: if not, workers that outlive their supervisor would be in the way of
/// the next one. To be asked before rights are given up; the answer stays.
pub(crate) fn is_possible() -> Result<(), &'static str> {
    *POSSIBLE.get_or_init(|| {
        // Yama denies it to everybody then (yama_ptrace_access_check, security/yama/yama_lsm.c).
        let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
        let own = || PidFd::open(std::process::id()).and_then(|own| own.take(0));
        match caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE) {
            Ok(true) if scope.trim() == "3" => Err("kernel.yama.ptrace_scope is 3"),
            Ok(true) if own().is_err() => Err("this kernel has no pidfd_getfd (Linux 5.6)"),
            Ok(true) => Ok(()),
            _ => Err("CAP_SYS_PTRACE is missing"),
        }
    })
}

/// The same as the supervisor before us has found it, when it had the right to look.
pub(crate) fn is_known(possible: bool) {
    let _ = POSSIBLE.set(if possible { Ok(()) } else { Err("the supervisor before this one could not look") });
}

/// Looks who answers our queues. Needs CAP_SYS_PTRACE.
///
/// # Errors
/// [`Error::QueueBusy`] if that is another program, or an instance whose supervisor lives.
pub(crate) fn find(queues: &[u16], plan: &Plan, pairs: &[(u16, u16)]) -> Result<Option<Inheritance>, Error> {
    let states = queue_owners()?;
    name_others(&states, queues);
    let Some(ours) = states.iter().find(|state| queues.contains(&state.queue)) else { return Ok(None) };
    let busy = || -> Result<Error, Error> {
        let owner = queue_owner(ours.queue)?.unwrap_or_else(|| "a process that has just ended".to_owned());
        Ok(Error::QueueBusy { queue: ours.queue, owner })
    };
    let mut dead = Dead::default();
    if dead.workers(ours)?.is_none() {
        return Err(busy()?);
    }
    let known = dead.latest().map_or_else(|_| queues.to_vec(), |state| state.queues.iter().map(|(_, q)| *q).collect());
    let mut sets = BTreeMap::new();
    for state in states.iter().filter(|state| known.contains(&state.queue)) {
        // Another instance may have got a queue meanwhile, whose worker had died.
        let Some(workers) = dead.workers(state)? else { return Err(busy()?) };
        sets.insert(state.queue, workers);
    }
    if !dead.are_of_one_line() {
        return Err(busy()?);
    }
    let found = dead.latest();
    let problem = match &found {
        // Who could export them is dead.
        Ok(State { tables, .. }) if *tables != LAYOUT_VERSION => {
            Some(format!("their tables have layout {tables}, and this binary knows {LAYOUT_VERSION}"))
        }
        Ok(state) => misfit(state, plan, pairs),
        Err(error) => Some(format!("its journal: {error}")),
    };
    match (found, problem) {
        (Ok(state), None) => {
            let sets = sets.into_iter().map(|(queue, workers)| Ok((queue, InheritedWorker::take(workers)?)));
            let sets = sets.collect::<Result<_, Error>>()?;
            log::warn!("supervisor {} was killed; its workers go on, and are taken over", state.pid);
            Ok(Some(Inheritance { state, sets, locks: dead.locks() }))
        }
        (_, problem) => {
            log::error!(
                "workers of a supervisor that was killed cannot be taken over ({}): they are ended, and their flows are lost",
                problem.unwrap_or_default()
            );
            end(sets.into_values().flatten().collect());
            Ok(None)
        }
    }
}

/// Supervisors that live no more, by their journals: mostly one. There are two where the second was killed while it took the
/// first one's workers over, and some of them have ended for its own.
#[derive(Debug, Default)]
struct Dead(Vec<(OwnedFd, File)>);

impl Dead {
    /// The workers that answer a queue, if there are any, and nobody's supervisor lives.
    fn workers(&mut self, state: &QueueState) -> Result<Option<Vec<PidFd>>, Error> {
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

    fn states(&self) -> impl Iterator<Item = Result<State<'static>, Unreadable>> {
        self.0.iter().map(|(custody, _)| journal::read(custody.as_fd()))
    }

    /// What was written down last. It begins with all that was known before.
    fn latest(&self) -> Result<State<'static>, Unreadable> {
        let latest = self.states().filter_map(Result::ok).max_by_key(|state| state.at);
        latest.map_or_else(|| self.states().next().unwrap_or(Err(Unreadable::Empty)), Ok)
    }

    /// Whether they have followed one another: then they steer by the same secret.
    fn are_of_one_line(&self) -> bool {
        let steering: Vec<_> = self.states().filter_map(|state| Some(state.ok()?.steering)).collect();
        steering.windows(2).all(|pair| pair[0] == pair[1])
    }

    fn locks(self) -> Vec<File> {
        self.0.into_iter().map(|(_, lock)| lock).collect()
    }
}

/// Workers of a killed supervisor that answer other queues than ours go on for ever if nobody knows of them.
fn name_others(states: &[QueueState], queues: &[u16]) {
    for state in states.iter().filter(|state| !queues.contains(&state.queue)) {
        let workers = workers_of(state).unwrap_or_default();
        let mut left = workers.iter().filter(|(_, custody)| journal::lock(custody.as_fd()).is_ok());
        if let Some((worker, _)) = left.next() {
            log::warn!(
                "queue {} is answered by worker {} of a supervisor that was killed: start that instance again (it goes on \
                 from there), or kill the worker",
                state.queue,
                worker.pid()
            );
        }
    }
}

/// What stands against going on from this state by this plan.
pub(crate) fn misfit(state: &State<'_>, plan: &Plan, pairs: &[(u16, u16)]) -> Option<String> {
    if *state.queues != *pairs {
        return Some("workers are to run on other cores".to_owned());
    }
    immutable_change(&state.plan, plan).or_else(|| state.steering.uncovered(plan))
}

impl Inheritance {
    /// Its parts: the sets, what was known, and the locks, to be kept until those before have ended.
    pub(crate) fn split(self) -> (BTreeMap<u16, InheritedWorker>, Option<State<'static>>, Vec<File>) {
        (self.sets, Some(self.state), self.locks)
    }

    /// From a supervisor that gives way.
    pub(crate) fn given(state: State<'static>, sets: BTreeMap<u16, InheritedWorker>) -> Self {
        Self { state, sets, locks: Vec::new() }
    }
}

impl InheritedWorker {
    fn take(workers: Vec<PidFd>) -> Result<Self, Error> {
        // One may end just now while another lives.
        let all = |process: &PidFd| {
            let take = |number| process.take(number).ok();
            Some((take(QUEUE_FD)?, take(FLOWS_FD)?, take(CLIENTS_FD)?, take(COUNTERS_FD)?))
        };
        let taken = workers.iter().find_map(all);
        let gone = || Error::ChildFailed("a worker has ended while it was taken over; start again".to_owned());
        let (queue, flows, clients, counters) = taken.ok_or_else(gone)?;
        Ok(Self { queue, flows, clients, counters, before: PreviousWorkers::Serving(workers), export: None })
    }
}

impl InheritedWorker {
    /// As a worker begins with it, after a look at each part: a process that was taken over may have had it.
    pub(crate) fn given(
        self,
        queue: u16,
        plan: &Plan,
        state: Option<&State<'_>>,
        journal: &Journal,
    ) -> Result<WorkerParts, Error> {
        let portid = queue_owners()?.into_iter().find(|state| state.queue == queue).map_or(0, |state| state.portid);
        let owner = Owner::adopt(self.queue, queue, portid).map_err(Error::Queue)?;
        let export = self.export.filter(|_| state.is_some_and(|state| state.tables != LAYOUT_VERSION)).map(File::from);
        let tables = if export.is_some() { None } else { Some((self.flows, self.clients)) };
        // Counters of another order are begun anew.
        let counters = Some(self.counters).filter(|_| state.is_some_and(|state| state.counters == counter_layout()));
        let memory = Memory::with(tables, counters, plan)?;
        Ok(WorkerParts { owner, memory, journal: dup(journal.custody())?, before: self.before, export })
    }
}

impl WorkerParts {
    /// With empty tables.
    pub(crate) fn anew(owner: Owner, plan: &Plan, journal: &Journal) -> Result<Self, Error> {
        let (memory, journal) = (Memory::new(plan)?, dup(journal.custody())?);
        Ok(Self { owner, memory, journal, before: PreviousWorkers::Nobody, export: None })
    }
}

/// The processes that hold a queue's socket as a worker does, with the journal that each has in its custody. Looked at again
/// once the process is held: its number may have come to mean another one.
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
