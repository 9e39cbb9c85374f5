//! The kernel path of an instance: loaded before the rights are trimmed, and from then on kept in step with roster and host
//! through its maps and by netlink. Never knows how a packet is read.

mod attach;
mod entries;
mod leftovers;
mod next;
mod off;

pub(crate) use leftovers::Leftovers;
pub(crate) use next::off;
pub(crate) use off::Off;

use crate::Error;
use crate::children::memory::random;
use crate::children::worker::Worker;
use crate::children::{self, dup};
use crate::handover::PathHandover;
use crate::roster::{BackendEntry, Roster};
use entries::{addresses, is_numbered, of_entry, plain};
use loaded_control::status::KernelPathStatus;
use loaded_fastpath::filter::Filters;
use loaded_fastpath::load::{self, identity};
use loaded_fastpath::program::{DESCRIPTORS, Program, Totals};
use loaded_fastpath::records::ComesBy;
use loaded_fastpath::{MAX_BACKENDS, Miss, REPORTS_BYTES, Towards};
use loaded_ipc::BackendIndex;
use loaded_netfilter::Steering;
use loaded_table::{FlowTable, TableSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// The loaded program, and where it is attached.
#[derive(Debug)]
pub(crate) struct FastPath {
    program: Program,
    filters: Filters,
    towards: Towards,
    /// By the index of the interface.
    attached: BTreeMap<u32, Attachment>,
    /// Names of interfaces that take no program, and have been told of.
    refused: BTreeMap<u32, String>,
    /// What did not fit, so that it is told once.
    left_out: BTreeSet<IpAddr>,
    /// What an earlier instance has attached to, and what is left there of it.
    leftovers: Leftovers,
    is_open: bool,
}

/// An interface with our filter.
#[derive(Debug)]
struct Attachment {
    name: String,
    /// Its `clsact` is there for our sake.
    ours: bool,
}

impl FastPath {
    /// Loads the program over the tables of these workers, for this roster.
    ///
    /// # Errors
    /// If the kernel refuses; nothing is left of it then.
    pub(crate) fn load(workers: &[Worker], steering: &Steering, roster: &Roster, base: u16) -> Result<Self, Error> {
        let of = |worker: &Worker| {
            Some(load::Worker { maps: worker.memory.maps()?.duplicate().ok()?, spec: worker.memory.flow_spec() })
        };
        let workers: Vec<_> = workers.iter().filter_map(of).collect();
        let (mask4, mask6, keys) = steering.numbers();
        let steering = load::Steering { mask4, mask6, keys };
        let addresses: Vec<_> = addresses(roster).into_iter().filter(is_numbered).collect();
        let seed = [u64::from_ne_bytes(random()?), u64::from_ne_bytes(random()?)];
        let loaded = load::load(&workers, &steering, &addresses, seed)?;
        let mut this = Self::of(loaded.program, base)?;
        this.follow(roster);
        Ok(this)
    }

    /// The program of a predecessor. `None`: this binary has another one.
    ///
    /// # Errors
    /// If its maps cannot be mapped.
    pub(crate) fn inherit(
        handover: PathHandover,
        descriptors: [OwnedFd; DESCRIPTORS],
        base: u16,
    ) -> Result<Option<Self>, Error> {
        if handover.program != identity() {
            return Ok(None);
        }
        Self::of(Program::of(descriptors, handover.seed)?, base).map(Some)
    }

    fn of(program: Program, base: u16) -> Result<Self, Error> {
        Ok(Self {
            program,
            filters: Filters::open(base)?,
            towards: Towards::open()?,
            attached: BTreeMap::new(),
            refused: BTreeMap::new(),
            left_out: BTreeSet::new(),
            leftovers: Leftovers::default(),
            is_open: false,
        })
    }

    /// What a successor needs.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub(crate) fn descriptors(&self) -> Result<Vec<OwnedFd>, children::Error> {
        self.program.descriptors().iter().map(dup).collect()
    }

    /// What a successor has to know.
    pub(crate) fn handover(&self) -> PathHandover {
        PathHandover { program: identity(), seed: self.program.seed() }
    }

    /// Tells the program what roster and host say of backends and virtual IPs.
    pub(crate) fn follow(&mut self, roster: &Roster) {
        // By which interfaces replies of an address are believed, as the rules do it: see `Reach::is_checked`.
        let is_asymmetric = |backend: &BackendEntry| {
            roster.service(backend.service).is_some_and(|entry| entry.service.policy.asymmetric)
        };
        let asymmetric = roster.backends().map(|(_, backend)| backend).filter(|backend| is_asymmetric(backend));
        let mut ways: BTreeMap<IpAddr, ComesBy> = asymmetric.map(|backend| (backend.address, ComesBy::Any)).collect();
        let mut backends = BTreeMap::new();
        for (index, backend) in roster.backends() {
            let towards = |address: &IpAddr| self.towards.interface(*address).map_or(ComesBy::None, ComesBy::This);
            let by = *ways.entry(backend.address).or_insert_with_key(towards);
            if let Some(backend) = of_entry(roster, backend, by) {
                backends.insert(index.0, backend);
            }
        }
        for index in 0..u16::try_from(MAX_BACKENDS).unwrap_or(u16::MAX) {
            let backend = backends.get(&index);
            if backend.is_some() || self.program.knows_backend(index) {
                self.program.set_backend(index, backend);
            }
        }
        for address in addresses(roster) {
            if !self.program.set_address(&address) && self.left_out.insert(plain(&address)) {
                log::warn!("kernel path: no room for {}: its packets go by the queue", plain(&address));
            }
        }
    }

    /// Tells the program of tables that were made anew.
    pub(crate) fn tell_tables(&self, workers: &[Worker]) {
        for worker in workers {
            self.program.set_table(worker.position, worker.memory.flow_spec());
        }
    }

    /// What an operator wants to know of it.
    pub(crate) fn status(&self) -> KernelPathStatus {
        let missed = Miss::ALL.iter().filter(|why| why.is_counted());
        KernelPathStatus {
            off: None,
            off_reason: None,
            interfaces: self.attached.values().map(|attachment| attachment.name.clone()).collect(),
            refused: self.refused.values().cloned().collect(),
            missed: missed.map(|why| (why.label().to_owned(), self.program.missed(*why))).collect(),
        }
    }

    /// What was sent on to a backend and from it.
    pub(crate) fn totals(&self, backend: BackendIndex) -> Totals {
        self.program.totals(backend.0)
    }

    /// Packets sent on to all backends, and from them.
    pub(crate) fn sums(&self) -> (u64, u64) {
        let of = (0..u16::try_from(MAX_BACKENDS).unwrap_or(u16::MAX)).map(|index| self.program.totals(index));
        of.fold((0, 0), |(to, from), one| (to + one.packets_to, from + one.packets_from))
    }

    /// Packets sent on, to and from all backends; and why others were not.
    pub(crate) fn summary(&self) -> String {
        let (to, from) = self.sums();
        let missed = Miss::ALL
            .iter()
            .filter(|why| why.is_counted())
            .map(|why| format!("{} {}", why.label(), self.program.missed(*why)));
        format!(
            "kernel path: {to} packets to backends, {from} from them; left to the queue: {}",
            missed.collect::<Vec<_>>().join(", ")
        )
    }
}

/// Whether this kernel takes the program: loads it over an empty table, as a start does, and lets go of it.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn trial() -> Result<(), loaded_fastpath::Error> {
    const ENTRIES: usize = 1024;
    let maps = load::WorkerMaps::new(FlowTable::bytes_for(ENTRIES), REPORTS_BYTES)?;
    let worker = load::Worker { maps, spec: TableSpec::new(ENTRIES, [0; 16]) };
    let steering = load::Steering { mask4: u32::MAX, mask6: [u32::MAX; 4], keys: [1; 6] };
    load::load(&[worker], &steering, &[], [1, 1]).map(drop)
}
