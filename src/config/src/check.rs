//! From draft to plan: every check that involves more than one value.

use super::draft::{Draft, DraftCheck, DraftFailures, DraftMember, DraftService};
use super::location::{At, Flaw, Mark};
use super::probe::{self, has_port};
use super::shared::{self, common_port};
use super::value::{name_server, one_host};
use super::{Families, Overrides};
use crate::plan::{
    Backend, Failures, MAX_BACKENDS, MAX_NAMESERVERS, MAX_PORT_RANGES, MAX_SERVICES, MAX_VIPS, Plan, Service,
};
use loaded_ipc::{Destination, Mode, OnFailure, Policy, PortRange, Protocol};
use std::collections::HashMap;
use std::net::IpAddr;

/// Restricts the draft to the wanted families, checks values against each other, fills in defaults and overrides. Beside the
/// plan come notes about what it cannot do for everybody.
pub(super) fn plan(mut draft: Draft, overrides: &Overrides) -> Result<(Plan, Vec<Flaw>), Flaw> {
    narrow(&mut draft, overrides.families)?;
    for service in draft.services.iter_mut().filter(|_| overrides.failover) {
        service.check.get_or_insert(service.name.with(DraftCheck::ping()));
    }
    at_most(MAX_SERVICES, "services", draft.services.iter().map(|service| service.name.mark))?;
    draft.services.iter().try_for_each(check_sizes)?;
    let vips = claimed(&draft.services)?;
    draft.services.iter().try_for_each(check_service)?;
    check_fragments(&draft)?;
    check_gateways(&draft, &vips)?;
    let mut backends = Backends::default();
    let services = draft.services.iter().map(|service| backends.service(service, &vips)).collect::<Result<_, _>>()?;
    let empty = Plan::empty();
    let queue_base = overrides.queue_base.or(draft.queue_base).unwrap_or(empty.queue_base);
    if let Some(cores) = draft.cores.filter(|cores| queue_base.checked_add(cores.value.1).is_none()) {
        let last = cores.value.1;
        return Err(cores.flaw(format!("core {last} would answer queue {queue_base} + {last}, past 65535")));
    }
    let on_failure = failures(&draft)?;
    let notes = shared::notes(&draft);
    let plan = Plan {
        user: overrides.user.clone().or(draft.user).unwrap_or(empty.user),
        cores: draft.cores.map(|cores| cores.value),
        queue_base,
        queue_len: overrides.queue_len.or(draft.queue_len).unwrap_or(empty.queue_len),
        flows: draft.flows.unwrap_or(empty.flows),
        clients: draft.clients.unwrap_or(empty.clients),
        quota: draft.quota.unwrap_or(empty.quota),
        unserved: draft.unserved.unwrap_or(empty.unserved),
        on_failure,
        nameservers: nameservers(&draft.nameservers, &vips)?,
        services,
        drain: draft.drain.unwrap_or(empty.drain),
        stop_hold: draft.stop_hold.unwrap_or(empty.stop_hold),
        defragment: draft.defragment.unwrap_or(empty.defragment),
        linger: draft.linger.unwrap_or(empty.linger),
    };
    Ok((plan, notes))
}

/// Drops what belongs to the other family; a service left without a VIP is dropped entirely.
fn narrow(draft: &mut Draft, families: Families) -> Result<(), Flaw> {
    let start = draft.services.first().map_or(Mark { source: 0, offset: 0 }, |service| service.name.mark);
    let (option, family, wanted): (_, _, fn(&IpAddr) -> bool) = match families {
        Families::Both if draft.services.is_empty() => return Err(start.flaw("nothing to serve: there is no service")),
        Families::Both => return Ok(()),
        Families::V4 => ("-4", "IPv4", IpAddr::is_ipv4),
        Families::V6 => ("-6", "IPv6", IpAddr::is_ipv6),
    };
    for service in &mut draft.services {
        service.vips.retain(|vip| wanted(&vip.value));
        service.members.retain(|member| wanted(&member.address.value));
        if let Some(discover) = &mut service.discover {
            discover.value.places.retain(|place| wanted(&place.network.value.first()));
        }
        service.discover = service.discover.take().filter(|discover| !discover.value.places.is_empty());
    }
    draft.services.retain(|service| !service.vips.is_empty());
    draft.nameservers.retain(|server| wanted(&server.value));
    draft.gateways.retain(|gateway| wanted(&gateway.value));
    match draft.services.is_empty() {
        true => Err(start.flaw(format!("{option} leaves nothing to serve: there is no {family} VIP"))),
        false => Ok(()),
    }
}

