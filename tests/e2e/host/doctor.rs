//! `loaded doctor` finds nothing on a host that is set up, and names each thing that is broken with its cure.

use crate::rig::lab::{Lab, Said, binary, eventually, root};
use crate::rig::loaded::Loaded;
use std::time::Duration;

const TEXT: &str = r#"
[[service]]
name = "web"
vip = ["192.0.2.100", "2001:db8:1::100"]
protocol = "any"
check = { kind = "icmp" }
[[service.backend]]
address = "198.51.100.11"
[[service.backend]]
address = "2001:db8:2::11"
"#;

/// What breaks it in the balancer's namespace, what is then said, and what makes it as it was; beside that the command that
/// is printed mends it.
const BROKEN: [(&str, &str, &str); 10] = [
    (
        "sysctl -qw net.ipv4.ip_forward=0",
        "fatal    host       IPv4 packets are not forwarded",
        "sysctl -qw net.ipv4.ip_forward=1",
    ),
    (
        "sysctl -qw net.ipv6.conf.all.forwarding=0",
        "net.ipv6.conf.all.forwarding=1",
        "sysctl -qw net.ipv6.conf.all.forwarding=1",
    ),
    (
        "sysctl -qw net.ipv4.conf.all.rp_filter=1",
        "strict reverse path filtering",
        "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.eth1.rp_filter=0",
    ),
    (
        "sysctl -qw net.ipv4.conf.all.accept_local=0 net.ipv4.conf.eth1.accept_local=0",
        "fatal    host       replies from backends on eth1 would be dropped as coming from our own address",
        "sysctl -qw net.ipv4.conf.eth1.accept_local=1",
    ),
    (
        "nft 'add table inet early; add chain inet early first { type filter hook prerouting priority -301; policy drop; }'",
        "fatal    firewall   chain first of the nftables table inet early",
        "nft delete table inet early",
    ),
    (
        "ip6tables -A OUTPUT -m conntrack --ctstate INVALID -j DROP",
        "warning  firewall   rule `-A OUTPUT -m conntrack --ctstate INVALID -j DROP` drops this host's own ICMP errors",
        "ip6tables -F OUTPUT",
    ),
    (
        "nft 'add table inet late; add chain inet late out { type filter hook output priority 0; }
            add rule inet late out ct state invalid counter drop'",
        "in chain out of the nftables table inet late drops this host's own ICMP errors",
        "nft delete table inet late",
    ),
    (
        "iptables -P FORWARD DROP && iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT",
        "fatal    firewall   FORWARD has the policy DROP, and no rule of iptables accepts untracked packets",
        "iptables -P FORWARD ACCEPT && iptables -F FORWARD",
    ),
    (
        "ip6tables -P FORWARD DROP",
        "no rule of ip6tables accepts untracked packets",
        "ip6tables -P FORWARD ACCEPT && ip6tables -F FORWARD",
    ),
    (
        "sysctl -qw 'net.ipv4.ping_group_range=1 0'",
        "ping sockets are not allowed",
        "sysctl -qw 'net.ipv4.ping_group_range=0 0'",
    ),
];

/// What only some configurations care about: clients and backends on one interface, and a look for nodes.
const ONE_ARMED: &str = r#"
[[service]]
name = "web"
vip = "192.0.2.100"
protocol = "any"
check = { kind = "icmp" }
discover = { network = "192.0.2.0/24" }
[[service.backend]]
address = "192.0.2.53"
"#;
const BROKEN_FOR_ONE_ARM: [(&str, &str, &str); 2] = [
    (
        "sysctl -qw net.ipv4.conf.all.send_redirects=1",
        "clients and backends are both on eth0",
        "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0",
    ),
    (
        "sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=0",
        "warning  broadcasts this host answers pings to a broadcast address",
        "sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=1",
    ),
];

/// The lines that report a problem.
fn bad(out: &str) -> Vec<&str> {
    out.lines().filter(|line| line.starts_with("warning") || line.starts_with("fatal")).collect()
}

/// Breaks something, sees it reported, runs the printed cure, and sees it gone.
#[track_caller]
fn breaks_and_mends(lab: &Lab, doctor: &dyn Fn() -> Said, sound: &str, (harm, says, undo): (&str, &str, &str)) {
    assert!(!sound.contains(says), "before {harm}:\n{sound}");
    lab.sh("lb", harm);
    let said = doctor();
    assert!(said.out.contains(says), "after {harm}:\n{}", said.out);
    assert_eq!(said.code, Some(i32::from(said.out.contains("\nfatal"))), "{}", said.out);
    for line in bad(&said.out).into_iter().filter(|line| !sound.contains(line)) {
        let (_, command) = line.rsplit_once(": ").unwrap_or_else(|| panic!("no command in {line}"));
        lab.sh("lb", command);
    }
    let mended = doctor().out;
    assert_eq!(bad(&mended), bad(sound), "after {harm} and what was said to mend it");
    lab.sh("lb", undo);
}

