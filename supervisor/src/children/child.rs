//! A child process from the supervisor's side: the process, the link to it, and what it said last.

use crate::Error;
use command_fds::{CommandFdExt, FdMapping};
use loaded_ipc::{Decode, Encode, Link, LinkError};
use loaded_sandbox::{Identity, SandboxRequirement};
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Children need about 20 ms each to be ready; a loaded machine may need longer.
pub(crate) const START_DEADLINE: Duration = Duration::from_secs(20);
/// A child that lived this long is started again at once: at most one restart a second.
const HEALTHY_LIFE: Duration = Duration::from_secs(1);
/// The wait after the first short life, doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Six doublings; a child that cannot live is tried eight times a minute.
const LONGEST_BACKOFF: Duration = Duration::from_millis(6400);

/// The wait after a start that the machine had no descriptor, process or memory for.
const SHORTAGE_WAIT: Duration = Duration::from_millis(500);

/// A child that runs.
#[derive(Debug)]
pub(crate) struct Child<In, Out> {
    process: Process,
    link: Link<In, Out>,
    outbox: VecDeque<Out>,
    since: Instant,
    /// It was killed, or has closed its link. What else it says is not heard.
    ended: bool,
    /// We have killed it for what it did.
    condemned: bool,
    /// What it said before it ended.
    last_words: Option<String>,
}

/// How the next start of a child that dies is put off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) due: Instant,
    pub(crate) short_lives: u32,
}

