//! Loads the program and owns what belongs to the whole instance. For the supervisor: it needs CAP_BPF, CAP_NET_ADMIN and
//! CAP_PERFMON (or CAP_SYS_ADMIN) until all is loaded, and none to write records or read counters.

use crate::address_table::{self, Seed};
use crate::error::Error;
use crate::mapping::{Access, Mapping};
use crate::records::{self, Backend, Kind, Records};
use crate::shared::{ADDRESS_BUCKETS, ADDRESS_SLOTS, MAX_BACKENDS, MAX_VIPS, MAX_WORKERS, Miss, TOTAL_BYTES};
use aya::maps::{ArrayOfMaps, Map, MapData};
use aya::programs::tc::{self, NlOptions, TcAttachOptions, TcError};
use aya::programs::{ProgramFd, SchedClassifier, TcAttachType, TestRun, TestRunOptions};
use aya::util::{KernelVersion, nr_cpus};
use aya::{Ebpf, EbpfLoader};
use loaded_table::TableSpec;
use loaded_table::reader::LINE;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::Relaxed;

static PROGRAM: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fast.bpf.o"));

/// include/uapi/linux/bpf.h
const ARRAY: u32 = 2;
const RINGBUF: u32 = 27;
const MMAPABLE: u32 = 1 << 10;
const INNER_MAP: u32 = 1 << 12;
/// BPF_FIB_LOOKUP_SKIP_NEIGH, Linux 6.3. Without it a neighbour that is not known yet makes a packet go the other way, which
/// makes it known.
const SKIP_NEIGH: u32 = 1 << 2;

/// Of our filter among those of an interface: behind those that others number by hand, before those that the kernel numbers.
const PRIORITY: u16 = 40_000;
const EEXIST: i32 = 17;

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

/// The loaded program, and the maps of the instance.
#[derive(Debug)]
pub struct Program {
    ebpf: Ebpf,
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

impl Program {
    /// Loads the program over these workers' tables, for these addresses. `random` should be secret.
    ///
    /// # Errors
    /// If the kernel or its verifier refuses, or the addresses do not fit.
    pub fn load(
        workers: &[Worker],
        steering: &Steering,
        addresses: &[([u8; 16], Kind)],
        random: Seed,
    ) -> Result<Self, Error> {
        let plain: Vec<_> = addresses.iter().map(|(address, _)| *address).collect();
        let placed = address_table::place(&plain, random).ok_or(Error::Addresses { addresses: addresses.len() })?;
        let mut ebpf = parse(workers.len(), steering, placed.seed)?;
        enter(&mut ebpf, workers)?;
        let cpus = cpus()?;
        let map = |name| map(&ebpf, name);
        let program = Self {
            backends: Records::map(map("backends")?, "backends", MAX_BACKENDS)?,
            vips: Records::map(map("vips")?, "virtual IPs", MAX_VIPS)?,
            addresses: Records::map(map("addresses")?, "addresses", ADDRESS_BUCKETS * ADDRESS_SLOTS)?,
            workers: Records::map(map("workers")?, "workers", MAX_WORKERS)?,
            totals: Mapping::new(map("totals")?, "totals", (0, cpus * MAX_BACKENDS * TOTAL_BYTES), Access::Read)?,
            misses: Mapping::new(map("misses")?, "misses", (0, cpus * Miss::ALL.len() * 8), Access::Read)?,
            seed: placed.seed,
            ebpf,
        };
        for (index, worker) in (0..).zip(workers) {
            program.set_table(index, worker.spec);
        }
        for ((address, kind), slot) in addresses.iter().zip(placed.slots) {
            if let Kind::Vip(index) = *kind {
                let (what, number) = ("the number of a virtual IP", usize::from(index));
                if number >= MAX_VIPS {
                    return Err(Error::Limit { what, number, limit: MAX_VIPS });
                }
                program.vips.set(number, kind.words(address));
            }
            program.addresses.set(slot, kind.words(address));
        }
        Ok(program)
    }

    /// A worker's table was made anew. Until this is said the program finds no flow in it.
    pub fn set_table(&self, worker: u16, spec: TableSpec) {
        self.workers.set(usize::from(worker), records::table(spec));
    }

    /// Sets or removes a backend. Packets of its flows go by this from now on.
    pub fn set_backend(&self, index: u16, backend: Option<&Backend>) {
        self.backends.set(usize::from(index), backend.map_or([0; 4], Backend::words));
    }

