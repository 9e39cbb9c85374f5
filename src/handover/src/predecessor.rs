//! The successor's side of an upgrade: what the running supervisor hands over to the new binary, and what the two say to
//! each other. The other side is [`super::successor`].
//!
//! A successor is started with everything it needs already open. It prepares workers of its own beside those that serve;
//! until it says so only rules and routes have changed; if it fails the predecessor puts its own back and goes on. Only
//! then the predecessor's workers end, in order, and the successor's begin.

use super::descriptors::Descriptor;
use super::inheritance::{Inheritance, InheritedWorker};
use super::journal;
use super::snapshot::Snapshot;
use crate::Error;
use loaded_children::memory::is_map;
use loaded_children::worker::{PreviousWorkers, WorkerDescriptor};
use loaded_control::Control;
use loaded_fastpath::program::DESCRIPTORS;
use loaded_host::AuditLog;
use loaded_ipc::{FromSuccessor, Link, LinkError, ToSuccessor, clip};
use loaded_sandbox::{SandboxError, inherited};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

/// Hidden argument of a new binary that finds its predecessor on [`Descriptor::Link`].
pub const SUCCESSOR: &str = "--successor";

/// What an older predecessor is short of whose kernel path was on once. The maps could be made anew only with the rights of a start.
const MAPS_MISSING: &str = "its kernel path is off, and its version does not hand over the maps that belong to its flow tables: \
     end it by SIGKILL and start this one, which takes over its workers if they linger";

/// How long a predecessor's workers may take to end.
const TIME_TO_END: Duration = Duration::from_secs(10);

/// How a predecessor has given way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GaveWay {
    /// In order: its workers have ended.
    InOrder,
    /// It was killed meanwhile. Its workers may still be there, without a supervisor.
    Killed,
}

/// The running supervisor that has started this process to take its place.
#[derive(Debug)]
pub struct Predecessor {
    link: Link<ToSuccessor, FromSuccessor>,
    journal: OwnedFd,
    control: UnixListener,
}

impl Predecessor {
    /// Takes what it has handed us besides the workers.
    ///
    /// # Errors
    /// If a descriptor is missing: no supervisor has started this process.
    pub fn take() -> Result<Self, Error> {
        let link = Link::from_fd(take(Descriptor::Link)?);
        link.set_nonblocking()?;
        Ok(Self { link, journal: take(Descriptor::Journal)?, control: take(Descriptor::Control)?.into() })
    }

    /// Takes what it has handed us of its workers, with the snapshot that says how many there are.
    ///
    /// # Errors
    /// If this binary cannot read its journal, or something is missing.
    pub fn inheritance(&self) -> Result<Inheritance, Error> {
        let snapshot = self.snapshot()?;
        let mut workers = std::collections::BTreeMap::new();
        for (position, &(_, queue)) in snapshot.queues.iter().enumerate() {
            let one = |which| take(Descriptor::Worker(position, which));
            let has_maps = snapshot.kernel_path.is_some() || snapshot.maps.contains(&queue);
            let worker = InheritedWorker {
                queue: one(WorkerDescriptor::Queue)?,
                flows: one(WorkerDescriptor::Flows)?,
                clients: one(WorkerDescriptor::Clients)?,
                counters: one(WorkerDescriptor::Counters)?,
                previous: PreviousWorkers::Serving(Vec::new()),
                export: Some(one(WorkerDescriptor::Export)?),
                kernel_path: has_maps.then(|| kernel_path_of(snapshot.queues.len(), position)).transpose()?,
            };
            if !has_maps && snapshot.keys_of(queue).is_some() && is_map(&worker.flows) {
                return Err(Error::Succession(MAPS_MISSING.to_owned()));
            }
            workers.insert(queue, worker);
        }
        Ok(Inheritance { snapshot, workers, locks: Vec::new() })
    }

    /// The kernel path's own descriptors, of an instance with so many workers.
    ///
    /// # Errors
    /// If one is missing.
    pub fn kernel_path(workers: usize) -> Result<[OwnedFd; DESCRIPTORS], Error> {
        let all = (0..DESCRIPTORS).map(|which| Ok(take(Descriptor::KernelPath(workers, which))?));
        let all: Vec<_> = all.collect::<Result<_, Error>>()?;
        all.try_into().map_err(|_| Error::Succession("it has not handed over its kernel path".to_owned()))
    }

    /// The socket at which metrics are asked for, of an instance with so many workers.
    ///
    /// # Errors
    /// If it has handed over none.
    pub fn metrics(workers: usize) -> Result<OwnedFd, Error> {
        Ok(take(Descriptor::Metrics(workers))?)
    }

    /// The kernel's log, from where it has read it.
    pub fn audit(&self) -> AuditLog {
        AuditLog::of(take(Descriptor::KernelLog).ok().map(File::from))
    }

    /// The last snapshot in its journal.
    ///
    /// # Errors
    /// If this binary cannot read it.
    pub fn snapshot(&self) -> Result<Snapshot<'static>, Error> {
        journal::read(self.journal.as_fd()).map_err(|error| Error::Succession(format!("its journal: {error}")))
    }

    /// Says that our workers are prepared, and waits until its own have ended and, with `export`, their tables are exported.
    ///
    /// # Errors
    /// If it gives us up, or takes too long.
    pub fn ask_to_give_way(&self, export: bool) -> Result<GaveWay, Error> {
        self.link.send(&FromSuccessor::Prepared { export })?;
        let until = Instant::now() + TIME_TO_END;
        loop {
            match self.link.receive() {
                Ok(ToSuccessor::Yours) => return Ok(GaveWay::InOrder),
                // Dead, or it has given us up: then it still holds the lock of its journal.
                Err(LinkError::Closed) if self.is_dead() => return Ok(GaveWay::Killed),
                Err(LinkError::Empty) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                Err(LinkError::Empty) => {
                    return Err(Error::Succession(format!("its workers have not ended within {TIME_TO_END:?}")));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether it was killed.
    pub fn is_dead(&self) -> bool {
        journal::lock_soon(self.journal.as_fd()).is_ok()
    }

    /// Says that we serve, upon which it ends, and takes over its control socket from the path `theirs` to `path`.
    ///
    /// # Errors
    /// If the socket cannot be given that path.
    pub fn replace(self, theirs: &Path, path: &Path) -> Result<Control, Error> {
        if let Err(error) = self.link.send(&FromSuccessor::Serving) {
            log::warn!("the previous supervisor: {error}");
        }
        Ok(Control::adopt(self.control, theirs, path)?)
    }

    /// Says why we cannot take its place.
    pub fn refuse(&self, error: &impl ToString) {
        // If it does not hear this, it sees that we end.
        let _ = self.link.send(&FromSuccessor::Refused(clip(error.to_string())));
    }
}

/// A worker's maps of the kernel path: numbers, bytes of backends, ring of reports.
fn kernel_path_of(workers: usize, position: usize) -> Result<[OwnedFd; 3], Error> {
    let [numbers, keeping, ring] = [0, 1, 2].map(|which| take(Descriptor::KernelPathOf(workers, position, which)));
    Ok([numbers?, keeping?, ring?])
}

fn take(which: Descriptor) -> Result<OwnedFd, SandboxError> {
    inherited(which.number())
}
