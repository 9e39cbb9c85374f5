//! Makes the maps and loads the program. For the supervisor: it needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (or CAP_SYS_ADMIN)
//! until all is loaded.

use crate::address_table::{self, Seed};
use crate::error::Error;
use crate::program::{DESCRIPTORS, Header, MAPS, Program, cpus};
use crate::records::{Address, Kind};
use crate::ring_fix;
use crate::shared::{MAX_BACKENDS, MAX_VIPS, MAX_WORKERS};
use aya::maps::{ArrayOfMaps, Map, MapData};
use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramInfo, SchedClassifier, TestRun, TestRunOptions};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use loaded_table::TableSpec;
use loaded_table::facts::{LINE, SLOT};
use std::os::fd::{AsFd, OwnedFd};

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fast.bpf.o"));

/// include/uapi/linux/bpf.h
const ARRAY: u32 = 2;
const RINGBUF: u32 = 27;
const MMAPABLE: u32 = 1 << 10;
const INNER_MAP: u32 = 1 << 12;
/// BPF_FIB_LOOKUP_SKIP_NEIGH, Linux 6.3. Without it a neighbour that is not known yet makes a packet go the other way, which
/// makes it known.
const SKIP_NEIGH: u32 = 1 << 2;

/// The maps of one worker.
#[derive(Debug)]
pub struct WorkerMaps {
    /// Its flow table, to be mapped with `Region::map_array`.
    pub table: OwnedFd,
    /// For the program alone, as long as the table.
    pub numbers: OwnedFd,
    /// For [`crate::Keeping`].
    pub keeping: OwnedFd,
    /// For [`crate::Reports`].
    pub ring: OwnedFd,
}

/// A worker's maps, and what its table is.
#[derive(Debug)]
pub struct Worker {
    /// Its maps.
    pub maps: WorkerMaps,
    /// What its table was made as.
    pub spec: TableSpec,
}

/// Which worker a client belongs to, in the numbers of the rules (`src/netfilter/src/rules/steer.rs`).
#[derive(Debug, Clone, Copy)]
pub struct Steering {
    /// The part of an IPv4 address that counts.
    pub mask4: u32,
    /// The parts of the four words of an IPv6 address that count.
    pub mask6: [u32; 4],
    /// Multipliers of four words, what is added, and the last multiplier.
    pub keys: [u32; 6],
}

/// The loaded program, and what it was loaded with: enough to try it.
#[derive(Debug)]
pub struct LoadedProgram {
    ebpf: Ebpf,
    /// What the supervisor keeps of it.
    pub program: Program,
}

impl WorkerMaps {
    /// Maps around a table that is there already, of an earlier instance: another ring, in which nothing was told yet, and other
    /// bytes, by which no flow is kept yet. Asks the kernel what the table is, for a hostile process may have had it.
    ///
    /// # Errors
    /// If it is no such array, or too short; or as for [`WorkerMaps::new`].
    pub fn around(table: OwnedFd, bytes: usize, ring: usize) -> Result<Self, Error> {
        let fail = |e: std::io::Error| kernel("keep a map", &e);
        let info = MapData::from_fd(table.try_clone().map_err(fail)?).and_then(|map| map.info());
        let info = info.map_err(|e| kernel("ask about a flow table", &e))?;
        let is_array = matches!(info.map_type(), Ok(aya::maps::MapType::Array)) && info.map_flags() & MMAPABLE != 0;
        let is_long = usize::try_from(info.max_entries()).is_ok_and(|lines| lines * LINE >= bytes);
        if !is_array || info.value_size() as usize != LINE || !is_long {
            return Err(Error::Kernel { act: "keep a flow table", reason: "it is no array of its size".to_owned() });
        }
        let Self { numbers, keeping, ring, .. } = Self::new(bytes, ring)?;
        Ok(Self { table, numbers, keeping, ring })
    }

    /// The same maps by other descriptors.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn duplicate(&self) -> std::io::Result<Self> {
        Ok(Self {
            table: self.table.try_clone()?,
            numbers: self.numbers.try_clone()?,
            keeping: self.keeping.try_clone()?,
            ring: self.ring.try_clone()?,
        })
    }

    /// Makes a worker's maps, empty: a table of `table` bytes, and a ring of `ring` bytes, a power of two and a multiple of the
    /// page size.
    ///
    /// # Errors
    /// If the kernel refuses: rights, memory, RLIMIT_MEMLOCK before Linux 5.11.
    pub fn new(table: usize, ring: usize) -> Result<Self, Error> {
        Ok(Self {
            table: create("loaded_flows", (ARRAY, LINE, table.div_ceil(LINE)), MMAPABLE | INNER_MAP)?,
            numbers: create("loaded_numbers", (ARRAY, LINE, numbers_for(table)), INNER_MAP)?,
            keeping: create("loaded_keeping", (ARRAY, LINE, MAX_BACKENDS / LINE), MMAPABLE)?,
            ring: create("loaded_reports", (RINGBUF, 0, ring), 0)?,
        })
    }
}

