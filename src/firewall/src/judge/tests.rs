//! Firewalls as people have them, over a plan with a service of TCP in both families.

use super::*;
use crate::{nft, save};
use loaded_config::{Overrides, Source, parse};

/// eth0: 192.0.2.0/24 and the default route; eth1: 198.51.100.0/24; docker0: 172.17.0.0/16.
const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
";
const DOCKER: &str = "docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
/// eth1: 2001:db8:2::/64; the default route by eth0.
const ROUTES6: &str = "\
20010db8000200000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
";

fn plan() -> Plan {
    let text = "[[service]]\nname = \"web\"\nvip = [\"192.0.2.100\", \"2001:db8:1::100\"]\nprotocol = \"tcp\"\nports = [80]\n\
                [[service.backend]]\naddress = \"198.51.100.11\"\n[[service.backend]]\naddress = \"198.51.100.12\"\n\
                [[service.backend]]\naddress = \"2001:db8:2::11\"\n";
    parse(&[Source::new("a.toml", text)], &Overrides::default()).unwrap().plan
}

fn paths(more: &str) -> Paths {
    let own = ["192.0.2.100", "192.0.2.254", "2001:db8:1::100"].map(|address| address.parse().unwrap());
    Paths::of(own.into(), &format!("{ROUTES}{more}"), ROUTES6)
}

fn said(tables: Vec<Table>, more: &str) -> Vec<String> {
    let problems = judge(&Firewall::of(tables), &plan(), paths(more));
    let about = |problem: &Problem| problem.family.map_or_else(String::new, |family| family.to_string());
    problems.iter().map(|problem| format!("{:?}{}: {problem}", problem.severity, about(problem))).collect()
}

/// What is said of these rules of a table of iptables, in both families.
fn iptables(table: &str, rules: &str) -> Vec<String> {
    let saved = format!("*{table}\n{rules}\nCOMMIT\n");
    said(Family::ALL.into_iter().flat_map(|family| save::tables(family, &saved, Some(3))).collect(), "")
}

/// What is said of a chain of nft with these rules, each as JSON of its statements.
fn chain(hook: &str, priority: i32, policy: &str, rules: &[&str]) -> Vec<String> {
    let mut items = vec![format!(
        r#"{{"chain": {{"family": "inet", "table": "t", "name": "c", "handle": 1, "type": "filter", "hook": "{hook}",
            "prio": {priority}, "policy": "{policy}"}}}}"#
    )];
    items.extend((2..).zip(rules).map(|(handle, rule)| {
        format!(r#"{{"rule": {{"family": "inet", "table": "t", "chain": "c", "handle": {handle}, "expr": [{rule}]}}}}"#)
    }));
    said(nft::tables(&format!(r#"{{"nftables": [{}]}}"#, items.join(", ")), |_, _| false).unwrap(), "")
}

const ESTABLISHED: &str = r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}},
                             {"accept": null}"#;
const INVALID: &str =
    r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "invalid"}}, {"drop": null}"#;
const UNTRACKED: &str =
    r#"{"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "untracked"}}, {"accept": null}"#;
const REJECT: &str = r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#;
const MISSING: &str = r#"{"match": {"op": "==", "left": {"fib": {"result": "oif", "flags": ["saddr", "mark", "iif"]}},
                         "right": false}}, {"drop": null}"#;

#[test]
fn a_forward_chain_as_firewalld_has_it_cuts_everybody_off() {
    assert_eq!(
        chain("forward", 10, "accept", &[ESTABLISHED, INVALID, REJECT]),
        ["Fatal: the rule with handle 4 in chain c of the nftables table inet t drops balanced requests and replies: \
          nft insert rule inet t c ct state untracked accept"]
    );
    assert_eq!(chain("forward", 10, "accept", &[UNTRACKED, ESTABLISHED, INVALID, REJECT]), [""; 0], "mended");
    assert_eq!(chain("forward", 10, "accept", &[ESTABLISHED, INVALID]), [""; 0], "what is untracked is not invalid");
    assert_eq!(chain("input", 10, "drop", &[]), [""; 0], "nothing balanced comes to this host");
    let policy = chain("forward", 10, "drop", &[ESTABLISHED]);
    assert!(
        policy.len() == 1 && policy[0].starts_with("Fatal: chain c of the nftables table inet t has the policy DROP")
    );
}

