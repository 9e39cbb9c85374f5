//! A child process as the supervisor sees it: the process, the link to it, its last words, and when it is started again.

use crate::Error;
use command_fds::{CommandFdExt, FdMapping};
use loaded_ipc::{Decode, Encode, Link, LinkError, MAX_FRAME};
use loaded_sandbox::proof::{Expectation, prove};
use loaded_sandbox::{Identity, SandboxRequirement};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child as Process, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a child may take to be ready. It needs about 20 ms; a busy machine may need longer.
pub const START_DEADLINE: Duration = Duration::from_secs(20);

/// A child process. `ROOM` is its link's.
#[derive(Debug)]
pub(crate) struct Child<In, Out, const ROOM: usize = { MAX_FRAME + 1 }> {
    process: Process,
    link: Link<In, Out, ROOM>,
    outbox: VecDeque<Out>,
    since: Instant,
    /// It was killed, or has closed its link. Nothing more is heard of it.
    ended: bool,
    /// We have killed it for misbehaviour.
    condemned: bool,
    /// Why it ended, by its last message, or why we killed it.
    reason: Option<String>,
}

/// What a child of one role has to be.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// The user that it runs as.
    pub identity: Identity,
    /// Whether it may serve in a weak sandbox.
    pub requirement: SandboxRequirement,
    /// What /proc must show of one that says it is prepared.
    pub expected: Expectation,
}

/// A child's death, for the log and the history.
#[derive(Debug)]
pub struct DeathReport {
    /// Of the child: `worker[0]`.
    pub name: String,
    /// How it ended.
    pub text: String,
    /// Its pid, if its own sandbox killed it.
    pub sandboxed_pid: Option<u32>,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) struct Death {
    /// For the log.
    pub(crate) text: String,
    pub(crate) pid: u32,
    pub(crate) lived: Duration,
    /// Killed by its own sandbox.
    pub(crate) by_sandbox: bool,
    /// It ended with exit code 0.
    pub(crate) orderly: bool,
    /// It ended by itself or was killed for misbehaviour: not by SIGKILL or SIGTERM from elsewhere (an operator, or the kernel
    /// when memory is short).
    pub(crate) own: bool,
}

