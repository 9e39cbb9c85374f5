//! A running instance: the loop that watches over the children and does what is asked of it. It waits for nobody.

mod explain;
mod operate;
mod reload;
mod report;
mod start;
mod status;
mod upgrade;
mod watch;

use crate::Error;
use crate::children::audit::AuditLog;
use crate::children::briefing;
use crate::children::child::Obituary;
use crate::children::memory::random;
use crate::children::prober::{self, Prober};
use crate::children::worker::{self, Worker};
use crate::handover::journal::Journal;
use crate::process::signals::Signals;
use crate::roster::Roster;
use crate::run::Options;
use explain::Questions;
use loaded_config::plan::Plan;
use loaded_control::{By, Control, Event, History, unix_ms};
use loaded_ipc::ServiceIndex;
use loaded_netfilter::routes::Routes;
use loaded_netfilter::{Installed, Keys, RuleSet, Steering};
use loaded_queue::Repeat;
use loaded_queue::{QueueState, queue_owners};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use reload::{LastReload, Reload};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};
pub(crate) use upgrade::Invocation;
use upgrade::Upgrade;
use watch::Watch;

/// How long packets that still wait may take to be answered once the rules are gone.
const DRAIN_DEADLINE: Duration = Duration::from_secs(3);
/// How long a child may take to end once its link is closed: a worker looks every 50 ms.
const DISMISS_DEADLINE: Duration = Duration::from_secs(1);
/// Between looks at something that has no descriptor to wait on.
const PAUSE: Duration = Duration::from_millis(5);

/// A running instance.
pub(crate) struct Instance {
    /// With absolute paths: what a reload reads.
    pub(crate) options: Options,
    pub(crate) plan: Plan,
    pub(crate) roster: Roster,
    pub(crate) steering: Steering,
    pub(crate) rules: RuleSet,
    pub(crate) queues: Vec<u16>,
    pub(crate) terms: (worker::Terms, prober::Terms),
    pub(crate) workers: Vec<Worker>,
    pub(crate) prober: Prober,
    pub(crate) signals: Signals,
    /// `None` only while it is served.
    control: Option<Control>,
    /// Layers of the sandbox that this kernel has.
    layers: Vec<String>,
    since: SystemTime,
    /// The same by the clock that nobody sets.
    began: Instant,
    history: History,
    reload: Option<Reload>,
    last_reload: Option<LastReload>,
    /// When another binary could not take over, and why.
    refused_upgrade: Option<(SystemTime, String)>,
    /// HUP has come during a reload.
    again: bool,
    /// Answered a look for new backends, and not yet in the roster.
    found: BTreeSet<(ServiceIndex, IpAddr)>,
    watch: Watch,
    questions: Questions,
    installed: Option<Installed>,
    routes: Routes,
    audit: AuditLog,
    repeat: Repeat,
    journal: Journal,
    /// Something has changed that the journal does not say yet.
    unwritten: bool,
    /// When it was written last, and who the workers were.
    written: (Instant, Vec<(u16, u32)>),
    invocation: Invocation,
    upgrade: Option<Upgrade>,
    /// USR2 has come during another change.
    upgrade_again: bool,
    /// Workers of a dead supervisor are being taken over.
    adopts: bool,
    /// The start is over.
    serves: bool,
}

/// How an instance comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was told to.
    Ended,
    /// Another one serves in its place.
    Followed,
}

/// What an instance begins with.
pub(crate) struct Start {
    pub(crate) options: Options,
    pub(crate) plan: Plan,
    pub(crate) roster: Roster,
    pub(crate) steering: Steering,
    pub(crate) rules: RuleSet,
    pub(crate) queues: Vec<u16>,
    pub(crate) terms: (worker::Terms, prober::Terms),
    pub(crate) workers: Vec<Worker>,
    pub(crate) prober: Prober,
    pub(crate) signals: Signals,
    /// `None`: a predecessor has it yet.
    pub(crate) control: Option<Control>,
    pub(crate) routes: Routes,
    pub(crate) layers: Vec<String>,
    pub(crate) history: History,
    pub(crate) journal: Journal,
    pub(crate) invocation: Invocation,
    pub(crate) audit: AuditLog,
    pub(crate) repeat: Repeat,
}

