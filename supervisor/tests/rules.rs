//! The rules in a real kernel. Each test runs itself again in a network namespace of its own (`unshare -n`), so the
//! host's rules are never touched; the namespace ends with the process.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use loaded_ipc::{Affinity, BackendIndex, PortRange, Protocol, Strategy};
use loaded_supervisor::plan::{Member, Plan, Service};
use loaded_supervisor::rules::{
    Family, Installed, Keys, RuleSet, Steering, Tools, clean_stale, queue_owner, queue_owners,
};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket};
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
    let member = |n| Member { backend: BackendIndex(n), weight: 1 };
    let addresses = |list: &[&str]| list.iter().map(|address| address.parse().unwrap()).collect::<Vec<IpAddr>>();
    let ports = if protocol == Protocol::Any { &[][..] } else { &[(80, 80), (443, 443), (8000, 8010)] };
    let service = Service {
        name: "web".into(),
        vips: addresses(vips),
        protocol,
        ports: ports.iter().map(|&(low, high)| PortRange { low, high }).collect(),
        strategy: Strategy::RoundRobin,
        affinity: Some(Affinity { prefix4: 32, prefix6: 64, timeout: 60 }),
        members: (0..).take(backends.len()).map(member).collect(),
    };
    Plan {
        user: "nobody".into(),
        cores: None,
        queue_base: base,
        queue_len: 1024,
        flows: 1024,
        clients: 1024,
        nameservers: addresses(&["9.9.9.9", "2620:fe::fe"]),
        services: vec![service],
        backends: addresses(backends),
    }
}

fn both_families(base: u16) -> Plan {
    plan(base, &[VIP4, VIP6], &BACKENDS, Protocol::Any)
}

fn steering(plan: &Plan) -> Steering {
    Steering::new(plan, Keys::new([0x9e37_79b9, 0x85eb_ca6b, 0xc2b2_ae35, 0x27d4_eb2f, 0x1656_67b1, 0x2c1b_3c6d]))
}

