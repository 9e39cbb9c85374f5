//! Remembers what became of the first fragment of a datagram, for the others, which carry no ports. Fixed memory and fixed
//! work for each fragment, whatever the network sends; no byte of a datagram is ever forwarded twice (RFC 5722).
//!
//! A datagram is known once its first fragment has come. A later fragment that arrives before the first leaves no trace
//! here: it waits in the kernel (`crate::pending_fragments`).

use crate::wire::{Address, Family, Fragment, ParsedPacket};
use loaded_ipc::Outcome;

/// Entries of a set, and sets. Pairs of addresses are spread over the sets, so a sender that floods pushes out only
/// datagrams of its own set.
const WAYS: usize = 8;
const SETS: usize = 64;
/// Milliseconds for which a datagram is remembered. RFC 8200 §4.5 allows 60 s for reassembly; Linux waits 30 s in IPv4
/// (net.ipv4.ipfrag_time).
const LIFETIME_MS: u64 = 30_000;
/// Largest payload of a datagram, bytes.
const LARGEST: u32 = 65_535;
/// Fragment offsets count in units of this many bytes.
const UNIT: u32 = 8;
/// One bit for each unit of the largest payload.
const WORDS: usize = LARGEST.div_ceil(UNIT).div_ceil(64) as usize;

/// What the fragments of one datagram have in common (RFC 791 §3.2; RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    source: Address,
    destination: Address,
    /// 0 in IPv6, where it does not count.
    protocol: u8,
    id: u32,
}

/// What becomes of all fragments of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disposition {
    /// They go to this backend.
    Request { backend: u16 },
    /// They come from this backend, and leave as this VIP's.
    Reply { backend: u16, vip: u16 },
    /// They are not rewritten, and end like this.
    NotForwarded(Outcome),
}

/// What a fragment is to its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FragmentStatus {
    /// The first one of a datagram that was not known. [`FragmentTable::remember`] is to say what becomes of it.
    First,
    /// A further one.
    Later(Disposition),
    /// The first one has not come.
    BeforeFirst,
    /// It contradicts itself or the others, or repeats one of them.
    Rejected,
}

/// All known datagrams.
#[derive(Debug)]
pub(super) struct FragmentTable {
    entries: Box<[KnownDatagram]>,
    /// For each set, the entry to replace next: its oldest.
    oldest: [usize; SETS],
}

#[derive(Debug, Clone, Copy)]
struct KnownDatagram {
    /// `None`: the entry is free.
    datagram: Option<Datagram>,
    /// When the first fragment came, milliseconds.
    since: u64,
    disposition: Disposition,
    coverage: Coverage,
}

/// Which parts of a datagram have come.
#[derive(Debug, Clone, Copy)]
struct Coverage {
    seen: [u64; WORDS],
    units: u32,
    /// End of the furthest byte seen.
    reach: u32,
    /// End of the datagram, once its last fragment has come.
    end: Option<u32>,
    /// Fragments overlap or contradict each other: no more of them are forwarded.
    poisoned: bool,
}

impl Datagram {
    /// The datagram that a packet is a fragment of.
    #[must_use]
    pub fn of(packet: &ParsedPacket, fragment: &Fragment) -> Self {
        let protocol = if packet.family == Family::V4 { packet.protocol } else { 0 };
        Self { source: packet.source, destination: packet.destination, protocol, id: fragment.id }
    }

    /// The set of a pair of addresses. The hash has no key: whoever can forge addresses can forge the right ones anyway.
    fn set(&self) -> usize {
        let mixed = u128::from_be_bytes(self.source) ^ u128::from_be_bytes(self.destination).rotate_left(64);
        let folded = (mixed >> 64) ^ (mixed & u128::from(u64::MAX));
        ((folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) % SETS as u128) as usize
    }
}

