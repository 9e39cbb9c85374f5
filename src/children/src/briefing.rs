//! What workers and the prober are told at their start: the roster as a transaction of messages.

use crate::Error;
use crate::adoption;
use crate::worker::{Worker, WorkerBriefing};
use loaded_config::network::Network;
use loaded_config::plan::{Discover, Plan, Service};
use loaded_host::{OwnNetworks, source_of};
use loaded_ipc::{Check, Mode, Pinger, ToProber, ToWorker, VERSION};
use loaded_roster::Roster;
use loaded_sandbox::Survival;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// Everything that a worker has to be told, in order.
pub fn to_worker(roster: &Roster, worker: &Worker, now: Instant) -> WorkerBriefing {
    let (position, queue) = (worker.position, worker.owner.queue());
    let mut messages = vec![ToWorker::Hello { version: VERSION, worker: position, queue }, worker.memory.tables()];
    messages.extend(transaction(roster, &OwnNetworks::read(), now));
    let survival =
        if roster.lingers() && adoption::is_possible().is_ok() { Survival::Outlives } else { Survival::DiesToo };
    WorkerBriefing { generation: roster.generation(), survival, messages }
}

/// The configuration alone, from `Begin` to `Commit`.
fn transaction(roster: &Roster, networks: &OwnNetworks, now: Instant) -> Vec<ToWorker> {
    let (unserved, malformed) = (roster.unserved(), roster.malformed());
    let mut messages = vec![ToWorker::Begin { generation: roster.generation(), unserved, malformed }];
    messages.push(ToWorker::Quota(roster.quota()));
    messages.extend(roster.vips().map(|(index, address)| ToWorker::Vip { index, address }));
    for (index, entry) in roster.services() {
        let service = &entry.service;
        messages.push(ToWorker::Service {
            index,
            protocol: service.protocol,
            mode: service.mode,
            strategy: service.strategy,
            affinity: service.affinity,
            policy: service.policy,
        });
        messages.extend(entry.listens.iter().map(|&vip| ToWorker::Listen { vip }));
        messages.extend(service.ports.iter().map(|&range| ToWorker::Port(range)));
        let translates = service.mode == Mode::Nat;
        for (index, backend) in roster.backends().filter(|(_, backend)| backend.service == index) {
            messages.push(ToWorker::Backend {
                index,
                address: backend.address,
                port: backend.port,
                weight: backend.weight,
                backup: backend.backup,
                admin: backend.admin(now),
                up: backend.health.up,
                age: backend.age(now),
                confirmed: backend.confirmed,
                link: networks.around(backend.address).filter(|_| translates).map(Network::length),
            });
        }
    }
    messages.push(ToWorker::Commit);
    messages
}

/// What each worker is told at its start, for a program that decides as a worker does without being one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Briefing {
    /// From `Begin` to `Commit`.
    pub messages: Vec<ToWorker>,
    /// Name of each service, by its index.
    pub services: BTreeMap<u16, String>,
}

/// The briefing that a plan leads to. Its backends count as up; backends that discovery would find are missing.
///
/// # Errors
/// If the plan has more VIPs, services or backends than there are numbers.
pub fn briefing(plan: &Plan) -> Result<Briefing, Error> {
    let now = Instant::now();
    let roster = Roster::empty().next(plan, &[], 0, now)?;
    let services = roster.services().map(|(index, entry)| (index.0, entry.service.name.clone())).collect();
    Ok(Briefing { messages: transaction(&roster, &OwnNetworks::default(), now), services })
}