fn rules(plan: &Plan) -> RuleSet {
    RuleSet::new(plan, &QUEUES, &steering(plan))
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

/// Packets counted by each rule of a chain, in order.
fn counters(family: Family, chain: &str) -> Vec<u64> {
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
fn taken(family: Family, chain: &str, skip: usize, act: impl FnOnce()) -> Option<u16> {
    let before = counters(family, chain);
    act();
    let more: Vec<_> =
        counters(family, chain).iter().zip(&before).map(|(after, before)| after - before).skip(skip).collect();
    assert!(more.iter().sum::<u64>() <= 1, "{chain}: {more:?}");
    more.iter().position(|count| *count == 1).map(|worker| u16::try_from(worker).unwrap())
}

fn udp(from: IpAddr, to: IpAddr, bytes: usize) {
    let socket = UdpSocket::bind(SocketAddr::new(from, 80)).unwrap();
    socket.send_to(&vec![0; bytes], SocketAddr::new(to, 80)).unwrap();
}

fn udp_between(from: IpAddr, port: u16, to: IpAddr, to_port: u16) {
    let socket = UdpSocket::bind(SocketAddr::new(from, port)).unwrap();
    socket.send_to(b"x", SocketAddr::new(to, to_port)).unwrap();
}

/// An ICMP error that quotes a packet from `source` to `destination`.
fn icmp_error(to: IpAddr, source: IpAddr, destination: IpAddr) {
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
fn icmp(to: IpAddr, kind: u8, payload: &[u8]) {
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

/// Makes every address of ours and of the clients local to this namespace: what is sent between them crosses lo and
/// so raw PREROUTING, as a packet from outside would.
fn everybody_lives_here() {
    // Addresses of a route need not be added, but then IPv6 wants to be asked for leave to bind to them.
    std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1").unwrap();
    run("ip", &["addr", "add", &format!("{ROUTER4}/32"), "dev", "lo"]);
    run("ip", &["-6", "addr", "add", &format!("{ROUTER6}/128"), "dev", "lo", "nodad"]);
    for net in [VIP4, BACKENDS[0], BACKENDS[1], "9.9.9.9", "10.9.0.0/16"] {
        run("ip", &["route", "add", "local", net, "dev", "lo", "src", ROUTER4]);
    }
    for net in [VIP6, BACKENDS[2], BACKENDS[3], "fd00:9::/32"] {
        run("ip", &["-6", "route", "add", "local", net, "dev", "lo", "src", ROUTER6]);
    }
}

fn clients() -> impl Iterator<Item = (IpAddr, IpAddr)> {
    (1..=30).map(|n| {
        let v6 = Ipv6Addr::new(0xfd00, 9, 0, n, 0, 0, 0, 7);
        (Ipv4Addr::from_bits(0x0a09_0000 + 77 * u32::from(n)).into(), v6.into())
    })
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
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

#[test]
fn nothing_is_left_and_foreign_rules_stay() {
    in_namespace("nothing_is_left_and_foreign_rules_stay", || {
        restore("iptables-restore", FOREIGN);
        let (before, tables) = (saved(), nft_tables());
        let installed = install(&both_families(40));
        let during = saved();
        assert!(during.contains("-A PREROUTING -j LOADED-40\n-A PREROUTING -s 203.0.113.7/32 -j DROP\n"), "{during}");
        assert_eq!(during.matches("-A PREROUTING -j LOADED-40\n").count(), 2, "{during}");
        leave(installed);
        assert_eq!(saved(), before);
        assert_eq!(nft_tables(), tables);
    });
}

#[test]
fn a_host_without_rules_is_left_without_tables() {
    in_namespace("a_host_without_rules_is_left_without_tables", || {
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
        leave(install(&both_families(40)));
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}

#[test]
fn a_table_that_others_began_to_use_stays() {
    in_namespace("a_table_that_others_began_to_use_stays", || {
        let mut installed = install(&both_families(40));
        restore("iptables-restore", "*raw\n-A PREROUTING -s 203.0.113.7/32 -j DROP\nCOMMIT\n");
        run("nft", &["add", "chain", "ip6", "raw", "foreign"]);
        installed.remove().unwrap();
        let _ = installed.tidy();
        assert!(saved().contains("-A PREROUTING -s 203.0.113.7/32 -j DROP"));
        assert!(run("nft", &["list", "table", "ip6", "raw"]).contains("chain foreign"));
    });
}

#[test]
fn the_kernel_prints_back_what_was_asked_for() {
    in_namespace("the_kernel_prints_back_what_was_asked_for", || {
        for protocol in [Protocol::Any, Protocol::Tcp] {
            let plan = plan(40, &[VIP4, VIP6], &BACKENDS, protocol);
            let installed = install(&plan);
            let (kernel, asked) = (saved(), Family::ALL.map(|family| rules(&plan).text(family).unwrap()).concat());
            let ours = |text: &str| {
                let mut lines: Vec<_> =
                    text.lines().filter(|l| l.starts_with("-A LOADED")).map(str::to_owned).collect();
                lines.sort_unstable();
                lines
            };
            assert_eq!(ours(&kernel), ours(&asked));
            leave(installed);
        }
    });
}

#[test]
fn an_update_is_exact_and_a_refused_one_changes_nothing() {
    in_namespace("an_update_is_exact_and_a_refused_one_changes_nothing", || {
        let many: Vec<String> = (1..=40).map(|n| format!("198.51.100.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let (small, large) = (both_families(40), plan(40, &[VIP4], &many, Protocol::Tcp));
        let mut installed = install(&small);
        let first = saved();
        installed.update(&rules(&large)).unwrap();
        assert!(saved().contains("-A LOADED-40-B1 ") && !saved().contains(VIP6));
        installed.update(&rules(&small)).unwrap();
        assert_eq!(saved(), first);

        // A foreign jump to a chain that the next rules do without makes the kernel refuse the change of IPv4.
        installed.update(&rules(&large)).unwrap();
        restore("iptables-restore", "*raw\n-A OUTPUT -j LOADED-40-B1\nCOMMIT\n");
        let held = saved();
        let error = installed.update(&rules(&small)).unwrap_err().to_string();
        assert!(error.contains("IPv4 rules: cannot change"), "{error}");
        assert_eq!(saved(), held);
        let error = installed.remove().unwrap_err().to_string();
        assert!(error.contains("does a foreign rule jump to one?"), "{error}");
        assert!(!saved().contains("-A PREROUTING") && !saved().contains("NFQUEUE"), "cut off all the same");
    });
}

#[test]
fn the_largest_plan_is_taken() {
    in_namespace("the_largest_plan_is_taken", || {
        let names: Vec<String> = (0..2048)
            .flat_map(|n| [format!("10.8.{}.{}", n / 256, n % 256), format!("2001:db8:{n:x}:a:b:c:d:e")])
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let plan = plan(40, &[VIP4, VIP6], &names, Protocol::Tcp);
        let started = std::time::Instant::now();
        let installed = install(&plan);
        println!("4096 backends, both families: installed in {:?}", started.elapsed());
        let started = std::time::Instant::now();
        leave(installed);
        println!("removed in {:?}", started.elapsed());
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}

#[test]
fn if_one_family_fails_the_other_is_taken_back() {
    in_namespace("if_one_family_fails_the_other_is_taken_back", || {
        // An iptables of which the IPv6 half does not work, as with a kernel without ip6table_raw.
        let dir = std::env::temp_dir().join(format!("loaded-tools-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        for tool in ["iptables-restore", "iptables-save", "ip6tables-save", "nft"] {
            std::os::unix::fs::symlink(run("sh", &["-c", &format!("command -v {tool}")]).trim(), dir.join(tool))
                .unwrap();
        }
        std::os::unix::fs::symlink("/bin/false", dir.join("ip6tables-restore")).unwrap();
        let tools = Tools::find_in(&[dir.as_path()]).unwrap();
        let error = Installed::install(&rules(&both_families(40)), &tools).unwrap_err().to_string();
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(
            error.contains("IPv6 rules: cannot install") && error.contains("ip6tables-restore --noflush"),
            "{error}"
        );
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}

#[test]
fn what_a_killed_instance_left_goes_and_a_living_one_stays() {
    in_namespace("what_a_killed_instance_left_goes_and_a_living_one_stays", || {
        let tools = Tools::find().unwrap();
        let queue = bind_queue(60);
        let owned = |queue| queue_owners().unwrap().iter().any(|state| state.queue == queue);
        assert!(owned(60) && !owned(40));
        let owner = queue_owner(60).unwrap().unwrap();
        assert!(owner.contains(&format!("pid {} (", std::process::id())), "{owner}");
        assert_eq!(queue_owner(40).unwrap(), None);

        // Alone, and with the tables made by the dead one: they go too.
        std::mem::forget(install(&both_families(40)));
        assert_eq!(clean_stale(&tools, owned).unwrap().len(), 2);
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));

        // Beside a living one.
        let living = both_families(60);
        let alive = Installed::install(&RuleSet::new(&living, &[60, 61], &steering(&living)), &tools).unwrap();
        let before = saved();
        std::mem::forget(install(&both_families(40)));
        let notes = clean_stale(&tools, owned).unwrap();
        assert!(
            notes.len() == 2 && notes[0].contains("LOADED-40 of a dead instance (queues {40, 41, 42})"),
            "{notes:?}"
        );
        assert_eq!(saved(), before);

        // A new start with the same base replaces what is left in one step and tidies as if it had made it.
        drop(queue);
        leave(alive);
        std::mem::forget(install(&both_families(40)));
        let again = install(&both_families(40));
        assert_eq!(saved().matches("-A PREROUTING -j LOADED-40\n").count(), 2);
        leave(again);
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}

#[test]
fn the_kernel_steers_as_the_function_says() {
    in_namespace("the_kernel_steers_as_the_function_says", || {
        everybody_lives_here();
        let plan = both_families(40);
        let steering = steering(&plan);
        let _installed = install(&plan);
        let mut seen = [[0; 3]; 2];
        for (v4, v6) in clients() {
            for (family, client, vip, backend) in
                [(Family::V4, v4, ip(VIP4), ip(BACKENDS[0])), (Family::V6, v6, ip(VIP6), ip(BACKENDS[2]))]
            {
                let worker = steering.worker_of(client, 3);
                seen[family as usize][usize::from(worker)] += 1;
                let worker = Some(worker);
                // The first rule of Q untracks.
                let asked = taken(family, "LOADED-40-Q", 1, || udp(client, vip, 100));
                let answered = taken(family, "LOADED-40-R", 0, || udp(backend, client, 100));
                let error = taken(family, "LOADED-40-Q", 1, || icmp_error(vip, vip, client));
                assert_eq!((asked, answered, error), (worker, worker, worker), "{client}");
                // About a request, from a router: to the client's worker too.
                let error = taken(family, "LOADED-40-R", 0, || icmp_error(client, client, backend));
                assert_eq!(error, worker, "{client}");
                let other = taken(family, "LOADED-40-R", 0, || icmp_error(client, client, vip));
                assert_eq!(other, None, "an error about something else is not ours");
            }
        }
        assert!(seen.iter().flatten().all(|count| *count > 0), "{seen:?}");
        println!("30 clients over 3 workers, IPv4 and IPv6: {seen:?}");
    });
}

#[test]
fn a_worker_s_own_reply_and_name_servers_are_not_queued() {
    in_namespace("a_worker_s_own_reply_and_name_servers_are_not_queued", || {
        everybody_lives_here();
        let _installed = install(&both_families(40));
        let (client, _) = clients().next().unwrap();
        // NF_REPEAT brings a rewritten reply by again with the VIP as its source.
        assert_eq!(taken(Family::V4, "LOADED-40-S", 0, || udp(ip(VIP4), client, 10)), Some(0));
        let (backend, server) = (ip(BACKENDS[0]), ip("9.9.9.9"));
        assert_eq!(taken(Family::V4, "LOADED-40-R", 0, || udp_between(backend, 5353, server, 53)), None);
        assert_eq!(taken(Family::V4, "LOADED-40-Q", 1, || udp_between(server, 53, ip(VIP4), 5353)), None);
        assert!(taken(Family::V4, "LOADED-40-R", 0, || udp_between(backend, 5353, server, 54)).is_some());
    });
}

#[test]
fn pings_are_queued_and_neighbour_discovery_is_not() {
    in_namespace("pings_are_queued_and_neighbour_discovery_is_not", || {
        everybody_lives_here();
        let plan = both_families(40);
        let _installed = install(&plan);
        let worker = |router| Some(steering(&plan).worker_of(ip(router), 3));
        assert_eq!(taken(Family::V4, "LOADED-40-Q", 1, || icmp(ip(VIP4), 8, &[0; 56])), worker(ROUTER4));
        assert_eq!(taken(Family::V6, "LOADED-40-Q", 1, || icmp(ip(VIP6), 128, &[0; 56])), worker(ROUTER6));
        for link in [131, 133, 134, 135, 136, 143] {
            assert_eq!(taken(Family::V6, "LOADED-40-Q", 1, || icmp(ip(VIP6), link, &[0; 16])), None, "type {link}");
        }
    });
}

#[test]
fn only_the_ports_of_a_service_are_taken() {
    in_namespace("only_the_ports_of_a_service_are_taken", || {
        everybody_lives_here();
        let mut plan = plan(40, &[VIP4], &BACKENDS[..2], Protocol::Udp);
        plan.services[0].ports = (0..20).map(|n| PortRange { low: 100 * n + 80, high: 100 * n + 80 + n % 2 }).collect();
        let _installed = install(&plan);
        let (client, _) = clients().next().unwrap();
        let asked = |port| {
            let sent = || udp_between(client, 0, ip(VIP4), port);
            taken(Family::V4, "LOADED-40-Q", 1, sent).is_some()
        };
        assert!([80, 180, 181, 1980, 1981].into_iter().all(asked));
        assert!(![79, 81, 182, 1982, 22].into_iter().any(asked));
        let answered = |port| {
            let sent = || udp_between(ip(BACKENDS[1]), port, client, 9);
            taken(Family::V4, "LOADED-40-R", 0, sent).is_some()
        };
        assert!(answered(181) && !answered(182));
    });
}

#[test]
fn fragments_are_put_together_before_the_rules_see_them() {
    in_namespace("fragments_are_put_together_before_the_rules_see_them", || {
        everybody_lives_here();
        run("ip", &["link", "set", "lo", "mtu", "1500"]);
        let plan = both_families(40);
        let (client4, client6) = clients().next().unwrap();
        for (family, program, client, vip) in
            [(Family::V4, "iptables-restore", client4, ip(VIP4)), (Family::V6, "ip6tables-restore", client6, ip(VIP6))]
        {
            // First without the chain that asks for it: the rules see every fragment.
            let text = rules(&plan).text(family).unwrap();
            let without: String =
                text.lines().filter(|line| !line.contains("-m socket")).map(|l| format!("{l}\n")).collect();
            restore(program, &without);
            udp(client, vip, 8000);
            assert_eq!(counters(family, "LOADED-40-Q")[0], 6, "{family}: fragments were expected here");
        }
        let _installed = install(&plan);
        for (family, client, vip) in [(Family::V4, client4, ip(VIP4)), (Family::V6, client6, ip(VIP6))] {
            let worker = steering(&plan).worker_of(client, 3);
            assert_eq!(taken(family, "LOADED-40-Q", 1, || udp(client, vip, 8000)), Some(worker), "{family}");
        }
    });
}

#[test]
fn the_legacy_back_end_takes_the_same_rules() {
    in_namespace("the_legacy_back_end_takes_the_same_rules", || {
        let legacy = |tool: &str| Path::new("/usr/sbin").join(tool.replace("tables", "tables-legacy"));
        if !legacy("iptables-restore").exists() {
            println!("skipped: no legacy back end here");
            return;
        }
        let dir = std::env::temp_dir().join(format!("loaded-legacy-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        for tool in ["iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save"] {
            std::os::unix::fs::symlink(legacy(tool), dir.join(tool)).unwrap();
        }
        let tools = Tools::find_in(&[dir.as_path()]).unwrap();
        let save = || run("iptables-legacy-save", &["-t", "raw"]);
        let mut installed = Installed::install(&rules(&both_families(40)), &tools).unwrap();
        assert_eq!(installed.notes(), [""; 0]);
        assert!(save().contains("-A LOADED-40-Q -m bpf --bytecode"));
        installed.remove().unwrap();
        assert!(!save().contains("-j LOADED"));
        let notes = installed.tidy();
        assert!(!save().contains("LOADED"));
        assert!(notes.len() == 2 && notes[0].contains("legacy"), "{notes:?}");
        std::fs::remove_dir_all(dir).unwrap();
    });
}

#[test]
fn packets_that_wait_outlive_changes_and_removal() {
    in_namespace("packets_that_wait_outlive_changes_and_removal", || {
        everybody_lives_here();
        let queues: Vec<_> = QUEUES.iter().map(|queue| bind_queue(*queue)).collect();
        let waiting = || queue_owners().unwrap().iter().map(|queue| queue.waiting).sum::<u32>();
        let mut installed = install(&both_families(40));
        udp(clients().next().unwrap().0, ip(VIP4), 10);
        assert_eq!(waiting(), 1);
        installed.update(&rules(&plan(40, &[VIP4], &BACKENDS[1..2], Protocol::Any))).unwrap();
        assert_eq!(waiting(), 1, "after a change that drops IPv6");
        installed.remove().unwrap();
        assert_eq!(waiting(), 1, "after the removal");
        assert!(!saved().contains("-j LOADED"));
        let notes = installed.tidy();
        assert!(notes.len() == 2 && notes[0].contains("LOADED-40-D LOADED-40-T stay"), "{notes:?}");
        assert_eq!(waiting(), 1, "after tidying");

        // The queues end, and with them the packets. The next start finds what had to stay.
        drop(queues);
        clean_stale(&Tools::find().unwrap(), |_| false).unwrap();
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
    });
}

#[test]
fn without_the_match_socket_all_else_works_and_it_is_said() {
    in_namespace("without_the_match_socket_all_else_works_and_it_is_said", || {
        let dir = std::env::temp_dir().join(format!("loaded-no-socket-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        for tool in ["iptables-restore", "ip6tables-restore", "iptables-save", "ip6tables-save", "nft"] {
            let real = run("sh", &["-c", &format!("command -v {tool}")]);
            let wrapper = format!(
                "#!/bin/sh\nrules=$(cat)\ncase $rules in *'-m socket'*) echo no match socket >&2; exit 2;; esac\n\
                 printf '%s\\n' \"$rules\" | {} \"$@\"\n",
                real.trim()
            );
            let path = dir.join(tool);
            std::fs::write(&path, wrapper).unwrap();
            run("chmod", &["755", path.to_str().unwrap()]);
        }
        let tools = Tools::find_in(&[dir.as_path()]).unwrap();
        let mut installed = Installed::install(&rules(&both_families(40)), &tools).unwrap();
        let notes = installed.notes().to_vec();
        assert!(notes.len() == 2 && notes[0].contains("IPv4: the kernel has no match xt_socket"), "{notes:?}");
        assert!(saved().contains("-A LOADED-40-Q -j CT --notrack") && !saved().contains("LOADED-40-D"));
        installed.remove().unwrap();
        assert_eq!(installed.tidy(), [""; 0]);
        assert_eq!((saved(), nft_tables()), (String::new(), String::new()));
        std::fs::remove_dir_all(dir).unwrap();
    });
}