/// Loads the program over these workers' tables, for these addresses. `random` should be secret.
///
/// # Errors
/// If the kernel lacks a fix, it or its verifier refuses, or the addresses do not fit.
pub fn load(
    workers: &[Worker],
    steering: &Steering,
    addresses: &[Address],
    random: Seed,
) -> Result<LoadedProgram, Error> {
    ring_fix::require()?;
    let plain: Vec<_> = addresses.iter().map(|address| address.address).collect();
    let placed = address_table::place(&plain, random).ok_or(Error::Addresses { addresses: addresses.len() })?;
    let mut ebpf = parse(workers.len(), steering, placed.seed)?;
    enter(&mut ebpf, workers)?;
    let program = Program::of(descriptors(&ebpf)?, placed.seed)?;
    for (index, worker) in (0..).zip(workers) {
        program.set_table(index, worker.spec);
    }
    for (address, slot) in addresses.iter().zip(placed.slots) {
        if let Kind::Vip(index) = address.kind {
            let (what, number) = ("the number of a virtual IP", usize::from(index));
            if number >= MAX_VIPS {
                return Err(Error::Limit { what, number, limit: MAX_VIPS });
            }
        }
        program.place_address(slot, address);
    }
    Ok(LoadedProgram { ebpf, program })
}

/// Programs at tcx ingress of an interface, each with its name and id. None of them is ours, which is a filter
/// ([`crate::filter`]). None where the kernel does not tell: it is older than tcx (Linux 6.6), or this process lacks CAP_SYS_ADMIN.
#[must_use]
pub fn tcx_programs(interface: &str) -> Vec<String> {
    let programs = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
    let name = |program: &ProgramInfo| format!("{} with id {}", program.name_as_str().unwrap_or("one"), program.id());
    programs.map_or_else(|_| Vec::new(), |(_, programs)| programs.iter().map(name).collect())
}

/// Names the program that this binary has: another one may read tables and records in another way.
#[must_use]
pub fn identity() -> u64 {
    // FNV-1a, 64 bits: it tells releases apart, and nobody has a reason to forge it.
    PROGRAM.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

impl LoadedProgram {
    /// Lets the program have a frame as if it had come in by an interface: what it says, and the length of what it made of it in
    /// `out`. `context` is the kernel's `struct __sk_buff`.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn try_frame(
        &self,
        header: Header,
        frame: &[u8],
        out: &mut [u8],
        (context, repeat): (&[u8], u32),
    ) -> Result<(i32, usize, std::time::Duration), Error> {
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out),
            ctx_in: Some(context),
            repeat,
            ..TestRunOptions::new()
        };
        let done =
            entry(&self.ebpf, header)?.test_run(options).map_err(|e| kernel("run the program on a packet", &e))?;
        Ok((done.return_value.cast_signed(), done.data_size_out as usize, done.duration))
    }

    /// How often the program ran and for how long in all, while `kernel.bpf_stats_enabled` was on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn runs(&self, header: Header) -> Result<(u64, std::time::Duration), Error> {
        let info = entry(&self.ebpf, header)?.info().map_err(|e| kernel("ask about the program", &e))?;
        Ok((info.run_count(), info.run_time()))
    }
}

impl Header {
    fn program(self) -> &'static str {
        match self {
            Self::Ethernet => "loaded_ether",
            Self::None => "loaded_bare",
        }
    }
}

fn entry(ebpf: &Ebpf, header: Header) -> Result<&SchedClassifier, Error> {
    let program = ebpf.program(header.program()).ok_or_else(|| kernel("find the program", &std::fmt::Error))?;
    program.try_into().map_err(|e: aya::programs::ProgramError| kernel("find the program", &e))
}

