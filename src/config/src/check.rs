//! From draft to plan: every check that involves more than one value.

mod service;
mod services;

use super::draft::{Draft, DraftCheck, DraftFailures, DraftService};
use super::location::{At, Flaw, Mark};
use super::mistake::Mistakes;
use super::second_balancer;
use super::shared::{self, common_port};
use super::value::{name_server, one_host};
use super::{Families, Overrides};
use crate::plan::{Failures, MAX_NAMESERVERS, MAX_SERVICES, Plan};
use loaded_ipc::{Mode, OnFailure, Protocol};
use service::{at_most, check_fragments, check_service};
use services::Services;
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
    let mut accepted = Services { mistakes, backends: 0 };
    let services = draft.services.iter().map(|service| accepted.service(service, &vips)).collect();
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
