//! The exporter as the supervisor sees it: the socket that listens, which stays, and the process, which comes and goes. What it
//! shows is made when somebody asks, and seldom enough that nobody can keep the supervisor busy by asking.

mod listener;
mod process;

use crate::Error;
use crate::child::{ChildSpec, DeathReport, dup, leading_arguments, requirement_word};
use crate::heartbeat::Heartbeat;
use crate::restarts::{Backoff, Lives};
use listener::Listener;
use loaded_config::plan::{MetricsAddress, Plan};
use loaded_ipc::{Document, EXPORTER_LINK_FD, LISTENER_FD, MAX_DOCUMENT, MAX_PART, ToExporter, VERSION};
use process::{ExporterChild, ExporterProcess, MOST_TALK, SILENCE, reason};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Child as Process;
use std::time::{Duration, Instant};

pub use listener::Bound;

/// Between two documents of a kind.
const EVERY: Duration = Duration::from_millis(250);
/// After a document that takes long to make, the next one waits this many times as long.
const REST: u32 = 20;
/// Between two attempts to listen.
const LISTEN_AGAIN: Duration = Duration::from_secs(2);

/// The exporter of an instance.
#[derive(Debug)]
pub struct Exporter {
    listener: Listener,
    process: Option<ExporterProcess>,
    /// Told to stop; they answer whoever has asked, and end.
    leaving: Vec<Process>,
    /// Its starts and deaths, and when it may start again.
    pub lives: Lives,
    /// When a document of each kind may be made again.
    rests: [Instant; Document::ALL.len()],
}

/// What a change of the configuration means for the socket.
#[derive(Debug)]
pub enum ListenerChange {
    /// Nothing.
    None,
    /// The port or the path stays, with another address or group: it can be had only once the old socket is closed.
    Again,
    /// It is this one from then on, or none.
    To(Option<Bound>),
}

/// A document, ready to be sent.
#[derive(Debug)]
pub struct Made {
    /// The document.
    pub text: String,
    /// Whether the instance serves.
    pub serves: bool,
}

impl Exporter {
    /// Listens where the plan says, if it does. `inherited`: the socket of a predecessor.
    ///
    /// # Errors
    /// If nobody can listen there.
    pub fn new(plan: &Plan, inherited: Option<Bound>) -> Result<Self, Error> {
        let mut this = Self::silent();
        let bound = inherited.map_or_else(|| Listener::bind(plan), |bound| Ok(Some(bound)))?;
        this.listener.put(bound);
        Ok(this)
    }

    /// The same, where others serve meanwhile: that nobody can listen is logged, and tried again.
    pub fn beside(plan: &Plan, inherited: Option<Bound>) -> Self {
        Self::new(plan, inherited).unwrap_or_else(|error| {
            log::error!("{error}; will try again");
            Self::silent()
        })
    }

    fn silent() -> Self {
        let now = Instant::now();
        Self {
            listener: Listener::none(),
            process: None,
            leaving: Vec::new(),
            lives: Lives::new(),
            rests: [now; Document::ALL.len()],
        }
    }

    /// The listening socket and its address, to be handed over.
    pub fn socket(&self) -> Option<(BorrowedFd<'_>, &MetricsAddress)> {
        self.listener.bound().map(|bound| (bound.as_fd(), bound.address()))
    }

    /// What changes for it from one plan to another.
    ///
    /// # Errors
    /// If nobody can listen at the new address.
    pub fn prepare(&self, current: &Plan, next: &Plan) -> Result<ListenerChange, Error> {
        let is_held = match (&current.metrics, &next.metrics) {
            (Some(MetricsAddress::Tcp(old)), Some(MetricsAddress::Tcp(new))) => old.port() == new.port(),
            (old, new) => old == new,
        };
        match is_held {
            _ if (&current.metrics, &current.monitor_group) == (&next.metrics, &next.monitor_group) => {
                Ok(ListenerChange::None)
            }
            true => Ok(ListenerChange::Again),
            false => Listener::bind(next).map(ListenerChange::To),
        }
    }

    /// Listens by the new plan from now on.
    pub fn change(&mut self, change: ListenerChange) {
        let next = match change {
            ListenerChange::None => return,
            // The next start binds it.
            ListenerChange::Again => None,
            ListenerChange::To(next) => next,
        };
        self.stop();
        self.listener.put(next);
        self.lives.backoff = Backoff::new();
    }

