//! One worker from the supervisor's side: its queue, memory and membership link, which stay, and its processes, which come
//! and go. One serves; during a reload another one stands ready to take its place.

mod life;
mod previous;
mod pulse;
mod questions;
mod suspicion;
mod takeover;

use crate::Error;
use crate::children::child::{Backoff, Child, Death, Obituary, dup, floor_word, who};
use crate::children::memory::Memory;
use life::{Life, Stage, farewell};
use loaded_ipc::{Admin, BackendIndex, Explained, Membership, MembershipReader, MembershipWriter, Question, ToWorker};
use loaded_ipc::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, LINK_FD, MEMBERSHIP_FD, QUEUE_FD};
use loaded_ipc::{IN_HAND, RECEIVED, from_hand};
use loaded_queue::{Orphans, Owner};
use loaded_queue::{QueueState, queue_owners};
use loaded_sandbox::proof::Expectation;
use loaded_sandbox::{Identity, SandboxRequirement, Survival};
pub(crate) use previous::PreviousWorkers;
use pulse::Pulse;
use questions::Questions;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child as Process;
use std::time::{Duration, Instant};
use suspicion::Suspicion;

/// So many short lives that did not get ready, and it is the tables that are given up.
const HOPELESS: u32 = 2;

/// Between looks at processes that were told to end.
const PAUSE: Duration = Duration::from_millis(2);

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// From 0.
    pub(crate) position: u16,
    pub(crate) core: u16,
    pub(crate) owner: Owner,
    pub(crate) memory: Memory,
    /// In the custody of its processes.
    journal: OwnedFd,
    before: PreviousWorkers,
    export: Option<File>,
    /// Both ends of the link from the prober: whoever of the two is started again finds it as it was.
    membership: (MembershipWriter, MembershipReader),
    serving: Option<Life>,
    /// The one that is to serve after it.
    next: Option<Life>,
    /// The next one was told that its time has come; only the other has to go.
    switching: bool,
    /// So many waiting packets are more than come during a change.
    crowd: u32,
    pulse: Pulse,
    backoff: Backoff,
    died: Option<Instant>,
    suspicion: Suspicion,
    /// What is yet to become of the packets that a dead one held: the kernel's list of queues could not be read.
    unreleased: Option<Orphans>,
    /// Starts after a death.
    pub(crate) restarts: u64,
    /// Deaths by its own fence.
    pub(crate) fenced: u64,
    /// Whether this kernel sends packets through the rules again when it is told to.
    pub(crate) repeats: bool,
    /// Generation in which its tables were last opened, and so cleaned of what that did not know.
    settled: u64,
}

/// What a worker begins with.
#[derive(Debug)]
pub(crate) struct WorkerParts {
    pub(crate) owner: Owner,
    pub(crate) memory: Memory,
    pub(crate) journal: OwnedFd,
    pub(crate) before: PreviousWorkers,
    /// Where the tables of those before will be exported to, if ours are laid out otherwise.
    pub(crate) export: Option<File>,
}

/// What all workers of an instance have in common.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) identity: Identity,
    pub(crate) floor: SandboxRequirement,
    /// What /proc must show of a worker that says it is prepared.
    pub(crate) expected: Expectation,
}

/// A configuration for a worker.
#[derive(Debug)]
pub(crate) struct Orders {
    pub(crate) generation: u64,
    pub(crate) survival: Survival,
    pub(crate) messages: Vec<ToWorker>,
}

impl Worker {
    pub(crate) fn new(place: (u16, u16), given: WorkerParts, queue_len: u32) -> Result<Self, Error> {
        let (position, core) = place;
        let WorkerParts { owner, memory, journal, before, export } = given;
        let membership = MembershipWriter::pair()?;
        membership.0.set_nonblocking()?;
        membership.1.set_nonblocking()?;
        Ok(Self {
            position,
            core,
            owner,
            memory,
            journal,
            before,
            export,
            membership,
            serving: None,
            next: None,
            switching: false,
            crowd: queue_len / 2,
            pulse: Pulse::new(),
            backoff: Backoff::new(),
            died: None,
            suspicion: Suspicion::default(),
            unreleased: None,
            restarts: 0,
            fenced: 0,
            repeats: true,
            settled: 0,
        })
    }

