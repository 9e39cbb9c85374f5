//! From draft to plan: every check that involves more than one value.

use super::draft::{Draft, DraftCheck, DraftFailures, DraftMember, DraftService};
use super::location::{At, Flaw, Mark};
use super::mistake::Mistakes;
use super::probe::{self, has_port};
use super::second_balancer;
use super::shared::{self, common_port};
use super::value::{name_server, one_host};
use super::{Families, Overrides};
use crate::plan::{
    Backend, Discover, Failures, MAX_BACKENDS, MAX_NAMESERVERS, MAX_PORT_RANGES, MAX_SERVICES, MAX_VIPS, Plan, Service,
};
use loaded_ipc::{Check, Destination, Mode, OnFailure, Passive, Policy, PortRange, Protocol};
use std::collections::HashMap;
use std::net::IpAddr;

/// Restricts the draft to the wanted families, checks values against each other, fills in defaults and overrides. Beside the
/// plan come notes about what it cannot do for everybody. The plan is good if no mistake was found, here or before.
pub(super) fn plan(mut draft: Draft, overrides: &Overrides, mistakes: &Mistakes) -> (Plan, Vec<Flaw>) {
    mistakes.take(narrow(&mut draft, overrides.families));
    for service in draft.services.iter_mut().filter(|_| overrides.failover) {
        service.check.get_or_insert(service.name.with(DraftCheck::ping()));
    }
    mistakes.take(at_most(MAX_SERVICES, "services", draft.services.iter().map(|service| service.name.mark)));
    let vips = claimed(&draft.services, mistakes);
    for service in &draft.services {
        check_service(service, mistakes);
    }
    mistakes.take(check_fragments(&draft));
    check_gateways(&draft, &vips, mistakes);
    let mut backends = Backends { mistakes, count: 0 };
    let services = draft.services.iter().map(|service| backends.service(service, &vips)).collect();
    let empty = Plan::empty();
    let queue_base = overrides.queue_base.or(draft.queue_base).unwrap_or(empty.queue_base);
    if let Some(cores) = draft.cores.filter(|cores| queue_base.checked_add(cores.value.1).is_none()) {
        let last = cores.value.1;
        mistakes.add(cores.flaw(format!("core {last} would answer queue {queue_base} + {last}, past 65535")));
    }
    let on_failure = mistakes.take(failures(&draft)).unwrap_or(empty.on_failure);
    let written = draft.metrics.as_ref().map(|address| &address.value);
    let metrics = overrides.metrics.as_ref().or(written).cloned();
    let notes = [shared::notes(&draft), second_balancer::notes(&draft)].concat();
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
        nameservers: nameservers(&draft.nameservers, &vips, mistakes),
        services,
        drain: draft.drain.unwrap_or(empty.drain),
        stop_hold: draft.stop_hold.unwrap_or(empty.stop_hold),
        defragment: draft.defragment.unwrap_or(empty.defragment),
        linger: draft.linger.unwrap_or(empty.linger),
        fast: overrides.fast.or(draft.fast).unwrap_or(empty.fast),
        host: draft.host.unwrap_or(empty.host),
        log_level: overrides.log_level.or(draft.log_level).unwrap_or(empty.log_level),
        metrics,
        monitor_group: draft.monitor_group,
        notify: draft.notify,
        notify_user: draft.notify_user,
    };
    (plan, notes)
}

/// Drops what belongs to the other family; a service left without a VIP is dropped entirely.
fn narrow(draft: &mut Draft, families: Families) -> Result<(), Flaw> {
    if !draft.unread.spares(&["service"]) {
        return Ok(());
    }
    let start = draft.services.first().map_or(Mark::START, |service| service.name.mark);
    let (option, family, wanted): (_, _, fn(&IpAddr) -> bool) = match families {
        Families::Both if draft.services.is_empty() => return Err(start.flaw("nothing to serve: there is no service")),
        Families::Both => return Ok(()),
        Families::V4 => ("-4", "IPv4", IpAddr::is_ipv4),
        Families::V6 => ("-6", "IPv6", IpAddr::is_ipv6),
    };
    let is_known = draft.services.iter().all(|service| service.knows(&["vip"]));
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
        true if is_known => Err(start.flaw(format!("{option} leaves nothing to serve: there is no {family} VIP"))),
        _ => Ok(()),
    }
}

/// Every VIP of the plan and where it was first written; tells of two claims to the same packets.
fn claimed(services: &[DraftService], mistakes: &Mistakes) -> HashMap<IpAddr, Mark> {
    let mut names: HashMap<&str, Mark> = HashMap::new();
    let mut claims: HashMap<IpAddr, Vec<(&DraftService, Mark)>> = HashMap::new();
    for service in services {
        let name = &service.name;
        if let Some(first) = names.insert(&name.value, name.mark).filter(|_| service.knows(&["name"])) {
            mistakes.add(name.flaw(format!("a second service is named {:?}", name.value)).see(first));
        }
        for vip in &service.vips {
            let earlier = claims.entry(vip.value).or_default();
            let conflict = |(other, mark): &(&DraftService, Mark)| Some((conflict(other, service, vip.value)?, *mark));
            if let Some((text, mark)) = earlier.iter().find_map(conflict) {
                mistakes.add(vip.flaw(text).see(mark));
            }
            earlier.push((service, vip.mark));
        }
    }
    claims.into_iter().filter_map(|(vip, claims)| claims.first().map(|(_, mark)| (vip, *mark))).collect()
}