/// Everything that the prober has to be told, in order; `None` if there is nothing to probe.
pub(crate) fn to_prober(roster: &Roster, (ping4, ping6): (Pinger, Pinger), seed: u64) -> Option<Vec<ToProber>> {
    let generation = roster.generation();
    let mut messages = vec![ToProber::Hello { version: VERSION, ping4, ping6, seed }, ToProber::Begin { generation }];
    let mut checks: Vec<&Check> = Vec::new();
    let staying = || roster.services().filter(|(_, entry)| entry.leaves.is_none());
    for check in staying().filter_map(|(_, entry)| entry.service.check.as_ref()) {
        // Services with the same check name the same index: the prober makes it once for each address.
        if !checks.contains(&check) {
            checks.push(check);
        }
    }
    if checks.is_empty() {
        return None;
    }
    let indexed = || (0_u16..).zip(&checks);
    let mut marked = 0;
    messages.extend(indexed().map(|(index, check)| ToProber::Check { index, check: (*check).clone() }));
    for (index, backend) in roster.backends().filter(|(_, backend)| backend.leaves.is_none()) {
        let wanted = roster.service(backend.service).and_then(|entry| entry.service.check.as_ref());
        let Some((check, _)) = indexed().find(|(_, check)| Some(**check) == wanted) else { continue };
        let (address, health) = (backend.address, backend.health);
        let vip = roster.service(backend.service).and_then(|entry| checked_vip(&entry.service, address));
        let vip = vip.filter(|_| marked < MAX_MARKED);
        marked += usize::from(vip.is_some());
        let port = roster.service(backend.service).and_then(|entry| entry.service.check_port(backend.port));
        let (up, proven) = (health.up, health.proven);
        messages.push(ToProber::Target { backend: index, address, check, port, up, proven, vip });
    }
    for (service, entry) in staying() {
        let Some(Discover { places, interval, .. }) = &entry.service.discover else { continue };
        for place in places {
            let (from, interface) = match place.to {
                IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), 0),
                // Without an address of ours in that network nobody there would answer; the log says so at start and reload.
                IpAddr::V6(_) => match source_of(place) {
                    Some(source) => source,
                    None => continue,
                },
            };
            let (network, prefix) = (place.network.first(), place.network.length());
            messages.push(ToProber::Discover {
                service,
                to: place.to,
                from,
                interface,
                network,
                prefix,
                interval: *interval,
            });
        }
    }
    messages.push(ToProber::Commit);
    Some(messages)
}

/// Maximum number of backends of mode "dsr" that are checked at their VIP; further ones are checked at their own
/// address.
const MAX_MARKED: usize = 128;

/// The VIP at which a backend that answers clients itself is checked: the service's first one of its family, if the check does
/// more than ping, and no checker is asked.
fn checked_vip(service: &Service, backend: IpAddr) -> Option<IpAddr> {
    let connects =
        service.check.as_ref().is_some_and(|check| check.kind.port().is_some() && check.kind.via().is_none());
    let mut vips = service.vips.iter().filter(|vip| vip.is_ipv4() == backend.is_ipv4());
    if service.mode == Mode::Dsr && connects { vips.next().copied() } else { None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use loaded_config::{Overrides, Source, parse};

    #[test]
    fn a_briefing_is_the_whole_transaction_and_names_its_services() {
        let service = |name: &str, port: u16| {
            format!(
                "[[service]]\nname = \"{name}\"\nvip = [\"192.0.2.100\"]\nprotocol = \"tcp\"\nports = [{port}]\n\
                 [[service.backend]]\naddress = \"198.51.100.11\"\n"
            )
        };
        let text = [service("web", 80), service("mail", 25)].concat();
        let source = Source::new("a.toml", text);
        let plan = parse(&[source], &Overrides::default()).unwrap().plan;
        let Briefing { messages, services } = briefing(&plan).unwrap();
        assert!(matches!(messages.first(), Some(ToWorker::Begin { .. })));
        assert_eq!(messages.last(), Some(&ToWorker::Commit));
        let named = |message: &ToWorker| match message {
            ToWorker::Service { index, .. } => services.get(&index.0).cloned(),
            _ => None,
        };
        assert_eq!(messages.iter().filter_map(named).collect::<Vec<_>>(), ["web", "mail"]);
        assert_eq!(messages.iter().filter(|message| matches!(message, ToWorker::Backend { up: true, .. })).count(), 2);
    }
}
