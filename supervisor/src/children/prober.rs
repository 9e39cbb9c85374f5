//! The prober from the supervisor's side: its sockets, which stay, and its process, which comes and goes. Whatever becomes
//! of the process, the roster keeps what it said last.

use crate::Error;
use crate::children::briefing;
use crate::children::child::{Backoff, Child, Obituary, dup, floor_word, printable, who};
use crate::children::memory::random;
use crate::children::worker::Worker;
use crate::roster::{Impossible, Roster};
use loaded_ipc::{
    BackendIndex, CheckKind, FromProber, PING4_FD, PING6_FD, PROBER_LINK_FD, Pinger, ServiceIndex, ToProber,
    WORKERS_FD, mark_of,
};
use loaded_sandbox::proof::{Expectation, prove};
use loaded_sandbox::{Identity, SandboxRequirement};
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::Child as Process;
use std::time::{Duration, Instant};

/// A prober says once a second that it lives.
const SILENCE: Duration = Duration::from_secs(5);
/// Messages heard at a time; the rest waits.
const HEARD_AT_ONCE: u32 = 256;
/// Messages a second beside one of each backend: discovery, heartbeat, changes.
const IDLE_TALK: u32 = 1000;

/// The prober.
#[derive(Debug)]
pub(crate) struct Prober {
    ping4: (OwnedFd, Pinger),
    ping6: (OwnedFd, Pinger),
    life: Option<Life>,
    backoff: Backoff,
    pub(crate) restarts: u64,
    /// Deaths by its own fence.
    pub(crate) fenced: u64,
    died: bool,
    /// It was said what raw sockets mean.
    warned: bool,
}

#[derive(Debug)]
struct Life {
    child: Child<FromProber, ToProber>,
    generation: u64,
    stage: Stage,
    heard: Instant,
    /// Messages of this second.
    talk: (Instant, u32),
    /// More than so many a second is no work, but an attack.
    most: u32,
    /// We have ended it; another one is to come at once.
    stopped: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Preparing,
    Probing,
}

/// What the prober must be, in this instance.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) identity: Identity,
    pub(crate) floor: SandboxRequirement,
    pub(crate) expected: Expectation,
}

/// What has come of the prober's words.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Backends that went up or down.
    pub(crate) changed: Vec<BackendIndex>,
    /// Nodes that have answered a look for new ones.
    pub(crate) seen: Vec<(ServiceIndex, IpAddr)>,
}

impl Prober {
    /// Opens its sockets, while we may.
    pub(crate) fn new() -> Result<Self, Error> {
        Ok(Self {
            ping4: pinger(loaded_sandbox::Family::V4)?,
            ping6: pinger(loaded_sandbox::Family::V6)?,
            life: None,
            backoff: Backoff::new(),
            restarts: 0,
            fenced: 0,
            died: false,
            warned: false,
        })
    }

    /// Starts it if it is due and there is something to do.
    pub(crate) fn start(&mut self, terms: &Terms, roster: &Roster, workers: &[Worker]) -> Result<(), Error> {
        if self.life.is_some() || !self.backoff.is_due() {
            return Ok(());
        }
        let seed = match random() {
            Ok(bytes) => u64::from_ne_bytes(bytes),
            Err(error) => {
                self.backoff.after_no_start();
                return Err(error);
            }
        };
        let Some(messages) = briefing::to_prober(roster, (self.ping4.1, self.ping6.1), seed) else { return Ok(()) };
        self.warn(&messages);
        let targets = messages.iter().filter(|message| matches!(message, ToProber::Target { .. })).count();
        match self.spawn(terms, messages, workers) {
            Ok(child) => {
                let now = Instant::now();
                let most = u32::try_from(targets).unwrap_or(u32::MAX).saturating_mul(20).saturating_add(IDLE_TALK);
                let (generation, stage) = (roster.generation(), Stage::Preparing);
                self.life = Some(Life { child, generation, stage, heard: now, talk: (now, 0), most, stopped: false });
                self.restarts += u64::from(std::mem::take(&mut self.died));
                Ok(())
            }
            Err(error) => {
                self.backoff.after_no_start();
                Err(error)
            }
        }
    }