impl Instance {
    pub(crate) fn new(start: Start) -> Self {
        let Start { options, plan, roster, steering, rules, queues, terms, workers, prober, signals, .. } = start;
        let Start { control, routes, layers, history, journal, invocation, audit, repeat, .. } = start;
        Self {
            options,
            plan,
            roster,
            steering,
            rules,
            queues,
            terms,
            workers,
            prober,
            signals,
            control,
            layers,
            since: SystemTime::now(),
            began: Instant::now(),
            history,
            reload: None,
            last_reload: None,
            refused_upgrade: None,
            again: false,
            found: BTreeSet::new(),
            watch: Watch::new(),
            questions: Questions::default(),
            installed: None,
            routes,
            journal,
            unwritten: true,
            written: (Instant::now(), Vec::new()),
            invocation,
            upgrade: None,
            upgrade_again: false,
            adopts: false,
            serves: false,
            audit,
            repeat,
        }
    }

    /// Whether there is work for a prober.
    fn is_probed(&self) -> bool {
        self.roster.services().any(|(_, entry)| entry.leaves.is_none() && entry.service.check.is_some())
    }

    /// Watches until told to end, or followed by another one.
    pub(crate) fn serve(&mut self) -> Result<Exit, Error> {
        self.serves = true;
        loop {
            // A machine that is short of something for a moment must not cost the children that run.
            if let Err(error) = self.launch() {
                log::error!("{error}; to be tried again");
            }
            self.turn(Instant::now() + Duration::from_secs(3600))?;
            for death in self.bury() {
                log::error!("{death}");
            }
            self.step();
            if self.step_upgrade() {
                return Ok(Exit::Followed);
            }
            self.look();
            if self.signals.take_reload() {
                self.ask_reload();
            }
            if self.signals.take_upgrade() {
                self.ask_upgrade();
            }
            if self.signals.take_report() {
                self.report();
            }
            self.keep_written();
            // Who has given way cannot end alone: this is over in a moment, either way.
            if !self.has_given_way() && self.signals.take_end() {
                return Ok(Exit::Ended);
            }
        }
    }

    /// Starts every child that is due. The error is the first.
    fn launch(&mut self) -> Result<(), Error> {
        if self.has_given_way() {
            return Ok(());
        }
        let probes = self.may_probe();
        let Self { workers, roster, terms, prober, .. } = self;
        let mut first = Ok(());
        for worker in workers.iter_mut() {
            first = first.and(worker.start(&terms.0, |worker| briefing::to_worker(roster, worker, Instant::now())));
        }
        if probes {
            first = first.and(prober.start(&terms.1, roster, workers));
        }
        first
    }

