//! The program of an instance as its supervisor has it: the records that it writes and the counts that it reads, all by
//! mappings. Needs bpf(2) for nothing, so it can be handed from one supervisor to the next.

use crate::address_table::{self, Seed};
use crate::error::Error;
use crate::mapping::{Access, Mapping};
use crate::records::{self, Address, Backend, Kind, Records};
use crate::shared::{ADDRESS_BUCKETS, ADDRESS_SLOTS, MAX_BACKENDS, MAX_VIPS, MAX_WORKERS, Miss, TOTAL_BYTES};
use loaded_table::TableSpec;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

/// The maps of an instance, by their names in the program (`bpf/maps.h`).
pub(crate) const MAPS: [&str; 6] = ["backends", "vips", "addresses", "workers", "totals", "misses"];
/// Descriptors of a program: of both its entries, and of its maps.
pub const DESCRIPTORS: usize = 2 + MAPS.len();

/// The loaded program, and the maps of the instance.
#[derive(Debug)]
pub struct Program {
    descriptors: [OwnedFd; DESCRIPTORS],
    seed: Seed,
    backends: Records,
    vips: Records,
    addresses: Records,
    workers: Records,
    totals: Mapping,
    misses: Mapping,
}

/// Packets and bytes that the program has sent on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// To the backend.
    pub packets_to: u64,
    /// With IP headers.
    pub bytes_to: u64,
    /// From the backend.
    pub packets_from: u64,
    /// With IP headers.
    pub bytes_from: u64,
}

/// Which devices a program is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// Ethernet, and what looks like it: bridges, bonds, VLANs, veth.
    Ethernet,
    /// None: tunnels.
    None,
}

impl Program {
    /// A program by its descriptors, in the order of [`Program::descriptors`], and the seed by which its addresses are placed.
    /// They must come from a supervisor: they are not looked at.
    ///
    /// # Errors
    /// If a map cannot be mapped.
    pub fn of(descriptors: [OwnedFd; DESCRIPTORS], seed: Seed) -> Result<Self, Error> {
        let [_, _, backends, vips, addresses, workers, totals, misses] = &descriptors;
        let cpus = cpus()?;
        Ok(Self {
            backends: Records::map(backends, "backends", MAX_BACKENDS)?,
            vips: Records::map(vips, "virtual IPs", MAX_VIPS)?,
            addresses: Records::map(addresses, "addresses", ADDRESS_BUCKETS * ADDRESS_SLOTS)?,
            workers: Records::map(workers, "workers", MAX_WORKERS)?,
            totals: Mapping::new(totals, "totals", (0, cpus * MAX_BACKENDS * TOTAL_BYTES), Access::Read)?,
            misses: Mapping::new(misses, "misses", (0, cpus * Miss::ALL.len() * 8), Access::Read)?,
            seed,
            descriptors,
        })
    }

    /// What another supervisor needs to go on with it, beside the [`Program::seed`].
    #[must_use]
    pub fn descriptors(&self) -> &[OwnedFd; DESCRIPTORS] {
        &self.descriptors
    }

    /// The program for devices of this kind.
    #[must_use]
    pub fn entry(&self, header: Header) -> BorrowedFd<'_> {
        let [ethernet, bare, ..] = &self.descriptors;
        if header == Header::Ethernet { ethernet.as_fd() } else { bare.as_fd() }
    }

    /// The seed by which addresses are placed.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// A worker's table was made anew. Until this is said the program finds no flow in it.
    pub fn set_table(&self, worker: u16, spec: TableSpec) {
        self.workers.set(usize::from(worker), records::table(spec));
    }

    /// Sets or removes a backend. Packets of its flows go by this from now on.
    pub fn set_backend(&self, index: u16, backend: Option<&Backend>) {
        self.backends.set(usize::from(index), backend.map_or([0; 4], Backend::words));
    }

    /// Enters an address, or what is new about it. Returns whether there was room: if not, its packets go by the queue.
    pub fn set_address(&self, address: &Address) -> bool {
        if let Kind::Vip(index) = address.kind {
            if usize::from(index) >= MAX_VIPS {
                return false;
            }
            self.vips.set(usize::from(index), address.words());
        }
        let words = address.words();
        let first = address_table::bucket_of(&address.address, self.seed) * ADDRESS_SLOTS;
        let is = |slot: &usize, wanted: fn(&[u64; 4], &[u64; 4]) -> bool| {
            self.addresses.get(*slot).is_some_and(|found| wanted(&found, &words))
        };
        let slots = first..first + ADDRESS_SLOTS;
        let known = slots.clone().find(|slot| is(slot, |found, new| found[3] != 0 && found[..2] == new[..2]));
        let slot = known.or_else(|| slots.clone().find(|slot| is(slot, |found, _| found[3] == 0)));
        slot.inspect(|slot| self.addresses.set(*slot, words)).is_some()
    }

    /// Enters an address at the slot where it was placed.
    pub(crate) fn place_address(&self, slot: usize, address: &Address) {
        if let Kind::Vip(index) = address.kind {
            self.vips.set(usize::from(index), address.words());
        }
        self.addresses.set(slot, address.words());
    }

    /// Whether a backend is known.
    #[must_use]
    pub fn knows_backend(&self, index: u16) -> bool {
        self.backends.get(usize::from(index)).is_some_and(|words| words[3] != 0)
    }

    /// What went to and came from a backend, by all CPUs.
    #[must_use]
    pub fn totals(&self, backend: u16) -> Totals {
        let mut sum = Totals::default();
        for all in self.totals.words().chunks_exact(MAX_BACKENDS * TOTAL_BYTES / 8) {
            let [packets_to, bytes_to, packets_from, bytes_from] =
                [0, 1, 2, 3].map(|n| all[usize::from(backend) % MAX_BACKENDS * 4 + n].load(Relaxed));
            sum.packets_to += packets_to;
            sum.bytes_to += bytes_to;
            sum.packets_from += packets_from;
            sum.bytes_from += bytes_from;
        }
        sum
    }

    /// How many packets went on to the rules for this reason, by all CPUs.
    #[must_use]
    pub fn missed(&self, why: Miss) -> u64 {
        let all = self.misses.words().chunks_exact(Miss::ALL.len());
        all.map(|one| one[why as usize].load(Relaxed)).fold(0, u64::wrapping_add)
    }
}

/// CPUs that may ever be there: the program counts by their numbers.
pub(crate) fn cpus() -> Result<usize, Error> {
    const POSSIBLE: &str = "/sys/devices/system/cpu/possible";
    let fail = |source: io::Error| Error::Kernel { act: "count the CPUs", reason: format!("{POSSIBLE}: {source}") };
    // "0-3", or "0", or "0,2-3": the last number is the highest.
    let text = fs::read_to_string(POSSIBLE).map_err(fail)?;
    let last = text.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<usize>().ok());
    last.map(|last| last + 1).ok_or_else(|| fail(io::Error::other(format!("{text:?} is no list of CPUs"))))
}
