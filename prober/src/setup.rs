//! The configuration as the prober uses it, assembled from the messages of a transaction. A message that does not fit
//! ends the prober: a supervisor out of step cannot be trusted.

use crate::check::CheckPlan;
use crate::discovery::Sweep;
use loaded_ipc::{BackendIndex, MAX_BACKEND_INDEX, ToProber};
use std::net::IpAddr;

/// Maximum number of backends that can be checked.
pub const MAX_TARGETS: usize = 4096;
/// Maximum number of kinds of checks.
pub const MAX_CHECKS: usize = 256;
/// Maximum number of networks that can be swept for nodes.
pub const MAX_SWEEPS: usize = 64;

/// What to check, and how.
#[derive(Debug)]
pub struct Setup {
    pub(crate) generation: u64,
    pub(crate) seed: u64,
    pub(crate) plans: Vec<CheckPlan>,
    pub(crate) targets: Vec<TargetSetup>,
    pub(crate) sweeps: Vec<Sweep>,
}

/// A backend to check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TargetSetup {
    pub(crate) backend: BackendIndex,
    pub(crate) address: IpAddr,
    /// Index of its check plan.
    pub(crate) check: u16,
    /// Where to connect or send, in place of the check's port.
    pub(crate) port: Option<u16>,
    pub(crate) up: bool,
    pub(crate) proven: bool,
    /// The destination of connections and datagrams through a marked socket (mode "dsr").
    pub(crate) vip: Option<IpAddr>,
}

impl Setup {
    /// Generation of the transaction it came from.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Number of targets with a marked socket.
    #[must_use]
    pub fn marked(&self) -> usize {
        self.targets.iter().filter(|target| target.vip.is_some()).count()
    }

    /// The TCP ports that checks connect to, sorted, without duplicates.
    #[must_use]
    pub fn tcp_ports(&self) -> Vec<u16> {
        let connects = |(plan, port): (&CheckPlan, Option<u16>)| {
            plan.via().map(|via| via.port()).or(Some(port.unwrap_or(plan.tcp_port?)))
        };
        sorted(self.checks().filter_map(connects))
    }

    /// The UDP ports that checks send to, sorted, without duplicates. If there are none, the prober opens no UDP
    /// socket.
    #[must_use]
    pub fn udp_ports(&self) -> Vec<u16> {
        sorted(self.checks().filter_map(|(plan, port)| Some(port.unwrap_or(plan.udp_port?))))
    }

    /// Each check with the port that a target names.
    fn checks(&self) -> impl Iterator<Item = (&CheckPlan, Option<u16>)> {
        self.targets.iter().filter_map(|target| Some((self.plans.get(usize::from(target.check))?, target.port)))
    }
}

