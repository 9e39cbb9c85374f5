//! Backends and addresses as entries of the program's maps.

use crate::roster::{BackendEntry, Roster};
use loaded_fastpath::MAX_VIPS;
use loaded_fastpath::records::{Address, Backend, ComesBy, Fresh, Kind, Ports};
use loaded_ipc::{Idle, Mode};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(super) fn of_entry(roster: &Roster, backend: &BackendEntry, comes_by: ComesBy) -> Option<Backend> {
    let service = &roster.service(backend.service)?.service;
    let Idle { tcp, udp, half_open, closing, .. } = service.policy.idle;
    let fresh = Fresh::of(tcp, udp, half_open, closing, service.affinity.map(|affinity| affinity.timeout));
    let direct = service.mode == Mode::Dsr;
    Some(Backend { address: mapped(backend.address), port: backend.port, direct, comes_by, fresh })
}

/// Every address of interest, once.
pub(super) fn addresses(roster: &Roster) -> Vec<Address> {
    let is_nat =
        |backend: &BackendEntry| roster.service(backend.service).is_some_and(|entry| entry.service.mode == Mode::Nat);
    let mut of_all = Ports::default();
    let mut by_address: BTreeMap<IpAddr, Ports> = BTreeMap::new();
    for (_, backend) in roster.backends() {
        let ports = Ports { stay: backend.port.is_none(), change: backend.port.is_some() };
        of_all.add(ports);
        // Replies of others take another way.
        if is_nat(backend) {
            by_address.entry(backend.address).or_default().add(ports);
        }
    }
    let vip = |(index, address)| Address { address: mapped(address), kind: Kind::Vip(index), ports: of_all };
    let mut all: Vec<_> = roster.vips().map(vip).collect();
    let backend = |(address, ports)| Address { address: mapped(address), kind: Kind::Backend, ports };
    all.extend(by_address.into_iter().map(backend));
    all
}

/// Whether the program has a number for it; others stay with the queue.
pub(super) fn is_numbered(address: &Address) -> bool {
    !matches!(address.kind, Kind::Vip(index) if usize::from(index) >= MAX_VIPS)
}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

pub(super) fn plain(address: &Address) -> IpAddr {
    IpAddr::from(address.address).to_canonical()
}
