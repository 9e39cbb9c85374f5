//! A longer path: routers between client and balancer, and between balancer and a backend, with one narrow link where a
//! test wants it.
//!
//! ```text
//! b9 ───── b8 ──outer── client ──front── lb ──back── sw ── b6 ──inner── b7 ───── b1
//! far                   a router,                              its own addresses, which
//! client                for once                               are behind two routers now
//! ```
//! What is added is named as a backend is, so that `scripts/lab down` takes it away.

use super::lab::{Lab, bounded};
use super::loaded::Loaded;
use super::net::Family;
use std::net::IpAddr;

/// The client at the far end.
pub(crate) const FAR: &str = "b9";
/// The backend behind routers.
pub(crate) const BACKEND: &str = "b1";
/// MTU of the narrow link, bytes: the least that IPv6 allows (RFC 8200 §5).
pub(crate) const NARROW: u32 = 1280;
/// Where `scripts/lab.d/bulk` serves.
pub(crate) const BULK: u16 = 9009;

/// Which link is narrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Narrow {
    Nowhere,
    /// Between routers, on the clients' side.
    Outer,
    /// Between the balancer and the clients.
    Front,
    /// Between the balancer and the backends.
    Back,
    /// Between routers, on the backends' side.
    Inner,
}

/// Address of the far client.
pub(crate) fn far(family: Family) -> IpAddr {
    address(family, "203.0.113.2", "2001:db8:a::2")
}

/// The hops of a traceroute from the far client: routers on its side by their addresses, then the VIP, whether the
/// balancer, a router behind it or the backend answers.
pub(crate) fn hops(family: Family) -> [IpAddr; 6] {
    let [first, second] = match family {
        Family::V4 => ["203.0.113.1", "203.0.113.17"],
        Family::V6 => ["2001:db8:a::1", "2001:db8:b::1"],
    };
    let vip = family.vip();
    [first.parse().unwrap(), second.parse().unwrap(), vip, vip, vip, vip]
}

fn address(family: Family, v4: &str, v6: &str) -> IpAddr {
    match family {
        Family::V4 => v4,
        Family::V6 => v6,
    }
    .parse()
    .unwrap()
}

