//! Datagrams that come in pieces: what became of the first piece, for the others, which have no ports. Fixed memory and
//! fixed work a piece, whatever the network sends; no byte of a datagram is ever sent on twice (RFC 5722).
//!
//! A datagram is known from its first piece on. A later one that comes before is *early*: nothing is remembered of it
//! here, it waits in the kernel until the first has come (`crate::early`).

use crate::wire::{Address, Family, Fragment, Packet};
use loaded_ipc::Outcome;

/// Datagrams of addresses that share a set, and sets. A sender who floods can only push out what is in his own set.
const WAYS: usize = 8;
const SETS: usize = 64;
/// Milliseconds a datagram is known. RFC 8200 §4.5 allows 60 s to put one together; Linux waits 30 s over IPv4
/// (net.ipv4.ipfrag_time).
const LIFE: u64 = 30_000;
/// Largest payload, bytes.
const LARGEST: u32 = 65_535;
/// Offsets count in these.
const UNIT: u32 = 8;
/// One bit for each unit of the largest payload.
const WORDS: usize = LARGEST.div_ceil(UNIT).div_ceil(64) as usize;

/// What the pieces of one datagram have in common (RFC 791 §3.2; RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    source: Address,
    destination: Address,
    /// 0 in IPv6, where it does not count.
    protocol: u8,
    id: u32,
}

/// What becomes of all pieces of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// To this backend.
    Request { backend: u16 },
    /// From this backend, as this VIP's.
    Reply { backend: u16, vip: u16 },
    /// Unchanged.
    Stays(Outcome),
}

/// What a piece is to its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Met {
    /// The first, of one that was not known. [`Fragments::settle`] says what becomes of it.
    First,
    /// Another one.
    Later(Fate),
    /// Its first has not come.
    Early,
    /// It does not fit the others, or itself.
    Unfit,
}

/// All datagrams.
#[derive(Debug)]
pub(super) struct Fragments {
    entries: Box<[Entry]>,
    /// Of each set, the entry to be given up next: the oldest.
    oldest: [usize; SETS],
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// `None`: free.
    datagram: Option<Datagram>,
    /// Milliseconds.
    born: u64,
    fate: Fate,
    pieces: Pieces,
}

/// Which parts of a datagram were seen.
#[derive(Debug, Clone, Copy)]
struct Pieces {
    seen: [u64; WORDS],
    units: u32,
    /// Behind the furthest byte seen.
    reach: u32,
    /// Behind the last byte, once that was seen.
    end: Option<u32>,
    /// Pieces overlap or contradict each other: no more of it is sent on.
    poisoned: bool,
}

impl Datagram {
    /// The one that a packet is a piece of.
    #[must_use]
    pub fn of(packet: &Packet, piece: &Fragment) -> Self {
        let protocol = if packet.family == Family::V4 { packet.protocol } else { 0 };
        Self { source: packet.source, destination: packet.destination, protocol, id: piece.id }
    }

    /// By the addresses alone, which pieces of one sender share. Not keyed: who can forge addresses can forge them right.
    fn set(&self) -> usize {
        let mixed = u128::from_be_bytes(self.source) ^ u128::from_be_bytes(self.destination).rotate_left(64);
        let folded = (mixed >> 64) ^ (mixed & u128::from(u64::MAX));
        ((folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) % SETS as u128) as usize
    }
}

impl Fragments {
    /// Takes all its memory: about half a megabyte.
    pub(super) fn new() -> Self {
        let fate = Fate::Stays(Outcome::DroppedFragment);
        let entry = Entry { datagram: None, born: 0, fate, pieces: Pieces::NONE };
        Self { entries: vec![entry; SETS * WAYS].into_boxed_slice(), oldest: [0; SETS] }
    }

    /// Whether the first piece has come, so that others need not wait.
    pub(super) fn knows(&self, datagram: &Datagram, now: u64) -> bool {
        self.find(datagram, now).is_some()
    }