fn sorted(ports: impl Iterator<Item = u16>) -> Vec<u16> {
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// A message was out of order or holds an impossible value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the configuration is out of step: {0}")]
pub struct OutOfStep(&'static str);

/// A transaction in progress.
#[derive(Debug)]
pub struct Assembly {
    seed: u64,
    generation: Option<u64>,
    plans: Vec<CheckPlan>,
    targets: Vec<TargetSetup>,
    /// For each backend, whether it has been named.
    named: Vec<bool>,
    sweeps: Vec<Sweep>,
}

impl Assembly {
    /// Starts with nothing received; `seed` is the one of `Hello`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            generation: None,
            plans: Vec::new(),
            targets: Vec::new(),
            named: vec![false; usize::from(MAX_BACKEND_INDEX)],
            sweeps: Vec::new(),
        }
    }

    /// Takes one message. `Commit` returns the complete configuration.
    ///
    /// # Errors
    /// The message was out of order or holds an impossible value: abandon the transaction.
    pub fn take(&mut self, message: ToProber) -> Result<Option<Setup>, OutOfStep> {
        let generation = match (self.generation, message) {
            (None, ToProber::Begin { generation }) => {
                self.generation = Some(generation);
                return Ok(None);
            }
            (None, _) => return Err(OutOfStep("a message before Begin")),
            (Some(generation), ToProber::Commit) => generation,
            (Some(_), item) => return self.item(item).map(|()| None),
        };
        let Self { seed, plans, targets, sweeps, .. } = std::mem::replace(self, Self::new(self.seed));
        Ok(Some(Setup { generation, seed, plans, targets, sweeps }))
    }

    fn item(&mut self, item: ToProber) -> Result<(), OutOfStep> {
        match item {
            ToProber::Check { index, check } => {
                if usize::from(index) != self.plans.len() || self.plans.len() == MAX_CHECKS {
                    return Err(OutOfStep("a check is out of sequence, or one too many"));
                }
                self.plans.push(CheckPlan::new(check).map_err(OutOfStep)?);
            }
            ToProber::Target { backend, address, check, port, up, proven, vip } => {
                if self.targets.len() == MAX_TARGETS {
                    return Err(OutOfStep("too many backends"));
                }
                let Some(plan) = self.plans.get(usize::from(check)) else {
                    return Err(OutOfStep("a backend refers to an unknown check"));
                };
                if port.is_some_and(|port| port == 0 || plan.tcp_port.or(plan.udp_port).is_none()) {
                    return Err(OutOfStep("a backend is checked at port 0, or at a port by ping"));
                }
                match self.named.get_mut(usize::from(backend.0)) {
                    Some(named @ false) => *named = true,
                    Some(true) => return Err(OutOfStep("a backend is named twice")),
                    None => return Err(OutOfStep("a backend's number is too large")),
                }
                self.targets.push(TargetSetup { backend, address, check, port, up, proven, vip });
            }
            ToProber::Discover { service, to, from, interface, network, prefix, interval } => {
                let sweep = Sweep { service, to, from, interface, network, prefix, interval };
                if self.sweeps.len() == MAX_SWEEPS {
                    return Err(OutOfStep("too many networks to sweep for nodes"));
                }
                match sweep.fault() {
                    Some(fault) => return Err(OutOfStep(fault)),
                    None => self.sweeps.push(sweep),
                }
            }
            ToProber::Hello { .. } | ToProber::Begin { .. } | ToProber::Commit | ToProber::Go => {
                return Err(OutOfStep("a message that belongs to no transaction"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loaded_ipc::{Check, CheckKind, ServiceIndex};

    fn check(index: u16) -> ToProber {
        let kind = CheckKind::Tcp { port: 80 + index % 2 };
        let check = Check { kind, interval: 1000, interval_down: 1000, timeout: 500, jitter: 0, rise: 1, fall: 1 };
        ToProber::Check { index, check }
    }

    fn target(backend: u16) -> ToProber {
        let address = IpAddr::from([127, 0, 0, 1]);
        let (backend, port) = (BackendIndex(backend), None);
        ToProber::Target { backend, address, check: 0, port, up: true, proven: true, vip: None }
    }

    fn at_port(target: ToProber, port: u16) -> ToProber {
        match target {
            ToProber::Target { backend, address, check, up, proven, vip, .. } => {
                ToProber::Target { backend, address, check, port: Some(port), up, proven, vip }
            }
            other => other,
        }
    }

    fn discover(service: u16, interval: u32) -> ToProber {
        let (to, from) = (IpAddr::from([10, 0, 0, 255]), IpAddr::from([0; 4]));
        let (service, network) = (ServiceIndex(service), IpAddr::from([10, 0, 0, 0]));
        ToProber::Discover { service, to, from, interface: 0, network, prefix: 24, interval }
    }

    fn assembly(messages: impl IntoIterator<Item = ToProber>) -> Result<Option<Setup>, OutOfStep> {
        let mut assembly = Assembly::new(1);
        messages.into_iter().try_fold(None, |_, message| assembly.take(message))
    }

    #[test]
    fn a_whole_transaction_is_taken_with_its_limits_reached() {
        let begin = [ToProber::Begin { generation: 9 }];
        let checks = (0..256).map(check);
        let targets = (0..4096).map(|n| target(n * 2));
        let sweeps = (0..64).map(|n| discover(n, 1000));
        let all = begin.clone().into_iter().chain(checks).chain(targets).chain(sweeps);
        let setup = assembly(all.clone().chain([ToProber::Commit])).expect("good").expect("whole");
        assert_eq!((setup.generation(), setup.targets.len(), setup.sweeps.len()), (9, 4096, 64));
        assert_eq!((setup.tcp_ports(), setup.udp_ports()), (vec![80], Vec::new()));
        let other = [begin[0].clone(), check(0), target(1), at_port(target(2), 8080), ToProber::Commit];
        let setup = assembly(other).expect("good").expect("whole");
        assert_eq!(setup.tcp_ports(), [80, 8080], "the sandbox lets nothing else through");
        for more in [check(256), target(1), discover(64, 1000)] {
            assert!(assembly(all.clone().chain([more])).is_err());
        }
    }

    #[test]
    fn what_is_out_of_order_or_out_of_range_is_refused() {
        let begin = || ToProber::Begin { generation: 1 };
        for bad in [
            vec![check(0)],
            vec![ToProber::Commit],
            vec![begin(), begin()],
            vec![begin(), check(1)],
            vec![begin(), target(0)],
            vec![begin(), check(0), target(3), target(3)],
            vec![begin(), check(0), target(MAX_BACKEND_INDEX)],
            vec![begin(), check(0), at_port(target(3), 0)],
            vec![begin(), discover(0, 99)],
            vec![begin(), ToProber::Go],
        ] {
            assert!(assembly(bad).is_err());
        }
    }
}
