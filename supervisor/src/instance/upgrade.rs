//! USR2: another binary takes the place of this one. It is started beside us with our queues, tables and journal, and
//! prepares workers of its own; then ours end, each with its last batch answered, and its begin. Until it serves we can
//! go on, and do so whatever becomes of it.

use super::Instance;
use crate::Error;
use crate::children::child::dup;
use crate::children::worker::Worker;
use crate::handover::predecessor::{CONTROL_FD, JOURNAL_FD, KMSG_FD, LINK_FD, SET, SUCCESSOR};
use crate::process::daemon;
use command_fds::{CommandFdExt, FdMapping};
use loaded_ipc::{FromSuccessor, Link, LinkError, ToSuccessor};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use sd_notify::NotifyState;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child as Process, Command};
use std::time::{Duration, Instant, SystemTime};

/// How long the other binary may take, from its start until it serves.
const PATIENCE: Duration = Duration::from_secs(30);

/// A program that the other one runs may run one, and that one another.
const GENERATIONS: u32 = 8;

/// How this process was started, so that another binary can be started in the same way.
#[derive(Debug, Clone)]
pub(crate) struct Invocation {
    program: PathBuf,
    arguments: Vec<OsString>,
    directory: PathBuf,
}

/// An upgrade under way.
#[derive(Debug)]
pub(super) struct Upgrade {
    process: Process,
    link: Link<FromSuccessor, ToSuccessor>,
    begun: Instant,
    stage: Stage,
    /// For each worker room for an export of its tables.
    rooms: Vec<File>,
    exports: bool,
    /// Children that were there before it, of ours or not.
    strangers: Vec<u32>,
    refusal: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It prepares; our workers serve.
    Preparing,
    /// Our workers end.
    GivingWay,
    /// Its workers begin.
    Given,
}

impl Invocation {
    /// Of this process. To be asked before the working directory changes.
    pub(crate) fn of_this() -> Result<Self, Error> {
        let fail = |act| move |source| Error::Start { act, source };
        let hidden = |word: &OsString| word == SUCCESSOR;
        Ok(Self {
            program: std::env::current_exe().map_err(fail("find the path of this binary"))?,
            arguments: std::env::args_os().skip(1).filter(|word| !hidden(word)).collect(),
            directory: std::env::current_dir().map_err(fail("find the working directory"))?,
        })
    }
}

impl Instance {
    /// Starts the binary that is where ours was started from.
    pub(super) fn ask_upgrade(&mut self) {
        if self.is_changing() {
            self.upgrade_again = true;
            return;
        }
        if let Err(error) = self.start_successor() {
            self.refuse_upgrade(error.to_string());
        }
    }

    fn refuse_upgrade(&mut self, why: String) {
        log::error!("upgrade refused, everything stays as it is: {why}");
        self.refused_upgrade = Some((SystemTime::now(), why));
    }