impl<In: Decode<()> + fmt::Debug, Out: Encode, const ROOM: usize> Child<In, Out, ROOM> {
    /// Starts this binary again in another role. `words` are its command line, from the role on; `descriptors` are open
    /// in it besides /dev/null on 0, 1 and 2; `outbox` is what it is told first.
    pub(crate) fn spawn(
        words: &[String],
        link_fd: RawFd,
        descriptors: Vec<(OwnedFd, RawFd)>,
        outbox: Vec<Out>,
    ) -> Result<Self, Error> {
        let fail = |source| Error::Start { act: "start a child process", source };
        let (link, theirs) = Link::pair()?;
        link.set_nonblocking()?;
        let descriptors = descriptors.into_iter().chain([(theirs.into(), link_fd)]);
        let mappings = descriptors.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        let mut command = Command::new("/proc/self/exe");
        command.arg0("loaded").arg("--role").args(words);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.fd_mappings(mappings).map_err(|e| fail(std::io::Error::other(e)))?;
        let process = command.spawn().map_err(fail)?;
        log::debug!("pid {} is {}", process.id(), words.join(" "));
        Ok(Self {
            process,
            link,
            outbox: outbox.into(),
            since: Instant::now(),
            ended: false,
            condemned: false,
            reason: None,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How long it has lived.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// When it must be ready.
    pub(crate) fn deadline(&self) -> Instant {
        self.since + START_DEADLINE
    }

    /// The link to wait on, and whether there is something to send; none once it has ended.
    pub(crate) fn link(&self) -> Option<(BorrowedFd<'_>, bool)> {
        (!self.ended).then(|| (self.link.as_fd(), !self.outbox.is_empty()))
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether everything has been sent.
    pub(crate) fn was_told(&self) -> bool {
        self.outbox.is_empty()
    }

    /// Queues a message; [`Child::flush`] sends it.
    pub(crate) fn tell(&mut self, message: Out) {
        self.outbox.push_back(message);
    }

    /// Sends what the link takes without blocking.
    pub(crate) fn flush(&mut self) -> Result<(), String> {
        while let Some(message) = self.outbox.front() {
            match self.link.send(message) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(LinkError::Full) => break,
                // It is dead or dying; what it has said can still be read.
                Err(LinkError::Closed) => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// The next message, if one has arrived.
    pub(crate) fn hear(&mut self) -> Result<Option<In>, String> {
        if self.ended {
            return Ok(None);
        }
        match self.link.receive() {
            Ok(message) => {
                log::debug!("pid {} says {message:?}", self.pid());
                Ok(Some(message))
            }
            Err(LinkError::Empty) => Ok(None),
            // It is dying; or it is alive and sends empty messages, which look the same and would wake us for ever.
            Err(LinkError::Closed) => {
                self.kill();
                Ok(None)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Whether /proc shows the sandbox that it says it has closed.
    ///
    /// # Errors
    /// What differs.
    pub(crate) fn prove(&self, spec: &ChildSpec) -> Result<(), String> {
        prove(self.pid(), &spec.expected)
            .map(drop)
            .map_err(|differences| format!("is not sandboxed as it should be: {}", differences.join("; ")))
    }

    /// Notes the reason that its last message gives. Only once: a child that never stops talking must not keep us busy.
    pub(crate) fn note_reason(&mut self, text: &str) -> Result<(), String> {
        match self.reason {
            None => {
                self.reason = Some(printable(text));
                Ok(())
            }
            Some(_) => Err("keeps talking after its last message".to_owned()),
        }
    }

    /// Kills it for misbehaviour; its death is then noticed like any other.
    pub(crate) fn condemn(&mut self, problem: String) {
        self.reason.get_or_insert(problem);
        self.condemned = true;
        self.kill();
    }

    pub(crate) fn kill(&mut self) {
        self.ended = true;
        if let Err(error) = self.process.kill() {
            log::error!("kill pid {}: {error}", self.process.id());
        }
    }

    /// How it ended, if it has. `reason` takes the reason out of a message that gives one.
    pub(crate) fn reap(&mut self, reason: impl Fn(In) -> Option<String>) -> Option<Death> {
        let status = self.process.try_wait().ok()??;
        // Nobody can add to what it has said, so this loop ends.
        while let Ok(message) = self.link.receive() {
            if let Some(text) = reason(message) {
                self.reason.get_or_insert_with(|| printable(&text));
            }
        }
        Some(Death {
            text: describe(status, self.reason.take()),
            pid: self.process.id(),
            lived: self.since.elapsed(),
            by_sandbox: status.signal() == Some(nix::libc::SIGSYS),
            orderly: status.success(),
            own: self.condemned || !matches!(status.signal(), Some(nix::libc::SIGKILL | nix::libc::SIGTERM)),
        })
    }

    /// Lets the process end by itself: upon a last message, or because its link closes. Returns the process to wait for.
    pub(crate) fn dismiss(mut self, word: Option<Out>) -> Process {
        self.outbox.extend(word);
        // A child that does not take it does not end, and is killed for that.
        let _ = self.flush();
        self.process
    }
}

impl DeathReport {
    pub(crate) fn new(name: String, death: Death) -> Self {
        Self { name, text: death.text, sandboxed_pid: death.by_sandbox.then_some(death.pid) }
    }
}

/// The words that begin every child's command line: ROLE UID GID NAME.
pub(crate) fn leading_arguments(role: &str, identity: &Identity) -> Vec<String> {
    [role.to_owned(), identity.uid.to_string(), identity.gid.to_string(), identity.name.clone()].to_vec()
}

/// The word for whether a weak sandbox will do.
pub(crate) fn requirement_word(requirement: SandboxRequirement) -> String {
    if requirement == SandboxRequirement::AllowWeak { "allow-weak" } else { "required" }.to_owned()
}

/// A second descriptor of the same open file, to be given away.
///
/// # Errors
/// If this process has no descriptor left.
pub fn dup(fd: impl AsFd) -> Result<OwnedFd, Error> {
    fd.as_fd().try_clone_to_owned().map_err(|source| Error::Start { act: "duplicate a descriptor for a child", source })
}

/// A child's words for a log or a terminal: no control character, no change of the direction of writing.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect()
}

fn describe(status: ExitStatus, reason: Option<String>) -> String {
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(nix::libc::SIGSYS)) => {
            "killed by its own sandbox (SIGSYS): SECURITY EVENT, a suspected compromise or a missing rule".to_owned()
        }
        (None, signal) => format!("killed by signal {}", signal.unwrap_or(0)),
    };
    match reason {
        Some(words) => format!("{end}: {words}"),
        None => end,
    }
}
