//! The plan as a transaction for the workers.

use crate::plan::{Plan, Service};
use loaded_ipc::{BackendIndex, ServiceIndex, ToWorker, VERSION};
use std::net::IpAddr;

/// Everything one worker has to be told, in order. `worker` counts from 0.
pub(crate) fn messages(plan: &Plan, generation: u64, worker: u16, queue: u16) -> Vec<ToWorker> {
    let vips = vips(plan);
    let mut messages = vec![ToWorker::Hello { version: VERSION, worker, queue }, ToWorker::Begin { generation }];
    messages.extend((0..).zip(&vips).map(|(index, &address)| ToWorker::Vip { index, address }));
    let backends = (0..).zip(&plan.backends);
    messages.extend(backends.map(|(i, &address)| ToWorker::Backend { index: BackendIndex(i), address }));
    for (index, service) in (0..).zip(&plan.services) {
        push_service(&mut messages, ServiceIndex(index), service, &vips);
    }
    messages.push(ToWorker::Commit);
    messages
}

fn push_service(messages: &mut Vec<ToWorker>, index: ServiceIndex, service: &Service, vips: &[IpAddr]) {
    let Service { protocol, strategy, affinity, .. } = *service;
    messages.push(ToWorker::Service { index, protocol, strategy, affinity });
    let listens = (0..).zip(vips).filter(|(_, vip)| service.vips.contains(vip));
    messages.extend(listens.map(|(vip, _)| ToWorker::Listen { vip }));
    messages.extend(service.ports.iter().map(|&range| ToWorker::Port(range)));
    messages.extend(service.members.iter().map(|m| ToWorker::Member { backend: m.backend, weight: m.weight }));
}

/// The distinct virtual IPs, in the order of the configuration.
fn vips(plan: &Plan) -> Vec<IpAddr> {
    let mut vips = Vec::new();
    for &vip in plan.services.iter().flat_map(|service| &service.vips) {
        if !vips.contains(&vip) {
            vips.push(vip);
        }
    }
    vips
}
