//! The memory that a worker works in. The supervisor holds it, so that the next process finds the flows of the previous
//! one.

use crate::Error;
use crate::child::dup;
use loaded_config::plan::Plan;
use loaded_fastpath::REPORTS_BYTES;
use loaded_fastpath::load::WorkerMaps;
use loaded_ipc::{ALL_COUNTERS, Fault, Idle, TableKey, TableKeys, ToWorker};
use loaded_roster::monotonic;
use loaded_table::{
    AffinityTable, CounterReader, Counters, Damage, FlowReader, FlowTable, Region, TableSpec, Timeouts,
};
use loaded_table::{export, shm};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// Places of a bucket: eight entries (`src/table/src/layout.rs`).
const PLACES: usize = 8;

/// Tables and counters of one worker.
#[derive(Debug)]
pub struct Memory {
    pub(crate) flows: OwnedFd,
    pub(crate) clients: OwnedFd,
    pub(crate) counters: OwnedFd,
    /// The worker's counts. A hostile worker may write any numbers here.
    pub seen: CounterReader,
    /// Maximum numbers of flows and of clients.
    capacities: (u32, u32),
    /// The tables' hash keys. Neither these nor the capacities are ever read from the tables, which any worker can write.
    keys: TableKeys,
    /// The kernel path's maps of this worker; the flow table is one of them.
    maps: Option<WorkerMaps>,
}

impl Memory {
    /// Makes empty tables of the sizes in the plan, with new secret hash keys. `fast`: the flow table is one that the kernel path
    /// can read.
    ///
    /// # Errors
    /// If there is no memory, the kernel path's maps cannot be made, or no descriptor is left.
    pub fn new(plan: &Plan, fast: bool) -> Result<Self, Error> {
        if !fast {
            return Self::with(None, None, None, plan);
        }
        let clients = shm::create("loaded-clients", AffinityTable::bytes_for(plan.clients as usize))?;
        let counters = shm::create("loaded-counters", Counters::bytes_for(ALL_COUNTERS))?;
        let maps = WorkerMaps::new(FlowTable::bytes_for(plan.flows as usize), REPORTS_BYTES)?;
        let this = Self {
            seen: CounterReader::map(&counters)?,
            flows: dup(&maps.table)?,
            clients,
            counters,
            capacities: (plan.flows, plan.clients),
            keys: new_keys()?,
            maps: Some(maps),
        };
        this.format()?;
        Ok(this)
    }

    /// The kernel path's maps, if the flow table is one of them.
    pub fn maps(&self) -> Option<&WorkerMaps> {
        self.maps.as_ref()
    }

    /// What the flow table is.
    pub fn flow_spec(&self) -> TableSpec {
        self.specs().0
    }

    /// Places of the flow table.
    pub(crate) fn flow_places(&self) -> u32 {
        let buckets = self.flow_spec().buckets().unwrap_or(0);
        u32::try_from(buckets.saturating_mul(PLACES)).unwrap_or(u32::MAX)
    }

    /// The flow table, mapped.
    fn map_flows(&self) -> Result<Region, Error> {
        Ok(match &self.maps {
            Some(maps) => Region::map_array(&maps.table, FlowTable::bytes_for(self.capacities.0 as usize))?,
            None => Region::map(&self.flows)?,
        })
    }

    /// The same around the tables (flows, clients, and their keys) and counters of another worker, where they are given, and what
    /// else a predecessor has had of its kernel path: numbers, bytes of backends, ring. Whoever opens the tables checks their
    /// entries.
    ///
    /// # Errors
    /// If one of them is not what it should be, or there is no memory.
    pub fn with(
        tables: Option<(OwnedFd, OwnedFd, TableKeys)>,
        counters: Option<OwnedFd>,
        kernel_path: Option<[OwnedFd; 3]>,
        plan: &Plan,
    ) -> Result<Self, Error> {
        let capacities = (plan.flows, plan.clients);
        let sizes = (FlowTable::bytes_for(plan.flows as usize), AffinityTable::bytes_for(plan.clients as usize));
        let are_empty = tables.is_none();
        let (flows, clients, keys) = match tables {
            Some(tables) => tables,
            None => (shm::create("loaded-flows", sizes.0)?, shm::create("loaded-clients", sizes.1)?, new_keys()?),
        };
        let counters = match counters {
            Some(counters) => counters,
            None => shm::create("loaded-counters", Counters::bytes_for(ALL_COUNTERS))?,
        };
        let maps = match (is_map(&flows), kernel_path) {
            (true, Some([numbers, keeping, ring])) => Some(WorkerMaps { table: dup(&flows)?, numbers, keeping, ring }),
            (true, None) => Some(WorkerMaps::around(dup(&flows)?, sizes.0, REPORTS_BYTES)?),
            (false, _) => {
                shm::check(&flows, sizes.0)?;
                None
            }
        };
        shm::check(&clients, sizes.1)?;
        shm::check(&counters, Counters::bytes_for(ALL_COUNTERS))?;
        let this = Self { seen: CounterReader::map(&counters)?, flows, clients, counters, capacities, keys, maps };
        if are_empty {
            this.format()?;
        }
        Ok(this)
    }

    /// The counters, for writing.
    pub(crate) fn counters(&self) -> Result<Counters, Error> {
        Ok(Counters::map(&self.counters)?)
    }

