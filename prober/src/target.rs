//! What is checked, and the backends it is checked for.

use crate::health::Health;
use crate::setup::TargetSetup;
use loaded_ipc::{BackendIndex, Cause};
use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

/// One address that is checked in one way, for every service that has it as a backend and asks for that.
#[derive(Debug)]
pub(crate) struct Probe {
    /// Where pings go.
    pub(crate) address: IpAddr,
    /// Where connections and datagrams go: the address, or in mode "dsr" a virtual IP.
    pub(crate) destination: IpAddr,
    /// The marked socket for these in mode "dsr". Also `None` while a check uses it.
    pub(crate) marked: Option<OwnedFd>,
    /// Index of its [`crate::check::CheckPlan`].
    pub(crate) check: u16,
    /// Where connections and datagrams go, in place of the check's port.
    pub(crate) port: Option<u16>,
    /// Whether all its targets are down.
    pub(crate) down: bool,
    /// Places of its targets.
    pub(crate) targets: Vec<u16>,
}

/// A backend of one service, and what is known of it.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) backend: BackendIndex,
    pub(crate) health: Health,
    /// The result of the last check.
    pub(crate) cause: Cause,
    /// How long the last check took, microseconds.
    pub(crate) latency: u32,
    /// When the next measurement may be reported, microseconds.
    pub(crate) measure_from: u64,
    /// Whether it is up as far as checks have told the supervisor; `None` before the first result.
    pub(crate) reported: Option<bool>,
}

/// The targets, and one probe for all that have address, check, port and destination in common. `marked` holds the sockets of
/// those that have a virtual IP, in their order; a probe needs only one.
pub(crate) fn arrange(setups: Vec<TargetSetup>, marked: Vec<OwnedFd>) -> (Vec<Probe>, Vec<Target>) {
    let mut marked = marked.into_iter();
    let (mut probes, mut targets): (Vec<Probe>, Vec<Target>) = (Vec::new(), Vec::new());
    let mut known: HashMap<_, usize> = HashMap::new();
    for (place, TargetSetup { backend, address, check, port, up, proven, vip }) in (0u16..).zip(setups) {
        let destination = vip.unwrap_or(address);
        let socket = vip.and_then(|_| marked.next());
        let number = *known.entry((address, destination, check, port)).or_insert(probes.len());
        match probes.get_mut(number) {
            Some(probe) => {
                probe.down &= !up;
                probe.targets.push(place);
            }
            None => {
                let (marked, down) = (socket, !up);
                probes.push(Probe { address, destination, marked, check, port, down, targets: vec![place] });
            }
        }
        targets.push(Target {
            backend,
            health: Health::new(up, proven),
            cause: Cause::Unchecked,
            latency: 0,
            measure_from: 0,
            reported: proven.then_some(up),
        });
    }
    (probes, targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_share_a_probe_if_nothing_tells_them_apart() {
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let vip = IpAddr::from([192, 0, 2, 1]);
        let setup = |(backend, address, check, vip): (u16, IpAddr, u16, Option<IpAddr>)| {
            let backend = BackendIndex(backend);
            TargetSetup { backend, address, check, port: None, up: backend.0 != 9, proven: backend.0 == 9, vip }
        };
        let setups =
            [(5, one, 0, None), (6, two, 0, None), (9, one, 0, None), (7, one, 1, None), (8, one, 0, Some(vip))];
        let (probes, targets) = arrange(setups.map(setup).to_vec(), Vec::new());
        let shared: Vec<_> = probes.iter().map(|probe| (probe.address, probe.check, probe.targets.clone())).collect();
        assert_eq!(shared, [(one, 0, vec![0, 2]), (two, 0, vec![1]), (one, 1, vec![3]), (one, 0, vec![4])]);
        let known: Vec<_> = targets.iter().map(|target| (target.backend.0, target.reported)).collect();
        assert_eq!(known, [(5, None), (6, None), (9, Some(false)), (7, None), (8, None)]);
    }
}
