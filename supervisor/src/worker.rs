//! One worker from the supervisor's side: its queue and memory, which stay, and its process, which comes and goes.

use crate::Error;
use crate::memory::Memory;
use command_fds::{CommandFdExt, FdMapping};
use loaded_ipc::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, LINK_FD, QUEUE_FD};
use loaded_ipc::{FromWorker, LinkError, ToWorker, WorkerLink};
use loaded_jail::proof::{Expectation, prove};
use loaded_jail::{Floor, Identity};
use loaded_queue::{Orphans, Owner};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Workers need about 20 ms each to be ready; a loaded machine may need longer.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(20);
/// A worker that lived this long is started again at once: at most one restart a second.
const HEALTHY_LIFE: Duration = Duration::from_secs(1);
/// The wait after the first short life, doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Six doublings; a worker that cannot live is tried eight times a minute.
const LONGEST_BACKOFF: Duration = Duration::from_millis(6400);
/// So many short lives that did not get ready, and it is the tables that are given up.
const HOPELESS: u32 = 2;
/// Two deaths within this time make the packets the worker held suspect.
const POISON_WINDOW: Duration = Duration::from_secs(10);

/// A worker.
#[derive(Debug)]
pub(crate) struct Worker {
    /// From 0.
    pub(crate) position: u16,
    pub(crate) core: u16,
    pub(crate) owner: Owner,
    pub(crate) memory: Memory,
    life: Life,
    died: Option<Instant>,
    short_lives: u32,
}

#[derive(Debug)]
enum Life {
    /// To be started at this time.
    Due(Instant),
    /// Being configured or serving.
    Running(Running),
}

#[derive(Debug)]
struct Running {
    process: Child,
    link: WorkerLink,
    outbox: VecDeque<ToWorker>,
    since: Instant,
    ready: bool,
    /// It was killed, or has closed its link. What else it says is not heard.
    ended: bool,
    /// What it said before it ended.
    last_words: Option<String>,
}

/// What all workers of an instance have in common.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pub(crate) identity: Identity,
    pub(crate) floor: Floor,
    /// What /proc must show of a worker that says it is ready.
    pub(crate) expected: Expectation,
}

impl Worker {
    pub(crate) fn new(position: u16, core: u16, owner: Owner, memory: Memory) -> Self {
        Self { position, core, owner, memory, life: Life::Due(Instant::now()), died: None, short_lives: 0 }
    }

    /// Starts the process if it is due. `messages` is what it is then told. When it cannot be started, it is due again
    /// later.
    pub(crate) fn start(&mut self, terms: &Terms, messages: impl FnOnce() -> Vec<ToWorker>) -> Result<(), Error> {
        match &self.life {
            Life::Due(at) if *at <= Instant::now() => {}
            _ => return Ok(()),
        }
        let started = self.launch(terms, messages);
        if started.is_err() {
            self.short_lives = self.short_lives.saturating_add(1);
            self.life = Life::Due(Instant::now() + self.backoff());
        }
        started
    }

    fn launch(&mut self, terms: &Terms, messages: impl FnOnce() -> Vec<ToWorker>) -> Result<(), Error> {
        let (link, theirs) = WorkerLink::pair()?;
        link.set_nonblocking()?;
        let process = self.spawn(terms, theirs.into())?;
        self.life = Life::Running(Running {
            process,
            link,
            outbox: messages().into(),
            since: Instant::now(),
            ready: false,
            ended: false,
            last_words: None,
        });
        Ok(())
    }

