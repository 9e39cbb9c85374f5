//! The side of a new binary at an upgrade: what the supervisor that runs gives to the one that is to follow it, and what
//! is said between the two. The other side is `instance/upgrade.rs`.
//!
//! The new one is started with everything it needs already open. It prepares workers of its own beside those that serve;
//! until it says so nothing has changed, and whatever becomes of it the old one goes on. Only then the old one's workers
//! end, in order, and the new one's begin.

use crate::Error;
use crate::children::audit::AuditLog;
use crate::children::worker::PreviousWorkers;
use crate::handover::journal::{self, State};
use crate::handover::orphans::{Inheritance, InheritedWorker};
use loaded_control::{Control, ControlError};
use loaded_ipc::{FromSuccessor, Link, LinkError, ToSuccessor, clip};
use loaded_sandbox::inherited;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// Hidden argument of a new binary that finds its predecessor on [`LINK_FD`].
pub const SUCCESSOR: &str = "--successor";

/// The link between the two.
pub(crate) const LINK_FD: RawFd = 3;
/// The old one's journal.
pub(crate) const JOURNAL_FD: RawFd = 4;
/// Its control socket: who asks meanwhile waits in there.
pub(crate) const CONTROL_FD: RawFd = 5;
/// The kernel's log, or /dev/null: it cannot be opened any more with the rights that are left.
pub(crate) const KMSG_FD: RawFd = 6;
/// For each worker in the order of the journal: queue, flows, clients, counters, room for an export.
pub(crate) const SETS_FD: RawFd = 7;
/// How many for each.
pub(crate) const SET: usize = 5;

/// How long the old one may take until its workers have ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// What has become of a predecessor that was asked to give way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Its workers have ended.
    Yours,
    /// It was killed.
    Dead,
}

/// The supervisor before us.
#[derive(Debug)]
pub(crate) struct Predecessor {
    link: Link<ToSuccessor, FromSuccessor>,
    journal: OwnedFd,
    control: UnixListener,
}

impl Predecessor {
    /// The one that has started us.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn take() -> Result<Self, Error> {
        let link = Link::from_fd(inherited(LINK_FD)?);
        link.set_nonblocking()?;
        Ok(Self { link, journal: inherited(JOURNAL_FD)?, control: inherited(CONTROL_FD)?.into() })
    }

    /// What it leaves us.
    ///
    /// # Errors
    /// If its journal is of a kind that this binary cannot go on from.
    pub(crate) fn inheritance(&self) -> Result<Inheritance, Error> {
        let state = self.state()?;
        let mut numbers = SETS_FD..;
        let mut next = || inherited(numbers.next().unwrap_or(RawFd::MAX));
        let mut sets = std::collections::BTreeMap::new();
        for &(_, queue) in state.queues.iter() {
            let before = PreviousWorkers::Serving(Vec::new());
            let (socket, flows, clients, counters) = (next()?, next()?, next()?, next()?);
            sets.insert(
                queue,
                InheritedWorker { queue: socket, flows, clients, counters, before, export: Some(next()?) },
            );
        }
        Ok(Inheritance::given(state, sets))
    }

    /// The kernel's log, from where it has read it.
    pub(crate) fn audit(&self) -> AuditLog {
        AuditLog::of(inherited(KMSG_FD).ok().map(File::from))
    }

    /// What it has written down last.
    pub(crate) fn state(&self) -> Result<State<'static>, Error> {
        journal::read(self.journal.as_fd()).map_err(|error| Error::Succession(format!("its journal: {error}")))
    }

    /// Says that our workers are ready, and waits until its own have ended, and if need be their tables are exported.
    ///
    /// # Errors
    /// If it is gone, or takes too long.
    pub(crate) fn ask(&self, export: bool) -> Result<Answer, Error> {
        self.link.send(&FromSuccessor::Prepared { export })?;
        let until = Instant::now() + PATIENCE;
        loop {
            match self.link.receive() {
                Ok(ToSuccessor::Yours) => return Ok(Answer::Yours),
                // Gone, or it has given us up: then it still holds the lock of its journal.
                Err(LinkError::Closed) if self.is_dead() => return Ok(Answer::Dead),
                Err(LinkError::Empty) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Err(LinkError::Empty) => {
                    return Err(Error::Succession(format!("its workers have not ended within {PATIENCE:?}")));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it was killed.
    pub(crate) fn is_dead(&self) -> bool {
        journal::lock_soon(self.journal.as_fd()).is_ok()
    }

    /// Says that we serve: it ends. Its control socket becomes ours, under `path`.
    ///
    /// # Errors
    /// If the socket cannot be given that name.
    pub(crate) fn follow(self, theirs: &Path, path: &Path) -> Result<Control, ControlError> {
        if let Err(error) = self.link.send(&FromSuccessor::Serving) {
            log::warn!("the supervisor before us: {error}");
        }
        Control::adopt(self.control, theirs, path)
    }

    /// Says why we do not follow it.
    pub(crate) fn refuse(&self, error: &Error) {
        // Who does not hear it sees that we end.
        let _ = self.link.send(&FromSuccessor::Refused(clip(error.to_string())));
    }
}