    /// Starts a process if there is none and it is due. When it cannot be started, it is due again later.
    pub(crate) fn start(&mut self, terms: &Terms, orders: impl FnOnce(&Self) -> Orders) -> Result<(), Error> {
        if self.serving.is_some() || self.next.is_some() || !self.backoff.is_due() {
            return Ok(());
        }
        match self.release_late().and_then(|()| self.spawn(terms, orders(self))) {
            Ok(life) => {
                self.serving = Some(life);
                self.restarts += u64::from(self.died.is_some());
                Ok(())
            }
            Err(error) => {
                self.backoff.after_no_start();
                Err(error)
            }
        }
    }

    /// Starts the process that is to serve next, beside the one that serves.
    pub(crate) fn prepare(&mut self, terms: &Terms, orders: Orders) -> Result<(), Error> {
        self.next = Some(self.spawn(terms, orders)?);
        Ok(())
    }

    /// Whether there is a next process, dead or alive.
    pub(crate) fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// Whether the next process waits for its time.
    pub(crate) fn is_prepared(&self) -> bool {
        self.next.as_ref().is_some_and(|life| life.stage == Stage::Prepared && !life.child.has_ended())
    }

    /// Whether there is, or was, a next process that will never serve.
    pub(crate) fn has_failed(&self) -> bool {
        self.next.as_ref().is_none_or(|life| life.child.has_ended())
    }

    /// Gives up the next process.
    pub(crate) fn abort(&mut self) {
        if let Some(next) = self.next.as_mut().filter(|life| !life.child.has_ended()) {
            next.child.kill();
        }
    }

    /// The next process takes over: as soon as the one that serves has answered what it holds.
    pub(crate) fn switch(&mut self) {
        self.switching = true;
        match &mut self.serving {
            Some(life) => {
                life.child.tell(ToWorker::Stop);
                life.stage = Stage::Leaving(Instant::now());
            }
            None => self.promote(),
        }
    }

    /// Whether nobody serves although somebody could.
    pub(crate) fn is_left_alone(&self) -> bool {
        self.serving.is_none() && self.is_prepared()
    }

    /// Whether a process of this generation or a later one serves.
    pub(crate) fn serves(&self, generation: u64) -> bool {
        self.serving.as_ref().is_some_and(|life| life.stage == Stage::Serving && life.generation >= generation)
    }

    /// Generation in which its tables were last cleaned.
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    fn promote(&mut self) {
        if let Some(mut life) = self.next.take() {
            life.child.tell(ToWorker::Go);
            life.stage = Stage::Opening;
            self.serving = Some(life);
        }
        self.switching = false;
    }

    fn spawn(&self, terms: &Terms, orders: Orders) -> Result<Life, Error> {
        let Memory { flows, clients, counters, .. } = &self.memory;
        let given = vec![
            (dup(self.owner.as_fd())?, QUEUE_FD),
            (dup(&self.membership.1)?, MEMBERSHIP_FD),
            (dup(flows)?, FLOWS_FD),
            (dup(clients)?, CLIENTS_FD),
            (dup(counters)?, COUNTERS_FD),
            (dup(&self.journal)?, JOURNAL_FD),
        ];
        let mut words = who("worker", &terms.identity);
        let survival = if orders.survival == Survival::Outlives { "outlives" } else { "dies" }.to_owned();
        words.extend([self.core.to_string(), std::process::id().to_string(), floor_word(terms.floor), survival]);
        let admin = |message: &ToWorker| match *message {
            ToWorker::Backend { index, admin, .. } => Some((index, admin)),
            _ => None,
        };
        let told = orders.messages.iter().filter_map(admin).collect();
        let child = Child::spawn(&words, LINK_FD, given, orders.messages)?;
        let (generation, stage) = (orders.generation, Stage::Preparing);
        Ok(Life { child, generation, stage, told, questions: Questions::default() })
    }

    /// The prober's end of its membership link.
    pub(crate) fn membership(&self) -> &MembershipWriter {
        &self.membership.0
    }

    /// Tells the worker what is believed of the backends, in the place of a prober that died. A link takes some 200 words;
    /// the next prober says them all.
    pub(crate) fn remind(&self, generation: u64, beliefs: impl Iterator<Item = (BackendIndex, bool)>) {
        for (backend, up) in beliefs {
            if self.membership.0.send(&Membership { generation, backend, up }).is_err() {
                return;
            }
        }
    }

    /// The links, and whether there is something to send on each.
    pub(crate) fn links(&self) -> impl Iterator<Item = (BorrowedFd<'_>, bool)> {
        self.serving.iter().chain(&self.next).filter_map(|life| life.child.link())
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.serves(0)
    }

