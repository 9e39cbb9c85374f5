//! By which interfaces packets of clients and backends come and go, as far as this host's addresses and main routing tables
//! tell.

use crate::connected::ConnectedNetworks;
use crate::links::Links;
use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

/// Addresses and routes of this host.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    own: BTreeSet<IpAddr>,
    routes: ConnectedNetworks,
}

/// The interfaces that clients of one family may come by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientPaths {
    /// Those of the default routes and of the networks of VIPs.
    pub likely: BTreeSet<String>,
    /// Every other with a route, but for those that lead to backends.
    pub others: BTreeSet<String>,
}

impl Paths {
    /// Reads addresses and routes.
    ///
    /// # Errors
    /// If the kernel does not give them.
    pub fn read() -> io::Result<Self> {
        Ok(Self { own: Links::read()?.holders.into_keys().collect(), routes: ConnectedNetworks::read()? })
    }

    /// Of a host with these addresses and what `/proc/net/route` and `/proc/net/ipv6_route` say there.
    #[must_use]
    pub fn of(own: BTreeSet<IpAddr>, v4: &str, v6: &str) -> Self {
        Self { own, routes: ConnectedNetworks::parse(v4, v6) }
    }

    /// Whether it is an address of this host.
    #[must_use]
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }

    /// The interface that the route to an address leads through.
    #[must_use]
    pub fn towards(&self, address: IpAddr) -> Option<&str> {
        self.routes.towards(address)
    }

    /// Whether a default route of this family leads through an interface; `None`: through any.
    #[must_use]
    pub fn has_default(&self, v4: bool, by: Option<&str>) -> bool {
        let any: IpAddr = if v4 { [0; 4].into() } else { [0_u16; 8].into() };
        self.routes.defaults(any).any(|interface| by.is_none_or(|name| name == interface))
    }

    /// Where clients of these VIPs, all of one family, may come from.
    pub fn of_clients(&self, vips: &[IpAddr], backends: impl Iterator<Item = IpAddr>) -> ClientPaths {
        let Some(first) = vips.first() else { return ClientPaths::default() };
        let likely: BTreeSet<_> = vips.iter().flat_map(|vip| self.routes.of_clients(*vip)).map(str::to_owned).collect();
        let behind: BTreeSet<_> = backends.filter_map(|backend| self.towards(backend)).collect();
        let others = self.routes.interfaces(first.is_ipv4()).into_iter();
        let others = others.filter(|name| !likely.contains(*name) && !behind.contains(name)).map(str::to_owned);
        ClientPaths { others: others.collect(), likely }
    }
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use super::*;
    use crate::fixture::ROUTES;

    /// eth2: 10.0.0.0/8 by a router.
    const ANOTHER: &str = "eth2\t0000000A\t010200C0\t0003\t0\t0\t0\t000000FF\t0\t0\t0\n";

    #[test]
    fn clients_come_by_the_default_route_or_by_the_network_of_a_vip() {
        let paths = Paths::of(BTreeSet::from([[192, 0, 2, 100].into()]), &format!("{ROUTES}{ANOTHER}"), "");
        let of = |vip: &str, backend: &str| {
            let ClientPaths { likely, others } =
                paths.of_clients(&[vip.parse().expect("address")], [backend.parse().expect("address")].into_iter());
            let text = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" ");
            (text(likely), text(others))
        };
        assert_eq!(of("192.0.2.100", "198.51.100.11"), ("eth0".into(), "eth2".into()));
        assert_eq!(of("198.51.100.9", "198.51.100.11"), ("eth0 eth1".into(), "eth2".into()));
        assert_eq!(of("192.0.2.100", "10.1.1.1"), ("eth0".into(), "eth1".into()));
        assert!(paths.is_own([192, 0, 2, 100].into()) && !paths.is_own([192, 0, 2, 101].into()));
        assert_eq!(paths.of_clients(&[], std::iter::empty()), ClientPaths::default());
    }
}
