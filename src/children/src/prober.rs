//! The prober as the supervisor sees it: its sockets, which stay, and its process, which comes and goes. The roster keeps the
//! last results, whatever becomes of the process.

mod process;
mod sockets;

use crate::Error;
use crate::briefing;
use crate::child::{Child, ChildSpec, DeathReport, dup, leading_arguments, requirement_word};
use crate::heartbeat::Heartbeat;
use crate::late::LateChecks;
use crate::memory::random;
use crate::restarts::Lives;
use crate::worker::Worker;
use loaded_control::CheckFigures;
use loaded_ipc::{EPOLL_FD, FromProber, PING4_FD, PING6_FD, PROBER_LINK_FD, Pinger, ToProber, WORKERS_FD};
use loaded_roster::Roster;
use loaded_sandbox::Family;
pub use process::ProberNews;
use process::{ProberProcess, ProberStage, SILENCE, reason};
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Child as Process;
use std::time::{Duration, Instant};

/// Messages a second that are allowed in addition to twenty for each target: discovery, heartbeat, changes.
const IDLE_TALK: u32 = 1000;

/// The prober of an instance.
#[derive(Debug)]
pub struct Prober {
    ping4: (OwnedFd, Pinger),
    ping6: (OwnedFd, Pinger),
    process: Option<ProberProcess>,
    /// Its starts and deaths, and when it may start again.
    pub lives: Lives,
    /// Checks that began late.
    pub late: LateChecks,
    /// What the checks of each service have come to, by its name.
    pub figures: BTreeMap<String, CheckFigures>,
    /// The log already says what raw sockets mean.
    warned: bool,
}