    /// Takes note of a piece.
    pub(super) fn meet(&mut self, datagram: &Datagram, piece: &Fragment, now: u64) -> Met {
        if !is_sound(piece) {
            // What is known of it is not to be completed by something else.
            if let Some(entry) = self.find(datagram, now).and_then(|at| self.entries.get_mut(at)) {
                entry.pieces.poisoned = true;
            }
            return Met::Unfit;
        }
        let Some(entry) = self.find(datagram, now).and_then(|at| self.entries.get_mut(at)) else {
            return if piece.offset == 0 { Met::First } else { Met::Early };
        };
        if !entry.pieces.add(piece) {
            return Met::Unfit;
        }
        let fate = entry.fate;
        if entry.pieces.is_complete() {
            entry.datagram = None;
        }
        Met::Later(fate)
    }

    /// Remembers a datagram by its first piece, in the place of the oldest of its set.
    pub(super) fn settle(&mut self, datagram: &Datagram, piece: &Fragment, fate: Fate, now: u64) {
        let set = datagram.set();
        let range = set * WAYS..(set + 1) * WAYS;
        let free = |entry: &Entry| entry.datagram.is_none() || now.saturating_sub(entry.born) >= LIFE;
        let free = self.entries[range].iter().position(free);
        let way = free.unwrap_or(self.oldest[set]);
        if free.is_none() {
            self.oldest[set] = (way + 1) % WAYS;
        }
        let mut pieces = Pieces::NONE;
        pieces.add(piece);
        self.entries[set * WAYS + way] = Entry { datagram: Some(*datagram), born: now, fate, pieces };
    }

    fn find(&self, datagram: &Datagram, now: u64) -> Option<usize> {
        let first = datagram.set() * WAYS;
        let set = self.entries.get(first..first + WAYS)?.iter();
        let is_it = |entry: &Entry| entry.datagram == Some(*datagram) && now.saturating_sub(entry.born) < LIFE;
        set.into_iter().position(is_it).map(|way| first + way)
    }
}

/// Whether a piece can be one by itself.
fn is_sound(piece: &Fragment) -> bool {
    let whole_units = !piece.more || piece.length.is_multiple_of(UNIT);
    piece.length > 0 && whole_units && piece.offset + piece.length <= LARGEST
}

impl Pieces {
    const NONE: Self = Self { seen: [0; WORDS], units: 0, reach: 0, end: None, poisoned: false };

    /// `false`: the piece must not be sent on. One that was seen wholly is a duplicate, which harms nobody (RFC 8200 §4.5);
    /// one that was seen in part poisons the datagram, as does one that contradicts where it ends.
    fn add(&mut self, piece: &Fragment) -> bool {
        let end = piece.offset + piece.length;
        let beyond = self.end.is_some_and(|known| end > known || !piece.more && end != known);
        if self.poisoned || beyond || !piece.more && end < self.reach {
            self.poisoned = true;
            return false;
        }
        let (first, last) = (piece.offset / UNIT, end.div_ceil(UNIT));
        let words = (first / 64)..=((last - 1) / 64);
        let mask = |word: u32| {
            let low = first.max(word * 64) - word * 64;
            let high = last.min(word * 64 + 64) - word * 64;
            (u64::MAX >> (64 - (high - low))) << low
        };
        let known: u32 = words.clone().map(|word| (self.seen[word as usize] & mask(word)).count_ones()).sum();
        if known > 0 {
            self.poisoned |= known < last - first;
            return false;
        }
        words.for_each(|word| self.seen[word as usize] |= mask(word));
        self.units += last - first;
        self.reach = self.reach.max(end);
        if !piece.more {
            self.end = Some(end);
        }
        true
    }

    fn is_complete(&self) -> bool {
        !self.poisoned && self.end.is_some_and(|end| end.div_ceil(UNIT) == self.units)
    }
}

#[cfg(test)]
#[path = "fragments/tests.rs"]
mod tests;