    /// How long to wait before the next try.
    fn backoff(&self) -> Duration {
        match self.short_lives {
            0 => Duration::ZERO,
            n => FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(6)).min(LONGEST_BACKOFF),
        }
    }

    fn spawn(&self, terms: &Terms, link: OwnedFd) -> Result<Child, Error> {
        let fail = |source| Error::Start { act: "start a worker", source };
        let dup = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(fail);
        let Memory { flows, clients, counters, .. } = &self.memory;
        let given = [
            (dup(self.owner.as_fd())?, QUEUE_FD),
            (link, LINK_FD),
            (dup(flows.as_fd())?, FLOWS_FD),
            (dup(clients.as_fd())?, CLIENTS_FD),
            (dup(counters.as_fd())?, COUNTERS_FD),
        ];
        let mappings = given.into_iter().map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        let Identity { uid, gid, name } = &terms.identity;
        let floor = if terms.floor == Floor::AllowWeak { "allow-weak" } else { "required" };
        let mut command = Command::new("/proc/self/exe");
        command.arg0("loaded").args(["--role", "worker"]).arg(uid.to_string()).arg(gid.to_string()).arg(name);
        command.arg(self.core.to_string()).arg(std::process::id().to_string()).arg(floor);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.fd_mappings(mappings.collect()).map_err(|e| fail(std::io::Error::other(e)))?;
        command.spawn().map_err(fail)
    }

    /// The link, and whether there is something to send on it, while the process runs.
    pub(crate) fn link(&self) -> Option<(&WorkerLink, bool)> {
        match &self.life {
            Life::Running(running) if !running.ended => Some((&running.link, !running.outbox.is_empty())),
            Life::Running(_) | Life::Due(_) => None,
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(&self.life, Life::Running(running) if running.ready)
    }

    /// When something is to be done about it that no descriptor tells: start it, or end one that never gets ready.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.life {
            Life::Due(at) => Some(*at),
            Life::Running(running) => (!running.ready && !running.ended).then(|| running.since + START_DEADLINE),
        }
    }

    /// Sends and receives what is possible without waiting. A child that is out of step is killed; its death is then
    /// seen like any other.
    pub(crate) fn talk(&mut self, terms: &Terms) {
        let name = self.name();
        let Life::Running(running) = &mut self.life else { return };
        if running.ended {
            return;
        }
        let was_ready = running.ready;
        let late = !running.ready && running.since.elapsed() >= START_DEADLINE;
        let talked = running.talk(terms);
        let talked = if late { talked.and(Err(format!("not ready within {START_DEADLINE:?}"))) } else { talked };
        if let Err(problem) = talked {
            log::error!("{name}: {problem}; killing it");
            running.last_words.get_or_insert(problem);
            running.end();
        } else if running.ready && !was_ready && self.died.is_some() {
            log::info!("{name}: ready again, as pid {}", running.process.id());
        }
    }

    /// Whether the process has ended, and how. The packets it held are freed for the next one.
    pub(crate) fn reap(&mut self, last_waiting: impl FnOnce(u16) -> Option<u32>) -> Option<String> {
        let Life::Running(running) = &mut self.life else { return None };
        let status = running.process.try_wait().ok()??;
        // It may have said why.
        running.drain();
        let death = describe(status, running.last_words.take());
        let lived = running.since.elapsed();
        let (was_ready, fenced) = (running.ready, status.signal() == Some(nix::libc::SIGSYS));
        let orphans = match self.died {
            Some(before) if before.elapsed() < POISON_WINDOW => Orphans::Drop,
            _ => Orphans::Repeat,
        };
        if let Some(last_id) = last_waiting(self.owner.queue())
            && let Err(error) = self.owner.release(orphans, last_id)
        {
            log::error!("{}: {error}", self.name());
        }
        self.short_lives = if lived < HEALTHY_LIFE { self.short_lives.saturating_add(1) } else { 0 };
        // Tables of a worker that was taken over, or that keep its successors from starting, are worth nothing.
        if (fenced || (!was_ready && self.short_lives >= HOPELESS))
            && let Err(error) = self.memory.clear()
        {
            log::error!("{}: empty its tables: {error}", self.name());
        }
        self.died = Some(Instant::now());
        self.life = Life::Due(Instant::now() + self.backoff());
        Some(death)
    }

    /// Lets the process end by itself: it does when its link closes. Returns the process to wait for.
    pub(crate) fn dismiss(&mut self) -> Option<Child> {
        match std::mem::replace(&mut self.life, Life::Due(Instant::now())) {
            Life::Running(running) => Some(running.process),
            Life::Due(_) => None,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("worker[{}]", self.position)
    }
}

impl Running {
    fn talk(&mut self, terms: &Terms) -> Result<(), String> {
        while let Some(message) = self.outbox.front() {
            match self.link.send(message) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(LinkError::Full) => break,
                // It is dead or dying; what it said can still be read.
                Err(LinkError::Closed) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        loop {
            match self.link.receive() {
                Ok(FromWorker::Ready { .. }) if !self.ready && self.outbox.is_empty() => {
                    prove(self.process.id(), &terms.expected)
                        .map_err(|differences| format!("is not jailed as it should be: {}", differences.join("; ")))?;
                    self.ready = true;
                }
                // Once: a child that never stops talking must not keep us here.
                Ok(FromWorker::Failed(text)) if self.last_words.is_none() => self.last_words = Some(printable(&text)),
                Ok(message) => return Err(printable(&format!("said {message:?} out of turn"))),
                Err(LinkError::Empty) => return Ok(()),
                // It is dying; or it lives and sends empty messages, which look the same and would wake us for ever.
                Err(LinkError::Closed) => {
                    self.end();
                    return Ok(());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// What a dead child had said. Nobody can add to it any more, so this ends.
    fn drain(&mut self) {
        while let Ok(message) = self.link.receive() {
            if let FromWorker::Failed(text) = message {
                self.last_words.get_or_insert_with(|| printable(&text));
            }
        }
    }

    fn end(&mut self) {
        self.ended = true;
        if let Err(error) = self.process.kill() {
            log::error!("kill pid {}: {error}", self.process.id());
        }
    }
}

/// A child's words for a log or a terminal: no control character, no change of the direction of writing.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn describe(status: ExitStatus, last_words: Option<String>) -> String {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(nix::libc::SIGSYS)) => {
            "killed by its own fence (SIGSYS): SECURITY EVENT, a suspected compromise or a missing rule; \
             the kernel's audit log names the system call"
                .to_owned()
        }
        (None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
    };
    match last_words {
        Some(words) => format!("{end}: {words}"),
        None => end,
    }
}
