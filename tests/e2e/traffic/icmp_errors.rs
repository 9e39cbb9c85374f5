//! ICMP errors reach the host they are for: without them large transfers hang where a link has a smaller MTU.

use crate::rig::lab::{BACKENDS, Lab, bounded};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// Above 1280, the least that IPv6 allows, and below the 1500 that backends assume.
const SMALL: u32 = 1300;

/// Fetches a megabyte: the first full packet does not fit.
#[track_caller]
fn download(lab: &Lab, who: &str, family: Family) {
    let url = match family {
        Family::V4 => format!("http://{}/1m", family.vip()),
        Family::V6 => format!("http://[{}]/1m", family.vip()),
    };
    let words = ["curl", "-gsS", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url];
    let said = lab.exec(who, &words);
    assert_eq!(said.out, "200 1048576", "{family:?}: {}", said.err);
}

/// A client behind a router whose link to it is small. It is a namespace that `scripts/lab down` takes for a backend's.
#[test]
fn a_small_link_behind_a_router_is_found() {
    let Some(lab) = Lab::up() else { return };
    let far = lab.namespace("b9");
    // From outside: what a command inside a namespace mounts is seen by nobody else.
    assert!(bounded(&["ip", "netns", "add", &far]).status().unwrap().success());
    lab.sh(
        "client",
        &format!(
            "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
            ip link add eth1 mtu {SMALL} type veth peer name eth0 mtu 1500 netns {far}
            ip link set eth1 up
            ip addr add 203.0.113.1/24 dev eth1
            ip addr add 2001:db8:3::1/64 dev eth1 nodad
            ip -n {far} link set lo up
            ip -n {far} link set eth0 up
            ip -n {far} addr add 203.0.113.2/24 dev eth0
            ip -n {far} addr add 2001:db8:3::2/64 dev eth0 nodad
            ip -n {far} route add default via 203.0.113.1
            ip -n {far} route add default via 2001:db8:3::1"
        ),
    );
    lab.sh("lb", "ip route add 203.0.113.0/24 via 192.0.2.1 && ip route add 2001:db8:3::/64 via 2001:db8:1::1");
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        download(&lab, "b9", family);
    }
    assert!(
        loaded.count("error_forwarded") >= 2,
        "nobody had to say that a packet is too big: {:?}",
        loaded.counters()
    );
    loaded.stop();
}

/// The same where the small link is the balancer's own, so that its own kernel says it, to one of its own addresses.
#[test]
fn a_small_link_of_the_balancer_is_found() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", &format!("ip link set eth0 mtu {SMALL}"));
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        download(&lab, "client", family);
    }
    assert!(loaded.count("error_forwarded") >= 2, "{:?}", loaded.counters());
    loaded.stop();
}

/// The same towards the backends: the balancer's kernel tells the client, which must take the error for its own. What
/// the client sends is a request whose header alone is longer than a packet.
#[test]
fn a_small_link_to_the_backends_is_found() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", &format!("ip link set eth1 mtu {SMALL}"));
    let loaded = Loaded::classic(&lab);
    let long = format!("X-Long: {}", "x".repeat(6000));
    for family in Family::BOTH {
        let url = match family {
            Family::V4 => format!("http://{}/", family.vip()),
            Family::V6 => format!("http://[{}]/", family.vip()),
        };
        let said = lab.exec("client", &["curl", "-gsS", "--max-time", "10", "-H", &long, &url]);
        assert!(said.out.starts_with('b'), "{family:?}: {} {}", said.out, said.err);
    }
    assert!(loaded.count("error_relayed") >= 2, "{:?}", loaded.counters());
    loaded.stop();
}

/// How many "port unreachable" each backend's kernel has matched to a socket of its own.
fn unreachable(lab: &Lab) -> [u64; 3] {
    let count = |text: String| {
        let words = text.lines().filter(|line| line.contains("InDestUnreachs")).map(str::split_whitespace);
        words.map(|mut words| words.nth(1).unwrap().parse::<u64>().unwrap()).sum()
    };
    BACKENDS.map(|backend| count(lab.sh(backend, "nstat -asz IcmpInDestUnreachs Icmp6InDestUnreachs")))
}

/// A client closes its socket before the answer comes: its kernel sends "port unreachable" to the backend.
#[test]
fn a_backend_learns_that_its_client_is_gone() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        let before = unreachable(&lab);
        lab.within("client", || {
            for n in 10..20 {
                let socket = UdpSocket::bind((family.client(n), 0)).unwrap();
                socket.send_to(b"bye", SocketAddr::new(family.vip(), 7007)).unwrap();
            }
        });
        std::thread::sleep(Duration::from_millis(300));
        let after = unreachable(&lab);
        // A kernel limits how many errors it sends, and an answer may have come before the port was closed.
        let heard: u64 = after.iter().zip(before).map(|(after, before)| after - before).sum();
        assert!(heard >= 3, "{family:?}: the backends have heard of {heard} of 10");
    }
    for backend in BACKENDS {
        let errors = lab.sh(backend, "nstat -asz IcmpInErrors IcmpInCsumErrors Icmp6InErrors Icmp6InCsumErrors");
        let bad = errors.lines().filter(|line| line.starts_with("Icmp") && !line.contains(" 0 "));
        assert_eq!(bad.collect::<Vec<_>>(), Vec::<&str>::new(), "{backend} got errors that it cannot use");
    }
    loaded.stop();
}
