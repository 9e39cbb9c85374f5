//! Which interface the route to an address leads through, and which reaches it without a router: mode "dsr" needs to know,
//! because it sends to the backend's link address.

use crate::procfs;
use crate::route::{Route, best, lookup, parse_routes};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv6Addr};

/// The networks this host is directly connected to, from its routes.
#[derive(Debug, Clone, Default)]
pub struct ConnectedNetworks {
    v4: Vec<Route>,
    v6: Vec<Route6>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Route6 {
    interface: String,
    network: u128,
    length: u32,
    metric: u32,
    /// The router; `None`: the network is on the link.
    gateway: Option<Ipv6Addr>,
    /// It throws packets away.
    refuses: bool,
    /// It came by a router advertisement.
    advertised: bool,
}

impl ConnectedNetworks {
    /// Reads `/proc/net/route` and `/proc/net/ipv6_route`.
    ///
    /// # Errors
    /// If one is there and cannot be read.
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&procfs::text("/proc/net/route")?, &procfs::text("/proc/net/ipv6_route")?))
    }

    pub(crate) fn parse(v4: &str, v6: &str) -> Self {
        // A route to ourselves says nothing about a link; the one that makes us answer ARP for an address is an example.
        let linked = parse_routes(v4).into_iter().filter(|route| route.interface != "lo");
        Self { v4: linked.collect(), v6: routes6(v6) }
    }

    /// Whether any route leads to the address, by a router or not.
    #[must_use]
    pub fn has_route(&self, address: IpAddr) -> bool {
        self.towards(address).is_some()
    }

    /// Whether the route to an address is one that throws packets away.
    pub(crate) fn refuses(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => best(&self.v4, v4).is_some_and(|route| route.refuses),
            // The kernel has such a default route of its own for want of another (ip6_null_entry).
            IpAddr::V6(v6) => self.best6(v6).is_some_and(|route| route.refuses && route.metric != u32::MAX),
        }
    }

    /// The interface through which the route to an address leads, with or without a router.
    pub(crate) fn towards(&self, address: IpAddr) -> Option<&str> {
        match address {
            IpAddr::V4(v4) => Some(lookup(&self.v4, v4)?.interface.as_str()),
            IpAddr::V6(v6) => Some(self.route6(v6)?.interface.as_str()),
        }
    }

    /// The interface and the host on its link that packets to an address are handed to.
    pub(crate) fn next_hop(&self, address: IpAddr) -> Option<(&str, IpAddr)> {
        let (interface, gateway) = match address {
            IpAddr::V4(v4) => lookup(&self.v4, v4).map(|route| (&route.interface, route.gateway.map(IpAddr::V4)))?,
            IpAddr::V6(v6) => self.route6(v6).map(|route| (&route.interface, route.gateway.map(IpAddr::V6)))?,
        };
        Some((interface, gateway.unwrap_or(address)))
    }

    /// The routers of default routes of a family, each with its interface.
    pub(crate) fn default_routers(&self, v4: bool) -> Vec<(&str, IpAddr)> {
        let of4 = self.v4.iter().filter(|route| v4 && route.length == 0 && !route.refuses);
        let of4 = of4.filter_map(|route| Some((route.interface.as_str(), route.gateway?.into())));
        let of6 = self.v6.iter().filter(|route| !v4 && route.length == 0 && !route.refuses);
        of4.chain(of6.filter_map(|route| Some((route.interface.as_str(), route.gateway?.into())))).collect()
    }

    /// The interfaces of default routes of the address's family.
    pub(crate) fn defaults(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        let v4 = self.v4.iter().filter(move |route| address.is_ipv4() && route.length == 0 && !route.refuses);
        let v6 = self.v6.iter().filter(move |route| address.is_ipv6() && route.length == 0 && !route.refuses);
        v4.map(|route| route.interface.as_str()).chain(v6.map(|route| route.interface.as_str()))
    }

    /// The interfaces by which clients of a VIP may be expected: that of its network, and those of default routes.
    pub(crate) fn of_clients(&self, vip: IpAddr) -> impl Iterator<Item = &str> {
        self.towards(vip).into_iter().chain(self.defaults(vip))
    }

    /// The interfaces of all routes of a family, but for those of the link itself (fe80::/10, ff00::/8).
    pub(crate) fn interfaces(&self, v4: bool) -> BTreeSet<&str> {
        const LINK: u128 = 0xfe80 << 112;
        let of_link = |route: &&Route6| route.length > 0 && route.network >= LINK;
        let v6 = self.v6.iter().filter(|route| !v4 && !route.refuses && !of_link(route));
        let v4 = self.v4.iter().filter(|route| v4 && !route.refuses).map(|route| route.interface.as_str());
        v4.chain(v6.map(|route| route.interface.as_str())).collect()
    }

    /// The interfaces with routes that came by router advertisements.
    pub(crate) fn advertised(&self) -> BTreeSet<&str> {
        self.v6.iter().filter(|route| route.advertised).map(|route| route.interface.as_str()).collect()
    }

    /// The interface of the network that contains the address; `None` if this host is not connected to it.
    #[must_use]
    pub fn interface(&self, address: IpAddr) -> Option<&str> {
        match address {
            IpAddr::V4(v4) => {
                let route = lookup(&self.v4, v4).filter(|route| route.gateway.is_none() && route.length > 0)?;
                Some(route.interface.as_str())
            }
            IpAddr::V6(v6) => {
                let route = self.route6(v6).filter(|route| route.gateway.is_none() && route.length > 0)?;
                Some(route.interface.as_str())
            }
        }
    }

    fn route6(&self, address: Ipv6Addr) -> Option<&Route6> {
        self.best6(address).filter(|route| !route.refuses)
    }

    fn best6(&self, address: Ipv6Addr) -> Option<&Route6> {
        let fitting = self.v6.iter().filter(|route| route.has(address));
        fitting.max_by_key(|route| (route.length, std::cmp::Reverse(route.metric)))
    }
}