    /// Says once what it means when pings go by raw sockets.
    fn warn(&mut self, messages: &[ToProber]) {
        let pings = |message: &ToProber| match message {
            ToProber::Check { check, .. } => matches!(check.kind, CheckKind::Icmp | CheckKind::IcmpTcp { .. }),
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
        terms: &Terms,
        messages: Vec<ToProber>,
        workers: &[Worker],
    ) -> Result<Child<FromProber, ToProber>, Error> {
        let mut given = vec![(dup(&self.ping4.0)?, PING4_FD), (dup(&self.ping6.0)?, PING6_FD)];
        for (worker, fd) in workers.iter().zip(WORKERS_FD..) {
            given.push((dup(worker.membership())?, fd));
        }
        let marked = marked_sockets(&messages)?;
        let count = marked.len();
        given.extend(marked.into_iter().zip((WORKERS_FD..).skip(workers.len())));
        let mut words = who("prober", &terms.identity);
        words.extend([
            std::process::id().to_string(),
            floor_word(terms.floor),
            workers.len().to_string(),
            count.to_string(),
        ]);
        Child::spawn(&words, PROBER_LINK_FD, given, messages)
    }

    /// Ends it, so that it is started again with another roster.
    pub(crate) fn stop(&mut self) {
        if let Some(life) = self.life.as_mut().filter(|life| !life.child.has_ended()) {
            life.child.kill();
            life.stopped = true;
        }
    }

    /// The link, and whether there is something to send on it.
    pub(crate) fn link(&self) -> Option<(BorrowedFd<'_>, bool)> {
        self.life.as_ref()?.child.link()
    }

    /// When something is to be done about it that no descriptor tells.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.life {
            Some(life) if life.child.has_ended() => None,
            Some(life) => Some(life.deadline()),
            None => Some(self.backoff.due),
        }
    }

    pub(crate) fn is_probing(&self) -> bool {
        self.life.as_ref().is_some_and(|life| life.stage == Stage::Probing && !life.child.has_ended())
    }

    /// Hears what it says and tells the roster. Out of step, too talkative or silent, it is killed.
    pub(crate) fn talk(&mut self, terms: &Terms, roster: &mut Roster) -> News {
        let mut news = News::default();
        let Some(life) = self.life.as_mut().filter(|life| !life.child.has_ended()) else { return news };
        if let Err(problem) = life.talk(terms, roster, &mut news) {
            log::error!("prober: {problem}; killing it");
            life.child.condemn(problem);
        }
        news
    }

    /// Whether it has ended, and how; not a word if that was our wish.
    pub(crate) fn reap(&mut self, roster: &Roster, workers: &[Worker]) -> Option<Obituary> {
        let life = self.life.as_mut()?;
        let death = life.child.reap(farewell)?;
        let stopped = life.stopped && !death.fenced;
        self.life = None;
        if stopped {
            self.backoff = Backoff::new();
            return None;
        }
        // It may have told us, and not yet a worker; and the next one may have to wait.
        for worker in workers {
            let checked = roster.backends().filter(|(_, backend)| backend.health.proven && backend.leaves.is_none());
            worker.remind(roster.generation(), checked.map(|(index, backend)| (index, backend.health.up)));
        }
        self.died = true;
        self.backoff.after(death.lived);
        self.fenced += u64::from(death.fenced);
        Some(Obituary::new("prober".to_owned(), death))
    }

    /// Lets it end by itself.
    pub(crate) fn dismiss(&mut self) -> Option<Process> {
        self.life.take().map(|life| life.child.dismiss(None))
    }

    /// Its process: pid, what it does, since when.
    pub(crate) fn process(&self) -> Option<(u32, &'static str, Duration)> {
        let life = self.life.as_ref()?;
        let stage = if life.stage == Stage::Probing { "probing" } else { "preparing" };
        Some((life.child.pid(), stage, life.child.age()))
    }

    /// How long until a dead one is started again.
    pub(crate) fn wait(&self) -> Duration {
        self.backoff.due.saturating_duration_since(Instant::now())
    }
}

impl Life {
    fn deadline(&self) -> Instant {
        if self.stage == Stage::Probing { self.heard + SILENCE } else { self.child.deadline() }
    }

