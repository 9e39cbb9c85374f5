//! What a service must fulfil by itself: its size, the families of its VIPs and backends, and the ports of its backends.

use crate::draft::{Draft, DraftMember, DraftService};
use crate::location::{At, Flaw, Mark};
use crate::mistake::Mistakes;
use crate::plan::{MAX_PORT_RANGES, MAX_VIPS};
use crate::probe::has_port;
use crate::value::one_host;
use loaded_ipc::{Mode, Protocol};
use std::net::IpAddr;

pub(super) fn check_service(service: &DraftService, mistakes: &Mistakes) {
    let name = &service.name.value;
    mistakes.take(check_sizes(service));
    mistakes.take(check_backend_ports(service));
    if service.vips.is_empty() && service.knows(&["vip"]) {
        mistakes.add(service.name.flaw(format!("service {name:?} has no VIP")));
    }
    for vip in &service.vips {
        mistakes.take(vip.read(one_host));
    }
    for member in &service.members {
        mistakes.take(member.address.read(one_host));
    }
    mistakes.take(check_families(service));
}

fn check_sizes(service: &DraftService) -> Result<(), Flaw> {
    at_most(MAX_VIPS, "VIPs in one service", service.vips.iter().map(|vip| vip.mark))?;
    at_most(MAX_PORT_RANGES, "port ranges in one service", service.ports.iter().map(|port| port.mark))
}

/// Each VIP has a backend of its family, and each backend a VIP. The first that has none is told.
fn check_families(service: &DraftService) -> Result<(), Flaw> {
    let mut hosts = service.vips.iter().chain(service.members.iter().map(|member| &member.address));
    if !service.knows(&["vip", "backend", "discover"]) || hosts.any(|address| one_host(&address.value).is_err()) {
        return Ok(());
    }
    let name = &service.name.value;
    for vip in &service.vips {
        if service.members.is_empty() && service.discover.is_none() {
            return Err(vip.flaw(format!("service {name:?} has no backend; add at least one")));
        }
        check_family(service, vip)?;
    }
    let lonely = |address: &&At<IpAddr>| !service.vips.iter().any(|vip| same_family(address, vip));
    match service.members.iter().map(|member| &member.address).find(lonely) {
        Some(address) if !service.vips.is_empty() => {
            let family = family(address);
            Err(address.flaw(format!(
                "{} is an {family} backend, but service {name:?} has no {family} VIP; add one or remove the backend",
                address.value
            )))
        }
        _ => Ok(()),
    }
}

/// A VIP needs a backend of its family that is not a backup.
fn check_family(service: &DraftService, vip: &At<IpAddr>) -> Result<(), Flaw> {
    let (name, family) = (&service.name.value, family(vip));
    let places = service.discover.iter().flat_map(|discover| &discover.value.places);
    if places.into_iter().any(|place| place.network.value.is_ipv4() == vip.value.is_ipv4()) {
        return Ok(());
    }
    let members: Vec<&DraftMember> =
        service.members.iter().filter(|member| same_family(&member.address, vip)).collect();
    match members.first() {
        None => Err(vip.flaw(format!(
            "{} is an {family} VIP, but service {name:?} has no {family} backend; add one or remove the VIP",
            vip.value
        ))),
        Some(first) if members.iter().all(|member| member.backup) => Err(first
            .address
            .flaw(format!("service {name:?} has {family} backups only; at least one backend must not be a backup"))),
        Some(_) => Ok(()),
    }
}

/// Only where packets are rewritten and have ports can they get another one.
fn check_backend_ports(service: &DraftService) -> Result<(), Flaw> {
    let Some(port) = first_backend_port(service).filter(|_| service.knows(&["protocol", "mode", "ports"])) else {
        return Ok(());
    };
    if service.protocol == Protocol::Any {
        return Err(port.flaw(
            "with protocol \"any\" packets come that have no port (ICMP, ESP, GRE …), so none can be changed; remove port, \
             or write protocol = \"tcp\", \"udp\" or \"sctp\"",
        ));
    }
    if service.mode == Mode::Dsr {
        return Err(port.flaw(
            "in mode \"dsr\" a packet reaches its backend unchanged, and the backend answers from the port it came to; take \
             port out, or write mode = \"nat\"",
        ));
    }
    for member in service.members.iter().filter(|member| service.port_of(member).is_none()) {
        let same = service.members.iter().filter(|other| other.address.value == member.address.value);
        let mut ports = same.filter_map(|other| service.port_of(other));
        if let Some(port) = ports.find(|port| has_port(service, port.value)) {
            let text = format!(
                "{address} without a port gets what comes to port {port}, as does {address} with port {port}; remove one",
                address = member.address.value,
                port = port.value,
            );
            return Err(member.address.flaw(text).see(port.mark));
        }
    }
    Ok(())
}

/// SCTP has one checksum over a whole packet: none that is left in pieces can get another port.
pub(super) fn check_fragments(draft: &Draft) -> Result<(), Flaw> {
    let is_sctp = |service: &&DraftService| service.protocol == Protocol::Sctp;
    let port = draft.services.iter().filter(is_sctp).find_map(first_backend_port);
    match port.filter(|_| draft.defragment == Some(false)) {
        Some(port) => Err(port.flaw(
            "SCTP's checksum covers the whole packet, so a fragment cannot get another port; remove port, or remove \
             defragment = false",
        )),
        None => Ok(()),
    }
}

fn first_backend_port(service: &DraftService) -> Option<At<u16>> {
    service.port.or_else(|| service.members.iter().find_map(|member| member.port))
}

pub(super) fn at_most(most: usize, what: &str, mut marks: impl Iterator<Item = Mark>) -> Result<(), Flaw> {
    marks.nth(most).map_or(Ok(()), |mark| Err(mark.flaw(format!("more than {most} {what}"))))
}

fn same_family(one: &At<IpAddr>, two: &At<IpAddr>) -> bool {
    one.value.is_ipv4() == two.value.is_ipv4()
}

fn family(address: &At<IpAddr>) -> &'static str {
    if address.value.is_ipv4() { "IPv4" } else { "IPv6" }
}
