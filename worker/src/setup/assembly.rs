//! A configuration that is being received: each message is judged as it comes.

use super::model::{Backend, Setup};
use crate::wire::{Address, from_ip};
use loaded_ipc::{
    Affinity, MAX_BACKEND_INDEX, Mode, OnFailure, Policy, PortRange, Protocol, Quota, ServiceIndex, Strategy, ToWorker,
    Unserved,
};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Largest weight, and seconds of the longest affinity timeout, that a message may name.
const MAX_WEIGHT: u16 = 256;
const MAX_TIMEOUT: u32 = 365 * 86_400;

/// A message that does not fit the transaction so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is out of step: {0}")]
pub struct OutOfStep(pub(super) &'static str);

/// What has been received so far.
#[derive(Debug, Default)]
pub struct Assembly {
    pub(super) begun: Option<(u64, Unserved, OnFailure)>,
    pub(super) quota: Option<Quota>,
    pub(super) vips: BTreeMap<u16, Address>,
    pub(super) backends: BTreeMap<u16, (Backend, u16)>,
    pub(super) services: BTreeMap<u16, ServiceDraft>,
    /// The service that the next items belong to.
    current: u16,
}

#[derive(Debug)]
pub(super) struct ServiceDraft {
    pub(super) protocol: Protocol,
    pub(super) mode: Mode,
    pub(super) strategy: Strategy,
    pub(super) affinity: Option<Affinity>,
    pub(super) policy: Policy,
    pub(super) vips: Vec<u16>,
    pub(super) ports: Vec<PortRange>,
}

impl Assembly {
    /// The setup that the messages of a whole transaction make; `None` if they end before `Commit`. `worker` as for
    /// [`Assembly::take`].
    ///
    /// # Errors
    /// [`OutOfStep`] at the first message that does not fit.
    pub fn whole(messages: impl IntoIterator<Item = ToWorker>, worker: u16) -> Result<Option<Setup>, OutOfStep> {
        let mut assembly = Self::default();
        messages.into_iter().try_fold(None, |setup, message| Ok(assembly.take(message, worker)?.or(setup)))
    }

    /// Takes the next message. `Commit` gives the setup; `worker` (from 0) says which backend its round robin begins with.
    ///
    /// # Errors
    /// [`OutOfStep`] for a message that does not fit. The assembly is then worthless.
    pub fn take(&mut self, message: ToWorker, worker: u16) -> Result<Option<Setup>, OutOfStep> {
        match message {
            ToWorker::Begin { generation, unserved, malformed } if self.begun.is_none() => {
                self.begun = Some((generation, unserved, malformed));
            }
            _ if self.begun.is_none() => return Err(OutOfStep("an item before Begin")),
            ToWorker::Begin { .. } | ToWorker::Hello { .. } | ToWorker::Tables { .. } => {
                return Err(OutOfStep("a second Begin, Hello or Tables"));
            }
            ToWorker::Quota(quota) => self.set_quota(quota)?,
            ToWorker::Vip { index, address } => {
                if self.vips.insert(index, from_ip(address)).is_some() {
                    return Err(OutOfStep("a virtual IP twice"));
                }
            }
            ToWorker::Service { index: ServiceIndex(index), protocol, mode, strategy, affinity, policy } => {
                let (vips, ports) = (Vec::new(), Vec::new());
                self.add_service(index, ServiceDraft { protocol, mode, strategy, affinity, policy, vips, ports })?;
            }
            ToWorker::Listen { vip } => {
                if !self.vips.contains_key(&vip) {
                    return Err(OutOfStep("an unknown virtual IP"));
                }
                self.service()?.vips.push(vip);
            }
            ToWorker::Port(range) => {
                let service = self.service()?;
                if range.low > range.high || service.protocol == Protocol::Any {
                    return Err(OutOfStep("an empty range of ports, or ports of a service for everything"));
                }
                service.ports.push(range);
            }
            ToWorker::Backend { index, address, port, weight, backup, admin, up, age, confirmed, link } => {
                let (direct, protocol) = self.service().map(|service| (service.mode == Mode::Dsr, service.protocol))?;
                if port.is_some_and(|port| port == 0 || direct || protocol == Protocol::Any) {
                    return Err(OutOfStep("a backend's port that packets cannot get"));
                }
                let link = in_128_bits(address, link)?;
                let (address, service) = (from_ip(address), self.current);
                self.add_backend(
                    index.0,
                    Backend { address, port, service, direct, backup, admin, up, age, confirmed, link },
                    weight,
                )?;
            }
            ToWorker::Go
            | ToWorker::Stop
            | ToWorker::Admin { .. }
            | ToWorker::End { .. }
            | ToWorker::Explain { .. } => {
                return Err(OutOfStep("an order before Commit"));
            }
            ToWorker::Commit => return std::mem::take(self).finish(worker).map(Some),
        }
        Ok(None)
    }

    fn set_quota(&mut self, quota: Quota) -> Result<(), OutOfStep> {
        if !is_sane_quota(quota) {
            return Err(OutOfStep("a quota outside its limits"));
        }
        match self.quota.replace(quota) {
            Some(_) => Err(OutOfStep("a second quota")),
            None => Ok(()),
        }
    }

    fn add_service(&mut self, index: u16, draft: ServiceDraft) -> Result<(), OutOfStep> {
        if draft.affinity.is_some_and(|a| !is_sane(&a)) {
            return Err(OutOfStep("an affinity outside its limits"));
        }
        if !draft.policy.is_sane() {
            return Err(OutOfStep("a policy outside its limits"));
        }
        if self.services.insert(index, draft).is_some() {
            return Err(OutOfStep("a service twice"));
        }
        self.current = index;
        Ok(())
    }

    fn add_backend(&mut self, index: u16, backend: Backend, weight: u16) -> Result<(), OutOfStep> {
        if index >= MAX_BACKEND_INDEX {
            return Err(OutOfStep("a backend's index outside its limits"));
        }
        if !(1..=MAX_WEIGHT).contains(&weight) {
            return Err(OutOfStep("a weight outside its limits"));
        }
        match self.backends.insert(index, (backend, weight)) {
            Some(_) => Err(OutOfStep("a backend twice")),
            None => Ok(()),
        }
    }

    fn service(&mut self) -> Result<&mut ServiceDraft, OutOfStep> {
        self.services.get_mut(&self.current).ok_or(OutOfStep("an item of no service"))
    }
}

/// Length of a network around an address, as a number of leading bits of the form that has 128.
fn in_128_bits(address: IpAddr, length: Option<u8>) -> Result<Option<u8>, OutOfStep> {
    let before = if address.is_ipv4() { 96 } else { 0 };
    match length {
        Some(length) if length == 0 || length > 128 - before => Err(OutOfStep("a network's length outside its limits")),
        length => Ok(length.map(|length| before + length)),
    }
}

fn is_sane(affinity: &Affinity) -> bool {
    let Affinity { prefix4, prefix6, timeout } = *affinity;
    (1..=32).contains(&prefix4) && (1..=128).contains(&prefix6) && (1..=MAX_TIMEOUT).contains(&timeout)
}

fn is_sane_quota(quota: Quota) -> bool {
    let Quota { prefix4, prefix6, percent } = quota;
    (1..=32).contains(&prefix4) && (1..=128).contains(&prefix6) && (1..=100).contains(&percent)
}