    fn start_successor(&mut self) -> Result<(), Error> {
        let fail = |act| move |source| Error::Start { act, source };
        // It goes on from what is written now.
        self.write_down();
        let Some(control) = &self.control else {
            return Err(Error::Succession("there is no control socket to hand over; restart".to_owned()));
        };
        if std::process::id() == 1 {
            return Err(Error::Succession("process 1 cannot give way: with it the container ends".to_owned()));
        }
        let (link, theirs) = Link::<FromSuccessor, ToSuccessor>::pair()?;
        link.set_nonblocking()?;
        let mut given: Vec<OwnedFd> = vec![theirs.into(), dup(self.journal.custody())?, dup(control.listener())?];
        given.push(self.audit.descriptor().map_err(fail("pass on the kernel's log"))?);
        debug_assert_eq!((LINK_FD, JOURNAL_FD, CONTROL_FD, KMSG_FD), (3, 4, 5, 6));
        let mut rooms = Vec::new();
        for worker in &self.workers {
            let room = worker.memory.room_for_export()?;
            given.extend(worker.set()?);
            given.push(dup(&room)?);
            rooms.push(File::from(room));
        }
        debug_assert_eq!(given.len(), SET * self.workers.len() + 4);
        let mappings = given.into_iter().zip(LINK_FD..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        let Invocation { program, arguments, directory } = &self.invocation;
        let mut command = Command::new(program);
        command.arg0("loaded").arg(SUCCESSOR).args(arguments).current_dir(directory);
        let mapped = command.fd_mappings(mappings.collect());
        mapped.map_err(|e| fail("give descriptors to the new binary")(std::io::Error::other(e)))?;
        // Should it die when its workers serve already, they become children of ours and can be ended.
        let strangers = children();
        set_child_subreaper(true).map_err(|e| fail("become the parent of orphans")(e.into()))?;
        let process = command.spawn().map_err(|source| {
            let _ = set_child_subreaper(false);
            Error::Succession(format!("{} in {}: {source}", program.display(), directory.display()))
        })?;
        log::info!("upgrade: {} is started, as pid {}", program.display(), process.id());
        let stage = Stage::Preparing;
        let begun = Instant::now();
        self.upgrade = Some(Upgrade { process, link, begun, stage, rooms, exports: false, strangers, refusal: None });
        Ok(())
    }

    /// Moves an upgrade along. `true`: the other one serves, and this process is to end without a trace.
    pub(super) fn step_upgrade(&mut self) -> bool {
        let Some(upgrade) = &mut self.upgrade else {
            if self.upgrade_again && !self.is_changing() {
                self.upgrade_again = false;
                self.ask_upgrade();
            }
            return false;
        };
        match upgrade.hear() {
            Ok(Some(FromSuccessor::Prepared { export })) => {
                (upgrade.stage, upgrade.exports) = (Stage::GivingWay, export);
                // Should we be killed now, it knows whose end to wait for.
                self.write_down();
                self.workers.iter_mut().for_each(Worker::give_way);
                self.prober.stop();
            }
            Ok(Some(FromSuccessor::Serving)) => {
                log::info!("upgrade: pid {} serves; this one ends", upgrade.process.id());
                self.pass_on();
                return true;
            }
            Ok(_) => {}
            Err(problem) => {
                self.go_on(&problem);
                return false;
            }
        }
        self.yield_queues();
        false
    }

    /// What was asked of us meanwhile is asked of the other one; and the service manager, which may believe us alone, is told.
    fn pass_on(&mut self) {
        let Some(pid) = self.upgrade.as_ref().map(|upgrade| upgrade.process.id()) else { return };
        daemon::notify(NotifyState::MainPid(pid));
        let signal = match () {
            () if self.signals.take_end() => Signal::SIGTERM,
            () if self.signals.take_reload() || self.again => Signal::SIGHUP,
            () => return,
        };
        // It is a child that nobody has waited for: the number is its own.
        if let Err(errno) = kill(Pid::from_raw(pid.cast_signed()), signal) {
            log::error!("pass {signal} on to pid {pid}: {errno}");
        }
    }

    /// When our workers have ended, the queues are the other one's.
    fn yield_queues(&mut self) {
        let is_vacant = self.workers.iter().all(Worker::is_vacant) && self.prober.process().is_none();
        if !is_vacant || self.upgrade.as_ref().is_none_or(|upgrade| upgrade.stage != Stage::GivingWay) {
            return;
        }
        self.write_down();
        let exported = match &self.upgrade {
            Some(upgrade) if upgrade.exports => {
                let mut pairs = self.workers.iter().zip(&upgrade.rooms);
                pairs.try_for_each(|(worker, room)| worker.memory.export(room))
            }
            _ => Ok(()),
        };
        if let Err(error) = exported {
            return self.go_on(&error.to_string());
        }
        if let Some(upgrade) = &mut self.upgrade {
            upgrade.stage = Stage::Given;
            // If it is gone its end is heard next.
            let _ = upgrade.link.send(&ToSuccessor::Yours);
        }
    }

    /// The other one does not serve: it ends, and what has changed is changed back.
    fn go_on(&mut self, problem: &str) {
        let Some(mut upgrade) = self.upgrade.take() else { return };
        let _ = upgrade.process.kill();
        let status = upgrade.process.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        end_orphans(&self.known(&upgrade.strangers));
        let why = upgrade.refusal.unwrap_or_else(|| format!("{problem} ({status})"));
        // It may have got as far as its rules and routes.
        if let Some(Err(error)) = self.installed.as_mut().map(|installed| installed.update(&self.rules)) {
            log::error!("{error}");
        }
        self.routes.mend();
        if upgrade.stage != Stage::Preparing {
            self.workers.iter_mut().for_each(Worker::free_orphans);
        }
        self.refuse_upgrade(why);
    }

    /// We are to end before it has come to anything.
    pub(super) fn stop_upgrade(&mut self) {
        if let Some(mut upgrade) = self.upgrade.take() {
            let _ = upgrade.process.kill();
            let _ = upgrade.process.wait();
            end_orphans(&self.known(&upgrade.strangers));
            self.routes.mend();
        }
    }

    /// Whether our workers have to stay away from their queues.
    pub(super) fn has_given_way(&self) -> bool {
        self.upgrade.as_ref().is_some_and(|upgrade| upgrade.stage != Stage::Preparing)
    }

    /// What to wait for.
    pub(super) fn successor(&self) -> Option<BorrowedFd<'_>> {
        self.upgrade.as_ref().map(|upgrade| upgrade.link.as_fd())
    }

