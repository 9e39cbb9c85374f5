//! Keeps the journal up to date, so that another supervisor can go on from it.

use crate::handover::journal::Journal;
use crate::handover::snapshot::Snapshot;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

/// Time between two writes, unless one must not wait: a prober may change its mind as often as it likes.
const INTERVAL: Duration = Duration::from_millis(100);

/// The journal, and whether it is up to date.
#[derive(Debug)]
pub(crate) struct Recorder {
    journal: Journal,
    /// Something has changed that the journal does not say yet.
    is_outdated: bool,
    written: Instant,
    /// Queue and process id of each worker's process, as the journal has them.
    workers: Vec<(u16, u32)>,
}

impl Recorder {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal, is_outdated: true, written: Instant::now(), workers: Vec::new() }
    }

    /// The descriptor for a worker's custody.
    pub(crate) fn custody(&self) -> BorrowedFd<'_> {
        self.journal.custody()
    }

    /// Something has changed that the journal has to say soon.
    pub(crate) fn set_outdated(&mut self) {
        self.is_outdated = true;
    }

    /// Whether a new snapshot is due; `workers` are the worker processes of now.
    pub(crate) fn is_due(&self, workers: &[(u16, u32)]) -> bool {
        (self.is_outdated || self.workers != workers) && self.written.elapsed() >= INTERVAL
    }

    /// Writes a snapshot. If that fails, one is due again.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&mut self, snapshot: &Snapshot<'_>) -> io::Result<()> {
        self.written = Instant::now();
        self.workers = snapshot.workers.to_vec();
        let result = self.journal.write(snapshot);
        self.is_outdated = result.is_err();
        result
    }
}