/// Every VIP of the plan and where it was first written; refuses two claims to the same packets.
fn claimed(services: &[DraftService]) -> Result<HashMap<IpAddr, Mark>, Flaw> {
    let mut names: HashMap<&str, Mark> = HashMap::new();
    let mut claims: HashMap<IpAddr, Vec<(&DraftService, Mark)>> = HashMap::new();
    for service in services {
        if let Some(first) = names.insert(&service.name.value, service.name.mark) {
            return Err(service.name.flaw(format!("a second service is named {:?}", service.name.value)).see(first));
        }
        for vip in &service.vips {
            let earlier = claims.entry(vip.value).or_default();
            for (other, mark) in earlier.iter() {
                if let Some(conflict) = conflict(other, service, vip.value) {
                    return Err(vip.flaw(conflict).see(*mark));
                }
            }
            earlier.push((service, vip.mark));
        }
    }
    Ok(claims.into_iter().filter_map(|(vip, claims)| claims.first().map(|(_, mark)| (vip, *mark))).collect())
}

fn conflict(first: &DraftService, second: &DraftService, vip: IpAddr) -> Option<String> {
    let (one, two) = (&first.name.value, &second.name.value);
    if std::ptr::eq(first, second) {
        return Some(format!("service {one:?} has the VIP {vip} twice"));
    }
    if first.protocol == Protocol::Any || second.protocol == Protocol::Any {
        return Some(format!("services {one:?} and {two:?} both claim {vip}, one of them for every protocol and port"));
    }
    if first.protocol != second.protocol {
        return None;
    }
    let port = common_port(&first.ports, &second.ports)?;
    Some(format!("services {one:?} and {two:?} both claim {vip} {} port {port}", first.protocol))
}

fn check_sizes(service: &DraftService) -> Result<(), Flaw> {
    at_most(MAX_VIPS, "VIPs in one service", service.vips.iter().map(|vip| vip.mark))?;
    at_most(MAX_PORT_RANGES, "port ranges in one service", service.ports.iter().map(|port| port.mark))
}

fn check_service(service: &DraftService) -> Result<(), Flaw> {
    let name = &service.name.value;
    sorted_ports(&service.ports)?;
    check_backend_ports(service)?;
    if service.vips.is_empty() {
        return Err(service.name.flaw(format!("service {name:?} has no VIP")));
    }
    for vip in &service.vips {
        vip.read(one_host)?;
        if service.members.is_empty() && service.discover.is_none() {
            return Err(vip.flaw(format!("service {name:?} has no backend; add at least one")));
        }
        check_family(service, vip)?;
    }
    for address in service.members.iter().map(|member| &member.address) {
        address.read(one_host)?;
        if !service.vips.iter().any(|vip| same_family(address, vip)) {
            let family = family(address);
            return Err(address.flaw(format!(
                "{} is an {family} backend, but service {name:?} has no {family} VIP; add one or remove the backend",
                address.value
            )));
        }
    }
    Ok(())
}

