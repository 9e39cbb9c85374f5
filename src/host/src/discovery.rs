//! Discovery networks: can this host reach them? And its own addresses, which are never backends.

use crate::problem::{Problem, Severity};
use loaded_config::network::Network;
use loaded_config::plan::{Place, Plan};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Reports discovery places that cannot be searched: the interface does not exist or has no source address, or the network
/// extends beyond the link. No instance starts so.
#[must_use]
pub fn check_discovery(plan: &Plan) -> Vec<Problem> {
    let places: Vec<_> = plan.services.iter().filter_map(|s| s.discover.as_ref()).flat_map(|d| &d.places).collect();
    if places.is_empty() {
        return Vec::new();
    }
    let addresses = addresses();
    let exists = |interface: &str| if_nametoindex(interface).is_ok();
    let texts: BTreeSet<_> = places.into_iter().filter_map(|place| obstacle(place, &addresses, exists)).collect();
    texts.into_iter().map(|text| Problem::new("host", Severity::NoStart, text)).collect()
}

/// The source address for packets to this place, and the interface index that binds a packet to ff02::1 to its link.
/// Prefers an address in the place's network, then one of a network that contains it, then (IPv6 only) any global address
/// of the interface. `None` if there is no such address or interface.
#[must_use]
pub fn source_of(place: &Place) -> Option<(IpAddr, u32)> {
    let link = source(place, &addresses())?.clone();
    Some((link.address, if_nametoindex(link.interface.as_str()).ok()?))
}

/// Every address of this host, both families, whatever the interface's state: the balancer is never its own backend.
/// Addresses that are only routed to this host (`ip route add local`) are not included. Empty if the kernel does not answer: every
/// host has an address.
#[must_use]
pub fn own_addresses() -> BTreeSet<IpAddr> {
    addresses().into_iter().map(|link| link.address).collect()
}

/// The networks of this host's addresses, but for host prefixes and those of one link (fe80::/64, 127.0.0.0/8).
#[derive(Debug, Clone, Default)]
pub struct OwnNetworks(Vec<Network>);

impl OwnNetworks {
    /// Asks the kernel; none if it does not answer.
    #[must_use]
    pub fn read() -> Self {
        let is_wide = |link: &InterfaceAddress| link.network.first() != link.network.last() && is_global(link.address);
        Self(addresses().into_iter().filter(is_wide).map(|link| link.network).collect())
    }

    /// The smallest that an address lies in.
    #[must_use]
    pub fn around(&self, address: IpAddr) -> Option<Network> {
        self.0.iter().copied().filter(|network| network.contains(address)).max_by_key(|network| network.length())
    }
}

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct InterfaceAddress {
    interface: String,
    address: IpAddr,
    network: Network,
}

/// Empty if the kernel cannot be asked; places with an interface are then refused.
fn addresses() -> Vec<InterfaceAddress> {
    let link = |entry: nix::ifaddrs::InterfaceAddress| {
        let address = ip_of(entry.address.as_ref()?)?;
        let length = length_of(ip_of(entry.netmask.as_ref()?)?);
        // An address may have a label, `eth0:1`; the interface is the part before the colon.
        let interface = entry.interface_name.split(':').next()?.to_owned();
        Some(InterfaceAddress { interface, address, network: Network::around(address, length)? })
    };
    getifaddrs().map_or_else(|_| Vec::new(), |all| all.filter_map(link).collect())
}

pub(crate) fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    address.family()?;
    let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|a| a.ip().into()))
}

fn length_of(mask: IpAddr) -> u8 {
    let ones = match mask {
        IpAddr::V4(v4) => v4.to_bits().leading_ones(),
        IpAddr::V6(v6) => v6.to_bits().leading_ones(),
    };
    u8::try_from(ones).unwrap_or(128)
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// Addresses of the place's family on its interface, or on every interface if it names none.
fn candidates<'a>(place: &'a Place, addresses: &'a [InterfaceAddress]) -> impl Iterator<Item = &'a InterfaceAddress> {
    let named = |link: &InterfaceAddress| place.interface.as_ref().is_none_or(|name| *name == link.interface);
    addresses.iter().filter(move |link| named(link) && link.address.is_ipv4() == place.network.is_ipv4())
}

fn source<'a>(place: &'a Place, addresses: &'a [InterfaceAddress]) -> Option<&'a InterfaceAddress> {
    let global = || candidates(place, addresses).filter(|link| is_global(link.address));
    let inside = global().find(|link| place.network.contains(link.address));
    let around = || global().find(|link| link.network.contains(place.network.first()));
    // Any global address will do for link multicast; in IPv4 answers must be able to return to the network.
    let any = || if place.network.is_ipv4() || place.interface.is_none() { None } else { global().next() };
    inside.or_else(around).or_else(any)
}

/// Why this place cannot be searched; `None` if it can.
fn obstacle(place: &Place, addresses: &[InterfaceAddress], exists: impl Fn(&str) -> bool) -> Option<String> {
    let Place { network, interface: Some(interface), .. } = place else { return None };
    if !exists(interface) {
        return Some(format!("discovery network {network}: there is no interface {interface}"));
    }
    let inside =
        |link: &&InterfaceAddress| network.contains(link.network.first()) && network.length() < link.network.length();
    // A host prefix (a VIP, fd00::1/128) is no network to compare the discovery network with.
    let host = |link: &InterfaceAddress| link.network.first() == link.network.last();
    let connected = || candidates(place, addresses).filter(|link| !host(link) && is_global(link.address));
    let held = || connected().any(|link| link.network.contains(network.first()) && !inside(&link));
    match connected().find(inside) {
        Some(narrow) if !held() => {
            Some(format!("discovery network {network} is wider than {} of {interface}", narrow.network))
        }
        _ if source(place, addresses).is_none() => Some(format!(
            "discovery network {network}: {interface} has no address to send from: ip addr add … dev {interface}"
        )),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
