//! Its own tables and counters, which are its to write: any bytes, and then more of its life, or its death.

use super::Words;
use loaded_ipc::{ALL_COUNTERS, CLIENTS_FD, COUNTERS_FD, FLOWS_FD, RECEIVED};
use loaded_table::Error;
use std::fs::File;
use std::os::fd::RawFd;
use std::rc::Rc;

use Which::{Clients, Flows};

/// Words of a table's header: magic, version and kind, capacity, buckets, key, key, check; the entries come behind.
const HEADER: usize = 16;

type Act = fn(&Memories) -> i64;

const ACTS: [(&str, Act); 14] = [
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
            // Answers nothing, and looks busy.
            m.counters.add(RECEIVED, 1);
        }
    }),
];

#[derive(Debug, Clone, Copy)]
enum Which {
    Flows,
    Clients,
}

/// All memory that it shares with the supervisor, as words.
#[derive(Debug, Clone)]
pub(super) struct Memories {
    flows: Rc<Words>,
    clients: Rc<Words>,
    counters: Rc<Words>,
}

pub(super) fn find(name: &[u8]) -> Option<Act> {
    ACTS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, act)| *act)
}

impl Memories {
    /// By way of /proc: the descriptors themselves are taken over by the worker, once.
    pub(super) fn map() -> Result<Self, Error> {
        let words = |fd| Ok::<_, Error>(Rc::new(Words::map(open(fd)?)?.for_good()));
        Ok(Self { flows: words(FLOWS_FD)?, clients: words(CLIENTS_FD)?, counters: words(COUNTERS_FD)? })
    }

    fn of(&self, which: Which) -> &Words {
        match which {
            Flows => &self.flows,
            Clients => &self.clients,
        }
    }

    fn set(&self, which: Which, word: usize, value: u64) -> i64 {
        self.of(which).set(word, value);
        0
    }

    /// Random bytes from a word on to the end.
    fn scribble(&self, which: Which, from: usize) -> i64 {
        let words = self.of(which);
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