    /// Waits for something to happen, but not beyond `until`, and deals with the links and the control socket.
    fn turn(&mut self, until: Instant) -> Result<(), Error> {
        let gave_way = self.has_given_way();
        let ours = self.workers.iter().filter_map(Worker::due).chain(self.prober_due());
        // Who has given way starts nobody, whenever that was due.
        let timed = ours.filter(|due| !gave_way || *due > Instant::now());
        let timed = timed.chain(self.control.as_ref().and_then(Control::next_deadline)).chain([self.watch.due()]);
        let timed = timed.chain(self.questions.due()).chain(self.upgrade_due());
        let next = timed.fold(until, Instant::min);
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        let mut wanted = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        let links = self.workers.iter().flat_map(Worker::links).chain(self.prober.link());
        wanted.extend(links.map(|(link, sending)| {
            let out = if sending { PollFlags::POLLOUT } else { PollFlags::empty() };
            PollFd::new(link, PollFlags::POLLIN | out)
        }));
        wanted.extend(self.successor().map(|link| PollFd::new(link, PollFlags::POLLIN)));
        // What is asked of who has given way waits for the other one.
        if let Some(control) = self.control.as_ref().filter(|_| !gave_way) {
            control.poll_fds(&mut wanted);
        }
        let wait = PollTimeout::try_from(wait).unwrap_or(PollTimeout::MAX);
        match poll(&mut wanted, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::Start { act: "wait for children", source: errno.into() }),
        }
        drop(wanted);
        self.signals.drain();
        // The prober first: what it has told a worker that is dead by now, it has told us before.
        let news = self.prober.talk(&self.terms.1, &mut self.roster);
        self.hear(news);
        for worker in &mut self.workers {
            worker.talk(&self.terms.0);
        }
        self.answer_questions();
        if !gave_way {
            self.answer();
        }
        Ok(())
    }

    /// Whether a prober may be started: not while workers prepare for another roster; nor at the start before they are ready,
    /// for what it does by then must not be taken for a start that fails.
    fn may_probe(&self) -> bool {
        let ready = self.serves || self.workers.iter().all(Worker::can_follow);
        ready && self.reload.as_ref().is_none_or(Reload::is_switched)
    }

    /// A prober that there is no work for is never due; while workers prepare none is started.
    fn prober_due(&self) -> Option<Instant> {
        let running = self.prober.link().is_some();
        let wanted = self.may_probe() && self.is_probed();
        (running || wanted).then(|| self.prober.due()).flatten()
    }

    /// Collects children that have ended, and says how.
    fn bury(&mut self) -> Vec<String> {
        let mut deaths: Vec<_> = self.workers.iter_mut().flat_map(Worker::reap).collect();
        deaths.extend(self.prober.reap(&self.roster, &self.workers));
        let texts = deaths.into_iter().map(|Obituary { name, text, fenced }| match fenced {
            None => format!("{name}: {text}"),
            Some(pid) => {
                let cause = self.audit.cause(&name, pid);
                self.note_fenced(format!("{name} killed by its fence"), format!("pid {pid}: {cause}"));
                format!("{name}: {text}; {cause}")
            }
        });
        texts.collect()
    }

    /// A security event must be found after the log has scrolled by.
    pub(crate) fn note_fenced(&mut self, what: String, cause: String) {
        let at = unix_ms(SystemTime::now());
        self.history.push(Event { at, service: None, address: None, what, cause, by: By::Kernel });
    }

    fn report(&self) {
        let queues = queue_owners().unwrap_or_default();
        for worker in &self.workers {
            let queue = queues.iter().find(|state| state.queue == worker.owner.queue());
            log::info!("{}", report::line(worker, queue));
        }
    }

    /// Takes the rules out, lets the workers answer what still waits, and ends them.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        self.stop_upgrade();
        let mut installed = self.installed.take();
        let removed = installed.as_mut().map_or(Ok(()), Installed::remove);
        if !self.drain() {
            log::warn!("packets still wait in our queues after {DRAIN_DEADLINE:?}; they are dropped");
        }
        // Nobody marks packets any more: what still waited has its verdict, or is dropped with its queue.
        if let Err(error) = self.routes.remove() {
            log::warn!("{error}");
        }
        self.report();
        let mut leaving: Vec<_> = self.workers.iter_mut().flat_map(Worker::dismiss).collect();
        leaving.extend(self.prober.dismiss());
        let deadline = Instant::now() + DISMISS_DEADLINE;
        for process in &mut leaving {
            while matches!(process.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(PAUSE);
            }
            if matches!(process.try_wait(), Ok(None)) {
                // Its death is certain then, and waiting short.
                let _ = process.kill();
            }
            match process.wait() {
                Ok(status) if status.success() => {}
                Ok(status) => log::error!("child with pid {}: {status} at its dismissal", process.id()),
                Err(error) => log::error!("wait for pid {}: {error}", process.id()),
            }
        }
        // The queues go before the last of the hooks: unregistering a hook flushes every queue that still is.
        drop(self.workers);
        for note in installed.map(Installed::tidy).unwrap_or_default() {
            log::warn!("{note}");
        }
        log::info!("ended");
        Ok(removed?)
    }

    /// Workers that change over, or have to be started again, still do so: somebody must answer what waits.
    fn drain(&mut self) -> bool {
        let deadline = Instant::now() + DRAIN_DEADLINE;
        loop {
            let is_ours = |state: &QueueState| self.queues.contains(&state.queue);
            let waiting =
                queue_owners().is_ok_and(|queues| queues.iter().any(|state| is_ours(state) && state.waiting > 0));
            if !waiting {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            for problem in [self.launch(), self.turn(Instant::now() + PAUSE)].into_iter().filter_map(Result::err) {
                log::error!("{problem}");
            }
            for death in self.bury() {
                log::error!("{death}");
            }
        }
    }
}

/// Fresh at every start: nobody can choose addresses that all meet one worker.
pub(crate) fn steering_keys() -> Result<Keys, Error> {
    let mut words = [0; 6];
    for word in &mut words {
        *word = u32::from_ne_bytes(random()?);
    }
    Ok(Keys::new(words))
}
