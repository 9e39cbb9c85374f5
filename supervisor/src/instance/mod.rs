//! A running instance: the loop that watches over the children and does what is asked of it. It waits for nobody.
//!
//! - [`operator`]: what the operator asks for, and gets. [`survey`]: what is looked at regularly, and what comes of it.
//!   [`change`]: how it changes from one state to another.
//! - [`generation`], [`fixed`], [`host`], [`recorder`], [`replies`], [`watch`], [`firewall`]: the other parts of its state.
//! - `observe`: what changes by itself. `note`: what is noted of it. `put_back`: what others remove. `health`, `oddities`: the
//!   verdict. `record`: the journal.

mod change;
mod firewall;
pub(crate) mod fixed;
pub(crate) mod generation;
mod health;
pub(crate) mod host;
mod note;
mod observe;
mod oddities;
pub(crate) mod operator;
mod put_back;
mod record;
pub(crate) mod recorder;
mod replies;
mod survey;
mod watch;

use crate::Error;
use crate::children::Children;
use crate::children::DeathReport;
use crate::children::notices::{Notices, Subject};
use crate::handover::successor::Successor;
use crate::process::orphans;
use crate::process::signals::Signals;
use change::phase::{Phase, Postponed};
use change::soft_stop::SoftStop;
use firewall::FirewallWatch;
use fixed::Fixed;
use generation::Generation;
use host::HostState;
use loaded_queue::queue_owners;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use operator::Operator;
use recorder::Recorder;
use replies::RefusedReplies;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use survey::Survey;
use watch::Watch;

/// The loop looks at everything at least this often.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A running instance.
pub(crate) struct Instance {
    fixed: Fixed,
    phase: Phase,
    postponed: Postponed,
    /// What it serves by.
    current: Generation,
    children: Children,
    pub(crate) host: HostState,
    recorder: Recorder,
    operator: Operator,
    survey: Survey,
    watch: Watch,
    firewall: FirewallWatch,
    replies: RefusedReplies,
    notices: Notices,
    /// Set once it was told to end.
    soft_stop: Option<SoftStop>,
    signals: Signals,
}

/// How an instance comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It was told to end.
    Ended,
    /// A successor serves in its place.
    Succeeded,
}

impl Instance {
    /// An instance that has everything and has started nothing.
    pub(crate) fn new(
        fixed: Fixed,
        current: Generation,
        children: Children,
        host: HostState,
        recorder: Recorder,
        operator: Operator,
        signals: Signals,
    ) -> Self {
        let (phase, postponed) = (Phase::Starting, Postponed::default());
        let (survey, watch, mut firewall) = (Survey::new(), Watch::new(), FirewallWatch::new());
        // So that its result is there when the first verdict is found.
        firewall.look(Instant::now(), &current.plan, current.roster.generation(), queue_owners().ok().as_deref());
        let replies = RefusedReplies::new(Instant::now());
        Self {
            fixed,
            phase,
            postponed,
            current,
            children,
            host,
            recorder,
            operator,
            survey,
            watch,
            firewall,
            replies,
            notices: Notices::new(Instant::now()),
            soft_stop: None,
            signals,
        }
    }

    /// Serves until told to end, or until a successor serves.
    ///
    /// # Errors
    /// If the kernel does not let it wait.
    pub(crate) fn serve(&mut self) -> Result<Exit, Error> {
        self.phase = Phase::Serving;
        self.open_for_monitors();
        // Whoever is told of changes hears where they begin, at a start, a takeover and an upgrade.
        let health = &self.survey.health;
        let causes = health.causes().collect::<Vec<_>>().join("; ");
        self.notices.add(&self.current.plan, Subject::Verdict, health.verdict.label(), &causes);
        self.begin_watch();
        loop {
            // A momentary shortage on this machine must not cost us the children that run.
            self.start_children_or_log();
            self.poll_once(Instant::now() + LONGEST_WAIT)?;
            self.log_deaths();
            self.continue_reconfiguration();
            if self.continue_upgrade() {
                return Ok(Exit::Succeeded);
            }
            self.observe();
            self.watch();
            self.notices.go_on(&self.current.plan, self.survey.health.verdict.label(), Instant::now());
            if self.signals.take_reload() {
                self.ask_reload();
            }
            if self.signals.take_upgrade() {
                self.ask_upgrade();
            }
            if self.signals.take_report() {
                self.report();
            }
            self.write_snapshot_if_due();
            // During a hand-over TERM waits; it is over in a moment.
            if !self.phase.has_given_way()
                && (self.signals.take_end() && self.is_told_to_end() || self.is_soft_stop_over())
            {
                return Ok(Exit::Ended);
            }
        }
    }

    /// Starts every child that is due. Returns the first error.
    fn start_children(&mut self) -> Result<(), Error> {
        if self.phase.has_given_way() {
            return Ok(());
        }
        let may_probe = self.may_probe();
        let exports = Some(&self.current.plan).filter(|_| !self.phase.is_start());
        Ok(self.children.start(&self.current.roster, may_probe, exports)?)
    }