    /// When something is to be done about it that no descriptor tells: start it, or end one that never gets on.
    pub(crate) fn due(&self) -> Option<Instant> {
        let start = (self.serving.is_none() && self.next.is_none()).then_some(self.backoff.due);
        let start = start.into_iter().chain(self.before.is_ending().then(|| Instant::now() + PAUSE));
        let lives = self.serving.iter().chain(&self.next).filter(|life| !life.child.has_ended());
        lives.filter_map(Life::deadline).chain(start).min()
    }

    /// Tells the serving process what has changed of the operator's wishes.
    pub(crate) fn sync(&mut self, wishes: impl Iterator<Item = (BackendIndex, Admin)>) {
        let Some(life) = self.serving.as_mut().filter(|life| life.stage == Stage::Serving) else { return };
        for (backend, admin) in wishes {
            // A backend it does not know has no place in its roster either.
            if life.told.get(&backend).is_some_and(|told| *told != admin) {
                life.told.insert(backend, admin);
                life.child.tell(ToWorker::Admin { backend, admin });
            }
        }
    }

    /// Asks the serving process; its answer comes by [`Worker::answers`], if it comes.
    ///
    /// # Errors
    /// Why it cannot be asked now.
    pub(crate) fn ask(&mut self, id: u32, question: Question) -> Result<(), String> {
        let name = self.name();
        let serving = self.serving.as_mut().filter(|life| life.stage == Stage::Serving && !life.child.has_ended());
        let Some(life) = serving else { return Err(format!("{name} is not serving now; ask again in a moment")) };
        if !life.questions.asked(id) {
            return Err(format!("{name} has not answered earlier questions yet; loaded status shows how it is"));
        }
        life.child.tell(ToWorker::Explain { id, question });
        // What cannot be sent at once is when the link takes it; an error shows when it is talked to.
        let _ = life.child.flush();
        Ok(())
    }

    /// What the serving process has answered, with the numbers of the questions, and the generation it speaks of.
    pub(crate) fn answers(&mut self) -> Vec<(u32, u64, Explained)> {
        let Some(life) = &mut self.serving else { return Vec::new() };
        let generation = life.generation;
        life.questions.answers().map(|(id, explained)| (id, generation, explained)).collect()
    }

    /// What it has said cannot be: it is killed, and its death is then seen like any other.
    pub(crate) fn condemn(&mut self, problem: &str) {
        if let Some(life) = self.serving.as_mut().filter(|life| !life.child.has_ended()) {
            log::error!("worker[{}]: {problem}; killing it", self.position);
            life.child.condemn(problem.to_owned());
        }
    }

    /// Sends and receives what is possible without waiting. A child that is out of step is killed; its death is then
    /// seen like any other.
    pub(crate) fn talk(&mut self, terms: &Terms) {
        let name = self.name();
        let was_ready = self.is_ready();
        self.settle();
        for (life, goes_at_once) in [(&mut self.serving, self.before.is_over()), (&mut self.next, false)] {
            let Some(life) = life.as_mut().filter(|life| !life.child.has_ended()) else { continue };
            if let Err(problem) = life.talk(terms, goes_at_once) {
                log::error!("{name}: {problem}; killing it");
                life.child.condemn(problem);
            }
        }
        if let Some(life) = self.serving.as_ref().filter(|life| life.stage == Stage::Serving && !was_ready) {
            self.settled = life.generation;
            if self.died.is_some() && self.restarts > 0 {
                log::info!("{name}: ready again, as pid {}", life.child.pid());
            }
        }
    }

    /// Looks whether it gets on with its queue. One that is hung is killed; its death is then seen like any other.
    pub(crate) fn examine(&mut self, state: &QueueState, now: Instant) {
        if let Some(losses) = self.pulse.losses(state, now) {
            log::warn!("{}: {losses}", self.name());
        }
        let received = self.memory.seen.get(RECEIVED).unwrap_or(0);
        let name = self.name();
        match self.serving.as_mut().filter(|life| life.stage == Stage::Serving && !life.child.has_ended()) {
            None => self.pulse.restart(),
            Some(life) => {
                if let Some(still) = self.pulse.feel(state, received, now) {
                    let problem = format!("hung: {} packets wait, none was answered for {still:.1?}", state.waiting);
                    log::error!("{name}: {problem}; killing it");
                    life.child.condemn(problem);
                }
            }
        }
    }

