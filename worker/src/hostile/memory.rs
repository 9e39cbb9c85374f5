//! What a hijacked worker can write into its own tables and counters: any bytes.

use loaded_ipc::{ALL_COUNTERS, CLIENTS_FD, COUNTERS_FD, FLOWS_FD, RECEIVED};
use loaded_table::{Counters, Error};
use std::fs::File;
use std::os::fd::RawFd;
use std::rc::Rc;

use TableKind::{Clients, Flows};

/// Words of a table's header: magic, version and kind, capacity, buckets, key, key, check. The entries follow.
const HEADER: usize = 16;

/// Words of shared memory; the counters' mapping serves for the tables too.
type Words = Counters;

type MemoryAttempt = fn(&SharedMemory) -> i64;

const ATTEMPTS: [(&str, MemoryAttempt); 14] = [
    ("flows: no magic", |m| m.set(Flows, 0, 0)),
    ("flows: another version", |m| m.set(Flows, 1, 0x0000_0001_0000_0063)),
    ("flows: a vast capacity", |m| m.set(Flows, 2, 1 << 40)),
    ("flows: no capacity", |m| m.set(Flows, 2, 0)),
    ("flows: more buckets than there are", |m| m.set(Flows, 3, u64::from(u32::MAX))),
    ("flows: another key", |m| m.set(Flows, 4, 0x6b65_7921)),
    ("flows: any entries", |m| m.scribble(Flows, HEADER)),
    ("flows: any bytes", |m| m.scribble(Flows, 0)),
    ("clients: no magic", |m| m.set(Clients, 0, 0)),
    ("clients: any entries", |m| m.scribble(Clients, HEADER)),
    ("clients: any bytes", |m| m.scribble(Clients, 0)),
    ("counters: all as large as can be", |m| m.count(u64::MAX)),
    ("counters: all back to nothing", |m| m.count(0)),
    ("counters: as of one that works", |m| {
        loop {
            // Answers no packet and looks busy.
            m.counters.add(RECEIVED, 1);
        }
    }),
];

#[derive(Debug, Clone, Copy)]
enum TableKind {
    Flows,
    Clients,
}

/// All memory that a worker shares with the supervisor, as words.
#[derive(Debug, Clone)]
pub(super) struct SharedMemory {
    flows: Rc<Words>,
    clients: Rc<Words>,
    counters: Rc<Words>,
}

pub(super) fn find(name: &[u8]) -> Option<MemoryAttempt> {
    ATTEMPTS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, attempt)| *attempt)
}

impl SharedMemory {
    /// Opens them anew by /proc: the worker itself takes the descriptors over.
    pub(super) fn map() -> Result<Self, Error> {
        let words = |fd| Ok::<_, Error>(Rc::new(Words::map(open(fd)?)?.for_good()));
        Ok(Self { flows: words(FLOWS_FD)?, clients: words(CLIENTS_FD)?, counters: words(COUNTERS_FD)? })
    }

    fn of(&self, table: TableKind) -> &Words {
        match table {
            Flows => &self.flows,
            Clients => &self.clients,
        }
    }

    fn set(&self, table: TableKind, word: usize, value: u64) -> i64 {
        self.of(table).set(word, value);
        0
    }

    /// Fills everything from a word on with random bytes.
    fn scribble(&self, table: TableKind, from: usize) -> i64 {
        let words = self.of(table);
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for word in from.. {
            if words.get(word).is_none() {
                break;
            }
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            words.set(word, random);
        }
        0
    }

    fn count(&self, value: u64) -> i64 {
        (0..ALL_COUNTERS).for_each(|counter| self.counters.set(counter, value));
        0
    }
}

fn open(fd: RawFd) -> Result<File, Error> {
    let opened = File::options().read(true).write(true).open(format!("/proc/self/fd/{fd}"));
    opened.map_err(|source| Error::Memory { name: format!("descriptor {fd}"), act: "open", source })
}