fn conflict(first: &DraftService, second: &DraftService, vip: IpAddr) -> Option<String> {
    let (one, two) = (&first.name.value, &second.name.value);
    if std::ptr::eq(first, second) {
        return Some(format!("service {one:?} has the VIP {vip} twice"));
    }
    if ![first, second].iter().all(|service| service.knows(&["protocol", "ports"])) {
        return None;
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

fn check_service(service: &DraftService, mistakes: &Mistakes) {
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
struct Backends<'m> {
    mistakes: &'m Mistakes,
    count: usize,
}

impl Backends<'_> {
    fn service(&mut self, draft: &DraftService, vips: &HashMap<IpAddr, Mark>) -> Service {
        let backends = self.members(draft, vips);
        if let Some(discover) = &draft.discover {
            self.count(discover.value.limit.into(), discover.mark);
        }
        // What they make of the service rests on all of these.
        let known =
            draft.knows(&["vip", "protocol", "ports", "port", "mode", "check", "passive", "discover", "backend"]);
        let (check, passive, discover) = if known { self.probes(draft) } else { (None, None, None) };
        let checks_own_ports = check.as_ref().is_some_and(|check| probe::checks_own_ports(draft, check));
        Service {
            name: draft.name.value.clone(),
            vips: draft.vips.iter().map(|vip| vip.value).collect(),
            protocol: draft.protocol,
            ports: self.mistakes.take(sorted_ports(&draft.ports)).unwrap_or_default(),
            port: draft.port.filter(|_| draft.discover.is_some()).map(|port| port.value),
            mode: draft.mode,
            strategy: draft.strategy,
            affinity: draft.affinity,
            policy: Policy { passive, ..draft.policy },
            check,
            checks_own_ports,
            discover,
            backends,
        }
    }

    fn probes(&self, draft: &DraftService) -> (Option<Check>, Option<Passive>, Option<Discover>) {
        let check = self.mistakes.take(probe::check(draft));
        // Without the port of a check nobody knows what packets can be judged by.
        let passive = check.as_ref().map(|check| self.mistakes.take(probe::passive(draft, check.as_ref())).flatten());
        (check.flatten(), passive.flatten(), self.mistakes.take(probe::discover(draft)).flatten())
    }

    fn members(&mut self, draft: &DraftService, vips: &HashMap<IpAddr, Mark>) -> Vec<Backend> {
        let mut seen: HashMap<Destination, Mark> = HashMap::new();
        let mut members = Vec::new();
        for member in &draft.members {
            let address = &member.address;
            if let Some(vip) = vips.get(&address.value) {
                let text = format!("{} is a VIP and cannot be a backend too", address.value);
                self.mistakes.add(address.flaw(text).see(*vip));
            }
            let port = draft.port_of(member).map(|port| port.value);
            let destination = Destination { address: address.value, port };
            if let Some(first) = seen.insert(destination, address.mark).filter(|_| draft.knows(&["port"])) {
                let name = &draft.name.value;
                let text = format!("{destination} is a backend of {name:?} twice; remove one (TOML has weights)");
                self.mistakes.add(address.flaw(text).see(first));
            }
            self.count(1, address.mark);
            members.push(Backend { address: address.value, port, weight: member.weight, backup: member.backup });
        }
        members
    }

    /// Tells once that there are too many.
    fn count(&mut self, more: usize, mark: Mark) {
        let before = self.count;
        self.count += more;
        if before <= MAX_BACKENDS && self.count > MAX_BACKENDS {
            let text = format!("more than {MAX_BACKENDS} backends, counting those that discover may add");
            self.mistakes.add(mark.flaw(text));
        }
    }
}

fn check_gateways(draft: &Draft, vips: &HashMap<IpAddr, Mark>, mistakes: &Mistakes) {
    for gateway in &draft.gateways {
        mistakes.take(gateway.read(one_host));
        if let Some(vip) = vips.get(&gateway.value) {
            mistakes.add(gateway.flaw(format!("the gateway {} is a VIP too", gateway.value)).see(*vip));
        }
        let mut backends = draft.services.iter().flat_map(|service| &service.members).map(|member| &member.address);
        if let Some(backend) = backends.find(|backend| backend.value == gateway.value) {
            mistakes.add(gateway.flaw(format!("the gateway {} is a backend too", gateway.value)).see(backend.mark));
        }
    }
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

fn nameservers(draft: &[At<IpAddr>], vips: &HashMap<IpAddr, Mark>, mistakes: &Mistakes) -> Vec<IpAddr> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for server in draft {
        mistakes.take(server.read(name_server));
        if let Some(vip) = vips.get(&server.value) {
            let text = format!("{} is a VIP; as a name server its port 53 would not be balanced", server.value);
            mistakes.add(server.flaw(text).see(*vip));
        }
        if servers.contains(&server.value) {
            continue;
        }
        if servers.len() == MAX_NAMESERVERS {
            mistakes.add(server.flaw(format!("more than {MAX_NAMESERVERS} name servers")));
            break;
        }
        servers.push(server.value);
    }
    servers
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
