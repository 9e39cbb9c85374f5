//! Three balancers at once behind a router, with Debian's BIRD, as `scripts/ha/bird` ships it.
//!
//! ```text
//!                                     ┌─ eth0 lb  eth1 ─┐
//!   client eth0 ── client r0 br0 ─────┼─ eth0 b21 eth1 ─┼── sw (bridge) ── b1 ... b3
//!                  (b20) │ eth1       └─ eth0 b22 eth1 ─┘    │
//!                        └──────────── mode "dsr" ───────────┘
//! ```
//! What is added is named as a backend is, so that `scripts/lab down` takes it away.

use super::direct_return::answer_past_the_balancer;
use super::lab::{Lab, binary, bounded, eventually, shipped};
use super::loaded::Loaded;
use super::net::Family;
use super::pair::{control, keepalived_by, keepalived_with, serve_by, text};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The balancers.
pub(crate) const BALANCERS: [&str; 3] = ["lb", "b21", "b22"];
/// The router.
const ROUTER: &str = "b20";
/// BFD and BGP begin with a connection each, and a session that has broken waits for a second or more.
const CONVERGE: Duration = Duration::from_secs(30);

/// How packets get to backends, and answers back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// Answers go to clients directly.
    Dsr,
    /// By the balancer that has the backends' gateway.
    Nat,
    /// Of two balancers, each is the gateway of a part of the backends, and of the others once the other one is gone.
    Parts,
}

impl Topology {
    /// The balancers that there are.
    pub(crate) fn balancers(self) -> &'static [&'static str] {
        if self == Self::Parts { &BALANCERS[..2] } else { &BALANCERS }
    }
}

/// Router and balancers, with BIRD on each, and keepalived where it moves the gateway.
#[track_caller]
pub(crate) fn up(lab: &Lab, topology: Topology) {
    for who in std::iter::once(ROUTER).chain(topology.balancers()[1..].iter().copied()) {
        assert!(bounded(&["ip", "netns", "add", &lab.namespace(who)]).status().unwrap().success());
        lab.sh(
            who,
            "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0 \
             net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 \
             net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             ip link set lo up",
        );
    }
    // The client's link leads to the router from now on, and its addresses stay.
    lab.sh("lb", &format!("ip link set eth0 netns {} name client", lab.namespace(ROUTER)));
    lab.sh(
        ROUTER,
        "sysctl -qw net.ipv4.fib_multipath_hash_policy=1 net.ipv6.fib_multipath_hash_policy=1
         ip link add br0 type bridge mcast_snooping 0; ip link set br0 up; ip link set client up
         ip address add 192.0.2.254/24 dev client; ip address add 2001:db8:1::fe/64 dev client nodad
         ip address add 203.0.113.1/24 dev br0; ip address add 2001:db8:f::1/64 dev br0 nodad",
    );
    lab.sh(
        "client",
        "ip route del 198.51.100.0/24; ip -6 route del 2001:db8:2::/64
         ip route add 192.0.2.100 via 192.0.2.254; ip -6 route add 2001:db8:1::100 via 2001:db8:1::fe",
    );
    for (&who, n) in topology.balancers().iter().zip(1..) {
        balancer(lab, who, n, topology);
    }
    if topology == Topology::Dsr {
        direct(lab);
    }
    bird(lab, ROUTER, "router.conf");
    for who in topology.balancers() {
        bird(lab, who, "bird.conf");
        match topology {
            Topology::Dsr => {}
            Topology::Nat => keepalived_by(lab, who, "bird/gateway.conf"),
            Topology::Parts => keepalived_with(lab, who, &two_gateways(who)),
        }
    }
    if topology == Topology::Parts {
        for backend in ["b2", "b3"] {
            lab.sh(
                backend,
                "ip route replace default via 198.51.100.253; ip -6 route replace default via 2001:db8:2::fd",
            );
        }
    }
}

/// What scripts/ha/bird/README.md says of two gateways: a second instance, each preferred by one balancer.
fn two_gateways(who: &str) -> String {
    let shipped = text("bird/gateway.conf");
    let (head, instance) = shipped.split_at(shipped.find("vrrp_instance").unwrap());
    let mut second = instance.to_owned();
    for (old, new) in [("backends", "others"), ("101", "102"), ("100.254", "100.253"), ("::fe", "::fd")] {
        assert!(second.contains(old));
        second = second.replace(old, new);
    }
    let prefer = |instance: &str, is_first: bool| {
        let line = if is_first { "    priority 150\n" } else { "" };
        instance.replace("    nopreempt\n", line)
    };
    let is_a = who == BALANCERS[0];
    format!("{head}{}\n{}", prefer(instance, is_a), prefer(&second, !is_a))
}

/// Waits until each of two balancers is the gateway of its part.
#[track_caller]
pub(crate) fn gateways_are_apart(lab: &Lab) {
    let has = |who: &str, last: &str| lab.sh(who, "ip -o address show dev eth1").contains(last);
    let apart = || {
        [(BALANCERS[0], true), (BALANCERS[1], false)]
            .iter()
            .all(|(who, first)| has(who, "2001:db8:2::fe/") == *first && has(who, "2001:db8:2::fd/") != *first)
    };
    assert!(
        eventually(CONVERGE, apart),
        "{}",
        BALANCERS[..2].iter().map(|who| lab.sh(who, "ip address")).collect::<String>()
    );
}