    /// Processes that have ended, and how. The packets a dead one held are freed for the next one.
    pub(crate) fn reap(&mut self) -> Vec<Obituary> {
        let mut deaths = Vec::new();
        if let Some(death) = self.next.as_mut().and_then(|life| life.child.reap(farewell)) {
            self.next = None;
            self.fenced += u64::from(death.fenced);
            deaths.push(Obituary::new(format!("{} to be", self.name()), death));
        }
        if let Some(life) = &mut self.serving
            && let Some(death) = life.child.reap(farewell)
        {
            let stage = life.stage;
            self.serving = None;
            let state = waiting(self.owner.queue());
            if matches!(stage, Stage::Leaving(_)) && death.orderly {
                self.backoff = Backoff::new();
                // An honest one holds nothing when it goes, and little has come since: more than that was held back.
                if let Some(state) = state.ok().flatten().filter(|state| state.waiting > self.crowd) {
                    self.release(Orphans::Repeat, &state);
                }
            } else {
                self.bury(&death, stage, state);
                self.fenced += u64::from(death.fenced);
                deaths.push(Obituary::new(self.name(), death));
            }
            if self.switching {
                self.promote();
            }
        }
        deaths
    }

    /// Frees what the last dead one held, if that could not be done at its death. Nobody reads the queue now.
    fn release_late(&mut self) -> Result<(), Error> {
        let Some(orphans) = self.unreleased else { return Ok(()) };
        if let Some(state) = waiting(self.owner.queue())? {
            self.release(orphans, &state);
        }
        self.unreleased = None;
        Ok(())
    }

    /// Frees what a process has read and not answered, while nobody reads the queue.
    pub(crate) fn release(&self, orphans: Orphans, state: &QueueState) {
        // Else they would go on as they are: to a VIP, and so to this host's own stack.
        let orphans = if self.repeats { orphans } else { Orphans::Drop };
        if let Err(error) = self.owner.release(orphans, state.last_id) {
            log::error!("{}: {error}", self.name());
        }
    }

    fn bury(&mut self, death: &Death, stage: Stage, state: Result<Option<QueueState>, Error>) {
        // That it did not go in time may be the machine's fault; its packets are under no suspicion for that.
        let orphans = match death.own && !matches!(stage, Stage::Leaving(_)) {
            true => self.suspicion.after(self.memory.seen.get(IN_HAND).and_then(from_hand), Instant::now()),
            false => Orphans::Repeat,
        };
        if !matches!(state, Ok(None)) {
            let what = match orphans {
                Orphans::Repeat => None,
                Orphans::RepeatWithout(_) => {
                    Some("the packet it had in hand is dropped: not the first death of late with one")
                }
                Orphans::Drop => Some("the packets it held are dropped: one may be the cause"),
            };
            if let Some(what) = what {
                log::error!("{}: {what}", self.name());
            }
        }
        self.unreleased = state.is_err().then_some(orphans);
        match state {
            Ok(Some(state)) => self.release(orphans, &state),
            Ok(None) => {}
            Err(error) => log::error!("{}: {error}; the packets it held are freed later", self.name()),
        }
        if death.own {
            self.backoff.after(death.lived);
        } else {
            self.backoff.after_a_kill(death.lived);
        }
        // Tables of a worker that was taken over, or that keep its successors from starting, are worth nothing. Somebody
        // else's kill during a start is not their doing.
        let was_ready = matches!(stage, Stage::Serving | Stage::Leaving(_));
        if (death.fenced || (!was_ready && death.own && self.backoff.short_lives >= HOPELESS))
            && let Err(error) = self.memory.clear()
        {
            log::error!("{}: empty its tables: {error}", self.name());
        }
        if !matches!(stage, Stage::Leaving(_)) {
            self.died = Some(Instant::now());
        }
    }

    /// Tells its processes to end. Returns what to wait for.
    pub(crate) fn dismiss(&mut self) -> Vec<Process> {
        let lives = [self.serving.take(), self.next.take()].into_iter().flatten();
        lives.map(|life| life.child.dismiss(Some(ToWorker::Stop))).collect()
    }

    pub(crate) fn name(&self) -> String {
        format!("worker[{}]", self.position)
    }

    /// Its processes: pid, what they do, since when.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (u32, &'static str, Duration)> {
        let lives = self.serving.iter().chain(&self.next);
        lives.map(|life| (life.child.pid(), life.stage.text(), life.child.age()))
    }

    /// How long until a dead one is started again.
    pub(crate) fn wait(&self) -> Option<Duration> {
        self.serving.is_none().then(|| self.backoff.due.saturating_duration_since(Instant::now()))
    }
}

/// The state of a queue in which packets wait.
fn waiting(queue: u16) -> Result<Option<QueueState>, Error> {
    Ok(queue_owners()?.into_iter().find(|state| state.queue == queue && state.waiting > 0))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
