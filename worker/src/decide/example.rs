//! A small decider for the tests of the modules around it.

use super::decider::Decider;
use crate::setup::{Assembly, flow_timeouts};
use crate::time::Now;
use loaded_ipc::{ALL_COUNTERS, Admin, BackendIndex, Idle, Mode, OnFailure, Policy, Protocol};
use loaded_ipc::{ServiceIndex, Strategy, ToWorker, Unserved};
use loaded_table::{AffinityTable, Counters, FlowTable, Region, TableSpec, shm};

/// Generation 7: one service for everything to 192.0.2.1, with backend 5.
pub(crate) fn example(now: Now) -> Decider {
    let policy = Policy::STANDARD;
    let (strategy, affinity, protocol, mode) = (Strategy::RoundRobin, None, Protocol::Any, Mode::Nat);
    let backend = |index, address: &str| ToWorker::Backend {
        index: BackendIndex(index),
        address: address.parse().expect("address"),
        port: None,
        weight: 1,
        backup: false,
        admin: Admin::Enabled,
        up: true,
        age: u32::MAX,
        confirmed: true,
        link: None,
    };
    let messages = [
        ToWorker::Begin { generation: 7, unserved: Unserved::Pass, malformed: OnFailure::Drop },
        ToWorker::Vip { index: 0, address: "192.0.2.1".parse().expect("address") },
        ToWorker::Service { index: ServiceIndex(0), protocol, mode, strategy, affinity, policy },
        ToWorker::Listen { vip: 0 },
        backend(5, "10.0.0.1"),
        ToWorker::Commit,
    ];
    let setup = Assembly::whole(messages, 0).expect("in step").expect("a setup");
    let memory = |bytes| shm::create("example", bytes).expect("create");
    let spec = TableSpec::new(8, [1; 16]);
    let flows = Region::map(memory(FlowTable::bytes_for(8))).expect("map");
    FlowTable::format(&flows, spec).expect("format");
    let clients = Region::map(memory(AffinityTable::bytes_for(8))).expect("map");
    AffinityTable::format(&clients, spec).expect("format");
    let flows = FlowTable::open(flows, spec, flow_timeouts(&Idle::STANDARD)).expect("open");
    let clients = AffinityTable::open(clients, spec, |_| {}).expect("open");
    let counters = Counters::map(memory(Counters::bytes_for(ALL_COUNTERS))).expect("map");
    Decider::new(setup, flows, clients, counters, now)
}
