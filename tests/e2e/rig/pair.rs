//! Two balancers beside each other, with keepalived, as `scripts/ha/keepalived` ships it.
//!
//! ```text
//!   client eth0 ── b8 (bridge) ──┬── eth0 lb eth1 ──┬── sw (bridge) ── b1 ... b3
//!                                └── eth0 b9 eth1 ──┘
//! ```
//! What is added is named as a backend is, so that `scripts/lab down` takes it away.

use super::direct_return::answer_past_the_balancer;
use super::lab::{Lab, binary, bounded, eventually, shipped};
use super::loaded::Loaded;
use super::net::Family;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The two balancers.
pub(crate) const A: &str = "lb";
pub(crate) const B: &str = "b9";
/// What keepalived moves: the VIPs and the backends' gateway.
const MOVED: [&str; 4] = ["192.0.2.100/32", "2001:db8:1::100/128", "198.51.100.254/32", "2001:db8:2::fe/128"];
/// The interface of both to the other one.
pub(super) const LINK: &str = "sync";
const NEXT_HOP: [&str; 2] = ["192.0.2.250/32", "2001:db8:1::fa/128"];
/// Three advertisements that do not come, or three bad answers to the script, and then a busy machine.
const MOVE: Duration = Duration::from_secs(30);

/// The second balancer beside the first, neither with an address that moves.
#[track_caller]
pub(crate) fn up(lab: &Lab) {
    for who in ["b8", B] {
        assert!(bounded(&["ip", "netns", "add", &lab.namespace(who)]).status().unwrap().success());
    }
    lab.sh("b8", "sysctl -qw net.ipv6.conf.default.disable_ipv6=1; ip link add br0 type bridge mcast_snooping 0; ip link set br0 up");
    lab.sh(
        B,
        "sysctl -qw net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.default.accept_ra=0 \
         net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
         ip link set lo up",
    );
    // The client's link leads to the bridge from now on, and its addresses stay.
    lab.sh(A, &format!("ip link set eth0 netns {} name client", lab.namespace("b8")));
    lab.sh("b8", "ip link set client master br0; ip link set client up");
    for (who, n) in [(A, 251), (B, 252)] {
        lab.sh("b8", &format!("ip link add {who} type veth peer name eth0 netns {}", lab.namespace(who)));
        lab.sh("b8", &format!("ip link set {who} master br0; ip link set {who} up"));
        if who == B {
            lab.sh("sw", &format!("ip link add {B} type veth peer name eth1 netns {}", lab.namespace(B)));
            lab.sh("sw", &format!("ip link set {B} master br0; ip link set {B} up"));
        }
        lab.sh(
            who,
            &format!(
                "ip link set eth0 up; ip link set eth1 up; ip address flush dev eth1 scope global
                 ip address add 192.0.2.{n}/24 dev eth0; ip address add 2001:db8:1::{n}/64 dev eth0 nodad
                 ip address add 198.51.100.{n}/24 dev eth1; ip address add 2001:db8:2::{n}/64 dev eth1 nodad
                 sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 \
                 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0 \
                 net.ipv4.conf.eth1.send_redirects=0 net.ipv4.conf.eth0.accept_local=1 net.ipv4.conf.eth1.accept_local=1"
            ),
        );
    }
}

/// A file of `scripts/ha`.
pub(crate) fn text(name: &str) -> String {
    fs::read_to_string(shipped(&format!("scripts/ha/{name}"))).unwrap()
}

/// Starts `loaded` on one of them, with the shipped configuration and what `more` adds to it.
#[track_caller]
pub(crate) fn serve(lab: &Lab, who: &str, more: &str) -> Loaded {
    serve_by(lab, who, &(text("keepalived/loaded.toml") + more))
}

/// The same with this configuration.
#[track_caller]
pub(crate) fn serve_by(lab: &Lab, who: &str, text: &str) -> Loaded {
    let config = lab.file(&format!("{who}.toml"), text);
    let count = fs::read_dir(lab.state()).unwrap().count();
    let log = lab.state().join(format!("loaded.{who}.{count}.log"));
    let loaded = Loaded::spawn_in(who, &binary(), lab, (log, control(lab, who)), |command| {
        command.args(["-D", "-c", &config]);
    });
    loaded.until_it_serves()
}

