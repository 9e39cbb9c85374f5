//! The descriptors that a supervisor hands to its successor, and the number of each in the new process. Giver
//! ([`super::successor`]) and taker ([`super::predecessor`]) both go by this table; another release's binary does too, so
//! the numbers never change: a worker's come in the order of [`WorkerDescriptor`].

use loaded_children::worker::WorkerDescriptor;
use loaded_fastpath::program::DESCRIPTORS;
use std::os::fd::RawFd;

/// A descriptor that is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descriptor {
    /// The link between the two supervisors.
    Link,
    /// The predecessor's journal, for reading.
    Journal,
    /// Its control socket: whoever asks meanwhile waits in its backlog.
    Control,
    /// The kernel's log, or /dev/null: the rights that are left do not open it again.
    KernelLog,
    /// One of a worker; workers count from 0, in the order of the journal.
    Worker(usize, WorkerDescriptor),
    /// One of the kernel path, if the journal says that there is one: `loaded_fastpath::program::Program::descriptors`. The first
    /// word is the number of workers, for those of the kernel path come behind those of all workers.
    KernelPath(usize, usize),
    /// A worker's map of the kernel path: numbers (0), bytes of backends (1), ring of reports (2). They are there if the journal has
    /// a kernel path, or the worker's queue in `maps`. Number of workers, position.
    KernelPathOf(usize, usize, usize),
    /// The socket at which metrics are asked for, if the journal says that there is one. Number of workers: it comes behind all
    /// else of theirs.
    Metrics(usize),
}

/// Of each worker's in the kernel path.
pub(crate) const PATH_PER_WORKER: usize = 3;
/// Descriptors of each worker.
const PER_WORKER: usize = 5;
/// 0, 1 and 2 are the standard streams.
const FIRST: usize = 3;
/// Those of the workers come behind those of the instance.
const FIRST_OF_WORKERS: usize = 7;

impl Descriptor {
    /// Its number in the successor; one that no process can have where a journal names more workers than that.
    pub(crate) fn number(self) -> RawFd {
        let number = match self {
            Self::Link => FIRST,
            Self::Journal => FIRST + 1,
            Self::Control => FIRST + 2,
            Self::KernelLog => FIRST + 3,
            Self::Worker(position, which) => behind(position).saturating_add(which as usize),
            Self::KernelPath(workers, which) => behind(workers).saturating_add(which),
            Self::KernelPathOf(workers, position, which) => {
                let first = behind(workers).saturating_add(DESCRIPTORS);
                first.saturating_add(position.saturating_mul(PATH_PER_WORKER)).saturating_add(which)
            }
            Self::Metrics(workers) => {
                behind(workers).saturating_add(DESCRIPTORS).saturating_add(workers.saturating_mul(PATH_PER_WORKER))
            }
        };
        RawFd::try_from(number).unwrap_or(RawFd::MAX)
    }
}

/// The first number behind those of so many workers.
fn behind(workers: usize) -> usize {
    FIRST_OF_WORKERS.saturating_add(workers.saturating_mul(PER_WORKER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_releases_find_each_descriptor_at_its_number() {
        use WorkerDescriptor::{Clients, Counters, Export, Flows, Queue};
        let shared = [Descriptor::Link, Descriptor::Journal, Descriptor::Control, Descriptor::KernelLog];
        let of_workers =
            |position| [Queue, Flows, Clients, Counters, Export].map(|one| Descriptor::Worker(position, one));
        let all = shared.into_iter().chain(of_workers(0)).chain(of_workers(1));
        let path = (0..DESCRIPTORS).map(|which| Descriptor::KernelPath(2, which));
        let of_path =
            (0..2).flat_map(|at| (0..PATH_PER_WORKER).map(move |which| Descriptor::KernelPathOf(2, at, which)));
        assert!(all.chain(path).chain(of_path).chain([Descriptor::Metrics(2)]).map(Descriptor::number).eq(3..32));
        assert_eq!(Descriptor::Worker(usize::MAX, Queue).number(), RawFd::MAX);
    }
}
