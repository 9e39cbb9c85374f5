//! What a hijacked worker can write into its own tables and counters: any bytes.

use crate::clock::now;
use crate::setup::flow_timeouts;
use loaded_ipc::{ALL_COUNTERS, CLIENTS_FD, COUNTERS_FD, FLOWS_FD, Idle, RECEIVED};
use loaded_sandbox::attempt::Victims;
use loaded_table::{Counters, Error, Flow, FlowKey, FlowState, FlowTable, Region, TableSpec};
use std::cell::{OnceCell, RefCell};
use std::fs::File;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use TableKind::{Clients, Flows};

/// Words of a table's header: magic, version and kind, capacity, buckets, key, key, check. The entries follow.
const HEADER: usize = 16;

/// An order to enter a flow that nobody has opened: UDP from the order's own client, its port in place of the process, to where the
/// order came, at the backend whose number is in place of the signal. Once in a worker's life.
pub(super) const ENTER: &[u8] = b"flows: one that nobody has opened";

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
    flows: Rc<OnceCell<Region>>,
    /// Once more, for a table over it.
    again: Rc<RefCell<Option<Region>>>,
    clients: Rc<Region>,
    counters: Rc<Counters>,
}

pub(super) fn find(name: &[u8]) -> Option<MemoryAttempt> {
    ATTEMPTS.iter().find(|(known, _)| known.as_bytes() == name).map(|(_, attempt)| *attempt)
}

impl SharedMemory {
    /// Opens them anew by /proc: the worker itself takes the descriptors over. `fast`: flows are in a BPF array, which cannot be
    /// opened so; [`SharedMemory::map_flows`] must follow.
    pub(super) fn map(fast: bool) -> Result<Self, Error> {
        let table = |fd| Ok::<_, Error>(Region::map(open(fd)?)?.for_good());
        let flows = if fast { OnceCell::new() } else { table(FLOWS_FD)?.into() };
        Ok(Self {
            flows: Rc::new(flows),
            again: Rc::new(RefCell::new(if fast { None } else { Some(table(FLOWS_FD)?) })),
            clients: Rc::new(table(CLIENTS_FD)?),
            counters: Rc::new(Counters::map(open(COUNTERS_FD)?)?.for_good()),
        })
    }

    pub(super) fn map_flows(&self, array: &OwnedFd, bytes: usize) -> Result<(), Error> {
        // A second call changes nothing.
        let _ = self.flows.set(Region::map_array(array, bytes)?.for_good());
        self.again.replace(Some(Region::map_array(array, bytes)?.for_good()));
        Ok(())
    }

    fn of(&self, table: TableKind) -> &[AtomicU64] {
        match table {
            Flows => self.flows.get().map_or(&[], Region::words),
            Clients => self.clients.words(),
        }
    }

    fn set(&self, table: TableKind, word: usize, value: u64) -> i64 {
        if let Some(place) = self.of(table).get(word) {
            place.store(value, Relaxed);
        }
        0
    }

    /// Fills everything from a word on with random bytes.
    fn scribble(&self, table: TableKind, from: usize) -> i64 {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        for word in self.of(table).iter().skip(from) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            word.store(random, Relaxed);
        }
        0
    }

    /// See [`ENTER`].
    pub(super) fn enter(&self, packet: &[u8], victims: &Victims) -> i32 {
        let key = (ends(packet), self.again.take());
        let (Some((client, vip)), Some(region)) = key else { return -1 };
        let word = |n: usize| region.words().get(n).map_or(0, |word| word.load(Relaxed));
        // What the table says of itself: capacity, and both halves of its key.
        let (capacity, key) = (usize::try_from(word(2)).unwrap_or(0), u128::from(word(5)) << 64 | u128::from(word(4)));
        let spec = TableSpec::new(capacity, key.to_le_bytes());
        let Ok(mut table) = FlowTable::open(region, spec, flow_timeouts(&Idle::STANDARD)) else { return -2 };
        let client_port = u16::try_from(victims.process).unwrap_or(0);
        let (vip, vip_port) = vip;
        let key = FlowKey { protocol: 17, client, client_port, service_port: vip_port };
        let backend = u16::try_from(victims.signal).unwrap_or(0);
        let flow = Flow { vip, vip_port, backend, state: FlowState::Datagram };
        let hashed = table.prepare(&key);
        let done = table.insert(&hashed, &key, flow, now().seconds).is_ok();
        std::mem::forget(table);
        if done { 0 } else { -3 }
    }

    fn count(&self, value: u64) -> i64 {
        (0..ALL_COUNTERS).for_each(|counter| self.counters.set(counter, value));
        0
    }
}

/// The client of a datagram, and its virtual IP (the first of the family, in the lab) with the port there.
fn ends(packet: &[u8]) -> Option<([u8; 16], (u16, u16))> {
    let (client, vip, port) = match packet.first()? >> 4 {
        4 => {
            let mut client = [0; 16];
            client[10..12].fill(0xff);
            client[12..].copy_from_slice(packet.get(12..16)?);
            (client, 0, packet.get(22..24)?)
        }
        _ => (packet.get(8..24)?.try_into().ok()?, 1, packet.get(42..44)?),
    };
    Some((client, (vip, u16::from_be_bytes(port.try_into().ok()?))))
}

fn open(fd: RawFd) -> Result<File, Error> {
    let opened = File::options().read(true).write(true).open(format!("/proc/self/fd/{fd}"));
    opened.map_err(|source| Error::Memory { name: format!("descriptor {fd}"), act: "open", source })
}