impl Route6 {
    fn has(&self, address: Ipv6Addr) -> bool {
        let mask = u128::MAX.checked_shl(128 - self.length).unwrap_or(0);
        address.to_bits() & mask == self.network & mask
    }
}

/// The routes of `/proc/net/ipv6_route` that lead to a link or throw packets away. Unlike IPv4's file it lists all tables, one after the other.
/// So our own tables for mode "dsr" are in it, each with two default routes: to a backend, and behind that the guard route
/// (`src/netfilter/src/routes/text.rs`). They are no way to anybody else, and are left out.
fn routes6(text: &str) -> Vec<Route6> {
    let lines: Vec<_> = text.lines().filter_map(route6).collect();
    let is_default = |(route, _): &(Route6, bool)| route.length == 0;
    let is_guard = |next: &(Route6, bool)| is_default(next) && next.0.refuses && next.0.metric == GUARD_METRIC;
    let ours = |n: usize| is_guard(&lines[n]) || is_default(&lines[n]) && lines.get(n + 1).is_some_and(is_guard);
    let others = (0..lines.len()).filter(|n| lines[*n].1 && !ours(*n));
    others.map(|n| lines[n].0.clone()).filter(|route| route.refuses || route.interface != "lo").collect()
}

/// The metric of the guard route of each of our tables.
const GUARD_METRIC: u32 = 1_000_000;