/// That a child has died, for the log and the history.
#[derive(Debug)]
pub(crate) struct Obituary {
    /// Of the child: `worker[0]`.
    pub(crate) name: String,
    /// How it ended.
    pub(crate) text: String,
    /// It was killed by its own fence, and had this pid.
    pub(crate) fenced: Option<u32>,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Death {
    /// For the log.
    pub(crate) text: String,
    pub(crate) pid: u32,
    pub(crate) lived: Duration,
    /// By its own fence.
    pub(crate) fenced: bool,
    /// With code 0.
    pub(crate) orderly: bool,
    /// By its own doing or for it, and not by a signal that somebody else has sent, or the kernel when memory was short.
    pub(crate) own: bool,
}

impl<In: Decode<()>, Out: Encode> Child<In, Out> {
    /// Starts ourselves again in another role. `words` go on its command line behind the role, `given` are its
    /// descriptors beside /dev/null on 0, 1 and 2, `outbox` is what it is told first.
    pub(crate) fn spawn(
        words: &[String],
        link_fd: RawFd,
        given: Vec<(OwnedFd, RawFd)>,
        outbox: Vec<Out>,
    ) -> Result<Self, Error> {
        let fail = |source| Error::Start { act: "start a child process", source };
        let (link, theirs) = Link::pair()?;
        link.set_nonblocking()?;
        let given = given.into_iter().chain([(theirs.into(), link_fd)]);
        let mappings = given.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        let mut command = Command::new("/proc/self/exe");
        command.arg0("loaded").arg("--role").args(words);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.fd_mappings(mappings).map_err(|e| fail(std::io::Error::other(e)))?;
        let process = command.spawn().map_err(fail)?;
        Ok(Self {
            process,
            link,
            outbox: outbox.into(),
            since: Instant::now(),
            ended: false,
            condemned: false,
            last_words: None,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How long it has lived.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// When it must have got ready.
    pub(crate) fn deadline(&self) -> Instant {
        self.since + START_DEADLINE
    }

    /// The link, and whether there is something to send on it, while it is heard.
    pub(crate) fn link(&self) -> Option<(BorrowedFd<'_>, bool)> {
        (!self.ended).then(|| (self.link.as_fd(), !self.outbox.is_empty()))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Nothing is left to be sent.
    pub(crate) fn was_told(&self) -> bool {
        self.outbox.is_empty()
    }

    /// To be sent when it can be, without waiting.
    pub(crate) fn tell(&mut self, message: Out) {
        self.outbox.push_back(message);
    }

    /// Sends what is possible without waiting.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        while let Some(message) = self.outbox.front() {
            match self.link.send(message) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(LinkError::Full) => break,
                // It is dead or dying; what it said can still be read.
                Err(LinkError::Closed) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// The next message, if one waits.
    pub(crate) fn hear(&mut self) -> Result<Option<In>, String> {
        if self.ended {
            return Ok(None);
        }
        match self.link.receive() {
            Ok(message) => Ok(Some(message)),
            Err(LinkError::Empty) => Ok(None),
            // It is dying; or it lives and sends empty messages, which look the same and would wake us for ever.
            Err(LinkError::Closed) => {
                self.kill();
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// It says why it ends. Once: a child that never stops talking must not keep us here.
    pub(crate) fn confess(&mut self, text: &str) -> Result<(), String> {
        match self.last_words {
            None => {
                self.last_words = Some(printable(text));
                Ok(())
            }
            Some(_) => Err("does not stop to talk".to_owned()),
        }
    }

    /// Kills it for what it did; its death is then seen like any other.
    pub(crate) fn condemn(&mut self, problem: String) {
        self.last_words.get_or_insert(problem);
        self.condemned = true;
        self.kill();
    }

    pub(crate) fn kill(&mut self) {
        self.ended = true;
        if let Err(error) = self.process.kill() {
            log::error!("kill pid {}: {error}", self.process.id());
        }
    }

    /// Whether it has ended, and how. `farewell` gives the text of a message that says why.
    pub(crate) fn reap(&mut self, farewell: impl Fn(In) -> Option<String>) -> Option<Death> {
        let status = self.process.try_wait().ok()??;
        // Nobody can add to what it has said, so this ends.
        while let Ok(message) = self.link.receive() {
            if let Some(text) = farewell(message) {
                self.last_words.get_or_insert_with(|| printable(&text));
            }
        }
        Some(Death {
            text: describe(status, self.last_words.take()),
            pid: self.process.id(),
            lived: self.since.elapsed(),
            fenced: status.signal() == Some(nix::libc::SIGSYS),
            orderly: status.success(),
            own: self.condemned || !matches!(status.signal(), Some(nix::libc::SIGKILL | nix::libc::SIGTERM)),
        })
    }

    /// Lets the process end by itself: by a last word, or, if it does not outlive us, by the end of its link. Returns the process
    /// to wait for.
    pub(crate) fn dismiss(mut self, word: Option<Out>) -> Process {
        self.outbox.extend(word);
        // Who does not take it does not end, and is killed for that.
        let _ = self.flush();
        self.process
    }
}

impl Obituary {
    pub(crate) fn new(name: String, death: Death) -> Self {
        Self { name, text: death.text, fenced: death.fenced.then_some(death.pid) }
    }
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { due: Instant::now(), short_lives: 0 }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// After a life of this length that somebody else has ended: that says nothing about the next one.
    pub(crate) fn after_a_kill(&mut self, lived: Duration) {
        self.due = Instant::now() + if lived < HEALTHY_LIFE { FIRST_BACKOFF } else { Duration::ZERO };
    }

    /// After a start that did not come about. That says nothing about the child: no short life, and no longer waits, for
    /// packets wait as long.
    pub(crate) fn after_no_start(&mut self) {
        self.due = Instant::now() + SHORTAGE_WAIT;
    }

    /// After a life of this length.
    pub(crate) fn after(&mut self, lived: Duration) {
        self.short_lives = if lived < HEALTHY_LIFE { self.short_lives.saturating_add(1) } else { 0 };
        let wait = match self.short_lives {
            0 => Duration::ZERO,
            n => FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(6)).min(LONGEST_BACKOFF),
        };
        self.due = Instant::now() + wait;
    }
}

/// The words behind the role that every child gets: UID GID NAME.
pub(crate) fn who(role: &str, identity: &Identity) -> Vec<String> {
    [role.to_owned(), identity.uid.to_string(), identity.gid.to_string(), identity.name.clone()].to_vec()
}

/// The word for the floor.
pub(crate) fn floor_word(floor: SandboxRequirement) -> String {
    if floor == SandboxRequirement::AllowWeak { "allow-weak" } else { "required" }.to_owned()
}

pub(crate) fn dup(fd: impl AsFd) -> Result<OwnedFd, Error> {
    fd.as_fd().try_clone_to_owned().map_err(|source| Error::Start { act: "duplicate a descriptor for a child", source })
}

/// A child's words for a log or a terminal: no control character, no change of the direction of writing.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn describe(status: ExitStatus, last_words: Option<String>) -> String {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(nix::libc::SIGSYS)) => {
            "killed by its own fence (SIGSYS): SECURITY EVENT, a suspected compromise or a missing rule".to_owned()
        }
        (None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
    };
    match last_words {
        Some(words) => format!("{end}: {words}"),
        None => end,
    }
}