    /// Starts it if it is due and there is somebody to listen to. If it cannot be started, it is due again later.
    ///
    /// # Errors
    /// If nobody can listen there (the same failure is reported once), or the process cannot be started.
    pub fn start(&mut self, spec: &ChildSpec, plan: &Plan) -> Result<(), Error> {
        self.leaving.retain_mut(|process| matches!(process.try_wait(), Ok(None)));
        if plan.metrics.is_none() || self.process.is_some() || !self.lives.backoff.is_due() {
            return Ok(());
        }
        if self.listener.bound().is_none() {
            match Listener::bind(plan) {
                Ok(bound) => self.listener.put(bound),
                Err(error) => {
                    self.lives.backoff.due = Instant::now() + LISTEN_AGAIN;
                    return self.listener.is_news(&error).then_some(error).map_or(Ok(()), Err);
                }
            }
        }
        let Some(bound) = self.listener.bound() else { return Ok(()) };
        let spawned = dup(bound.as_fd()).and_then(|listener| {
            let mut words = leading_arguments("exporter", &spec.identity);
            words.extend([std::process::id().to_string(), requirement_word(spec.requirement)]);
            let hello = vec![ToExporter::Hello { version: VERSION }];
            ExporterChild::spawn(&words, EXPORTER_LINK_FD, vec![(listener, LISTENER_FD)], hello)
        });
        match spawned {
            Ok(child) => {
                let (heartbeat, wanted) = (Heartbeat::new(MOST_TALK, SILENCE), [false; Document::ALL.len()]);
                self.process = Some(ExporterProcess { child, is_serving: false, heartbeat, wanted, stopped: false });
                self.lives.note_start();
                Ok(())
            }
            Err(error) => {
                self.lives.backoff.after_failed_start();
                Err(error)
            }
        }
    }

    /// Lets it answer whoever has asked, and end.
    pub fn stop(&mut self) {
        if let Some(life) = self.process.take() {
            match life.child.has_ended() || !life.is_serving || !life.child.was_told() {
                // In the middle of a document, or of its start, it would take Stop for an attack.
                true => {
                    let mut process = life.child.dismiss(None);
                    let _ = process.kill();
                    self.leaving.push(process);
                }
                false => self.leaving.push(life.child.dismiss(Some(ToExporter::Stop))),
            }
        }
    }

    /// Gives the socket up, and whoever waits for an answer.
    pub fn dismiss(&mut self) -> Vec<Process> {
        self.stop();
        self.listener.put(None);
        std::mem::take(&mut self.leaving)
    }

    /// The link to wait on, and whether there is something to send.
    pub fn link(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.process.as_ref()?.child.link()
    }

    /// When something is to be done about it that no descriptor announces.
    pub fn due(&self) -> Option<Instant> {
        match &self.process {
            Some(life) if life.child.has_ended() => None,
            Some(life) => {
                let wanted = life.wanted.iter().zip(self.rests).filter(|(is_wanted, _)| **is_wanted);
                let free = wanted.filter(|_| life.child.was_told()).map(|(_, at)| at).min();
                Some(free.map_or(life.deadline(), |at| at.min(life.deadline())))
            }
            None => Some(self.lives.backoff.due),
        }
    }

    /// Hears what it says. One that is out of step, too talkative or silent is killed.
    pub fn talk(&mut self, spec: &ChildSpec) {
        let Some(life) = self.process.as_mut().filter(|life| !life.child.has_ended()) else { return };
        if let Err(problem) = life.talk(spec) {
            log::error!("exporter: {problem}; killing it");
            life.child.condemn(problem);
        }
    }

    /// The document that is to be made now, if any: only once the one before has been taken.
    pub fn wanted(&self, now: Instant) -> Option<Document> {
        let life = self.process.as_ref().filter(|life| !life.child.has_ended() && life.child.was_told())?;
        let due = |document: &Document| life.wanted[*document as usize] && self.rests[*document as usize] <= now;
        Document::ALL.into_iter().find(due)
    }

    /// Sends a document that it has asked for, which has taken this long to make.
    pub fn send(&mut self, document: Document, made: Made, cost: Duration) {
        self.rests[document as usize] = Instant::now() + EVERY.max(cost * REST);
        let Some(life) = &mut self.process else { return };
        life.wanted[document as usize] = false;
        let Made { mut text, serves } = made;
        if text.is_empty() || text.len() > MAX_DOCUMENT {
            log::error!("exporter: a document of {} bytes is not sent; the limit is {MAX_DOCUMENT}", text.len());
            text = format!("the document would have {} bytes, more than {MAX_DOCUMENT}\n", text.len());
        }
        let bytes = u32::try_from(text.len()).unwrap_or(u32::MAX);
        life.child.tell(ToExporter::Document { document, bytes, serves });
        text.as_bytes().chunks(MAX_PART).for_each(|part| life.child.tell(ToExporter::Part(part.to_vec())));
        life.heartbeat.restart();
        if let Err(problem) = life.child.flush() {
            life.child.condemn(problem);
        }
    }

    /// Its death, if it has died and we have not stopped it.
    pub fn reap(&mut self) -> Option<DeathReport> {
        let life = self.process.as_mut()?;
        let death = life.child.reap(reason)?;
        let stopped = life.stopped;
        self.process = None;
        self.lives.note_death("exporter", death, stopped)
    }

    /// Kills it.
    pub fn kill(&mut self) {
        if let Some(life) = &mut self.process {
            life.child.kill();
            life.stopped = true;
        }
        for process in &mut self.leaving {
            let _ = process.kill();
        }
    }

    /// Its process: pid, stage, age.
    pub fn process(&self) -> Option<(u32, &'static str, Duration)> {
        let life = self.process.as_ref()?;
        Some((life.child.pid(), if life.is_serving { "serving" } else { "preparing" }, life.child.age()))
    }

    /// Its process ids, of those too that are about to end.
    pub fn pids(&self) -> impl Iterator<Item = u32> {
        self.process().map(|(pid, ..)| pid).into_iter().chain(self.leaving.iter().map(Process::id))
    }
}
