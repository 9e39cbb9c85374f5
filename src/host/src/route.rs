//! The main routing table of IPv4.

use std::net::Ipv4Addr;

/// An IPv4 route that is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) interface: String,
    pub(crate) network: u32,
    pub(crate) length: u32,
    pub(crate) metric: u32,
    /// The router; `None`: the network is on the link.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// It throws packets away: of type blackhole, unreachable or prohibit.
    pub(crate) refuses: bool,
}

/// Parses the main table, `/proc/net/route`: each address is a word of memory in network byte order, printed in
/// hexadecimal as if it were a number of this host. A route without a device is shown with `*`: of those that throw packets away
/// not every type is flagged (fib_route_seq_show, fib_flag_trans, net/ipv4/fib_trie.c).
pub(crate) fn parse_routes(text: &str) -> Vec<Route> {
    // include/uapi/linux/route.h
    const RTF_UP: u32 = 1;
    const RTF_GATEWAY: u32 = 2;
    const RTF_REJECT: u32 = 0x200;
    let route = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[interface, network, gateway, flags, _, _, metric, mask, ..] = fields.as_slice() else { return None };
        let word = |text| u32::from_str_radix(text, 16).ok();
        let flags = word(flags)?;
        let is_up = flags & RTF_UP != 0;
        let address = |text| word(text).map(|word| u32::from_be_bytes(word.to_ne_bytes()));
        is_up.then_some(Route {
            interface: interface.to_owned(),
            network: address(network)?,
            length: address(mask)?.leading_ones(),
            metric: metric.parse().ok()?,
            gateway: if flags & RTF_GATEWAY == 0 { None } else { address(gateway).map(Ipv4Addr::from_bits) },
            refuses: flags & RTF_REJECT != 0 || interface == "*",
        })
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// The route to an address, unless it throws packets away.
pub(crate) fn lookup(routes: &[Route], address: Ipv4Addr) -> Option<&Route> {
    best(routes, address).filter(|route| !route.refuses)
}

/// The default route, unless it throws packets away.
pub(crate) fn default_route(routes: &[Route]) -> Option<&Route> {
    let defaults = routes.iter().filter(|route| route.length == 0);
    defaults.min_by_key(|route| route.metric).filter(|route| !route.refuses)
}

/// The route to an address: longest prefix first, then smallest metric.
pub(crate) fn best(routes: &[Route], address: Ipv4Addr) -> Option<&Route> {
    let mask = |length: u32| u32::MAX.checked_shl(32 - length).unwrap_or(0);
    let fitting = routes.iter().filter(|route| address.to_bits() & mask(route.length) == route.network);
    fitting.max_by_key(|route| (route.length, std::cmp::Reverse(route.metric)))
}
