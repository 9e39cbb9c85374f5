//! What changes on the host while it serves: verdict, health and doctor name it within five seconds, and when it is mended
//! the verdict is back.

mod firewalls;
mod network;

use super::rules_removed::load;
use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, binary, eventually, setting};
use crate::rig::loaded::{Loaded, lives};
use crate::rig::net::{Family, dial_within};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// An XDP program that lets everything pass (XDP_PASS).
const PASS: &str = "__attribute__((section(\"xdp\"), used)) int pass(void *c) { return 2; }";
const TOLD: Duration = Duration::from_secs(5);

/// What breaks it, the exit code of `loaded health`, what is said, and what mends it. SWITCH, CLIENT, B1 and B2 stand for
/// namespaces of the lab, STATE for its directory, PID for the supervisor.
type Row = (&'static str, i32, &'static str, &'static str);

fn text() -> String {
    config("5s", &[Service { keys: FREE, ..Service::default() }])
}

/// How many families are served.
fn served(lab: &Lab) -> usize {
    served_within(lab, Duration::from_millis(300))
}

fn served_within(lab: &Lab, limit: Duration) -> usize {
    let answers = |family: &&Family| {
        let (from, to) = (SocketAddr::new(family.client(20), 0), SocketAddr::new(family.vip(), 80));
        lab.within("client", || dial_within(limit, from, to).is_ok())
    };
    Family::BOTH.iter().filter(answers).count()
}

/// With E2E_CLIENTS=1 under 64 connections of each family, as docs/figures.md has it.
fn break_and_mend(rows: &[Row], options: &[&str]) {
    let Some(lab) = Lab::up() else { return };
    let file = lab.file("loaded.toml", &text());
    let words: Vec<String> = ["-c", &file].iter().chain(options).map(|&word| word.to_owned()).collect();
    let loaded = Loaded::start(&lab, &words);
    let health = || loaded.ask(&["health"]);
    let settles = |code: i32, text: &str| {
        let is = || {
            let said = health();
            said.code == Some(code) && said.out.contains(text)
        };
        assert!(eventually(TOLD, is), "not {code} with {text:?} within {TOLD:?}: {:?}\n{}", health(), loaded.log());
    };
    settles(0, "serving\n");
    let families = if setting("E2E_CLIENTS", 0) > 0 { &Family::BOTH[..] } else { &[] };
    let mut loads: Vec<_> = families.iter().map(|family| load(&lab, *family, 600)).collect();
    let names = [("SWITCH", "sw"), ("CLIENT", "client"), ("B1", "b1"), ("B2", "b2")];
    let (pid, state) = (loaded.pid().to_string(), lab.state());
    let placed = |script: &str| {
        let script = script.replace("PID", &pid).replace("STATE", state.to_str().unwrap());
        names.iter().fold(script, |script, (word, who)| script.replace(word, &lab.namespace(who)))
    };
    let binary = binary();
    for (harm, code, says, mend) in rows {
        lab.sh("lb", &placed(harm));
        let since = Instant::now();
        settles(*code, says);
        let told = since.elapsed();
        let status = loaded.status();
        let word = ["serving", "impaired", "not_serving"][usize::try_from(*code).unwrap()];
        assert_eq!(status["verdict"], word, "{harm}");
        let shown = loaded.ask(&["status"]).out;
        assert!(shown.starts_with(["", "IMPAIRED", "NOT SERVING"][usize::try_from(*code).unwrap()]), "{harm}: {shown}");
        assert!(shown.contains(says), "{harm}: {shown}");
        // Where the instance is: it sees its own files.
        let doctor = ["nsenter", "-t", &pid, "-m", "--", binary.to_str().unwrap(), "doctor", "-c", &file];
        let doctor = lab.exec("lb", &doctor).out;
        assert!(doctor.contains(says), "{harm}: {doctor}");
        assert!(*code < 2 || served(&lab) == 0, "{harm}: it does no harm");
        lab.sh("lb", &placed(mend));
        let since = Instant::now();
        assert!(eventually(TOLD, || served(&lab) == 2), "{harm}, mended");
        let back = since.elapsed();
        settles(0, "serving\n");
        println!("told after {told:.1?}, mended: served after {back:.1?}, told after {:.1?}: {harm}", since.elapsed());
    }
    for load in &mut loads {
        load.kill().unwrap();
        load.wait().unwrap();
    }
    let history = loaded.ask(&["history"]).out;
    assert!(history.contains("verdict impaired") && history.contains("verdict serving"), "{history}");
    assert!(loaded.ask(&["metrics"]).out.contains("\nloaded_verdict{verdict=\"serving\"} 1\n"));
    loaded.stop();
}

#[test]
fn a_setting_that_changes_is_named_while_it_serves() {
    break_and_mend(&network::SETTINGS, &[]);
}

#[test]
fn a_route_an_interface_or_an_address_that_changes_is_named_while_it_serves() {
    break_and_mend(&network::NETWORK, &[]);
}

#[test]
fn a_route_that_leads_nowhere_is_named_while_it_serves() {
    break_and_mend(&network::ROUTES, &[]);
}

#[test]
fn an_interface_without_link_or_a_second_owner_of_a_vip_is_named_while_it_serves() {
    break_and_mend(&network::LINKS, &[]);
}

/// A standby has no VIP and must stay fit to get it; most hosts have interfaces that no client uses; and what a program of others
/// decides cannot be told.
#[test]
fn a_vip_that_is_elsewhere_and_another_interface_are_named_and_change_no_verdict() {
    let Some(lab) = Lab::up() else { return };
    let file = lab.file("loaded.toml", &text());
    let loaded = Loaded::toml(&lab, &text());
    assert!(eventually(TOLD, || loaded.ask(&["health"]).code == Some(0)));
    let xdp = format!(
        "cd {}; clang -target bpfel -O2 -c -x c - -o pass.o <<<'{PASS}'; ip link set dev eth0 xdpgeneric obj pass.o sec xdp",
        lab.state().display()
    );
    lab.sh("lb", "sysctl -qw net.ipv4.conf.all.promote_secondaries=1; ip addr add 192.0.2.99/24 dev eth0");
    for (change, says, back) in [
        (
            "ip addr del 192.0.2.100/24 dev eth0",
            "192.0.2.100 is no address of this host",
            "ip addr add 192.0.2.100/24 dev eth0",
        ),
        (
            "ip link add eth2 type veth peer name eth3; ip addr add 203.0.113.1/24 dev eth2; ip link set eth2 up
             ip link set eth3 up",
            "if clients come in by eth2, resets and rejections to them are dropped",
            "sysctl -qw net.ipv4.conf.eth2.accept_local=1",
        ),
        (&xdp, " on eth0 sees packets before any rule does", "ip link set dev eth0 xdpgeneric off"),
        (
            "tc qdisc show dev eth1 | grep -q clsact || tc qdisc add dev eth1 clsact
             tc filter add dev eth1 ingress prio 10 bpf bytecode '1,6 0 0 4294967295'",
            "tc ingress of eth1 (bpf with priority 10)",
            "tc filter del dev eth1 ingress prio 10",
        ),
        (
            "tc qdisc show dev eth0 | grep -q clsact || tc qdisc add dev eth0 clsact
             tc filter add dev eth0 egress prio 11 bpf bytecode '1,6 0 0 4294967295'",
            "tc egress of eth0 (bpf with priority 11)",
            "tc filter del dev eth0 egress prio 11",
        ),
    ] {
        let shown = || loaded.ask(&["status"]).out.contains(says);
        assert!(!shown(), "{change}");
        lab.sh("lb", change);
        assert!(eventually(TOLD, shown), "{change}: {}", loaded.ask(&["status"]).out);
        let doctor = lab.exec("lb", &[binary().to_str().unwrap(), "doctor", "-c", &file]);
        assert!(doctor.code == Some(0) && doctor.out.contains(says), "{change}: {}", doctor.out);
        assert_eq!(loaded.ask(&["health"]).code, Some(0), "{change}");
        assert!(loaded.log().contains(says), "{change}: {}", loaded.log());
        lab.sh("lb", back);
        assert!(eventually(TOLD, || !shown()), "{back}");
    }
    assert!(!loaded.ask(&["history"]).out.contains("verdict"));
    loaded.stop();
}

/// What the kernel path sends on passes the rules of others by.
const WITHOUT_KERNEL_PATH: &[&str] = &["--fast", "off"];

#[test]
fn a_firewall_of_nftables_that_cuts_clients_off_is_named_while_it_serves() {
    break_and_mend(&firewalls::NFTABLES, WITHOUT_KERNEL_PATH);
}

#[test]
fn a_firewall_of_iptables_that_cuts_clients_off_is_named_while_it_serves() {
    break_and_mend(&firewalls::IPTABLES, WITHOUT_KERNEL_PATH);
}

#[test]
fn a_start_beside_a_firewall_that_drops_everything_does_not_say_that_it_serves() {
    let Some(lab) = Lab::up() else { return };
    lab.sh("lb", "iptables -P FORWARD DROP; ip6tables -P FORWARD DROP");
    let loaded = Loaded::toml(&lab, &text());
    let log = loaded.log();
    assert!(log.contains("started, NOT SERVING: 1 service(s)") && !log.contains(" serving: 1 service(s)"), "{log}");
    let health = loaded.ask(&["health"]);
    assert!(health.code == Some(2) && health.out.contains("no rule of iptables accepts"), "{health:?}");
    loaded.stop();
}

/// What breaks beyond this host shows by what passes.
#[test]
fn replies_that_do_not_come_back_are_told() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &text());
    const SAID: &str = "not one packet of theirs has come back through this host";
    let told = || loaded.ask(&["status"]).out.matches(SAID).count();
    for backend in ["b1", "b2"] {
        lab.sh(backend, "ip route del default; ip -6 route del default");
    }
    let end = Instant::now() + Duration::from_secs(25);
    while told() < 2 {
        assert!(Instant::now() < end, "{}", loaded.ask(&["status"]).out);
        (0..8).for_each(|_| assert_eq!(served_within(&lab, Duration::from_millis(20)), 0));
    }
    assert_eq!(loaded.ask(&["health"]).code, Some(0), "anybody can send what nobody answers");
    for backend in ["b1", "b2"] {
        lab.sh(backend, "ip route add default via 198.51.100.254; ip route add default via 2001:db8:2::fe");
    }
    assert!(eventually(TOLD, || served(&lab) == 2));
    assert!(eventually(2 * TOLD, || told() == 0), "{}", loaded.ask(&["status"]).out);
    assert!(loaded.log().contains("no longer so: service web, IPv6"), "{}", loaded.log());
    loaded.stop();
}