impl FragmentTable {
    /// Allocates all its memory, about half a megabyte.
    pub(super) fn new() -> Self {
        let disposition = Disposition::NotForwarded(Outcome::DroppedFragment);
        let entry = KnownDatagram { datagram: None, since: 0, disposition, coverage: Coverage::NONE };
        Self { entries: vec![entry; SETS * WAYS].into_boxed_slice(), oldest: [0; SETS] }
    }

    /// Whether the first fragment has come, so that others need not wait.
    pub(super) fn knows(&self, datagram: &Datagram, now: u64) -> bool {
        self.find(datagram, now).is_some()
    }

    /// Adds a fragment to what is known of its datagram.
    pub(super) fn add(&mut self, datagram: &Datagram, fragment: &Fragment, now: u64) -> FragmentStatus {
        if !is_sound(fragment) {
            // A datagram with one such fragment must not be completed by others.
            if let Some(entry) = self.find(datagram, now).and_then(|at| self.entries.get_mut(at)) {
                entry.coverage.poisoned = true;
            }
            return FragmentStatus::Rejected;
        }
        let Some(entry) = self.find(datagram, now).and_then(|at| self.entries.get_mut(at)) else {
            return if fragment.offset == 0 { FragmentStatus::First } else { FragmentStatus::BeforeFirst };
        };
        if !entry.coverage.add(fragment) {
            return FragmentStatus::Rejected;
        }
        let disposition = entry.disposition;
        if entry.coverage.is_complete() {
            entry.datagram = None;
        }
        FragmentStatus::Later(disposition)
    }

    /// Remembers a datagram by its first fragment, in place of the oldest of its set.
    pub(super) fn remember(&mut self, datagram: &Datagram, first: &Fragment, disposition: Disposition, now: u64) {
        let set = datagram.set();
        let range = set * WAYS..(set + 1) * WAYS;
        let free = |entry: &KnownDatagram| entry.datagram.is_none() || now.saturating_sub(entry.since) >= LIFETIME_MS;
        let free = self.entries[range].iter().position(free);
        let way = free.unwrap_or(self.oldest[set]);
        if free.is_none() {
            self.oldest[set] = (way + 1) % WAYS;
        }
        let mut coverage = Coverage::NONE;
        coverage.add(first);
        self.entries[set * WAYS + way] = KnownDatagram { datagram: Some(*datagram), since: now, disposition, coverage };
    }

    fn find(&self, datagram: &Datagram, now: u64) -> Option<usize> {
        let first = datagram.set() * WAYS;
        let set = self.entries.get(first..first + WAYS)?.iter();
        let is_it =
            |entry: &KnownDatagram| entry.datagram == Some(*datagram) && now.saturating_sub(entry.since) < LIFETIME_MS;
        set.into_iter().position(is_it).map(|way| first + way)
    }
}

/// Whether a fragment is valid taken by itself.
fn is_sound(fragment: &Fragment) -> bool {
    let whole_units = !fragment.more || fragment.length.is_multiple_of(UNIT);
    fragment.length > 0 && whole_units && fragment.offset + fragment.length <= LARGEST
}

impl Coverage {
    const NONE: Self = Self { seen: [0; WORDS], units: 0, reach: 0, end: None, poisoned: false };

    /// `false`: the fragment must not be forwarded. An exact duplicate harms nobody (RFC 8200 §4.5); one that was partly seen
    /// poisons the datagram, and so does one that contradicts where the datagram ends.
    fn add(&mut self, fragment: &Fragment) -> bool {
        let end = fragment.offset + fragment.length;
        let beyond = self.end.is_some_and(|known| end > known || !fragment.more && end != known);
        if self.poisoned || beyond || !fragment.more && end < self.reach {
            self.poisoned = true;
            return false;
        }
        let (first, last) = (fragment.offset / UNIT, end.div_ceil(UNIT));
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
        if !fragment.more {
            self.end = Some(end);
        }
        true
    }

    fn is_complete(&self) -> bool {
        !self.poisoned && self.end.is_some_and(|end| end.div_ceil(UNIT) == self.units)
    }
}

#[cfg(test)]
mod tests;
