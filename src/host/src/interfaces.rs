//! Interfaces by which packets may come from clients and backends: those that have an address or a route. A port of a bridge or
//! a bond has neither; its packets come by the bridge.

use crate::connected::ConnectedNetworks;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;

/// What a device puts before an IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkHeader {
    /// 14 bytes: Ethernet, and what looks like it.
    Ethernet,
    /// Nothing: tunnels.
    None,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name now.
    pub name: String,
    /// Its number, which it keeps.
    pub index: u32,
    /// `None`: another link header.
    pub header: Option<LinkHeader>,
}

/// The interfaces that packets of others may come by.
///
/// # Errors
/// If the kernel does not list them, as for want of a file descriptor: that is no word that they are gone.
pub fn reachable_interfaces() -> io::Result<Vec<Interface>> {
    let mut all: BTreeMap<String, (Interface, bool)> = BTreeMap::new();
    let entries: Vec<_> = getifaddrs()?.collect();
    let is_outside = |entry: &&nix::ifaddrs::InterfaceAddress| !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
    for entry in entries.iter().filter(is_outside) {
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        if !all.contains_key(name)
            && let Some((index, kind)) = numbers(name, entry.address.as_ref())
        {
            let interface = Interface { name: name.to_owned(), index, header: header(kind) };
            all.insert(name.to_owned(), (interface, false));
        }
    }
    for entry in entries.iter().filter(is_outside) {
        // An address may have a label, `eth0:1`.
        let name = entry.interface_name.split(':').next().unwrap_or_default();
        if let Some((_, reachable)) = all.get_mut(name) {
            *reachable |= entry.address.as_ref().and_then(ip).is_some_and(|address| !is_of_link(address));
        }
    }
    let routes = ConnectedNetworks::read()?;
    for name in routes.interfaces(true).into_iter().chain(routes.interfaces(false)) {
        if let Some((_, reachable)) = all.get_mut(name) {
            *reachable = true;
        }
    }
    Ok(all.into_values().filter(|(_, reachable)| *reachable).map(|(interface, _)| interface).collect())
}

/// Index and type of a device. One without a link address, as a tunnel may be, has no entry with its type (getifaddrs(3)): then the
/// kernel's file says it.
fn numbers(name: &str, address: Option<&nix::sys::socket::SockaddrStorage>) -> Option<(u32, u16)> {
    if let Some(link) = address.and_then(|address| address.as_link_addr()) {
        return Some((link.ifindex().try_into().ok()?, link.hatype()));
    }
    let kind = fs::read_to_string(format!("/sys/class/net/{name}/type")).ok()?;
    Some((if_nametoindex(name).ok()?, kind.trim().parse().ok()?))
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// fe80::/10, which each interface has for itself.
fn is_of_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}

/// By the device's type (include/uapi/linux/if_arp.h): ARPHRD_ETHER; ARPHRD_TUNNEL, TUNNEL6, SIT, IPGRE, IP6GRE, RAWIP, NONE.
fn header(kind: u16) -> Option<LinkHeader> {
    match kind {
        1 => Some(LinkHeader::Ethernet),
        768 | 769 | 776 | 778 | 823 | 519 | 0xfffe => Some(LinkHeader::None),
        _ => None,
    }
}