impl Lab {
    /// Builds the path. To be called before `loaded` starts.
    #[track_caller]
    pub(crate) fn lengthen(&self, narrow: Narrow) {
        for who in ["b6", "b7", "b8", "b9"] {
            // From outside: what a command inside a namespace mounts is seen by nobody else.
            assert!(bounded(&["ip", "netns", "add", &self.namespace(who)]).status().unwrap().success());
            self.sh(
                who,
                "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv4.conf.all.rp_filter=0; ip link set lo up",
            );
        }
        // Errors are what is tested here, and kernels send few of them a second.
        let limits = "net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0";
        for who in ["client", "lb", "b1", "b6", "b7", "b8"] {
            self.sh(who, &format!("sysctl -qw {limits}; sysctl -qw net.ipv4.tcp_mtu_probing=0"));
        }
        for who in ["client", "b6", "b7", "b8"] {
            self.sh(who, "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        }
        let mtu = |link| if narrow == link { NARROW } else { 1500 };
        let (outer, inner) = (mtu(Narrow::Outer), mtu(Narrow::Inner));
        self.sh("b1", "ip link del eth0");
        self.veth("b9 eth0", "b8 eth1", 1500);
        self.veth("b8 eth0", "client eth1", outer);
        self.veth("b6 eth0", "sw r", 1500);
        self.veth("b6 eth1", "b7 eth0", inner);
        self.veth("b7 eth1", "b1 eth0", 1500);
        self.sh("sw", "ip link set r master br0");
        for (who, lines) in ADDRESSES {
            self.sh(who, &format!("ip -b - <<END\n{lines}\nEND"));
        }
        let ends: &[(&str, &str)] = match narrow {
            Narrow::Front => &[("client", "eth0"), ("lb", "eth0")],
            Narrow::Back => &[("lb", "eth1"), ("sw", "lb"), ("sw", "r"), ("b6", "eth0")],
            _ => &[],
        };
        for (who, link) in ends {
            self.sh(who, &format!("ip link set {link} mtu {NARROW}"));
        }
    }

    fn veth(&self, one: &str, other: &str, mtu: u32) {
        let ((who, link), (peer, far_link)) = (one.split_once(' ').unwrap(), other.split_once(' ').unwrap());
        let peer = self.namespace(peer);
        self.sh(
            who,
            &format!(
                "ip link add {link} mtu {mtu} type veth peer name {far_link} mtu {mtu} netns {peer}
                ip link set {link} up && ip -n {peer} link set {far_link} up"
            ),
        );
    }

    /// Starts `scripts/lab.d/bulk` on the backend.
    #[track_caller]
    pub(crate) fn serve_bulk(&self) {
        let script = super::lab::shipped("scripts/lab.d/bulk");
        let addresses = Family::BOTH.map(|family| family.backend(1).to_string()).join(" ");
        self.sh(BACKEND, &format!("setsid {script} serve {BULK} {addresses} </dev/null >/dev/null 2>&1 &"));
        let listens = || self.sh(BACKEND, "ss -Hlnut 'sport = :9009' | wc -l").trim() == "4";
        assert!(super::lab::eventually(std::time::Duration::from_secs(5), listens), "bulk does not listen");
    }
}

/// `loaded` in front of this backend alone, asking for no more than these ports and what errors are about them: what a
/// worker is not given it cannot mend.
#[track_caller]
pub(crate) fn by_ports(lab: &Lab) -> Loaded {
    let service = |protocol: &str, ports: &str| {
        format!(
            "[[service]]\nname = \"{protocol}\"\nvip = [\"{}\", \"{}\"]\nprotocol = \"{protocol}\"\nports = [{ports}]\n{}",
            Family::V4.vip(),
            Family::V6.vip(),
            Family::BOTH.map(|f| format!("[[service.backend]]\naddress = \"{}\"\n", f.backend(1))).concat()
        )
    };
    let services = service("tcp", "80, 9009") + &service("udp", "7007, 9009, \"33434-33534\"");
    Loaded::toml(lab, &format!("cores = \"0-1\"\n{services}"))
}

/// `loaded` in front of this backend alone, with all that comes to the VIPs.
#[track_caller]
pub(crate) fn whole(lab: &Lab) -> Loaded {
    let vips = Family::BOTH.map(|f| format!("\"{}\"", f.vip())).join(", ");
    let backends = Family::BOTH.map(|f| format!("[[service.backend]]\naddress = \"{}\"\n", f.backend(1))).concat();
    let service = format!("[[service]]\nname = \"all\"\nvip = [{vips}]\nprotocol = \"any\"\n{backends}");
    Loaded::toml(lab, &format!("cores = \"0-1\"\n{service}"))
}

/// For `ip -b`, by namespace.
const ADDRESSES: [(&str, &str); 7] = [
    (
        "b9",
        "address add 203.0.113.2/28 dev eth0
        address add 2001:db8:a::2/64 dev eth0 nodad
        route add default via 203.0.113.1
        route add default via 2001:db8:a::1",
    ),
    (
        "b8",
        "address add 203.0.113.1/28 dev eth1
        address add 2001:db8:a::1/64 dev eth1 nodad
        address add 203.0.113.18/28 dev eth0
        address add 2001:db8:b::2/64 dev eth0 nodad
        route add default via 203.0.113.17
        route add default via 2001:db8:b::1",
    ),
    (
        "client",
        "address add 203.0.113.17/28 dev eth1
        address add 2001:db8:b::1/64 dev eth1 nodad
        route add 203.0.113.0/28 via 203.0.113.18
        route add 2001:db8:a::/64 via 2001:db8:b::2
        route add 203.0.113.32/27 via 192.0.2.100
        route add 2001:db8:c::/64 via 2001:db8:1::100",
    ),
    (
        "lb",
        "route add 203.0.113.0/27 via 192.0.2.1
        route add 2001:db8:a::/64 via 2001:db8:1::1
        route add 2001:db8:b::/64 via 2001:db8:1::1
        route add 203.0.113.32/27 via 198.51.100.250
        route add 2001:db8:c::/64 via 2001:db8:2::250
        route add 198.51.100.11/32 via 198.51.100.250
        route add 2001:db8:2::11/128 via 2001:db8:2::250",
    ),
    (
        "b6",
        "address add 198.51.100.250/24 dev eth0
        address add 2001:db8:2::250/64 dev eth0 nodad
        address add 203.0.113.33/28 dev eth1
        address add 2001:db8:c::1/64 dev eth1 nodad
        route add default via 198.51.100.254
        route add default via 2001:db8:2::fe
        route add 198.51.100.11/32 via 203.0.113.34
        route add 2001:db8:2::11/128 via 2001:db8:c::2",
    ),
    (
        "b7",
        "address add 203.0.113.34/28 dev eth0
        address add 2001:db8:c::2/64 dev eth0 nodad
        address add 203.0.113.49/28 dev eth1
        address add 2001:db8:d::1/64 dev eth1 nodad
        route add default via 203.0.113.33
        route add default via 2001:db8:c::1
        route add 198.51.100.11/32 via 203.0.113.50
        route add 2001:db8:2::11/128 via 2001:db8:d::2",
    ),
    (
        "b1",
        "address add 203.0.113.50/28 dev eth0
        address add 198.51.100.11/32 dev eth0
        address add 2001:db8:d::2/64 dev eth0 nodad
        address add 2001:db8:2::11/128 dev eth0 nodad
        route add default via 203.0.113.49 src 198.51.100.11
        route add default via 2001:db8:d::1 src 2001:db8:2::11",
    ),
];