fn balancer(lab: &Lab, who: &str, n: u16, topology: Topology) {
    lab.sh(ROUTER, &format!("ip link add {who} type veth peer name eth0 netns {}", lab.namespace(who)));
    lab.sh(ROUTER, &format!("ip link set {who} master br0; ip link set {who} up"));
    if who != "lb" {
        lab.sh("sw", &format!("ip link add {who} type veth peer name eth1 netns {}", lab.namespace(who)));
        lab.sh("sw", &format!("ip link set {who} master br0; ip link set {who} up"));
    }
    lab.sh(
        who,
        &format!(
            "ip link set eth0 up; ip link set eth1 up; ip address flush dev eth1 scope global
             ip address add 203.0.113.1{n}/24 dev eth0; ip address add 2001:db8:f::1{n}/64 dev eth0 nodad
             ip address add 198.51.100.25{n}/24 dev eth1; ip address add 2001:db8:2::25{n}/64 dev eth1 nodad
             ip route replace default via 203.0.113.1; ip -6 route replace default via 2001:db8:f::1
             sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 \
             net.ipv4.conf.eth0.accept_local=1 net.ipv4.conf.eth1.accept_local=1 \
             net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0"
        ),
    );
    if topology != Topology::Dsr {
        lab.sh(who, "ip address add 192.0.2.100/32 dev lo; ip address add 2001:db8:1::100/128 dev lo nodad");
    }
}

/// Backends have the VIP, and a way to clients past the balancers.
fn direct(lab: &Lab) {
    lab.sh("sw", &format!("ip link add {ROUTER} type veth peer name eth1 netns {}", lab.namespace(ROUTER)));
    lab.sh("sw", &format!("ip link set {ROUTER} master br0; ip link set {ROUTER} up"));
    lab.sh(
        ROUTER,
        "ip link set eth1 up; ip address add 198.51.100.1/24 dev eth1; ip address add 2001:db8:2::1/64 dev eth1 nodad",
    );
    answer_past_the_balancer(lab);
}

/// Starts `loaded` on one of them, and what announces it, both as shipped.
#[track_caller]
pub(crate) fn serve(lab: &Lab, who: &str, topology: Topology) -> Loaded {
    let name = if topology == Topology::Dsr { "bird/loaded.toml" } else { "bird/nat.toml" };
    let loaded = serve_by(lab, who, &text(name));
    let is_ready = || loaded.ask(&["health"]).code == Some(0);
    assert!(eventually(CONVERGE, is_ready), "{:?}", loaded.ask(&["health"]));
    loaded
}

/// Starts what announces it.
pub(crate) fn announce(lab: &Lab, who: &str) {
    let program = shipped("scripts/ha/bird/loaded-announce");
    let (binary, control) = (binary(), control(lab, who));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace(who), &program]);
    command.arg(binary).args(["health", "--control"]).arg(control);
    command.env("BIRDC", format!("birdc -s {}", socket(lab, who)));
    in_background(lab, command, &format!("{who}.announce"));
}

fn bird(lab: &Lab, who: &str, config: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace(who), "bird", "-f", "-s", &socket(lab, who), "-c"]);
    command.arg(shipped(&format!("scripts/ha/bird/{config}")));
    in_background(lab, command, &format!("{who}.bird"));
}

fn socket(lab: &Lab, who: &str) -> String {
    lab.state().join(format!("{who}.bird.ctl")).to_str().unwrap().to_owned()
}

fn in_background(lab: &Lab, mut command: Command, name: &str) {
    let log = File::create(lab.state().join(format!("{name}.log"))).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut child = command.spawn().unwrap();
    std::thread::spawn(move || drop(child.wait()));
}

/// Pulls both cables of a balancer (`down`), or puts them back (`up`).
#[track_caller]
pub(crate) fn cables(lab: &Lab, who: &str, state: &str) {
    for switch in [ROUTER, "sw"] {
        lab.sh(switch, &format!("ip link set {who} {state}"));
    }
}

/// Waits until the router sends clients to so many balancers, by both families.
#[track_caller]
pub(crate) fn is_shared_by(lab: &Lab, balancers: usize) {
    let ways = || {
        Family::BOTH.map(|family| {
            let program = if family == Family::V4 { "ip" } else { "ip -6" };
            lab.sh(ROUTER, &format!("{program} route show {}", family.vip())).matches(" via ").count()
        })
    };
    let said = || {
        let of = |who: &str| lab.exec(who, &["birdc", "-s", &socket(lab, who), "show", "protocols"]).out;
        let announced = |who: &str| fs::read_to_string(lab.state().join(format!("{who}.announce.log")));
        let there = |who: &&&str| Path::new("/run/netns").join(lab.namespace(who)).exists();
        let all: Vec<_> =
            BALANCERS.iter().filter(there).map(|who| format!("{who}:\n{}{:?}", of(who), announced(who))).collect();
        format!("{}\n{}", of(ROUTER), all.join("\n"))
    };
    assert!(eventually(CONVERGE, || ways() == [balancers; 2]), "{:?}, not {balancers}:\n{}", ways(), said());
}
