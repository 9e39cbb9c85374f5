//! The text of the rules, as a whole for one plan and by its parts for others.

use super::apply::{Defrag, script};
use super::present::Raw;
use super::*;
use crate::plan::{Member, Service};
use loaded_ipc::{Affinity, BackendIndex, PortRange, Protocol, Strategy};

pub(crate) fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

pub(crate) fn plan(vips: &[&str], backends: &[&str], protocol: Protocol, ports: &[(u16, u16)]) -> Plan {
    let member = |n| Member { backend: BackendIndex(n), weight: 1 };
    let members = (0..).take(backends.len()).map(member).collect();
    let service = Service {
        name: "web".into(),
        vips: addresses(vips),
        protocol,
        ports: ports.iter().map(|&(low, high)| PortRange { low, high }).collect(),
        strategy: Strategy::RoundRobin,
        affinity: Some(Affinity { prefix4: 32, prefix6: 64, timeout: 60 }),
        members,
    };
    Plan {
        user: "nobody".into(),
        cores: None,
        queue_base: 3,
        queue_len: 1024,
        flows: 1024,
        clients: 1024,
        nameservers: Vec::new(),
        services: vec![service],
        backends: addresses(backends),
    }
}

fn rules(plan: &Plan) -> RuleSet {
    RuleSet::new(plan, &[3, 4], &Steering::new(plan, Keys::new([1, 2, 3, 4, 5, 6])))
}

fn lines(plan: &Plan, family: Family, chain: &str) -> Vec<String> {
    let text = rules(plan).text(family).unwrap();
    let chain = format!("-A {chain} ");
    text.lines().filter_map(|line| line.strip_prefix(&chain)).map(str::to_owned).collect()
}

#[test]
fn the_whole_text_of_both_families() {
    let mut plan = plan(
        &["192.0.2.100", "2001:db8:1::100"],
        &["198.51.100.11", "198.51.100.12", "2001:db8:2::11"],
        Protocol::Tcp,
        &[(80, 80), (443, 443), (8000, 8010)],
    );
    plan.nameservers = addresses(&["9.9.9.9", "2620:fe::fe"]);
    let text = Family::ALL.map(|family| rules(&plan).text(family).unwrap()).concat();
    let golden = include_str!("golden.txt");
    assert!(text == golden, "the rules are not those of golden.txt but:\n{text}");
}

#[test]
fn a_family_without_a_vip_has_no_rules() {
    let plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    assert!(rules(&plan).text(Family::V4).is_some());
    assert_eq!(rules(&plan).text(Family::V6), None);
}

#[test]
fn protocol_any_takes_the_whole_vip_and_all_a_backend_sends() {
    let plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    assert_eq!(
        lines(&plan, Family::V4, "LOADED-3-M"),
        ["-d 192.0.2.100/32 -j LOADED-3-Q", "-s 198.51.100.11/32 -j LOADED-3-R"]
    );
}

#[test]
fn every_port_of_a_protocol_and_two_services_at_one_vip() {
    let mut plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Tcp, &[]);
    let mut dns = plan.services[0].clone();
    (dns.protocol, dns.ports) = (Protocol::Udp, vec![PortRange { low: 53, high: 53 }]);
    plan.services.push(dns);
    assert_eq!(
        lines(&plan, Family::V4, "LOADED-3-M"),
        [
            "-d 192.0.2.100/32 -p tcp -j LOADED-3-Q",
            "-d 192.0.2.100/32 -p udp -m udp --dport 53 -j LOADED-3-Q",
            "-s 198.51.100.11/32 -p tcp -j LOADED-3-R",
            "-s 198.51.100.11/32 -p udp -m udp --sport 53 -j LOADED-3-R",
        ]
    );
}

#[test]
fn one_worker_needs_no_program() {
    let plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    let steering = Steering::new(&plan, Keys::new([0; 6]));
    let text = RuleSet::new(&plan, &[3], &steering).text(Family::V4).unwrap();
    assert!(text.contains("-A LOADED-3-Q -j NFQUEUE --queue-num 3\n"), "{text}");
    assert!(!text.contains("-A LOADED-3-Q -m bpf"), "{text}");
}

#[test]
fn many_backends_are_found_through_a_tree_and_each_is_in_it_once() {
    let names: Vec<String> = (0..4096).map(|n| format!("10.{}.{}.7", n % 16, n / 16)).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let plan = plan(&["192.0.2.100"], &names, Protocol::Any, &[]);
    let text = rules(&plan).text(Family::V4).unwrap();
    let mut found: Vec<&str> =
        text.lines().filter_map(|l| l.split_once(" -s ")?.1.strip_suffix("/32 -j LOADED-3-R")).collect();
    let mut wanted = names;
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert_eq!(lines(&plan, Family::V4, "LOADED-3-M").len(), 1 + 16);
    assert_eq!(text.matches("-m iprange").count(), 256 + 16);
    let longest = text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next()).map(str::len).max();
    assert!(longest.unwrap() + "65535".len() <= 28, "iptables takes 28 characters: {longest:?}");
}

#[test]
fn what_is_there_is_replaced_and_what_is_wanted_no_more_goes() {
    let plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    let save = "*raw\n:PREROUTING ACCEPT [0:0]\n:LOADED-3 - [0:0]\n:LOADED-3-B9 - [0:0]\n:LOADED-4 - [0:0]\n\
        -A PREROUTING -j LOADED-3\n-A PREROUTING -j LOADED-4\nCOMMIT\n";
    let present = Raw::parse(save).of(3);
    let change = script(&rules(&plan), Family::V4, &present, Defrag::On);
    assert_eq!(change.matches("-D PREROUTING -j LOADED-3\n").count(), 1);
    assert_eq!(change.matches("-I PREROUTING 1 -j LOADED-3\n").count(), 1);
    assert!(change.contains("-F LOADED-3-B9\n") && change.ends_with("-X LOADED-3-B9\nCOMMIT\n"), "{change}");
    assert!(!change.contains("LOADED-4") && !change.contains("LOADED-3-T"), "{change}");

    let nothing = RuleSet { base: 3, chains: [Vec::new(), Vec::new()] };
    assert_eq!(
        script(&nothing, Family::V4, &present, Defrag::Off),
        "*raw\n-D PREROUTING -j LOADED-3\n-F LOADED-3\n-F LOADED-3-B9\n-X LOADED-3\n-X LOADED-3-B9\nCOMMIT\n"
    );
}