impl Prober {
    /// Opens its sockets. Needs rights that the supervisor gives up later.
    ///
    /// # Errors
    /// If not even /dev/null can be opened in place of one.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            ping4: sockets::pinger(Family::V4)?,
            ping6: sockets::pinger(Family::V6)?,
            process: None,
            lives: Lives::new(),
            late: LateChecks::default(),
            figures: BTreeMap::new(),
            warned: false,
        })
    }

    /// Starts it if it is due and there is something to probe. If it cannot be started, it is due again later.
    ///
    /// # Errors
    /// If its sockets or its process cannot be made.
    pub fn start(&mut self, spec: &ChildSpec, roster: &Roster, workers: &[Worker]) -> Result<(), Error> {
        if self.process.is_some() || !self.lives.backoff.is_due() {
            return Ok(());
        }
        let seed = match random() {
            Ok(bytes) => u64::from_ne_bytes(bytes),
            Err(error) => {
                self.lives.backoff.after_failed_start();
                return Err(error);
            }
        };
        let Some(messages) = briefing::to_prober(roster, (self.ping4.1, self.ping6.1), seed) else { return Ok(()) };
        self.warn(&messages);
        // Services that are gone for good.
        self.figures.retain(|name, _| roster.services().any(|(_, entry)| entry.service.name == *name));
        let targets = messages.iter().filter(|message| matches!(message, ToProber::Target { .. })).count();
        match self.spawn(spec, messages, workers) {
            Ok(child) => {
                let most = u32::try_from(targets).unwrap_or(u32::MAX).saturating_mul(20).saturating_add(IDLE_TALK);
                let (generation, stage) = (roster.generation(), ProberStage::Preparing);
                let heartbeat = Heartbeat::new(most, SILENCE);
                self.process = Some(ProberProcess { child, generation, stage, heartbeat, stopped: false });
                self.lives.note_start();
                Ok(())
            }
            Err(error) => {
                self.lives.backoff.after_failed_start();
                Err(error)
            }
        }
    }

    /// Says once what it means that it pings by raw sockets.
    fn warn(&mut self, messages: &[ToProber]) {
        let pings = |message: &ToProber| match message {
            ToProber::Check { check, .. } => check.kind.pings(),
            message => matches!(message, ToProber::Discover { .. }),
        };
        let raw = self.ping4.1 == Pinger::Raw || self.ping6.1 == Pinger::Raw;
        if raw && !self.warned && messages.iter().any(pings) {
            self.warned = true;
            log::info!(
                "net.ipv4.ping_group_range forbids ping sockets: the prober pings by raw ones, locked to echo replies, and \
                 could send other ICMP from addresses of this host; sysctl -w \"net.ipv4.ping_group_range=0 0\" mends it"
            );
        }
    }

    fn spawn(
        &self,
        spec: &ChildSpec,
        messages: Vec<ToProber>,
        workers: &[Worker],
    ) -> Result<Child<FromProber, ToProber>, Error> {
        let mut descriptors = vec![(dup(&self.ping4.0)?, PING4_FD), (dup(&self.ping6.0)?, PING6_FD)];
        descriptors.push((sockets::epoll()?, EPOLL_FD));
        for (worker, fd) in workers.iter().zip(WORKERS_FD..) {
            descriptors.push((dup(worker.membership())?, fd));
        }
        let marked = sockets::marked(&messages)?;
        let count = marked.len();
        descriptors.extend(marked.into_iter().zip((WORKERS_FD..).skip(workers.len())));
        let mut words = leading_arguments("prober", &spec.identity);
        words.extend([
            std::process::id().to_string(),
            requirement_word(spec.requirement),
            workers.len().to_string(),
            count.to_string(),
        ]);
        Child::spawn(&words, PROBER_LINK_FD, descriptors, messages)
    }

    /// Ends it, so that it starts again with another roster.
    pub fn stop(&mut self) {
        if let Some(life) = self.process.as_mut().filter(|life| !life.child.has_ended()) {
            life.child.kill();
            life.stopped = true;
        }
    }

    /// The link to wait on, and whether there is something to send.
    pub fn link(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.process.as_ref()?.child.link()
    }

    /// When something is to be done about it that no descriptor announces.
    pub fn due(&self) -> Option<Instant> {
        match &self.process {
            Some(life) if life.child.has_ended() => None,
            Some(life) => Some(life.deadline()),
            None => Some(self.lives.backoff.due),
        }
    }

    /// Whether it checks backends.
    pub fn is_probing(&self) -> bool {
        self.process.as_ref().is_some_and(|life| life.stage == ProberStage::Probing && !life.child.has_ended())
    }

    /// Hears what it says and tells the roster. One that is out of step, too talkative or silent is killed.
    pub fn talk(&mut self, spec: &ChildSpec, roster: &mut Roster) -> ProberNews {
        let mut news = ProberNews::default();
        let Some(life) = self.process.as_mut().filter(|life| !life.child.has_ended()) else { return news };
        if let Err(problem) = life.talk(spec, roster, &mut news) {
            log::error!("prober: {problem}; killing it");
            life.child.condemn(problem);
        }
        for (backend, cause, latency) in std::mem::take(&mut news.results) {
            let service = roster.backend(backend).and_then(|backend| roster.service(backend.service));
            let Some(name) = service.map(|entry| &entry.service.name) else { continue };
            match self.figures.get_mut(name) {
                Some(figures) => figures.note(cause, latency),
                None => self.figures.entry(name.clone()).or_default().note(cause, latency),
            }
        }
        let (late, delay) = news.late;
        if let Some(line) = self.late.note(late, delay, Instant::now()) {
            log::warn!("{line}");
        }
        news
    }

    /// Its death, if it has died and we have not stopped it.
    pub fn reap(&mut self, roster: &Roster, workers: &[Worker]) -> Option<DeathReport> {
        let life = self.process.as_mut()?;
        let death = life.child.reap(reason)?;
        let stopped = life.stopped;
        self.process = None;
        let report = self.lives.note_death("prober", death, stopped)?;
        // It may have told us but not yet every worker, and the next prober may have to wait.
        for worker in workers {
            let checked = roster.backends().filter(|(_, backend)| backend.health.proven && backend.leaves.is_none());
            worker.remind(roster.generation(), checked.map(|(index, backend)| (index, backend.health.up)));
        }
        Some(report)
    }

    /// Lets it end by itself.
    pub fn dismiss(&mut self) -> Option<Process> {
        self.process.take().map(|life| life.child.dismiss(None))
    }

    /// Its process: pid, stage, age.
    pub fn process(&self) -> Option<(u32, &'static str, Duration)> {
        let life = self.process.as_ref()?;
        let stage = if life.stage == ProberStage::Probing { "probing" } else { "preparing" };
        Some((life.child.pid(), stage, life.child.age()))
    }
}
