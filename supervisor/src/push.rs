//! The roster as a transaction for a worker, and for the prober.

use crate::plan::Discover;
use crate::roster::Roster;
use crate::rules::source_of;
use crate::worker::{Orders, Worker};
use loaded_ipc::{Check, Pinger, ToProber, ToWorker, VERSION};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

/// Everything a worker has to be told, in order.
pub(crate) fn to_worker(roster: &Roster, worker: &Worker, now: Instant) -> Orders {
    let generation = roster.generation();
    let (position, queue) = (worker.position, worker.owner.queue());
    let mut messages = vec![
        ToWorker::Hello { version: VERSION, worker: position, queue },
        ToWorker::Begin { generation, unserved: roster.unserved() },
    ];
    messages.extend(roster.vips().map(|(index, address)| ToWorker::Vip { index, address }));
    for (index, entry) in roster.services() {
        let service = &entry.service;
        messages.push(ToWorker::Service {
            index,
            protocol: service.protocol,
            strategy: service.strategy,
            affinity: service.affinity,
            policy: service.policy,
        });
        messages.extend(entry.listens.iter().map(|&vip| ToWorker::Listen { vip }));
        messages.extend(service.ports.iter().map(|&range| ToWorker::Port(range)));
        for (index, backend) in roster.backends().filter(|(_, backend)| backend.service == index) {
            messages.push(ToWorker::Backend {
                index,
                address: backend.address,
                weight: backend.weight,
                backup: backend.backup,
                admin: backend.admin(now),
                up: backend.health.up,
                age: backend.age(now),
            });
        }
    }
    messages.push(ToWorker::Commit);
    Orders { generation, messages }
}

/// Everything the prober has to be told, in order; `None` if there is nothing for it to do.
pub(crate) fn to_prober(roster: &Roster, (ping4, ping6): (Pinger, Pinger), seed: u64) -> Option<Vec<ToProber>> {
    let generation = roster.generation();
    let mut messages = vec![ToProber::Hello { version: VERSION, ping4, ping6, seed }, ToProber::Begin { generation }];
    let mut checks: Vec<&Check> = Vec::new();
    let staying = || roster.services().filter(|(_, entry)| entry.leaves.is_none());
    for (_, entry) in staying() {
        checks.extend(entry.service.check.iter());
    }
    checks.dedup();
    if checks.is_empty() {
        return None;
    }
    let indexed = || (0_u16..).zip(&checks);
    messages.extend(indexed().map(|(index, check)| ToProber::Check { index, check: (*check).clone() }));
    for (index, backend) in roster.backends().filter(|(_, backend)| backend.leaves.is_none()) {
        let wanted = roster.service(backend.service).and_then(|entry| entry.service.check.as_ref());
        let Some((check, _)) = indexed().find(|(_, check)| Some(**check) == wanted) else { continue };
        let (address, health) = (backend.address, backend.health);
        messages.push(ToProber::Target { backend: index, address, check, up: health.up, proven: health.proven });
    }
    for (service, entry) in staying() {
        let Some(Discover { places, interval, .. }) = &entry.service.discover else { continue };
        for place in places {
            let (from, interface) = match place.to {
                IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), 0),
                // Without an address in that network nobody there would be found; said at the start and at reloads.
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