#[test]
fn what_stands_in_the_way_is_named_with_its_cure() {
    let Some(lab) = Lab::up() else { return };
    let file = lab.file("doctor.toml", TEXT);
    let binary = binary();
    let doctor = || lab.exec("lb", &[binary.to_str().unwrap(), "doctor", "-c", &file]);

    lab.sh("lb", "sysctl -qw 'net.ipv4.ping_group_range=0 0'");
    let sound = doctor();
    assert_eq!(sound.code, Some(0), "{}{}", sound.out, sound.err);
    assert!(!sound.out.contains("fatal"), "{}", sound.out);
    for line in [
        "ok       repeat     packets pass through the rules again",
        "ok       matches    iptables has everything our rules need: xt_NFQUEUE, xt_bpf, xt_CT, xt_iprange, xt_socket, xt_rpfilter",
        "ok       offloads   none of eth0, eth1 merges packets irreversibly",
        "ok       receive    a buffer of 32 MiB holds a full queue",
        "seccomp, Landlock (ABI ",
    ] {
        assert!(sound.out.contains(line), "{line}:\n{}", sound.out);
    }
    for broken in BROKEN {
        breaks_and_mends(&lab, &doctor, &sound.out, broken);
    }
    // What is available changes by itself.
    let lasting =
        |out: &str| out.lines().filter(|line| !line.starts_with("ok       memory")).collect::<Vec<_>>().join("\n");
    assert_eq!(lasting(&doctor().out), lasting(&sound.out), "all is healed");
}

#[test]
fn what_only_some_configurations_care_about_is_named() {
    let Some(lab) = Lab::up() else { return };
    let file = lab.file("doctor.toml", ONE_ARMED);
    let binary = binary();
    let doctor = || lab.exec("lb", &[binary.to_str().unwrap(), "doctor", "-c", &file]);
    lab.sh("lb", "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0");
    lab.sh("lb", "sysctl -qw net.ipv4.icmp_echo_ignore_broadcasts=1");
    let sound = doctor().out;
    for broken in BROKEN_FOR_ONE_ARM {
        breaks_and_mends(&lab, &doctor, &sound, broken);
    }
}

/// A running instance does not see these: what it would need for it, it has given up.
#[test]
fn what_only_root_can_see_is_named() {
    let Some(lab) = Lab::up() else { return };
    let file = lab.file("doctor.toml", TEXT);
    let binary = binary();
    let doctor = || lab.exec("lb", &[binary.to_str().unwrap(), "doctor", "-c", &file]).out;
    let sound = doctor();
    let hold = format!(
        "cd {}; setsid {} eth1 >attached 2>&1 & echo $! >tcx.pid; until grep . attached; do sleep 0.02; done",
        lab.state().display(),
        root().join("scripts/lab.d/tcx-hold").display()
    );
    let let_go = format!("kill $(<{}/tcx.pid)", lab.state().display());
    for (harm, says, undo) in [
        (
            hold.as_str(),
            "warning  hooks      programs of others at tcx ingress of eth1 (others with id ",
            let_go.as_str(),
        ),
        (
            "ip xfrm policy add src 0.0.0.0/0 dst 198.51.100.99 dir out action block; ping -c1 -W1 198.51.100.99 || true",
            "warning  ipsec      this host has IPsec policies (1), which have dropped packets since it started (1);",
            "ip xfrm policy flush",
        ),
    ] {
        assert!(!sound.contains(says), "{sound}");
        lab.sh("lb", harm);
        let said = doctor();
        assert!(said.contains(says), "after {harm}:\n{said}");
        lab.sh("lb", undo);
        assert!(eventually(Duration::from_secs(5), || bad(&doctor()) == bad(&sound)), "after {undo}");
    }
}

/// Foreign rules in table raw come before ours if they were inserted later.
#[test]
fn rules_above_ours_are_named() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, TEXT);
    let file = lab.file("doctor.toml", TEXT);
    let binary = binary();
    let doctor = || lab.exec("lb", &[binary.to_str().unwrap(), "doctor", "-c", &file]);
    let sound = doctor().out;
    for program in ["iptables", "ip6tables"] {
        let harm = format!("{program} -t raw -I PREROUTING -p tcp -m tcp --dport 81 -j DROP");
        let says = "warning  firewall   rule `-A PREROUTING -p tcp -m tcp --dport 81 -j DROP` of the table raw comes before ours";
        let undo = format!("{program} -t raw -D PREROUTING -p tcp -m tcp --dport 81 -j DROP");
        breaks_and_mends(&lab, &doctor, &sound, (&harm, says, &undo));
    }
    loaded.stop();
}