pub(super) fn control(lab: &Lab, who: &str) -> std::path::PathBuf {
    lab.state().join(format!("control.{who}"))
}

/// Starts keepalived on one of them, with the shipped configuration. Only the path of `loaded` is another one, by way of `env`:
/// keepalived runs no script that others than root could replace, and this one is where it was built.
#[track_caller]
pub(crate) fn keepalived(lab: &Lab, who: &str) {
    keepalived_by(lab, who, "keepalived/keepalived.conf");
}

/// The same with this file of `scripts/ha`.
#[track_caller]
pub(super) fn keepalived_by(lab: &Lab, who: &str, name: &str) {
    keepalived_with(lab, who, &text(name));
}

/// The same with this text.
#[track_caller]
pub(super) fn keepalived_with(lab: &Lab, who: &str, text: &str) {
    let shipped = "script \"/usr/sbin/loaded health\"";
    let here =
        format!("script \"/usr/bin/env {} health --control {}\"", binary().display(), control(lab, who).display());
    assert!(text.contains(shipped));
    let link = super::lab::shipped("scripts/ha/keepalived/loaded-link");
    let text = text.replace(shipped, &here).replace("/usr/local/sbin/loaded-link", &format!("/usr/bin/env {link}"));
    run_keepalived(lab, who, &text);
}

/// Starts keepalived with this text as it is.
pub(super) fn run_keepalived(lab: &Lab, who: &str, text: &str) {
    let config = lab.file(&format!("{who}.keepalived"), text);
    let path = |name: &str| lab.state().join(format!("{who}.keepalived.{name}"));
    let log = || File::create(path("log")).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace(who), "keepalived", "-n", "-l", "-P", "-f", &config]);
    command.arg("-p").arg(path("pid")).arg("-r").arg(path("vrrp"));
    let log = log();
    let mut child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    std::thread::spawn(move || drop(child.wait()));
}

/// Backends have the VIP, and a way to the client past the balancers, for mode "dsr". A router, which the client is here, sends
/// the VIPs to the next hop that moves.
#[track_caller]
fn direct(lab: &Lab) {
    direct_on_link(lab);
    lab.sh("client", "ip route add 192.0.2.100 via 192.0.2.250; ip -6 route add 2001:db8:1::100 via 2001:db8:1::fa");
}

/// The same, but the client is on the balancers' link and asks there who has the VIPs.
#[track_caller]
fn direct_on_link(lab: &Lab) {
    lab.sh("sw", &format!("ip link add direct type veth peer name eth1 netns {}", lab.namespace("client")));
    lab.sh("sw", "ip link set direct master br0 up");
    lab.sh(
        "client",
        "ip route del 198.51.100.0/24; ip -6 route del 2001:db8:2::/64; ip link set eth1 up
         ip address add 198.51.100.1/24 dev eth1; ip address add 2001:db8:2::1/64 dev eth1 nodad",
    );
    answer_past_the_balancer(lab);
}

/// How packets to the VIPs get to a balancer in mode "dsr".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Towards {
    /// A router sends them to a next hop, an address that keepalived moves.
    NextHop,
    /// Clients ask on the link who has them (ARP, neighbour discovery).
    Link,
}

impl Towards {
    /// What it takes at client and backends.
    #[track_caller]
    pub(crate) fn set_up(self, lab: &Lab) {
        if self == Self::NextHop { direct(lab) } else { direct_on_link(lab) }
    }

    fn config(self) -> &'static str {
        if self == Self::NextHop { "keepalived/dsr.conf" } else { "keepalived/dsr-link.conf" }
    }

    /// Waits until they get to this balancer.
    #[track_caller]
    pub(crate) fn is_to(self, lab: &Lab, who: &str) {
        let has_link = |who| lab.exec(who, &["ip", "-6", "neighbour", "show", "proxy"]).out.contains("vip-link");
        match self {
            Self::NextHop => holds(lab, who, &NEXT_HOP),
            Self::Link => {
                let other = if who == A { B } else { A };
                let is = || has_link(who) && !has_link(other);
                assert!(
                    eventually(MOVE, is),
                    "{who} has no link of the VIPs:\n{}\n{}",
                    said(lab, who),
                    said(lab, other)
                );
            }
        }
    }
}

