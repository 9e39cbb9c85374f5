//! A plan and routes for tests.

use loaded_config::plan::{Backend, Plan, Service};
use loaded_ipc::{Affinity, AllDown, Mode, OnBackendDown, Policy, PortRange, Protocol, Strategy};
use std::net::IpAddr;

/// Of /proc/net/route: eth0 has 192.0.2.0/24 and the default route, eth1 198.51.100.0/24.
#[cfg(target_endian = "little")]
pub(crate) const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";

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