/// A verdict that is worse than the truth takes a healthy balancer out of VRRP.
#[test]
fn a_firewall_that_lets_balanced_packets_through_changes_no_verdict() {
    let Some(lab) = Lab::up() else { return };
    let file = lab.file("loaded.toml", &text());
    let loaded = Loaded::toml(&lab, &text());
    assert!(eventually(TOLD, || loaded.ask(&["health"]).code == Some(0)));
    lab.sh("lb", firewalls::HARMLESS);
    // So long a look takes at most to come, and to be told.
    std::thread::sleep(TOLD);
    let (health, served) = (loaded.ask(&["health"]), served(&lab));
    assert_eq!((health.code, served), (Some(0), 2), "{health:?}");
    let doctor = lab.exec("lb", &[binary().to_str().unwrap(), "doctor", "-c", &file]);
    assert!(doctor.code == Some(0) && !doctor.out.contains("fatal"), "{}", doctor.out);
    lab.sh("lb", firewalls::NO_HARM);
    let history = loaded.ask(&["history"]).out;
    assert!(!history.contains("verdict"), "{history}");
    loaded.stop();
}

/// A script must not move the VIP because a supervisor is gone, and must because nobody serves.
#[test]
fn health_tells_a_dead_supervisor_from_a_dead_service() {
    let Some(lab) = Lab::up() else { return };
    let mut loaded = Loaded::toml(&lab, &text());
    let health = |words: &[&str]| loaded.ask(&[&["health"], words].concat()).code;
    assert_eq!(health(&[]), Some(0));
    assert_eq!(health(&["--service", "web", "--min-up", "4"]), Some(0), "two backends in each family");
    assert_eq!(health(&["--service", "web", "--min-up", "5"]), Some(2));
    assert_eq!(health(&["--min-up", "5"]), Some(2));
    assert_eq!(health(&["--service", "mail"]), Some(3));
    assert_eq!(loaded.json(&["health"])["verdict"], "serving");
    let workers = loaded.workers();
    loaded.end(Signal::SIGKILL);
    let binary = binary();
    let ask = || {
        let control = lab.state().join("control.sock");
        lab.exec("lb", &[binary.to_str().unwrap(), "health", "--control", control.to_str().unwrap()])
    };
    let said = ask();
    assert!(said.code == Some(1) && said.out.contains("the supervisor does not answer, its workers go on"), "{said:?}");
    for worker in workers.iter().filter(|pid| lives(**pid)) {
        crate::rig::loaded::signal_to(*worker, Signal::SIGKILL);
    }
    assert!(eventually(TOLD, || ask().code == Some(3)), "{:?}", ask());
}
