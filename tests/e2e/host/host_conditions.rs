//! What changes on the host while it serves: verdict, health and doctor name it within five seconds, and when it is mended
//! the verdict is back.

mod firewalls;

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, binary, eventually};
use crate::rig::loaded::{Loaded, lives};
use crate::rig::net::{Family, dial_within};
use nix::sys::signal::Signal;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const TOLD: Duration = Duration::from_secs(5);

/// What breaks it, the exit code of `loaded health`, what is said, and what mends it.
type Row = (&'static str, i32, &'static str, &'static str);

const FORWARDING: &str = "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1";
const ROUTE4: &str = "ip route replace 198.51.100.0/24 dev eth1 src 198.51.100.254";
const ROUTE6: &str = "ip -6 route replace 2001:db8:2::/64 dev eth1";

const SETTINGS: [Row; 6] = [
    ("sysctl -qw net.ipv4.ip_forward=0", 1, "IPv4 packets are not forwarded", FORWARDING),
    ("sysctl -qw net.ipv6.conf.all.forwarding=0", 1, "IPv6 packets are not forwarded", FORWARDING),
    ("sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0", 2, "packets are not forwarded", FORWARDING),
    (
        "sysctl -qw net.ipv4.conf.all.accept_local=0 net.ipv4.conf.eth1.accept_local=0",
        1,
        "replies from backends on eth1 would be dropped as coming from our own address",
        "sysctl -qw net.ipv4.conf.eth1.accept_local=1",
    ),
    (
        "sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
        1,
        "strict reverse path filtering drops replies that come in on eth1",
        "sysctl -qw net.ipv4.conf.eth1.rp_filter=0",
    ),
    (
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        1,
        "strict reverse path filtering",
        "sysctl -qw net.ipv4.conf.all.rp_filter=0",
    ),
];

const NETWORK: [Row; 4] = [
    ("ip route del 198.51.100.0/24 dev eth1", 1, "no route to backend 198.51.100.11", ROUTE4),
    ("ip -6 route del 2001:db8:2::/64 dev eth1", 1, "no route to backend 2001:db8:2::11", ROUTE6),
    (
        "ip link set eth1 down",
        1,
        "no route to backend 198.51.100.12",
        "ip link set eth1 up; ip -6 addr replace 2001:db8:2::fe/64 dev eth1 nodad",
    ),
    // A VIP that VRRP brings while one setting is not as it has to be.
    (
        "ip addr del 192.0.2.100/24 dev eth0; sysctl -qw net.ipv4.conf.all.accept_local=0 net.ipv4.conf.eth1.accept_local=0
         sleep 3; ip addr add 192.0.2.100/24 dev eth0",
        1,
        "replies from backends on eth1 would be dropped as coming from our own address",
        "sysctl -qw net.ipv4.conf.eth1.accept_local=1",
    ),
];

fn text() -> String {
    config("5s", &[Service { keys: FREE, ..Service::default() }])
}

/// How many families are served.
fn served(lab: &Lab) -> usize {
    let answers = |family: &&Family| {
        let (from, to) = (SocketAddr::new(family.client(20), 0), SocketAddr::new(family.vip(), 80));
        lab.within("client", || dial_within(Duration::from_millis(300), from, to).is_ok())
    };
    Family::BOTH.iter().filter(answers).count()
}

fn break_and_mend(rows: &[Row]) {
    let Some(lab) = Lab::up() else { return };
    let file = lab.file("loaded.toml", &text());
    let loaded = Loaded::toml(&lab, &text());
    let health = || loaded.ask(&["health"]);
    let settles = |code: i32, text: &str| {
        let is = || {
            let said = health();
            said.code == Some(code) && said.out.contains(text)
        };
        assert!(eventually(TOLD, is), "not {code} with {text:?} within {TOLD:?}: {:?}\n{}", health(), loaded.log());
    };
    settles(0, "serving\n");
    for (harm, code, says, mend) in rows {
        lab.sh("lb", harm);
        let since = Instant::now();
        settles(*code, says);
        println!("{:?}: {harm}", since.elapsed());
        let status = loaded.status();
        let word = ["serving", "impaired", "not_serving"][usize::try_from(*code).unwrap()];
        assert_eq!(status["verdict"], word, "{harm}");
        let shown = loaded.ask(&["status"]).out;
        assert!(shown.starts_with(["", "IMPAIRED", "NOT SERVING"][usize::try_from(*code).unwrap()]), "{harm}: {shown}");
        assert!(shown.contains(says), "{harm}: {shown}");
        let doctor = lab.exec("lb", &[binary().to_str().unwrap(), "doctor", "-c", &file]).out;
        assert!(doctor.contains(says), "{harm}: {doctor}");
        assert!(*code < 2 || served(&lab) == 0, "{harm}: it does no harm");
        lab.sh("lb", mend);
        settles(0, "serving\n");
        assert!(eventually(TOLD, || served(&lab) == 2), "{harm}, mended");
    }
    let history = loaded.ask(&["history"]).out;
    assert!(history.contains("verdict impaired") && history.contains("verdict serving"), "{history}");
    assert!(loaded.ask(&["metrics"]).out.contains("\nloaded_verdict{verdict=\"serving\"} 1\n"));
    loaded.stop();
}

#[test]
fn a_setting_that_changes_is_named_while_it_serves() {
    break_and_mend(&SETTINGS);
}

#[test]
fn a_route_an_interface_or_an_address_that_changes_is_named_while_it_serves() {
    break_and_mend(&NETWORK);
}

#[test]
fn a_firewall_of_nftables_that_cuts_clients_off_is_named_while_it_serves() {
    break_and_mend(&firewalls::NFTABLES);
}

#[test]
fn a_firewall_of_iptables_that_cuts_clients_off_is_named_while_it_serves() {
    break_and_mend(&firewalls::IPTABLES);
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