    fn talk(&mut self, terms: &Terms, roster: &mut Roster, news: &mut News) -> Result<(), String> {
        self.child.flush()?;
        let now = Instant::now();
        for _ in 0..HEARD_AT_ONCE {
            let Some(message) = self.child.hear()? else { break };
            self.heard = now;
            if now.duration_since(self.talk.0) >= Duration::from_secs(1) {
                self.talk = (now, 0);
            }
            self.talk.1 += 1;
            if self.talk.1 > self.most {
                return Err(format!("more than {} messages in a second", self.most));
            }
            self.take(message, terms, roster, news, now)?;
        }
        match self.deadline() <= now {
            false => Ok(()),
            true if self.stage == Stage::Probing => Err(format!("silent for {SILENCE:?}")),
            true => Err("not ready in time".to_owned()),
        }
    }

    fn take(
        &mut self,
        message: FromProber,
        terms: &Terms,
        roster: &mut Roster,
        news: &mut News,
        now: Instant,
    ) -> Result<(), String> {
        match (message, self.stage) {
            (FromProber::Failed(text), _) => self.child.confess(&text)?,
            (FromProber::Prepared { generation }, Stage::Preparing)
                if generation == self.generation && self.child.was_told() =>
            {
                prove(self.child.pid(), &terms.expected)
                    .map_err(|differences| format!("is not jailed as it should be: {}", differences.join("; ")))?;
                self.child.tell(ToProber::Go);
                self.child.flush()?;
                self.stage = Stage::Probing;
            }
            (FromProber::Alive, Stage::Probing) => {}
            (FromProber::Seen { service, address }, Stage::Probing) => {
                if roster.service(service).is_none_or(|entry| entry.service.discover.is_none()) {
                    return Err("has seen a node for a service that looks for none".to_owned());
                }
                news.seen.push((service, address));
            }
            (said @ (FromProber::Changed { .. } | FromProber::Measured { .. }), Stage::Probing) => {
                let changed = roster.judge(&said, now).map_err(|error: Impossible| error.to_string())?;
                news.changed.extend(changed);
            }
            (message, _) => return Err(printable(&format!("said {message:?} out of turn"))),
        }
        Ok(())
    }
}

fn farewell(message: FromProber) -> Option<String> {
    match message {
        FromProber::Failed(text) => Some(text),
        _ => None,
    }
}

/// A socket with its backend's mark for each target that is checked at a VIP, in their order. The prober has no right to
/// mark anything.
fn marked_sockets(messages: &[ToProber]) -> Result<Vec<OwnedFd>, Error> {
    let streams = |index: u16| {
        let mut checks = messages.iter().filter_map(|message| match message {
            ToProber::Check { index, check } => Some((*index, &check.kind)),
            _ => None,
        });
        let kind = checks.find(|(number, _)| *number == index).map(|(_, kind)| kind);
        !matches!(kind, Some(CheckKind::Udp { .. } | CheckKind::Dns { .. }))
    };
    let targets = messages.iter().filter_map(|message| match message {
        ToProber::Target { backend, check, vip: Some(vip), .. } => Some((*backend, *check, vip.is_ipv4())),
        _ => None,
    });
    let open = |(backend, check, v4)| Ok(loaded_sandbox::marked(v4, streams(check), mark_of(backend))?);
    targets.map(open).collect()
}

/// A socket that pings, or /dev/null where none can be had.
fn pinger(family: loaded_sandbox::Family) -> Result<(OwnedFd, Pinger), Error> {
    match loaded_sandbox::open_ping_socket(family) {
        Ok((socket, loaded_sandbox::PingKind::Ping)) => Ok((socket, Pinger::Ping)),
        Ok((socket, loaded_sandbox::PingKind::Raw)) => Ok((socket, Pinger::Raw)),
        Err(error) => {
            log::warn!("no ping socket: {error}; checks by ping will fail");
            let null = File::options().read(true).write(true).open("/dev/null");
            let null = null.map_err(|source| Error::Start { act: "open /dev/null", source })?;
            Ok((null.into(), Pinger::None))
        }
    }
}