    /// When an upgrade has taken too long.
    pub(super) fn upgrade_due(&self) -> Option<Instant> {
        self.upgrade.as_ref().map(|upgrade| upgrade.begun + PATIENCE)
    }

    /// Children that the other one has not left: those that were there before it, and ours.
    fn known(&self, strangers: &[u32]) -> Vec<u32> {
        let workers = self.workers.iter().flat_map(Worker::processes).map(|(pid, ..)| pid);
        workers.chain(self.prober.process().map(|(pid, ..)| pid)).chain(strangers.iter().copied()).collect()
    }
}

impl Upgrade {
    /// What the other one says; an error is the end of it.
    fn hear(&mut self) -> Result<Option<FromSuccessor>, String> {
        match self.link.receive() {
            Ok(FromSuccessor::Refused(text)) => {
                self.refusal = Some(text);
                Err("it refuses".to_owned())
            }
            Ok(said @ FromSuccessor::Prepared { .. }) if self.stage == Stage::Preparing => Ok(Some(said)),
            Ok(FromSuccessor::Serving) if self.stage == Stage::Given => Ok(Some(FromSuccessor::Serving)),
            Ok(_) => Err("it is out of step".to_owned()),
            Err(LinkError::Empty) if self.begun.elapsed() > PATIENCE => Err(format!("not ready within {PATIENCE:?}")),
            Err(LinkError::Empty) => Ok(None),
            Err(LinkError::Closed) => Err("it has ended".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Ends what a dead successor has left: children of ours that we have not started. When one of them dies its own children
/// become ours, so this is done until there is none.
fn end_orphans(known: &[u32]) {
    for _ in 0..GENERATIONS {
        let strangers: Vec<_> = children().into_iter().filter(|pid| !known.contains(pid)).collect();
        if strangers.is_empty() {
            break;
        }
        for pid in strangers.into_iter().map(|pid| Pid::from_raw(pid.cast_signed())) {
            let _ = kill(pid, Signal::SIGKILL);
            // Its death is certain then, and waiting short.
            let _ = waitpid(pid, None::<WaitPidFlag>);
        }
    }
    if let Err(errno) = set_child_subreaper(false) {
        log::warn!("be the parent of orphans no more: {errno}");
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