    /// Enters an address that was not there at the start. Returns whether there was room: if not, its packets go by the queue.
    pub fn add_address(&self, address: &[u8; 16], kind: Kind) -> bool {
        if let Kind::Vip(index) = kind {
            if usize::from(index) >= MAX_VIPS {
                return false;
            }
            self.vips.set(usize::from(index), kind.words(address));
        }
        let words = kind.words(address);
        let first = address_table::bucket_of(address, self.seed) * ADDRESS_SLOTS;
        let is = |slot: &usize, wanted: fn(&[u64; 4], &[u64; 4]) -> bool| {
            self.addresses.get(*slot).is_some_and(|found| wanted(&found, &words))
        };
        let slots = first..first + ADDRESS_SLOTS;
        let known = slots.clone().find(|slot| is(slot, |found, new| found[3] != 0 && found[..2] == new[..2]));
        let slot = known.or_else(|| slots.clone().find(|slot| is(slot, |found, _| found[3] == 0)));
        slot.inspect(|slot| self.addresses.set(*slot, words)).is_some()
    }

    /// What is known of a backend.
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

    /// The seed by which addresses are placed.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// Lets the program have a frame as if it had come in by this interface: what it says, and the length of what it made of it
    /// in `out`. `context` is the kernel's `struct __sk_buff`.
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
        let program = self.classifier(header)?;
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(out),
            ctx_in: Some(context),
            repeat,
            ..TestRunOptions::new()
        };
        let done = program.test_run(options).map_err(|e| kernel("run the program on a packet", &e))?;
        Ok((done.return_value.cast_signed(), done.data_size_out as usize, done.duration))
    }

    /// Attaches the program to an interface, behind all filters with a lower priority, and in place of one that an earlier
    /// instance has left. It stays until it is [`detach`]ed, whatever becomes of this process.
    ///
    /// # Errors
    /// If the interface takes none.
    pub fn attach(&mut self, interface: &str) -> Result<(), Error> {
        detach(interface);
        match tc::qdisc_add_clsact(interface) {
            Ok(()) => {}
            // It has one.
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(EEXIST) => {}
            Err(error) => return Err(kernel("add clsact", &error)),
        }
        let name = Header::Ethernet.program();
        let program = self.ebpf.program_mut(name).ok_or_else(|| kernel("find the program", &std::fmt::Error))?;
        let program: &mut SchedClassifier =
            program.try_into().map_err(|e: aya::programs::ProgramError| kernel("find the program", &e))?;
        let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, ..NlOptions::default() });
        let id =
            program.attach_with_options(interface, TcAttachType::Ingress, options).map_err(|e| kernel("attach", &e))?;
        // Dropped, it would be detached.
        std::mem::forget(program.take_link(id).map_err(|e| kernel("attach", &e))?);
        Ok(())
    }

    /// How often the program ran and for how long in all, while `kernel.bpf_stats_enabled` was on.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn runs(&self, header: Header) -> Result<(u64, std::time::Duration), Error> {
        let info = self.classifier(header)?.info().map_err(|e| kernel("ask about the program", &e))?;
        Ok((info.run_count(), info.run_time()))
    }

    /// The program for devices of this kind.
    ///
    /// # Errors
    /// Never: both were loaded.
    pub fn fd(&self, header: Header) -> Result<&ProgramFd, Error> {
        self.classifier(header)?.fd().map_err(|e| kernel("find the program", &e))
    }

    fn classifier(&self, header: Header) -> Result<&SchedClassifier, Error> {
        let name = header.program();
        let program = self.ebpf.program(name).ok_or_else(|| kernel("find the program", &std::fmt::Error))?;
        program.try_into().map_err(|e: aya::programs::ProgramError| kernel("find the program", &e))
    }
}

/// Removes the program, of whichever instance, from an interface.
pub fn detach(interface: &str) {
    for header in [Header::Ethernet, Header::None] {
        // Not there: there is nothing to remove.
        let _ = tc::qdisc_detach_program(interface, TcAttachType::Ingress, header.program());
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

/// Lines of numbers for a table of so many bytes: four bytes for each slot of 40.
fn numbers_for(table: usize) -> usize {
    (table / 40 * 4).div_ceil(LINE)
}

fn create(name: &str, (kind, value, entries): (u32, usize, usize), flags: u32) -> Result<OwnedFd, Error> {
    let number =
        |n: usize| u32::try_from(n).map_err(|_| Error::Limit { what: "a map's size", number: n, limit: 1 << 32 });
    let key = if kind == RINGBUF { 0 } else { 4 };
    let map = aya_obj::Map::new_from_params(kind, key, number(value)?, number(entries)?, flags);
    let map = MapData::create(map, name, None).map_err(|e| kernel("make a map", &e))?;
    map.fd().as_fd().try_clone_to_owned().map_err(|e| kernel("keep a map", &e))
}

fn map<'e>(ebpf: &'e Ebpf, name: &str) -> Result<BorrowedFd<'e>, Error> {
    match ebpf.map(name) {
        Some(Map::Array(map)) => Ok(map.fd().as_fd()),
        _ => Err(kernel("find a map", &std::fmt::Error)),
    }
}

fn cpus() -> Result<usize, Error> {
    nr_cpus().map_err(|(path, error)| Error::Kernel { act: "count the CPUs", reason: format!("{path}: {error}") })
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