    fn start_children_or_log(&mut self) {
        if let Err(error) = self.start_children() {
            log::error!("{error}; will try again");
        }
    }

    /// Waits for something to happen, but not beyond `until`, and deals with the links and the control socket.
    fn poll_once(&mut self, until: Instant) -> Result<(), Error> {
        let has_given_way = self.phase.has_given_way();
        self.wait(until)?;
        self.signals.clear_wakeup();
        // The prober first: whatever it has told a worker that is dead by now, it has told us before.
        let news = self.children.prober.talk(&self.children.specs.prober, &mut self.current.roster);
        self.hear_prober(news);
        for worker in &mut self.children.workers {
            worker.talk(&self.children.specs.worker);
        }
        self.note_damages();
        self.answer_questions();
        self.continue_searches();
        self.conclude_ending();
        self.serve_exporter();
        if !has_given_way {
            self.serve_control_socket();
        }
        Ok(())
    }

    /// Waits for a descriptor or a deadline, but not beyond `until`.
    fn wait(&self, until: Instant) -> Result<(), Error> {
        let has_given_way = self.phase.has_given_way();
        let mut wanted = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        wanted.extend(self.children.links().map(|(link, sending)| {
            let out = if sending { PollFlags::POLLOUT } else { PollFlags::empty() };
            PollFd::new(link, PollFlags::POLLIN | out)
        }));
        wanted.extend(self.phase.link().map(|link| PollFd::new(link, PollFlags::POLLIN)));
        // Requests that arrive during a hand-over wait for the successor.
        self.operator.sockets().filter(|_| !has_given_way).for_each(|control| control.poll_fds(&mut wanted));
        wanted.extend(self.watch.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let left = self.next_deadline(until).saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        match poll(&mut wanted, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(errno) => Err(Error::Start { act: "wait for children", source: errno.into() }),
        }
    }

    /// When something is to be done that no descriptor announces, at the latest `until`.
    fn next_deadline(&self, until: Instant) -> Instant {
        let starts_nothing = self.phase.has_given_way();
        let children = self.children.workers.iter().filter_map(|worker| worker.due()).chain(self.prober_due());
        let children = children.chain(self.exporter_due());
        // During a hand-over no child is started, however long it has been due.
        let children = children.filter(|due| !starts_nothing || *due > Instant::now());
        // A successor looks after the rules once its workers serve.
        let rules = self.watch.due().filter(|_| !starts_nothing);
        let stop = self.soft_stop.as_ref().map(|stop| stop.due(Instant::now()));
        let others =
            self.operator.deadlines().chain([self.survey.due()]).chain(self.phase.deadline()).chain(rules).chain(stop);
        let notices = self.notices.due(Instant::now());
        children.chain(others).chain(notices).fold(until, Instant::min)
    }

    /// Whether a prober may be started: not while workers prepare for another generation; nor at the start before they are
    /// prepared, since what the prober does by then must not count as a failed start.
    fn may_probe(&self) -> bool {
        match self.phase {
            Phase::Starting | Phase::AdoptingOrphans => {
                self.children.workers.iter().all(|worker| worker.can_take_over())
            }
            _ => !self.phase.is_preparing(),
        }
    }

    /// When something is to be done about the prober: never if there is nothing to probe.
    fn prober_due(&self) -> Option<Instant> {
        let is_running = self.children.prober.link().is_some();
        let is_wanted = self.may_probe() && self.current.roster.is_probed();
        (is_running || is_wanted).then(|| self.children.prober.due()).flatten()
    }

    /// When something is to be done about the exporter: never if nobody is to be shown anything.
    fn exporter_due(&self) -> Option<Instant> {
        let is_running = self.children.exporter.link().is_some();
        let is_wanted = !self.phase.is_start() && self.current.plan.metrics.is_some();
        (is_running || is_wanted).then(|| self.children.exporter.due()).flatten()
    }

    /// Collects children that have died, and says how, and whether their sandbox has killed them: that goes to the history too.
    fn reap(&mut self) -> Vec<(String, bool)> {
        let deaths = self.children.reap(&self.current.roster).into_iter();
        let texts = deaths.map(|DeathReport { name, text, sandboxed_pid }| match sandboxed_pid {
            None => (format!("{name}: {text}"), false),
            Some(pid) => {
                let cause = self.children.audit.cause(&name, pid);
                self.operator
                    .record_security_event(format!("{name} killed by its sandbox"), format!("pid {pid}: {cause}"));
                (format!("{name}: {text}; {cause}"), true)
            }
        });
        texts.collect()
    }

    fn log_deaths(&mut self) {
        let deaths = self.reap();
        for (death, by_sandbox) in &deaths {
            match by_sandbox {
                true => log::error!(event = "security"; "{death}"),
                false => log::error!("{death}"),
            }
        }
        let others = self.phase.successor().map(Successor::pid).into_iter().chain(self.notices.pids());
        let ours: Vec<_> = self.children.pids().chain(others).collect();
        orphans::reap(&ours);
        // Its tables may have been made anew.
        if let (Some(fast), false) = (&self.host.fast, deaths.is_empty()) {
            fast.tell_tables(&self.children.workers);
        }
    }
}
