//! The memory a worker works in. The supervisor keeps it, so that a respawned worker finds its flows.

use crate::Error;
use crate::plan::Plan;
use loaded_ipc::ALL_COUNTERS;
use loaded_table::{AffinityTable, CounterReader, Counters, FlowTable, Region, shm};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// Tables and counters of one worker.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) flows: OwnedFd,
    pub(crate) clients: OwnedFd,
    pub(crate) counters: OwnedFd,
    /// What the worker has counted. It may be hostile: these are numbers, no more.
    pub(crate) seen: CounterReader,
    /// Flows and clients.
    capacities: (usize, usize),
}

impl Memory {
    /// Makes empty tables of the sizes in the plan, with fresh secret hash keys.
    pub(crate) fn new(plan: &Plan) -> Result<Self, Error> {
        let capacities = (plan.flows as usize, plan.clients as usize);
        let flows = shm::create("loaded-flows", FlowTable::bytes_for(capacities.0))?;
        let clients = shm::create("loaded-clients", AffinityTable::bytes_for(capacities.1))?;
        let counters = shm::create("loaded-counters", Counters::bytes_for(ALL_COUNTERS))?;
        let this = Self { seen: CounterReader::map(&counters)?, flows, clients, counters, capacities };
        this.clear()?;
        Ok(this)
    }

    /// Those of a worker that goes on, or has ended: for the sizes in the plan. What is in them is judged by who opens them.
    pub(crate) fn adopt(flows: OwnedFd, clients: OwnedFd, counters: OwnedFd, plan: &Plan) -> Result<Self, Error> {
        let capacities = (plan.flows as usize, plan.clients as usize);
        shm::check(&flows, FlowTable::bytes_for(capacities.0))?;
        shm::check(&clients, AffinityTable::bytes_for(capacities.1))?;
        shm::check(&counters, Counters::bytes_for(ALL_COUNTERS))?;
        Ok(Self { seen: CounterReader::map(&counters)?, flows, clients, counters, capacities })
    }

    /// Makes the tables empty again: what a hostile worker has left there must not rule its successors.
    pub(crate) fn clear(&self) -> Result<(), Error> {
        FlowTable::format(&Region::map(&self.flows)?, self.capacities.0, random()?)?;
        AffinityTable::format(&Region::map(&self.clients)?, self.capacities.1, random()?)?;
        Ok(())
    }
}

/// Random bytes of the kernel.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|source| Error::Start { act: "read /dev/urandom", source })?;
    Ok(bytes)
}