/// Starts `loaded` in mode "dsr" on one of them, and keepalived if `also` says how, both as shipped.
#[track_caller]
pub(crate) fn serve_direct(lab: &Lab, who: &str, also: Option<Towards>) -> Loaded {
    let loaded = serve_by(lab, who, &text("keepalived/dsr.toml"));
    let is_ready = || loaded.ask(&["health"]).code == Some(0);
    assert!(eventually(MOVE, is_ready), "{:?}", loaded.ask(&["health"]));
    if let Some(towards) = also {
        keepalived_by(lab, who, towards.config());
    }
    loaded
}

/// What tcpdump calls every packet from or to a backend.
pub(crate) fn backends() -> String {
    let hosts = Family::BOTH.into_iter().flat_map(|family| (1..=3).map(move |n| format!("host {}", family.backend(n))));
    hosts.collect::<Vec<_>>().join(" or ")
}

/// What tcpdump calls every packet in a backend's name, but for the link's own (ARP, neighbour discovery).
pub(crate) fn from_backends() -> String {
    format!("(tcp or udp or icmp) and ({})", backends().replace("host ", "src host "))
}

/// Pulls both cables of a balancer (`down`), or puts them back (`up`).
#[track_caller]
pub(crate) fn cables(lab: &Lab, who: &str, state: &str) {
    for switch in ["b8", "sw"] {
        lab.sh(switch, &format!("ip link set {who} {state}"));
    }
}

/// The shipped configuration without what asks `loaded`, for other balancers.
pub(super) fn without_loaded() -> String {
    let shipped = text("keepalived/keepalived.conf");
    let (head, rest) = shipped.split_once("vrrp_script loaded {").unwrap();
    let (_, rest) = rest.split_once("\n}\n").unwrap();
    let asks = "    track_script {\n        loaded\n    }\n";
    assert!(rest.contains(asks), "{rest}");
    format!("{head}{}", rest.replace(asks, ""))
}

/// A link between the two, where others tell each other of their connections.
#[track_caller]
pub(crate) fn link(lab: &Lab) {
    lab.sh(A, &format!("ip link add {LINK} type veth peer name {LINK} netns {}", lab.namespace(B)));
    for who in [A, B] {
        lab.sh(who, &format!("ip address add {}/24 dev {LINK}; ip link set {LINK} up", address(who)));
    }
}

/// An end of that link.
pub(super) fn address(who: &str) -> &'static str {
    if who == A { "192.168.100.1" } else { "192.168.100.2" }
}

/// Pulls its cable.
#[track_caller]
pub(crate) fn cut_link(lab: &Lab) {
    lab.sh(A, &format!("ip link set {LINK} down"));
}

/// Kills everything that runs in a balancer's namespace, at once.
#[track_caller]
pub(crate) fn kill_all(lab: &Lab, who: &str) {
    let kill = format!("ip netns pids {} | xargs -r kill -KILL", lab.namespace(who));
    let said = super::lab::said(&bounded(&["sh", "-c", &kill]).output().unwrap());
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
}

/// What keepalived has said so far.
pub(crate) fn said(lab: &Lab, who: &str) -> String {
    fs::read_to_string(lab.state().join(format!("{who}.keepalived.log"))).unwrap_or_default()
}

/// Waits until this balancer has all addresses that move, and the other one none of them.
#[track_caller]
pub(crate) fn is_active(lab: &Lab, who: &str) {
    holds(lab, who, &MOVED);
}

#[track_caller]
fn holds(lab: &Lab, who: &str, moved: &[&str]) {
    let other = if who == A { B } else { A };
    let held = |who| {
        let addresses = lab.sh(who, "ip -o address show");
        moved.iter().filter(|address| addresses.contains(&format!(" {address} "))).count()
    };
    let is = || (held(who), held(other)) == (moved.len(), 0);
    assert!(eventually(MOVE, is), "{who} is not active:\n{}\n{other}:\n{}", said(lab, who), said(lab, other));
}