    /// The tables' hash keys.
    pub fn keys(&self) -> TableKeys {
        self.keys
    }

    /// What a worker has to know of the tables.
    pub(crate) fn tables(&self) -> ToWorker {
        let (flows, clients) = self.capacities;
        ToWorker::Tables { flows, clients, keys: self.keys }
    }

    /// The flow table, to be read while the worker uses it.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub fn flow_reader(&self) -> Result<FlowReader, Error> {
        let spec = self.specs().0;
        Ok(match &self.maps {
            Some(maps) => FlowReader::open_array(&maps.table, spec)?,
            None => FlowReader::open(&self.flows, spec)?,
        })
    }

    /// Makes memory that is large enough for an export of the tables.
    pub(crate) fn room_for_export(&self) -> Result<OwnedFd, Error> {
        Ok(shm::create("loaded-export", 8 + self.most_exported())?)
    }

    /// Exports the tables to `target`, for a binary that lays them out differently. Only while nobody uses them.
    /// `service_of`: the service of a backend.
    ///
    /// # Errors
    /// If they cannot be mapped or written.
    pub fn export(&self, target: &File, service_of: impl Fn(u16) -> u16) -> Result<(), Error> {
        let fail = |source| Error::Start { act: "write an export of the tables", source };
        let (flows, clients) = self.open()?;
        let bytes = export::export(&flows, &clients, service_of, monotonic::seconds());
        target.write_all_at(&bytes, 8).map_err(fail)?;
        target.write_all_at(&(bytes.len() as u64).to_le_bytes(), 0).map_err(fail)
    }

    /// Fills the empty tables from an export of another binary. Returns how many flows and clients it had.
    ///
    /// # Errors
    /// If it cannot be read, is not what [`Memory::export`] writes, or the tables cannot be mapped.
    pub fn import(&self, source: &File) -> Result<(usize, usize), Error> {
        let fail = |source| Error::Start { act: "read an export of the tables", source };
        let mut length = [0; 8];
        source.read_exact_at(&mut length, 0).map_err(fail)?;
        let most = 8 + self.most_exported();
        let length = usize::try_from(u64::from_le_bytes(length)).map_or(most, |length| length.min(most));
        let mut bytes = vec![0; length];
        source.read_exact_at(&mut bytes, 8).map_err(fail)?;
        let (mut flows, mut clients) = self.open()?;
        let taken = export::import(&bytes, &mut flows, &mut clients, monotonic::seconds());
        taken.ok_or(Error::Export)
    }

    fn open(&self) -> Result<(FlowTable, AffinityTable), Error> {
        let (of_flows, of_clients) = self.specs();
        let flows = FlowTable::open(self.map_flows()?, of_flows, timeouts())?;
        let clients = AffinityTable::open(Region::map(&self.clients)?, of_clients, |_| {})?;
        self.note_damage([("flow table", flows.damage()), ("affinity table", clients.damage())]);
        Ok((flows, clients))
    }

    /// Counts and logs which tables were not as we have made them.
    fn note_damage(&self, tables: [(&str, Option<Damage>); 2]) {
        for (table, damage) in tables.into_iter().filter_map(|(table, damage)| Some((table, damage?))) {
            log::error!("damaged {table}, emptied: {damage}");
            if let Ok(counters) = self.counters() {
                counters.add(Fault::TableDamaged.index(), 1);
            }
        }
    }

    /// Empties the tables and gives them new keys: what a hostile worker has left there, or knows, must not decide for the next
    /// one. Whoever was told of the tables has to be told again.
    pub(crate) fn clear(&mut self) -> Result<(), Error> {
        self.keys = new_keys()?;
        self.format()
    }

    fn format(&self) -> Result<(), Error> {
        let (flows, clients) = self.specs();
        FlowTable::format(&self.map_flows()?, flows)?;
        AffinityTable::format(&Region::map(&self.clients)?, clients)?;
        Ok(())
    }

    fn specs(&self) -> (TableSpec, TableSpec) {
        let spec = |capacity: u32, TableKey(key)| TableSpec::new(capacity as usize, key);
        (spec(self.capacities.0, self.keys.flows), spec(self.capacities.1, self.keys.clients))
    }

    /// Most bytes of an export of the tables.
    fn most_exported(&self) -> usize {
        let (flows, clients) = self.capacities;
        export::bytes_for(flows as usize, clients as usize)
    }
}

/// Whether a flow table is a map of a kernel path, which no memfd is.
#[must_use]
pub fn is_map(table: &OwnedFd) -> bool {
    matches!(shm::check(table, 0), Err(loaded_table::Error::Memory { .. }))
}

fn new_keys() -> Result<TableKeys, Error> {
    Ok(TableKeys { flows: TableKey(random()?), clients: TableKey(random()?) })
}

/// The default timeouts. Each worker sets those of its services when it takes the table over.
fn timeouts() -> Timeouts {
    let idle = Idle::STANDARD;
    let Idle { tcp, half_open, closing, udp, echo } = idle;
    Timeouts { half_open, established: tcp, closing, reset: idle.reset(), datagram: udp, echo }
}

/// Random bytes from the kernel.
///
/// # Errors
/// If /dev/urandom cannot be read.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| Error::Start { act: "read /dev/urandom", source })?;
    Ok(bytes)
}
