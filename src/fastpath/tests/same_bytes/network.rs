//! A network namespace with two interfaces: clients live behind one, backends on the other.

use crate::world::DIRECT;
use nix::sched::{CloneFlags, unshare};
use std::process::Command;

/// An interface: its index and its link address.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().expect("ip");
    assert!(done.success(), "ip {arguments}");
}

fn interface(name: &str) -> Interface {
    let index = nix::net::if_::if_nametoindex(name).expect("it is there");
    // /sys is of the namespace that mounted it.
    let said = Command::new("ip").args(["-o", "link", "show", name]).output().expect("ip");
    let said = String::from_utf8(said.stdout).expect("text");
    let mac = said.split("link/ether ").nth(1).expect("a link address").split(' ').next().expect("it");
    let mac: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    Interface { index, mac: mac.try_into().expect("six") }
}

/// Two interfaces: clients live behind `outside`, backends on `inside`.
pub(crate) fn network() -> [Interface; 2] {
    unshare(CloneFlags::CLONE_NEWNET).expect("root");
    for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{sysctl}"), "1").expect("sysctl");
    }
    for (name, v4, v6) in
        [("outside", "203.0.113.1/24", "2001:db8:99::1/64"), ("inside", "198.51.100.1/24", "2001:db8:2::1/64")]
    {
        ip(&format!("link add {name} type veth peer name far-{name}"));
        ip(&format!("link set far-{name} up"));
        ip(&format!("link set {name} up"));
        ip(&format!("address add {v4} dev {name}"));
        ip(&format!("address add {v6} dev {name} nodad"));
    }
    ip("route add default via 203.0.113.254");
    ip("route add default via 2001:db8:99::fe");
    ["outside", "inside"].map(interface)
}

/// Lets the direct backends of a family be behind a router.
pub(crate) fn route_by_router(side: usize) {
    let (length, router) = [("32", "198.51.100.9"), ("128", "2001:db8:2::9")][side];
    for backend in &DIRECT[2 * side..][..2] {
        ip(&format!("route add {backend}/{length} via {router}"));
    }
}
