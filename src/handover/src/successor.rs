//! The predecessor's side of an upgrade: starts the new binary with everything it needs already open, hears how far it is,
//! and cleans up after it if it fails. The other side is [`super::predecessor`].

use super::descriptors::Descriptor;
use super::predecessor::SUCCESSOR;
use crate::Error;
use command_fds::{CommandFdExt, FdMapping};
use loaded_ipc::{FromSuccessor, Link, LinkError, ToSuccessor};
use loaded_process::invocation::Invocation;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long a successor may take, from its start until it serves.
const TIME_TO_SERVE: Duration = Duration::from_secs(30);

/// Levels of descendants searched: a program that the successor runs may run one, and that one another.
const DESCENDANTS: u32 = 8;

/// A supervisor that is about to take our place.
#[derive(Debug)]
pub struct Successor {
    process: Child,
    link: Link<FromSuccessor, ToSuccessor>,
    started: Instant,
    stage: SuccessorStage,
    /// For each worker, memory that takes an export of its tables.
    exports: Vec<File>,
    /// Our children before it was started, whoever they are.
    earlier_children: Vec<u32>,
    refusal: Option<String>,
}

/// How far an upgrade has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuccessorStage {
    /// It prepares; our workers serve.
    Preparing,
    /// It is prepared; our workers end.
    GivingWay {
        /// Whether our tables are to be exported, for it lays them out differently.
        export: bool,
    },
    /// Our workers have ended; its own begin.
    QueuesHandedOver,
}

/// What a successor has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuccessorProgress {
    /// Its workers are prepared: ours have to end.
    Prepared,
    /// It serves: this process has to end.
    Serving,
}

impl Successor {
    /// Starts `invocation` with these descriptors, and the link, open in it.
    ///
    /// # Errors
    /// If it cannot be started. Nothing has changed then.
    pub fn start(
        invocation: &Invocation,
        mut descriptors: Vec<(Descriptor, OwnedFd)>,
        exports: Vec<File>,
    ) -> Result<Self, Error> {
        let fail = |act| move |source| Error::Start { act, source };
        let (link, theirs) = Link::<FromSuccessor, ToSuccessor>::pair()?;
        link.set_nonblocking()?;
        descriptors.push((Descriptor::Link, theirs.into()));
        let mapping = |(which, parent_fd): (Descriptor, _)| FdMapping { parent_fd, child_fd: which.number() };
        let Invocation { program, arguments, directory } = invocation;
        let mut command = Command::new(program);
        command.arg0("loaded").arg(SUCCESSOR).args(arguments).current_dir(directory);
        let mapped = command.fd_mappings(descriptors.into_iter().map(mapping).collect());
        mapped.map_err(|e| fail("give descriptors to the new binary")(std::io::Error::other(e)))?;
        // Should it die when its workers serve already, they become our children and can be ended.
        let earlier_children = children();
        set_child_subreaper(true).map_err(|e| fail("become the parent of orphans")(e.into()))?;
        let process = command.spawn().map_err(|source| {
            let _ = set_child_subreaper(false);
            Error::Succession(format!("{} in {}: {source}", program.display(), directory.display()))
        })?;
        log::info!("upgrade: {} started as pid {}", program.display(), process.id());
        let (started, stage) = (Instant::now(), SuccessorStage::Preparing);
        Ok(Self { process, link, started, stage, exports, earlier_children, refusal: None })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// How far it is.
    pub fn stage(&self) -> SuccessorStage {
        self.stage
    }

    /// For each worker, memory that takes an export of its tables.
    pub fn exports(&self) -> &[File] {
        &self.exports
    }

    /// The link to wait on.
    pub fn link(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    /// When it has taken too long.
    pub fn deadline(&self) -> Instant {
        self.started + TIME_TO_SERVE
    }

    /// What it has said, if anything.
    ///
    /// # Errors
    /// Why the upgrade has failed.
    pub fn hear(&mut self) -> Result<Option<SuccessorProgress>, String> {
        match (self.link.receive(), self.stage) {
            (Ok(FromSuccessor::Refused(text)), _) => {
                self.refusal = Some(text);
                Err("it refuses".to_owned())
            }
            (Ok(FromSuccessor::Prepared { export }), SuccessorStage::Preparing) => {
                self.stage = SuccessorStage::GivingWay { export };
                Ok(Some(SuccessorProgress::Prepared))
            }
            (Ok(FromSuccessor::Serving), SuccessorStage::QueuesHandedOver) => Ok(Some(SuccessorProgress::Serving)),
            (Ok(_), _) => Err("its message is out of turn".to_owned()),
            (Err(LinkError::Empty), _) if self.started.elapsed() > TIME_TO_SERVE => {
                Err(format!("not ready within {TIME_TO_SERVE:?}"))
            }
            (Err(LinkError::Empty), _) => Ok(None),
            (Err(LinkError::Closed), _) => Err("it has ended".to_owned()),
            (Err(error), _) => Err(error.to_string()),
        }
    }

    /// Our workers have ended: tells it that the queues are its own.
    pub fn hand_over_queues(&mut self) {
        self.stage = SuccessorStage::QueuesHandedOver;
        // If it has ended, that is heard next.
        let _ = self.link.send(&ToSuccessor::Yours);
    }

    /// Passes on a signal that was sent to us.
    pub fn signal(&self, signal: Signal) {
        // A child that nobody has waited for keeps its pid, so this reaches no other process.
        if let Err(errno) = kill(Pid::from_raw(self.pid().cast_signed()), signal) {
            log::error!("pass {signal} on to pid {}: {errno}", self.pid());
        }
    }

    /// Ends it and whatever it has started; `ours` are the children that we have now. Returns why it failed, for which
    /// `problem` is the reason if it has given none.
    pub fn end(mut self, problem: &str, ours: impl Iterator<Item = u32>) -> String {
        let _ = self.process.kill();
        let status = self.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let known: Vec<u32> = ours.chain(self.earlier_children).collect();
        end_orphans(&known);
        self.refusal.unwrap_or_else(|| format!("{problem} ({status})"))
    }
}

/// Ends what a dead successor has left: our children that are not `known`. When one of them dies its own children become
/// ours, so this is repeated until there is none.
fn end_orphans(known: &[u32]) {
    for _ in 0..DESCENDANTS {
        let orphans: Vec<_> = children().into_iter().filter(|pid| !known.contains(pid)).collect();
        if orphans.is_empty() {
            break;
        }
        for pid in orphans.into_iter().map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill(pid, Signal::SIGKILL);
            // Its death is certain now, so this does not wait long.
            let _ = waitpid(pid, None::<WaitPidFlag>);
        }
    }
    if let Err(errno) = set_child_subreaper(false) {
        log::warn!("stop being the parent of orphans: {errno}");
    }
}

/// Our children. The kernel's own list of them may miss one while another ends (proc(5)), so each process is asked.
fn children() -> Vec<u32> {
    let own = std::process::id();
    let pids =
        fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // "PID (NAME) STATE PPID …", and a name may have any character.
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<u32>().ok());
        parent == Some(own)
    };
    pids.filter(is_ours).collect()
}
