//! `loaded doctor`: a host that is set up is sound; each thing that is broken is named with what mends it.

use crate::lab::{Lab, binary};

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

/// What breaks it in the balancer's namespace, what is then said, and what heals it.
const BROKEN: [(&str, &str, &str); 8] = [
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
        "sysctl -qw net.ipv4.conf.all.rp_filter=0",
    ),
    (
        "iptables -t raw -A PREROUTING -s 192.0.2.9 -j DROP",
        "warning  firewall   rule `-A PREROUTING -s 192.0.2.9/32 -j DROP`",
        "iptables -t raw -D PREROUTING -s 192.0.2.9 -j DROP",
    ),
    (
        "nft 'add table inet early; add chain inet early first { type filter hook prerouting priority -301; }'",
        "warning  firewall   chain first of the nftables table inet early",
        "nft delete table inet early",
    ),
    (
        "ip6tables -A OUTPUT -m conntrack --ctstate INVALID -j DROP",
        "warning  firewall   rule `-A OUTPUT -m conntrack --ctstate INVALID -j DROP` takes this host's own ICMP errors",
        "ip6tables -D OUTPUT -m conntrack --ctstate INVALID -j DROP",
    ),
    (
        "nft 'add table inet late; add chain inet late out { type filter hook output priority 0; }
            add rule inet late out ct state invalid counter drop'",
        "in chain out of the nftables table inet late takes this host's own ICMP errors",
        "nft delete table inet late",
    ),
    (
        "sysctl -qw 'net.ipv4.ping_group_range=1 0'",
        "ping sockets are not allowed",
        "sysctl -qw 'net.ipv4.ping_group_range=0 0'",
    ),
];

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
    assert!(sound.out.contains("ok       repeat     packets go through the rules again"), "{}", sound.out);
    for (harm, says, cure) in BROKEN {
        assert!(!sound.out.contains(says), "before {harm}:\n{}", sound.out);
        lab.sh("lb", harm);
        let said = doctor();
        assert!(said.out.contains(says), "after {harm}:\n{}", said.out);
        assert_eq!(said.code, Some(i32::from(said.out.contains("\nfatal"))), "{}", said.out);
        lab.sh("lb", cure);
    }
    // What is available changes by itself.
    let lasting =
        |out: &str| out.lines().filter(|line| !line.starts_with("ok       memory")).collect::<Vec<_>>().join("\n");
    assert_eq!(lasting(&doctor().out), lasting(&sound.out), "all is healed");
}