/// A line of `/proc/net/ipv6_route` (rt6_info_route, net/ipv6/route.c): destination, its length, source, its length, next
/// hop, metric, two counters, flags, interface; and whether packets that are not for this host can take it.
fn route6(line: &str) -> Option<(Route6, bool)> {
    // include/uapi/linux/route.h, include/uapi/linux/ipv6_route.h
    const RTF_UP: u32 = 1;
    const RTF_GATEWAY: u32 = 2;
    const RTF_REJECT: u32 = 0x200;
    const RTF_ADDRCONF: u32 = 0x4_0000;
    const RTF_ANYCAST: u32 = 0x10_0000;
    const RTF_LOCAL: u32 = 0x8000_0000;
    let fields: Vec<_> = line.split_whitespace().collect();
    let &[network, length, _, _, gateway, metric, _, _, flags, interface] = fields.as_slice() else { return None };
    let word = |text| u32::from_str_radix(text, 16).ok();
    let flags = word(flags)?;
    let address = |text| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from_bits);
    let route = Route6 {
        interface: interface.to_owned(),
        network: u128::from_str_radix(network, 16).ok()?,
        length: word(length).filter(|length| *length <= 128)?,
        metric: word(metric)?,
        gateway: (flags & RTF_GATEWAY != 0).then(|| address(gateway)).flatten(),
        refuses: flags & RTF_REJECT != 0,
        advertised: flags & RTF_ADDRCONF != 0,
    };
    // Those that throw packets away are not always up.
    let is_up = flags & (RTF_UP | RTF_REJECT) != 0;
    Some((route, is_up && flags & (RTF_LOCAL | RTF_ANYCAST) == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// eth1: 2001:db8:2::/64, in it a route to 2001:db8:2:0:ff::/80 by a router; our own address; a default route.
    const ROUTES6: &str = "\
20010db8000200000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1
20010db800020000ff00000000000000 48 00000000000000000000000000000000 00 20010db8000200000000000000000001 00000400 00000001 00000000 00000003     eth1
20010db80002000000000000000000fe 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000002 00000000 80200001       lo
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
20010db8000400000000000000000000 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000001 00000000 80100001     eth4
20010db8000500000000000000000000 30 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00200200       lo
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn only_a_network_of_this_host_has_an_interface() {
        let networks = ConnectedNetworks::parse("", ROUTES6);
        let interface = |address: &str| networks.interface(address.parse().expect("address"));
        assert_eq!(interface("2001:db8:2::11"), Some("eth1"));
        assert_eq!(interface("2001:db8:2:0:ff00::1"), None, "behind a router");
        assert_eq!(interface("2001:db8:3::1"), None, "behind the default router");
        assert_eq!(interface("198.51.100.1"), None);
        assert_eq!(
            networks.interfaces(false),
            BTreeSet::from(["eth0", "eth1"]),
            "packets to anycast addresses stay here"
        );
    }

    #[test]
    fn what_throws_packets_away_is_no_route() {
        let networks = ConnectedNetworks::parse("", ROUTES6);
        let address: IpAddr = "2001:db8:5::1".parse().expect("address");
        assert!(networks.refuses(address) && !networks.has_route(address));
        assert!(!networks.refuses("2001:db8:2::11".parse().expect("address")));
        let none = ROUTES6.lines().last().expect("a line");
        assert!(!ConnectedNetworks::parse("", none).refuses(address), "the kernel's own stands for no route at all");
    }

    /// As Linux 6.18 lists two tables of mode "dsr" before the main one: 2001:db8:2::11 and ::12, each with its guard.
    const OURS: &str = "\
00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000200000000000000000011 00000400 00000001 00000000 00000007     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 000f4240 00000001 00000000 00200200       lo
00000000000000000000000000000000 00 00000000000000000000000000000000 00 20010db8000200000000000000000012 00000400 00000001 00000000 00000007     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 000f4240 00000001 00000000 00200200       lo
";

    #[test]
    fn our_own_routes_are_no_default_routes() {
        let anywhere: IpAddr = "2001:db8:9::1".parse().expect("address");
        for text in [ROUTES6.to_owned(), [OURS, ROUTES6].concat()] {
            let networks = ConnectedNetworks::parse("", &text);
            assert_eq!(networks.defaults(anywhere).collect::<Vec<_>>(), ["eth0"]);
            assert_eq!(networks.towards(anywhere), Some("eth0"));
        }
        assert!(!ConnectedNetworks::parse("", OURS).has_route(anywhere));
    }
}
