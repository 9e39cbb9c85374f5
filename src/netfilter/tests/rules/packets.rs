//! Packets to be sent, and which rule counts them.

use super::*;

/// Packets counted by each rule of a chain, in order.
pub(crate) fn counters(family: Family, chain: &str) -> Vec<u64> {
    let save = if family == Family::V4 { "iptables-save" } else { "ip6tables-save" };
    let text = run(save, &["-c", "-t", "raw"]);
    let rule = |line: &str| {
        let (count, rule) = line.strip_prefix('[')?.split_once("] ")?;
        rule.strip_prefix(&format!("-A {chain} ")).map(|_| count.split(':').next().unwrap().parse().unwrap())
    };
    text.lines().filter_map(rule).collect()
}

/// Which rule of the chain counted what `act` sends: exactly one packet, or `None`. Rules before the queues are
/// `skip`ped.
pub(crate) fn taken(family: Family, chain: &str, skip: usize, act: impl FnOnce()) -> Option<u16> {
    let before = counters(family, chain);
    act();
    let more: Vec<_> =
        counters(family, chain).iter().zip(&before).map(|(after, before)| after - before).skip(skip).collect();
    assert!(more.iter().sum::<u64>() <= 1, "{chain}: {more:?}");
    more.iter().position(|count| *count == 1).map(|worker| u16::try_from(worker).unwrap())
}

/// A socket that may send from addresses of others: IPv4 routes nothing from such unless it is transparent.
pub(crate) fn bound(from: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(from).unwrap();
    if from.is_ipv4() {
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::IpTransparent, &true).unwrap();
    }
    socket
}

pub(crate) fn udp(from: IpAddr, to: IpAddr, bytes: usize) {
    let socket = bound(SocketAddr::new(from, 80));
    socket.send_to(&vec![0; bytes], SocketAddr::new(to, 80)).unwrap();
}

pub(crate) fn udp_between(from: IpAddr, port: u16, to: IpAddr, to_port: u16) {
    let socket = bound(SocketAddr::new(from, port));
    socket.send_to(b"x", SocketAddr::new(to, to_port)).unwrap();
}

/// An ICMP error that quotes a packet from `source` to `destination`.
pub(crate) fn icmp_error(to: IpAddr, source: IpAddr, destination: IpAddr) {
    let mut quoted = Vec::new();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            quoted.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
            quoted.extend(source.octets());
            quoted.extend(destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            quoted.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
            quoted.extend(source.octets());
            quoted.extend(destination.octets());
        }
        _ => panic!("two families"),
    }
    quoted.extend([0; 8]);
    icmp(to, if to.is_ipv4() { 3 } else { 1 }, &quoted);
}

/// Sent by the router. The checksum of ICMPv6 is the kernel's work.
pub(crate) fn icmp(to: IpAddr, kind: u8, payload: &[u8]) {
    let (family, protocol) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let mut packet = [&[kind, 1, 0, 0, 0, 0, 0, 0], payload].concat();
    let sum = packet.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    // std can send on it as it is: a raw socket takes an address like any other (the port must be 0).
    let raw = UdpSocket::from(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap());
    raw.send_to(&packet, SocketAddr::new(to, 0)).unwrap();
}

/// Makes every address of ours local to this namespace, and those of others neighbours: what is sent between them
/// crosses lo, or a cable that comes back here, and so raw PREROUTING, as a packet from outside would. Backends are where that
/// cable comes in; anybody may send in their name.
pub(crate) fn everybody_lives_here() {
    // Addresses of a route need not be added, but then one wants to be asked for leave to bind to them.
    for family in ["ipv4", "ipv6"] {
        std::fs::write(format!("/proc/sys/net/{family}/ip_nonlocal_bind"), "1").unwrap();
    }
    run("ip", &["addr", "add", &format!("{ROUTER4}/32"), "dev", "lo"]);
    run("ip", &["-6", "addr", "add", &format!("{ROUTER6}/128"), "dev", "lo", "nodad"]);
    run("ip", &["route", "add", "local", VIP4, "dev", "lo", "src", ROUTER4]);
    run("ip", &["-6", "route", "add", "local", VIP6, "dev", "lo", "src", ROUTER6]);
    // IPv6 routes to nobody by way of lo. Both ends have one address, so nobody need be asked for it.
    let mac = "02:00:00:00:00:01";
    run("ip", &["link", "add", "out", "address", mac, "type", "veth", "peer", "name", "in", "address", mac]);
    for end in ["out", "in"] {
        run("ip", &["link", "set", end, "arp", "off", "up"]);
    }
    for (flag, backends) in [("-4", &BACKENDS[..2]), ("-6", &BACKENDS[2..])] {
        backends.iter().for_each(|backend| drop(run("ip", &[flag, "route", "add", backend, "dev", "in"])));
    }
    for net in ["9.9.9.9", "10.9.0.0/16"] {
        run("ip", &["route", "add", net, "dev", "out", "src", ROUTER4]);
    }
    run("ip", &["-6", "route", "add", "fd00:9::/32", "dev", "out", "src", ROUTER6]);
    // Behind the rules what comes in is delivered here all the same, to who waits for it in a client's place.
    std::fs::write("/proc/sys/net/ipv4/conf/in/accept_local", "1").unwrap();
    for (family, net) in [("-4", "10.9.0.0/16"), ("-6", "fd00:9::/32")] {
        run("ip", &[family, "rule", "add", "iif", "in", "lookup", "100"]);
        run("ip", &[family, "route", "add", "local", net, "dev", "lo", "table", "100"]);
    }
}

pub(crate) fn clients() -> impl Iterator<Item = (IpAddr, IpAddr)> {
    (1..=30).map(|n| {
        let v6 = Ipv6Addr::new(0xfd00, 9, 0, n, 0, 0, 0, 7);
        (Ipv4Addr::from_bits(0x0a09_0000 + 77 * u32::from(n)).into(), v6.into())
    })
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