/// Both entries, and the maps of the instance.
fn descriptors(ebpf: &Ebpf) -> Result<[OwnedFd; DESCRIPTORS], Error> {
    let keep = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|e| kernel("keep a map", &e));
    let mut all = Vec::with_capacity(DESCRIPTORS);
    for header in [Header::Ethernet, Header::None] {
        let fd = entry(ebpf, header)?.fd().map_err(|e| kernel("find the program", &e))?;
        all.push(keep(fd.as_fd())?);
    }
    for name in MAPS {
        match ebpf.map(name) {
            Some(Map::Array(map)) => all.push(keep(map.fd().as_fd())?),
            _ => return Err(kernel("find a map", &std::fmt::Error)),
        }
    }
    all.try_into().map_err(|_| kernel("find a map", &std::fmt::Error))
}

/// Makes the instance's maps, with what stays as it is, and loads both programs.
fn parse(workers: usize, steering: &Steering, seed: Seed) -> Result<Ebpf, Error> {
    if workers == 0 || workers > MAX_WORKERS {
        return Err(Error::Limit { what: "the number of workers", number: workers, limit: MAX_WORKERS + 1 });
    }
    let cpus = u32::try_from(cpus()?).unwrap_or(1);
    let [k0, k1, k2, k3, sum, mix] = steering.keys;
    let [m0, m1, m2, m3] = steering.mask6;
    let count = u32::try_from(workers).unwrap_or(1);
    let numbers: [u32; 12] = [count, steering.mask4, m0, m1, m2, m3, k0, k1, k2, k3, sum, mix];
    let fib_flags =
        if KernelVersion::current().is_ok_and(|v| v >= KernelVersion::new(6, 3, 0)) { SKIP_NEIGH } else { 0 };
    let per_backend = cpus.saturating_mul(u32::try_from(MAX_BACKENDS).unwrap_or(u32::MAX));
    let mut loader = EbpfLoader::new();
    loader.map_max_entries("totals", per_backend).map_max_entries("misses", cpus);
    loader.override_global("steering", &numbers, true).override_global("address_seed", &seed, true);
    loader.override_global("fib_flags", &fib_flags, true);
    let mut ebpf = loader.load(PROGRAM).map_err(|e| kernel("load the maps", &e))?;
    for header in [Header::Ethernet, Header::None] {
        let program = ebpf.program_mut(header.program()).ok_or_else(|| kernel("find the program", &std::fmt::Error))?;
        let program: &mut SchedClassifier =
            program.try_into().map_err(|e: aya::programs::ProgramError| kernel("find the program", &e))?;
        program.load().map_err(|e| kernel("load the program", &e))?;
    }
    Ok(ebpf)
}

/// Enters each worker's maps.
fn enter(ebpf: &mut Ebpf, workers: &[Worker]) -> Result<(), Error> {
    for (name, of) in [
        ("tables", (|maps| &maps.table) as fn(&WorkerMaps) -> &OwnedFd),
        ("numbers", |maps| &maps.numbers),
        ("keeping", |maps| &maps.keeping),
        ("rings", |maps| &maps.ring),
    ] {
        let map = ebpf.map_mut(name).ok_or_else(|| kernel("find a map", &std::fmt::Error))?;
        let mut outer: ArrayOfMaps<&mut MapData, MapData> = map.try_into().map_err(|e| kernel("enter a map", &e))?;
        for (index, worker) in (0..).zip(workers) {
            let fd = of(&worker.maps).try_clone().map_err(|e| kernel("enter a map", &e))?;
            let inner = MapData::from_fd(fd).map_err(|e| kernel("enter a map", &e))?;
            outer.set(index, &inner, 0).map_err(|e| kernel("enter a map", &e))?;
        }
    }
    Ok(())
}

/// Lines of numbers for a table of so many bytes: four bytes for each slot.
fn numbers_for(table: usize) -> usize {
    (table / SLOT * 4).div_ceil(LINE)
}

fn create(name: &str, (kind, value, entries): (u32, usize, usize), flags: u32) -> Result<OwnedFd, Error> {
    let number =
        |n: usize| u32::try_from(n).map_err(|_| Error::Limit { what: "a map's size", number: n, limit: 1 << 32 });
    let key = if kind == RINGBUF { 0 } else { 4 };
    let map = aya_obj::Map::new_from_params(kind, key, number(value)?, number(entries)?, flags);
    let map = MapData::create(map, name, None).map_err(|e| kernel("make a map", &e))?;
    map.fd().as_fd().try_clone_to_owned().map_err(|e| kernel("keep a map", &e))
}

/// With all causes: the last one is what the kernel said.
fn kernel(act: &'static str, error: &dyn std::error::Error) -> Error {
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !reason.contains(&text) {
            reason = format!("{reason}: {text}");
        }
        cause = error.source();
    }
    Error::Kernel { act, reason }
}
