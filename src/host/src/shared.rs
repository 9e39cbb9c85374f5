//! Interfaces by which both clients and backends come. There no route tells one from the other.

use crate::connected::ConnectedNetworks;
use loaded_config::network::Network;
use loaded_config::plan::{Plan, Service};
use loaded_ipc::Mode;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// The interfaces that clients of mode "nat" are likely to come by, each with the backends, and the networks searched for
/// backends, that the host's routes lead to through it. Which interfaces clients use is not known; the best guess is those of
/// the routes to the VIPs and of the default routes. Services with `asymmetric = true` are left out: they do not ask.
///
/// # Errors
/// If the routes cannot be read.
pub fn shared_interfaces(plan: &Plan) -> io::Result<BTreeMap<String, BTreeSet<Network>>> {
    Ok(shared(plan, &ConnectedNetworks::read()?))
}

fn shared(plan: &Plan, routes: &ConnectedNetworks) -> BTreeMap<String, BTreeSet<Network>> {
    let asks = |service: &&Service| service.mode == Mode::Nat && !service.policy.asymmetric;
    let mut all: BTreeMap<String, BTreeSet<Network>> = BTreeMap::new();
    for service in plan.services.iter().filter(asks) {
        for (interface, backends) in behind(service, routes) {
            let by = |vip: &IpAddr| routes.of_clients(*vip).any(|i| i == interface);
            if service.vips.iter().any(by) {
                all.entry(interface).or_default().insert(backends);
            }
        }
    }
    all
}

/// Where the backends of a service are, configured or yet to be found.
fn behind(service: &Service, routes: &ConnectedNetworks) -> Vec<(String, Network)> {
    let one = |address: IpAddr| Network::around(address, if address.is_ipv4() { 32 } else { 128 });
    let backends = service.backends.iter().map(|backend| backend.address);
    let known = backends.filter_map(|backend| Some((routes.towards(backend)?.to_owned(), one(backend)?)));
    let places = service.discover.iter().flat_map(|discover| &discover.places);
    let sought = places.filter_map(|place| {
        let interface = place.interface.as_deref().or_else(|| routes.towards(place.to))?;
        Some((interface.to_owned(), place.network))
    });
    known.chain(sought).collect()
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;
    use crate::fixture::{ROUTES, plan};
    use loaded_ipc::Protocol;

    /// As [`ROUTES`], with 2001:db8:1::/64 and 2001:db8:2::/64.
    const ROUTES6: &str = "\
20010db8000100000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
20010db8000200000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
";

    /// `interface: backends` of a service with these addresses.
    fn found(vip: &str, backends: &[&str], change: impl Fn(&mut Service)) -> Vec<String> {
        let mut plan = plan(&[vip], backends, Protocol::Tcp, &[]);
        plan.services.iter_mut().for_each(change);
        let shared = shared(&plan, &ConnectedNetworks::parse(ROUTES, ROUTES6)).into_iter();
        let text = |(interface, backends): (String, BTreeSet<Network>)| {
            format!("{interface}: {}", backends.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        shared.map(text).collect()
    }

    #[test]
    fn an_interface_of_clients_and_backends_is_found() {
        let found = |vip: &str, backends: &[&str]| found(vip, backends, |_| ());
        assert_eq!(found("192.0.2.100", &["198.51.100.11"]), [""; 0]);
        assert_eq!(
            found("192.0.2.100", &["192.0.2.53", "198.51.100.11"]),
            ["eth0: 192.0.2.53/32"],
            "on the VIP's link"
        );
        assert_eq!(found("203.0.113.1", &["203.0.113.9"]), ["eth0: 203.0.113.9/32"], "behind the default route");
        assert_eq!(
            found("198.51.100.1", &["198.51.100.11"]),
            ["eth1: 198.51.100.11/32"],
            "the VIP's link is no default"
        );
        assert_eq!(found("2001:db8:1::100", &["2001:db8:2::11"]), [""; 0]);
        assert_eq!(found("2001:db8:1::100", &["2001:db8:3::11"]), ["eth0: 2001:db8:3::11/128"]);
    }

    #[test]
    fn only_who_asks_where_replies_come_from_can_be_misled() {
        let asymmetric = |service: &mut Service| service.policy.asymmetric = true;
        assert_eq!(found("192.0.2.100", &["192.0.2.53"], asymmetric), [""; 0]);
        assert_eq!(found("192.0.2.100", &["192.0.2.53"], |service| service.mode = Mode::Dsr), [""; 0]);
    }
}
