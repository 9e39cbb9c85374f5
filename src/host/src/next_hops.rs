//! The hosts on our links that packets of a plan are handed to, backends and routers, and which of them do not answer.

use crate::connected::ConnectedNetworks;
use crate::neighbours::{Neighbour, Resolution, number_of, unresolved};
use loaded_config::plan::Plan;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// So many backends are named.
const NAMED: usize = 4;
/// A neighbour answers within milliseconds.
const ANSWERS_WITHIN: Duration = Duration::from_millis(300);

/// A neighbour that does not answer when the kernel asks for its link address, so that packets to it are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SilentNeighbour {
    /// Its address on the link.
    pub address: IpAddr,
    /// The interface that leads to it.
    pub interface: String,
    /// The backends that packets go to through it; of one on the link it is the address itself.
    pub backends: BTreeSet<IpAddr>,
    /// Whether a default route leads through it, as those to clients do.
    pub leads_out: bool,
}

/// What goes through a neighbour.
#[derive(Debug, Default)]
struct Use {
    interface: String,
    backends: BTreeSet<IpAddr>,
    leads_out: bool,
}

/// Neighbours of this plan that have failed, or have failed `before` and are asked again now: an entry never stays failed for
/// long while somebody sends.
///
/// # Errors
/// If the kernel does not list its neighbours, or its routes.
pub fn silent_neighbours(
    plan: &Plan,
    before: impl Fn(&Neighbour) -> bool,
) -> io::Result<BTreeMap<Neighbour, SilentNeighbour>> {
    let mut unresolved = unresolved()?;
    unresolved.retain(|neighbour, resolution| *resolution == Resolution::Failed || before(neighbour));
    if unresolved.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut used = used(plan, &ConnectedNetworks::read()?, number_of);
    used.retain(|neighbour, _| unresolved.contains_key(neighbour));
    Ok(used
        .into_iter()
        .map(|(neighbour, Use { interface, backends, leads_out })| {
            (neighbour, SilentNeighbour { address: neighbour.1, interface, backends, leads_out })
        })
        .collect())
}

/// The same for somebody who looks once: who is being asked, and has not answered a moment later, is silent too.
///
/// # Errors
/// If the kernel does not list its neighbours, or its routes.
pub fn silent_neighbours_now(plan: &Plan) -> io::Result<BTreeMap<Neighbour, SilentNeighbour>> {
    let asked = unresolved()?;
    if !asked.is_empty() {
        std::thread::sleep(ANSWERS_WITHIN);
    }
    silent_neighbours(plan, |neighbour| asked.contains_key(neighbour))
}

/// Every neighbour that packets of this plan go through, by routes of the main tables.
fn used(plan: &Plan, routes: &ConnectedNetworks, number: impl Fn(&str) -> Option<u32>) -> BTreeMap<Neighbour, Use> {
    let mut used: BTreeMap<Neighbour, Use> = BTreeMap::new();
    let mut add = |interface: &str, address, note: &dyn Fn(&mut Use)| {
        if let Some(number) = number(interface) {
            let entry = used.entry((number, address)).or_default();
            interface.clone_into(&mut entry.interface);
            note(entry);
        }
    };
    for backend in plan.services.iter().flat_map(|service| service.backends.iter().map(|backend| backend.address)) {
        if let Some((interface, hop)) = routes.next_hop(backend) {
            add(interface, hop, &|entry| entry.backends.extend([backend]));
        }
    }
    let families: BTreeSet<_> = plan.services.iter().flat_map(|s| s.vips.iter().map(IpAddr::is_ipv4)).collect();
    for v4 in families {
        for (interface, router) in routes.default_routers(v4) {
            add(interface, router, &|entry| entry.leads_out = true);
        }
    }
    used
}

impl fmt::Display for SilentNeighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, interface, backends, leads_out } = self;
        if *leads_out {
            return write!(f, "router {address} does not answer on {interface}: packets to clients beyond it are lost");
        }
        if backends.len() == 1 && backends.contains(address) {
            return write!(f, "backend {address} does not answer on {interface}: packets to it are lost");
        }
        let mut names: Vec<_> = backends.iter().take(NAMED).map(ToString::to_string).collect();
        if backends.len() > NAMED {
            names.push(format!("{} more", backends.len() - NAMED));
        }
        write!(
            f,
            "router {address} does not answer on {interface}: packets to backends behind it are lost: {}",
            names.join(", ")
        )
    }
}

impl SilentNeighbour {
    /// The command that shows it.
    #[must_use]
    pub fn to_see(&self) -> String {
        format!("ip neigh show {} dev {}", self.address, self.interface)
    }
}

#[cfg(all(test, target_endian = "little"))]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::fixture::{ROUTES, plan};
    use loaded_ipc::Protocol;

    /// 2001:db8:2::/64 on eth1; the default route by fe80::1 on eth0.
    const ROUTES6: &str = "\
20010db8000200000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
";

    #[test]
    fn packets_are_handed_to_backends_on_a_link_and_to_routers() {
        let plan = plan(
            &["192.0.2.100", "2001:db8:1::100"],
            &["198.51.100.11", "10.1.1.1", "10.1.1.2", "2001:db8:2::11"],
            Protocol::Any,
            &[],
        );
        let routes = ConnectedNetworks::parse(ROUTES, ROUTES6);
        let used = used(&plan, &routes, |name| name.strip_prefix("eth")?.parse().ok());
        let text = |((number, address), used): (&Neighbour, &Use)| {
            format!("{number} {address} {} {}", used.backends.len(), used.leads_out)
        };
        let found: Vec<_> = used.iter().map(text).collect();
        assert_eq!(
            found,
            ["0 192.0.2.1 2 true", "0 fe80::1 0 true", "1 198.51.100.11 1 false", "1 2001:db8:2::11 1 false"]
        );
    }

    #[test]
    fn what_is_lost_is_said() {
        let silent = |backends: &[&str], leads_out| {
            let address = "198.51.100.11".parse().unwrap();
            let backends = backends.iter().map(|text| text.parse().unwrap()).collect();
            SilentNeighbour { address, interface: "eth1".to_owned(), backends, leads_out }.to_string()
        };
        assert_eq!(
            silent(&["198.51.100.11"], false),
            "backend 198.51.100.11 does not answer on eth1: packets to it are lost"
        );
        assert!(silent(&["10.1.1.1"], false).ends_with("behind it are lost: 10.1.1.1"));
        assert!(
            silent(&["198.51.100.11"], true).starts_with("router 198.51.100.11 does not answer on eth1: packets to cl")
        );
    }
}