/// Only where packets are rewritten and have ports can they get another one.
fn check_backend_ports(service: &DraftService) -> Result<(), Flaw> {
    let Some(port) = first_backend_port(service) else { return Ok(()) };
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

fn first_backend_port(service: &DraftService) -> Option<At<u16>> {
    service.port.or_else(|| service.members.iter().find_map(|member| member.port))
}

/// SCTP has one checksum over a whole packet: none that is left in pieces can get another port.
fn check_fragments(draft: &Draft) -> Result<(), Flaw> {
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

fn sorted_ports(ports: &[At<PortRange>]) -> Result<Vec<PortRange>, Flaw> {
    let mut ports = ports.to_vec();
    ports.sort_by_key(|port| (port.value, port.mark));
    for (first, second) in ports.iter().zip(ports.iter().skip(1)) {
        if second.value.low <= first.value.high {
            let (late, early) = if first.mark > second.mark { (first, second) } else { (second, first) };
            return Err(late.flaw(format!("ports {} and {} overlap", early.value, late.value)).see(early.mark));
        }
    }
    Ok(ports.iter().map(|port| port.value).collect())
}

/// Counts the backends as they come.
#[derive(Default)]
struct Backends {
    count: usize,
}

impl Backends {
    fn service(&mut self, draft: &DraftService, vips: &HashMap<IpAddr, Mark>) -> Result<Service, Flaw> {
        let mut seen: HashMap<Destination, Mark> = HashMap::new();
        let mut members = Vec::new();
        for member in &draft.members {
            let address = &member.address;
            if let Some(vip) = vips.get(&address.value) {
                return Err(address.flaw(format!("{} is a VIP and cannot be a backend too", address.value)).see(*vip));
            }
            let port = draft.port_of(member).map(|port| port.value);
            let destination = Destination { address: address.value, port };
            if let Some(first) = seen.insert(destination, address.mark) {
                let text = format!(
                    "{destination} is a backend of {:?} twice; remove one (TOML has weights)",
                    draft.name.value
                );
                return Err(address.flaw(text).see(first));
            }
            self.count(1, address.mark)?;
            members.push(Backend { address: address.value, port, weight: member.weight, backup: member.backup });
        }
        if let Some(discover) = &draft.discover {
            self.count(discover.value.limit.into(), discover.mark)?;
        }
        let check = probe::check(draft)?;
        let checks_own_ports = check.as_ref().is_some_and(|check| probe::checks_own_ports(draft, check));
        Ok(Service {
            name: draft.name.value.clone(),
            vips: draft.vips.iter().map(|vip| vip.value).collect(),
            protocol: draft.protocol,
            ports: sorted_ports(&draft.ports)?,
            port: draft.port.filter(|_| draft.discover.is_some()).map(|port| port.value),
            mode: draft.mode,
            strategy: draft.strategy,
            affinity: draft.affinity,
            policy: Policy { passive: probe::passive(draft, check.as_ref())?, ..draft.policy },
            check,
            checks_own_ports,
            discover: probe::discover(draft)?,
            backends: members,
        })
    }

    fn count(&mut self, more: usize, mark: Mark) -> Result<(), Flaw> {
        self.count += more;
        match self.count > MAX_BACKENDS {
            true => Err(mark.flaw(format!("more than {MAX_BACKENDS} backends, counting those that discover may add"))),
            false => Ok(()),
        }
    }
}

fn check_gateways(draft: &Draft, vips: &HashMap<IpAddr, Mark>) -> Result<(), Flaw> {
    for gateway in &draft.gateways {
        gateway.read(one_host)?;
        if let Some(vip) = vips.get(&gateway.value) {
            return Err(gateway.flaw(format!("the gateway {} is a VIP too", gateway.value)).see(*vip));
        }
        let mut backends = draft.services.iter().flat_map(|service| &service.members).map(|member| &member.address);
        if let Some(backend) = backends.find(|backend| backend.value == gateway.value) {
            return Err(gateway.flaw(format!("the gateway {} is a backend too", gateway.value)).see(backend.mark));
        }
    }
    Ok(())
}

/// The default is to drop. A packet that passes goes on unchanged, so the operator must provide a route that leads it
/// to a backend. With mode nat there is none: the VIP is an address of this host, whose own stack would answer.
fn failures(draft: &Draft) -> Result<Failures, Flaw> {
    let DraftFailures { no_worker, queue_full, receive_overrun, parse_error } = draft.on_failure;
    let way = |said: Option<At<OnFailure>>| said.map_or(OnFailure::Drop, |said| said.value);
    if let Some(overrun) = receive_overrun.filter(|overrun| overrun.value != way(queue_full)) {
        let text = format!(
            "receive_overrun is {}, but queue_full is {}: the kernel has one flag for both, so write the same or leave \
             receive_overrun out",
            overrun.value,
            way(queue_full)
        );
        let flaw = overrun.flaw(text);
        return Err(match queue_full {
            Some(full) => flaw.see(full.mark),
            None => flaw,
        });
    }
    let all = [("no_worker", no_worker), ("queue_full", queue_full), ("parse_error", parse_error)];
    let passes =
        all.into_iter().find_map(|(key, said)| Some((key, said.filter(|said| said.value == OnFailure::Pass)?)));
    let translates = draft.services.iter().find(|service| service.mode == Mode::Nat);
    if let (Some((key, said)), Some(service)) = (passes, translates) {
        let text = format!(
            "{key} cannot be pass, because service {:?} has mode nat: an untranslated packet would reach this host's \
             own stack, which answers with a reset or serves the wrong thing; write drop, or use mode dsr in every \
             service",
            service.name.value
        );
        return Err(said.flaw(text).see(service.name.mark));
    }
    Ok(Failures { no_worker: way(no_worker), queue_full: way(queue_full), parse_error: way(parse_error) })
}

fn nameservers(draft: &[At<IpAddr>], vips: &HashMap<IpAddr, Mark>) -> Result<Vec<IpAddr>, Flaw> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for server in draft {
        server.read(name_server)?;
        if let Some(vip) = vips.get(&server.value) {
            let text = format!("{} is a VIP; as a name server its port 53 would not be balanced", server.value);
            return Err(server.flaw(text).see(*vip));
        }
        if servers.contains(&server.value) {
            continue;
        }
        if servers.len() == MAX_NAMESERVERS {
            return Err(server.flaw(format!("more than {MAX_NAMESERVERS} name servers")));
        }
        servers.push(server.value);
    }
    Ok(servers)
}

fn at_most(most: usize, what: &str, mut marks: impl Iterator<Item = Mark>) -> Result<(), Flaw> {
    marks.nth(most).map_or(Ok(()), |mark| Err(mark.flaw(format!("more than {most} {what}"))))
}

fn same_family(one: &At<IpAddr>, two: &At<IpAddr>) -> bool {
    one.value.is_ipv4() == two.value.is_ipv4()
}

fn family(address: &At<IpAddr>) -> &'static str {
    if address.value.is_ipv4() { "IPv4" } else { "IPv6" }
}
