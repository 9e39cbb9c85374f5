//! The keys of failover: `failover`, `check_cycle`, `port_alive` and `broadcast`.
//!
//! With failover, every backend is checked as in the original: an echo request, and once it is answered a connection to
//! `port_alive`. Differences, all deliberate: without `port_alive` the echo request is all (there: port 80); without
//! `check_cycle` a check is made every two seconds (there: every 30, so that a dead backend kept its clients for
//! half a minute); one lost packet takes no backend out; IPv6 is checked too; workers watch openings of `port_alive`.
//!
//! `broadcast` asks for discovery. An IPv4 broadcast address looks for nodes in RIP4; for IPv6, which has no broadcast,
//! `broadcast=ff02::1` (all nodes of the link) looks for nodes in RIP6 on the `private_NIC` of the same file. Nodes
//! outside of RIP4 and RIP6 never join (there: whoever answered), and neither may be wider than the network of
//! `private_GW`.

use super::key::Key;
use crate::address::address;
use crate::check_kind::DraftKind;
use crate::draft::{DraftCheck, DraftDiscover, DraftPassive, DraftPlace, DraftService, Judgement, PASSIVE, Pace};
use crate::location::{At, Flaw};
use crate::mistake::Mistakes;
use crate::network::Network;
use crate::probe::ALL_NODES;
use crate::{CHECK_INTERVAL, DISCOVER_INTERVAL, DISCOVER_LIMIT};
use std::collections::HashMap;
use std::net::IpAddr;

/// What the files say about it.
#[derive(Default)]
pub(super) struct Failover {
    /// The key `failover`.
    pub(super) wanted: bool,
    pub(super) port_alive: Option<At<u16>>,
    /// Seconds, 1..=86_400.
    pub(super) check_cycle: Option<At<u32>>,
    /// At most one of each family.
    pub(super) broadcasts: Vec<At<IpAddr>>,
    /// The interface to the backends, by the number of the file that names it.
    pub(super) interfaces: HashMap<usize, String>,
    /// RIP4 and RIP6, at most one each.
    pub(super) networks: Vec<At<Network>>,
    /// The networks of private_GW.
    pub(super) private: Vec<At<Network>>,
}

impl Failover {
    /// Without failover its keys have no effect: a note for each.
    pub(super) fn notes(&self) -> Vec<Flaw> {
        let cycle = self.check_cycle.map(|cycle| (cycle.mark, Key::CheckCycle));
        let port = self.port_alive.map(|port| (port.mark, Key::PortAlive));
        let broadcasts = self.broadcasts.iter().map(|broadcast| (broadcast.mark, Key::Broadcast));
        let mut keys: Vec<_> = broadcasts.chain(port).chain(cycle).collect();
        keys.sort_by_key(|(mark, _)| *mark);
        keys.into_iter()
            .map(|(mark, key)| mark.flaw(format!("{} has no effect without failover (-f)", key.name())))
            .collect()
    }

    /// Applies the keys to the service, with failover on.
    pub(super) fn apply(&self, service: &mut DraftService, mistakes: &Mistakes) {
        let cycle = self.check_cycle.map(|cycle| cycle.value.saturating_mul(1000));
        let pace = Pace::every(cycle.unwrap_or(CHECK_INTERVAL));
        let kind = if self.port_alive.is_some() { DraftKind::IcmpTcp } else { DraftKind::Icmp };
        let check = DraftCheck { kind, port: self.port_alive.map(|port| port.value), pace };
        service.check = Some(service.name.with(check));
        service.passive = match self.port_alive {
            Some(port) => Judgement::On(port.with(DraftPassive { port: Some(port), ..PASSIVE })),
            None => Judgement::Off,
        };
        let places = self.broadcasts.iter().filter(|_| service.knows(&["discover"]));
        let places: Vec<_> = places.filter_map(|to| mistakes.take(self.place(*to))).collect();
        if let Some(first) = self.broadcasts.first() {
            let interval = cycle.unwrap_or(DISCOVER_INTERVAL);
            service.discover = Some(first.with(DraftDiscover { places, limit: DISCOVER_LIMIT, interval }));
        }
    }

    fn place(&self, to: At<IpAddr>) -> Result<DraftPlace, Flaw> {
        let v4 = to.value.is_ipv4();
        let key = if v4 { Key::Rip4 } else { Key::Rip6 };
        let network = self.networks.iter().find(|network| network.value.is_ipv4() == v4).ok_or_else(|| {
            to.flaw(format!("broadcast={} also needs {}: only nodes within it may join", to.value, key.name()))
        })?;
        if v4 && !network.value.contains(to.value) {
            let text = format!("broadcast {} is outside of the network {}", to.value, network.value);
            return Err(to.flaw(text).see(network.mark));
        }
        let private = |private: &&At<Network>| private.value.is_ipv4() == v4;
        let holds = |private: &At<Network>| {
            private.value.length() <= network.value.length() && private.value.contains(network.value.first())
        };
        if let Some(first) = self.private.iter().find(private)
            && !self.private.iter().filter(private).any(holds)
        {
            let text = format!(
                "{} {} is wider than private_GW's network {}, the only one in which nodes can be asked",
                key.name(),
                network.value,
                first.value
            );
            return Err(network.flaw(text).see(first.mark));
        }
        let interface = self.interfaces.get(&to.mark.source).cloned();
        if !v4 && interface.is_none() {
            return Err(to.flaw("broadcast=ff02::1 needs private_NIC in the same file: ff02::1 exists on every link"));
        }
        Ok(DraftPlace { network: *network, to: Some(to), interface })
    }
}

/// Who is asked: an IPv4 address, or every IPv6 node of the link.
pub(super) fn broadcast(text: &str) -> Result<IpAddr, String> {
    let wrong = || format!("{text:?} is neither an IPv4 broadcast address nor ff02::1, which asks every IPv6 node");
    address(text).map_err(|_| wrong()).and_then(|address| match address.is_ipv4() || address == ALL_NODES {
        true => Ok(address),
        false => Err(wrong()),
    })
}

pub(super) fn wanted(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "" | "1" => Ok(true),
        _ => Err(format!("failover={text} is neither failover=0 nor failover=1")),
    }
}