#[test]
fn what_asks_for_a_route_back_to_a_vip_drops_replies() {
    let found = chain("prerouting", 10, "accept", &[MISSING]);
    assert_eq!(
        found,
        ["Fatal: the rule with handle 2 in chain c of the nftables table inet t drops balanced replies: \
          nft insert rule inet t c ct state untracked accept"]
    );
    let v6 =
        format!(r#"{{"match": {{"op": "==", "left": {{"meta": {{"key": "nfproto"}}}}, "right": "ipv6"}}}}, {MISSING}"#);
    let found = chain("prerouting", 10, "accept", &[&v6]);
    assert!(found.len() == 1 && found[0].starts_with("Fatal6: ") && found[0].contains("balanced replies (IPv6): nft"));
    // Of the same priority as ours: nobody knows which comes first.
    let found = chain("prerouting", -300, "accept", &[MISSING]);
    assert!(found.len() == 1 && found[0].starts_with("Warning: "), "{found:?}");
    assert_eq!(
        chain("prerouting", -310, "accept", &[MISSING]),
        [""; 0],
        "there a reply still has its backend's address"
    );
}

#[test]
fn rules_of_iptables_are_judged_wherever_they_are() {
    let one = |found: Vec<String>, starts: &str, ends: &str| {
        assert!(found.len() == 2 && found[0].starts_with(starts) && found[0].ends_with(ends), "{found:?}");
    };
    let untracked = "-m conntrack --ctstate UNTRACKED -j ACCEPT";
    one(
        iptables("filter", ":FORWARD ACCEPT [0:0]\n-A FORWARD -j REJECT --reject-with icmp-port-unreachable"),
        "Fatal4: rule `-A FORWARD -j REJECT --reject-with icmp-port-unreachable` of iptables (table filter) drops balanced \
         requests and replies: ",
        &format!("iptables -I FORWARD {untracked}"),
    );
    one(
        iptables("filter", ":FORWARD DROP [0:0]\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        "Fatal4: FORWARD has the policy DROP, and no rule of iptables accepts untracked packets, which balanced packets are",
        &format!("iptables -I FORWARD {untracked}"),
    );
    one(
        iptables("mangle", ":PREROUTING ACCEPT [0:0]\n-A PREROUTING -m rpfilter --invert -j DROP"),
        "Fatal4: rule `-A PREROUTING -m rpfilter --invert -j DROP` of iptables (table mangle) drops balanced replies",
        &format!("iptables -t mangle -I PREROUTING {untracked}"),
    );
    let raw = ":PREROUTING ACCEPT [0:0]\n:LOADED-3 - [0:0]\n-A PREROUTING -j LOADED-3\n-A PREROUTING -m rpfilter --invert -j DROP";
    one(iptables("raw", raw), "Fatal4: rule ", "iptables -t raw -I PREROUTING 2 -s 192.0.2.100 -j ACCEPT");
    let accepted = "-A FORWARD -d 198.51.100.0/24 -j ACCEPT\n-A FORWARD -s 192.0.2.100/32 -j ACCEPT";
    let found = iptables("filter", &format!(":FORWARD DROP [0:0]\n{accepted}"));
    assert!(found.len() == 1 && found[0].starts_with("Fatal6: "), "{found:?}");
}

#[test]
fn chains_of_the_operators_own_are_followed() {
    let with = |rules: &str| {
        iptables("filter", &format!(":FORWARD DROP [0:0]\n:mine - [0:0]\n:more - [0:0]\n-A FORWARD -j mine\n{rules}"))
    };
    assert_eq!(with("-A mine -g more\n-A more -m conntrack --ctstate INVALID,UNTRACKED -j ACCEPT"), [""; 0]);
    assert_eq!(with("-A mine -g more\n-A FORWARD -i eth0 -j ACCEPT\n-A FORWARD -o eth0 -j ACCEPT"), [""; 0]);
    // A goto does not come back to where it began.
    assert_eq!(with("-A mine -g more\n-A mine -j ACCEPT").len(), 2);
    assert_eq!(with("-A mine -j more\n-A more -j RETURN\n-A mine -j ACCEPT"), [""; 0]);
    assert_eq!(with("-A mine -j mine\n-A mine -p udp -j ACCEPT").len(), 2, "a circle ends");
}

#[test]
fn what_drops_some_clients_is_nobodys_business_here() {
    let with = |rules: &str| iptables("filter", &format!(":FORWARD ACCEPT [0:0]\n{rules}"));
    for rule in [
        "-A FORWARD -s 203.0.113.0/24 -j DROP",
        "-A FORWARD -p tcp -m tcp --dport 22 -j DROP",
        "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
        "-A FORWARD -m conntrack --ctstate NEW -j DROP",
        "-A FORWARD -m limit --limit 1/sec -j DROP",
        "-A FORWARD -i docker0 -j DROP",
        "-A FORWARD -m mark --mark 0x8000/0x8000 -j DROP",
    ] {
        assert_eq!(with(rule), [""; 0], "{rule}");
    }
    let found = with("-A FORWARD -d 198.51.100.12/32 -j DROP");
    assert!(found.len() == 1 && found[0].starts_with("Impairing4: "), "one of two backends: {found:?}");
}

#[test]
fn what_is_not_understood_is_told_where_something_hinges_on_it() {
    let with = |rules: &str| iptables("filter", &format!(":FORWARD ACCEPT [0:0]\n{rules}"));
    let found = with("-A FORWARD -m set --match-set blocked src -j DROP");
    assert!(
        found.len() == 2 && found[0].starts_with("Unknown4: it is not known what rule `-A FORWARD -m set"),
        "{found:?}"
    );
    assert_eq!(
        with("-A FORWARD -m set --match-set good src -j ACCEPT"),
        [""; 0],
        "what it does not take is accepted too"
    );
    let found = with("-A FORWARD -m set --match-set good src -j ACCEPT\n-A FORWARD -j DROP");
    assert!(found.len() == 2 && found[0].starts_with("Unknown4: "), "{found:?}");
    assert_eq!(with("-A FORWARD -j NFQUEUE --queue-num 7"), [""; 0], "an IPS behind us");
    assert_eq!(with("-A FORWARD -j NFQUEUE --queue-num 8 --queue-bypass"), [""; 0], "one that is out");
    let found = with("-A FORWARD -j NFQUEUE --queue-num 8");
    assert!(
        found.len() == 2 && found[0].starts_with("Fatal4: rule `-A FORWARD -j NFQUEUE"),
        "nobody reads it: {found:?}"
    );
}

#[test]
fn what_comes_before_ours_is_named_though_it_takes_some_packets_only() {
    let found = chain("prerouting", -310, "drop", &[]);
    let both = "nft insert rule inet t c ip daddr 192.0.2.100 accept && \
                nft 'insert rule inet t c ip saddr { 198.51.100.11, 198.51.100.12 } accept' && \
                nft insert rule inet t c ip6 daddr 2001:db8:1::100 accept && \
                nft insert rule inet t c ip6 saddr 2001:db8:2::11 accept";
    assert!(found.len() == 1 && found[0].starts_with("Fatal: ") && found[0].ends_with(both), "{found:?}");
    let blocked = r#"{"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                     "right": {"prefix": {"addr": "203.0.113.0", "len": 24}}}}, {"drop": null}"#;
    let found = chain("prerouting", -310, "accept", &[blocked]);
    assert!(
        found.len() == 1
            && found[0].starts_with(
                "Warning4: chain c of the nftables table inet t comes before ours and may take packets to a VIP"
            ),
        "{found:?}"
    );
    let ingress = chain("ingress", 0, "drop", &[]);
    assert!(ingress.len() == 1 && ingress[0].starts_with("Warning: "), "of which interface is not told: {ingress:?}");
    let raw = ":PREROUTING ACCEPT [0:0]\n:LOADED-3 - [0:0]\n-A PREROUTING -d 192.0.2.100/32 -j ACCEPT\n-A PREROUTING -j LOADED-3";
    let found = iptables("raw", raw);
    let rule = "PREROUTING -d 192.0.2.100/32 -j ACCEPT";
    let cure = format!("iptables -t raw -D {rule} && iptables -t raw -A {rule}");
    assert!(found.len() == 1 && found[0].starts_with("Fatal4: rule `-A PREROUTING -d") && found[0].ends_with(&cure));
}

#[test]
fn clients_of_another_interface_make_it_a_warning() {
    let saved =
        "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i docker0 -j ACCEPT\n-A FORWARD -o docker0 -j ACCEPT\nCOMMIT\n";
    let of = |more| said(save::tables(Family::V4, saved, None), more);
    assert!(of("")[0].starts_with("Fatal4: "), "{:?}", of(""));
    assert!(of(DOCKER)[0].starts_with("Warning4: "), "{:?}", of(DOCKER));
}

#[test]
fn very_many_rules_are_not_worked_through() {
    let saved = "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -p udp -j ACCEPT\nCOMMIT\n";
    let firewall = Firewall::of(save::tables(Family::V4, saved, None));
    let severities = |most| -> Vec<_> {
        let problems = judged(&firewall, &plan(), &World::limited(paths(""), most));
        problems.into_iter().map(|problem| problem.severity).collect()
    };
    assert_eq!(severities(1000), [Severity::Fatal]);
    assert_eq!(severities(2), [Severity::Unknown]);
}
