//! The rules in a real kernel. Each test runs itself again in a network namespace of its own (`unshare -n`), so the
//! host's rules are never touched; the namespace ends with the process.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod hosts;
mod install;
mod packets;
mod steering;
mod update;
mod waiting;

use loaded_config::plan::{Backend, Plan, Service};
use loaded_ipc::{Affinity, AllDown, Mode, OnBackendDown, Policy, PortRange, Protocol, Strategy};
use loaded_netfilter::{Family, HashKeys, Installed, Reach, RuleSet, Steering, Tools, clean_stale};
use loaded_queue::{queue_owner, queue_owners};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
use packets::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

const INNER: &str = "LOADED_RULES_TEST_INSIDE";
const VIP4: &str = "192.0.2.100";
const VIP6: &str = "2001:db8:1::100";
const BACKENDS: [&str; 4] = ["198.51.100.11", "198.51.100.12", "2001:db8:2::11", "2001:db8:2::12"];
/// Whoever sends an ICMP error.
const ROUTER4: &str = "203.0.113.1";
const ROUTER6: &str = "2001:db8:ff::1";
const QUEUES: [u16; 3] = [40, 41, 42];
/// Rules of somebody else, in tables that we use and in others.
const FOREIGN: &str = "*raw\n-A PREROUTING -s 203.0.113.7/32 -j DROP\nCOMMIT\n\
    *filter\n:MINE - [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j MINE\nCOMMIT\n";

/// Runs the body in a fresh namespace. `exec` by name: each test is found again by its own.
fn in_namespace(test: &str, body: impl FnOnce()) {
    if let Ok(outer) = std::env::var(INNER) {
        assert_ne!(namespace(), outer, "not in a namespace of our own");
        run("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "LOADED_CI is set and this is not root");
        println!("skipped: {test} needs root");
        return;
    }
    let this = std::env::current_exe().unwrap();
    let arguments = ["--exact", test, "--nocapture", "--test-threads=1"];
    let status = Command::new("unshare").arg("-n").arg(this).args(arguments).env(INNER, namespace()).status().unwrap();
    assert!(status.success(), "{test} failed in its namespace, see above");
}

fn namespace() -> String {
    std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn restore(program: &str, text: &str) {
    let file = std::env::temp_dir().join(format!("loaded-rules-{}", std::process::id()));
    std::fs::write(&file, text).unwrap();
    run("sh", &["-c", &format!("{program} --noflush < {}", file.display())]);
    std::fs::remove_file(file).unwrap();
}

/// Both families' rules as the user sees them, without counters and dates.
fn saved() -> String {
    let text = [run("iptables-save", &[]), run("ip6tables-save", &[])].concat();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or(line)).map(|line| format!("{line}\n")).collect()
}

/// What nft has of the raw tables.
fn nft_tables() -> String {
    run("nft", &["list", "tables"])
}

fn plan(base: u16, vips: &[&str], backends: &[&str], protocol: Protocol) -> Plan {
    let backend = |address| Backend { address, port: None, weight: 1, backup: false };
    let addresses = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect::<Vec<IpAddr>>();
    let ports = if protocol == Protocol::Any { &[][..] } else { &[(80, 80), (443, 443), (8000, 8010)] };
    let service = Service {
        name: "web".into(),
        vips: addresses(vips),
        protocol,
        ports: ports.iter().map(|&(low, high)| PortRange { low, high }).collect(),
        port: None,
        checks_own_ports: false,
        mode: Mode::Nat,
        strategy: Strategy::RoundRobin,
        affinity: Some(Affinity { prefix4: 32, prefix6: 64, timeout: 60 }),
        policy: Policy { on_backend_down: OnBackendDown::Drain, all_down: AllDown::Drop, ..Policy::STANDARD },
        check: None,
        discover: None,
        backends: addresses(backends).into_iter().map(backend).collect(),
    };
    let nameservers = addresses(&["9.9.9.9", "2620:fe::fe"]);
    Plan { queue_base: base, nameservers, services: vec![service], ..Plan::empty() }
}

fn both_families(base: u16) -> Plan {
    plan(base, &[VIP4, VIP6], &BACKENDS, Protocol::Any)
}

fn steering(plan: &Plan) -> Steering {
    Steering::new(plan, HashKeys::new([0x9e37_79b9, 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f, 0x1656_67b1, 0x2c1b_3c6d]))
}

fn rules(plan: &Plan) -> RuleSet {
    RuleSet::new(&Reach::of(plan), &QUEUES, &steering(plan))
}

fn install(plan: &Plan) -> Installed {
    let installed = Installed::install(&rules(plan), &Tools::find().unwrap()).unwrap();
    assert_eq!(installed.notes(), [""; 0]);
    installed
}

/// Removes and tidies; nothing may be left to say.
fn leave(mut installed: Installed) {
    installed.remove().unwrap();
    assert_eq!(installed.tidy(), [""; 0]);
}

/// A queue bound by this process: one message of NFQNL_MSG_CONFIG with NFQNL_CFG_CMD_BIND and NFQNL_COPY_META.
fn bind_queue(queue: u16) -> OwnedFd {
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter).unwrap();
    let [high, low] = queue.to_be_bytes();
    let mut message = 40_u32.to_ne_bytes().to_vec();
    message.extend(0x302_u16.to_ne_bytes());
    message.extend(1_u16.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([0, 0, high, low]);
    message.extend([8_u16.to_ne_bytes(), 1_u16.to_ne_bytes()].concat());
    message.extend([1, 0, 0, 0]);
    message.extend([9_u16.to_ne_bytes(), 2_u16.to_ne_bytes()].concat());
    message.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    send(fd.as_raw_fd(), &message, MsgFlags::empty()).unwrap();
    fd
}

/// The legacy programs under the usual names; `None` when they are not installed. The directory stays until the system
/// empties its temporary files: the programs run until the end.
fn legacy_tools() -> Option<Tools> {
    let legacy = |tool: &str| Path::new("/usr/sbin").join(tool.replace("tables", "tables-legacy"));
    let dir = std::env::temp_dir().join("loaded-legacy");
    for tool in ["iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save"] {
        let program = legacy(tool).exists().then(|| legacy(tool))?;
        std::fs::create_dir_all(&dir).unwrap();
        match std::os::unix::fs::symlink(program, dir.join(tool)) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => panic!("{e}"),
            _ => {}
        }
    }
    Some(Tools::find_in(&[dir.as_path()]).unwrap())
}
