//! A plan for tests.

use loaded_config::plan::{Backend, Plan, Service};
use loaded_ipc::{Affinity, AllDown, Mode, OnBackendDown, Policy, PortRange, Protocol, Strategy};
use std::net::IpAddr;

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

pub(crate) fn plan(vips: &[&str], backends: &[&str], protocol: Protocol, ports: &[(u16, u16)]) -> Plan {
    let backend = |address| Backend { address, port: None, weight: 1, backup: false };
    let policy = Policy { on_backend_down: OnBackendDown::Drain, all_down: AllDown::Drop, ..Policy::STANDARD };
    let service = Service {
        name: "web".into(),
        vips: addresses(vips),
        protocol,
        ports: ports.iter().map(|&(low, high)| PortRange { low, high }).collect(),
        port: None,
        checks_own_ports: false,
        mode: Mode::Nat,
        strategy: Strategy::RoundRobin,
        affinity: Some(Affinity { prefix4: 32, prefix6: 64, timeout: 60 }),
        policy,
        check: None,
        discover: None,
        backends: addresses(backends).into_iter().map(backend).collect(),
    };
    Plan { queue_base: 3, services: vec![service], ..Plan::empty() }
}
