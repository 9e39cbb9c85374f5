//! Interfaces of this host: whether they are up, and which addresses they have.

use crate::procfs;
use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Networks for measurements between devices (RFC 2544, RFC 5180), which nobody routes: only a default route leads there.
const ELSEWHERE4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const ELSEWHERE6: Ipv6Addr = Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0, 1);

/// What keeps an interface from bringing packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// Somebody has set it down.
    Down,
    /// It is up, and has no carrier, or nobody at the other end (netif_oper_up, include/linux/netdevice.h).
    NoLink,
    /// It is an Ethernet link by which the kernel neither asks nor answers who has an address.
    NoArp,
    /// It is a port of a bridge, which takes what comes by it.
    BridgePort,
}

/// The interfaces of this host with their addresses.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    pub(crate) silent: BTreeMap<String, Silence>,
    /// The interface of each address.
    pub(crate) holders: BTreeMap<IpAddr, String>,
    /// IPv6 addresses that another host on the link had first.
    pub(crate) duplicates: Vec<IpAddr>,
}

impl Links {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If it does not answer.
    pub(crate) fn read() -> io::Result<Self> {
        let duplicates = duplicates(&procfs::text("/proc/net/if_inet6")?);
        let mut links = Self { duplicates, ..Self::default() };
        for entry in getifaddrs()? {
            // An address may have a label, `eth0:1`; the interface is the part before the colon.
            let Some(name) = entry.interface_name.split(':').next().map(str::to_owned) else { continue };
            let silence = match entry.flags {
                flags if !flags.contains(InterfaceFlags::IFF_UP) => Some(Silence::Down),
                flags if !flags.contains(InterfaceFlags::IFF_RUNNING) => Some(Silence::NoLink),
                flags if flags.contains(ETHERNET_NOARP) && is_operational(&name) => Some(Silence::NoArp),
                _ => None,
            };
            if let Some(address) = entry.address.as_ref().and_then(crate::discovery::ip_of) {
                links.holders.entry(address).or_insert_with(|| name.clone());
            }
            links.silent.extend(silence.map(|silence| (name, silence)));
        }
        Ok(links)
    }

    /// What keeps an interface from bringing packets.
    pub(crate) fn silence(&self, interface: &str) -> Option<Silence> {
        self.silent.get(interface).copied()
    }

    /// The interface that has this address.
    pub(crate) fn holder(&self, address: IpAddr) -> Option<&str> {
        self.holders.get(&address).map(String::as_str)
    }
}

/// A device of type dummy has these too.
const ETHERNET_NOARP: InterfaceFlags = InterfaceFlags::IFF_BROADCAST.union(InterfaceFlags::IFF_NOARP);

/// Whether a device says itself that it is fit for packets: a dummy does not. IF_OPER_UP, RFC 2863.
fn is_operational(interface: &str) -> bool {
    fs::read_to_string(format!("/sys/class/net/{interface}/operstate")).is_ok_and(|state| state.trim() == "up")
}

/// Whether an interface is a port of a bridge.
pub(crate) fn is_bridge_port(interface: &str) -> bool {
    fs::exists(format!("/sys/class/net/{interface}/brport")).unwrap_or(false)
}

/// Whether the kernel has a way to an address: `false` only where a route or a rule of any table says that there is none. Nothing
/// is sent.
pub(crate) fn reaches(address: IpAddr) -> bool {
    let from: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Of types unreachable, prohibit and blackhole (fib_props, net/ipv4/fib_semantics.c).
    let refusals =
        [Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::ENETUNREACH].map(|refusal| refusal as i32);
    let Ok(socket) = UdpSocket::bind((from, 0)) else { return true };
    let refused = |error: std::io::Error| error.raw_os_error().is_some_and(|error| refusals.contains(&error));
    !socket.connect(SocketAddr::new(address, 9)).is_err_and(refused)
}

/// Lines of `/proc/net/if_inet6`: address, number of the interface, length of the prefix, scope, flags, name
/// (if6_seq_show, net/ipv6/addrconf.c).
fn duplicates(text: &str) -> Vec<IpAddr> {
    // include/uapi/linux/if_addr.h
    const IFA_F_DADFAILED: u32 = 8;
    let duplicate = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[address, _, _, _, flags, _] = fields.as_slice() else { return None };
        let failed = u32::from_str_radix(flags, 16).ok()? & IFA_F_DADFAILED != 0;
        let address = Ipv6Addr::from_bits(u128::from_str_radix(address, 16).ok()?);
        failed.then_some(IpAddr::V6(address))
    };
    text.lines().filter_map(duplicate).collect()
}

/// Whether the kernel has a route to somewhere far away, by whatever table. Nothing is sent. If there is no socket to ask by, it is
/// not known, and not denied.
pub(crate) fn leads_out(like: IpAddr) -> bool {
    let (from, to): (IpAddr, IpAddr) = match like {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED.into(), ELSEWHERE4.into()),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED.into(), ELSEWHERE6.into()),
    };
    match UdpSocket::bind((from, 0)) {
        Ok(socket) => socket.connect(SocketAddr::new(to, 9)).is_ok(),
        Err(error) => is_shortage(&error),
    }
}

/// Whether the kernel would have made a socket if this process, or the host, had had room for it.
fn is_shortage(error: &io::Error) -> bool {
    let shortages = [Errno::EMFILE, Errno::ENFILE, Errno::ENOBUFS, Errno::ENOMEM].map(|shortage| shortage as i32);
    error.raw_os_error().is_some_and(|error| shortages.contains(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_another_host_had_first_is_found() {
        let text = "20010db8000100000000000000000100 02 40 00 c8     eth0\n\
                    20010db8000100000000000000000101 02 40 00 80     eth0\n\
                    00000000000000000000000000000001 01 80 10 80       lo\n";
        assert_eq!(duplicates(text), ["2001:db8:1::100".parse::<IpAddr>().expect("address")]);
    }

    #[test]
    fn the_loopback_interface_has_its_address() {
        // A fresh namespace has none while lo is down.
        let up = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default().contains("127.0.0.1");
        let links = Links::read().expect("the kernel answers");
        assert_eq!(links.holder([127, 0, 0, 1].into()), up.then_some("lo"));
        assert_eq!(links.silent.get("lo"), if up { None } else { Some(&Silence::Down) }, "{links:?}");
    }
}
