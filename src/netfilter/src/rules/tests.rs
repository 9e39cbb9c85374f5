//! The text of the rules, as a whole for one plan and by its parts for others.

use super::chain::Matches;
use super::present::RawTable;
use super::*;
use crate::Family;
use loaded_config::plan::{Backend, Plan, Service};
use loaded_ipc::{Affinity, AllDown, Mode, OnBackendDown, Policy, PortRange, Protocol, Strategy};
use proptest::prelude::*;
use proptest::strategy::Strategy as _;
use std::net::IpAddr;

pub(crate) fn addresses(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|address| address.parse().unwrap()).collect()
}

pub(crate) fn plan(vips: &[&str], backends: &[&str], protocol: Protocol, ports: &[(u16, u16)]) -> Plan {
    let backend = |address| Backend { address, port: None, weight: 1, backup: false };
    let (on_backend_down, all_down) = (OnBackendDown::Drain, AllDown::Drop);
    let policy = Policy { on_backend_down, all_down, adopt: false, ..Policy::STANDARD };
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
        policy,
        check: None,
        discover: None,
        backends: addresses(backends).into_iter().map(backend).collect(),
    };
    Plan { queue_base: 3, services: vec![service], ..Plan::empty() }
}

pub(crate) fn rules(plan: &Plan) -> RuleSet {
    RuleSet::new(&Reach::of(plan), &[3, 4], &Steering::new(plan, HashKeys::new([1, 2, 3, 4, 5, 6])))
}

fn lines(plan: &Plan, family: Family, chain: &str) -> Vec<String> {
    let text = rules(plan).text(family).unwrap();
    let chain = format!("-A {chain} ");
    text.lines().filter_map(|line| line.strip_prefix(&chain)).map(str::to_owned).collect()
}

/// What this host opens itself from a VIP, which only the socket tells from a client's packets: where a VIP is balanced on
/// the ports of such connections.
#[test]
fn own_connections_from_a_vip_pass() {
    let lines = |protocol, ports: &[(u16, u16)], family| {
        let plan = plan(&["192.0.2.100", "2001:db8:1::100"], &["198.51.100.11", "2001:db8:2::11"], protocol, ports);
        let mut reach = Reach::of(&plan);
        reach.own_ports = PortRange { low: 40000, high: 40999 };
        let steering = Steering::new(&plan, HashKeys::new([1, 2, 3, 4, 5, 6]));
        let text = RuleSet::new(&reach, &[3, 4], &steering).text(family).unwrap();
        let own = |line: &&str| line.ends_with("-j RETURN") && (line.contains("-m socket") || line.contains("-type"));
        let chain = |line: &&str| line.starts_with("-A LOADED-3-M ") || line.starts_with("-A LOADED-3-I ");
        text.lines()
            .filter(chain)
            .filter(own)
            .filter(|line| line.contains("-d "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let tcp = "-A LOADED-3-M -d 192.0.2.100/32 -p tcp -m tcp --dport 40000:40999 ! --tcp-flags FIN,SYN,RST,ACK SYN \
               -m socket -j RETURN";
    let udp = "-A LOADED-3-M -d 192.0.2.100/32 -p udp -m udp --dport 40000:40999 -m socket -j RETURN";
    let echo = "-A LOADED-3-I -d 192.0.2.100/32 -p icmp -m icmp --icmp-type 0 -j RETURN";
    let any = lines(Protocol::Any, &[], Family::V4);
    // Behind the pings come errors about what left from there.
    assert!(any[1].starts_with("-A LOADED-3-I -d 192.0.2.100/32 -m bpf") && any[1].ends_with("-m socket -j RETURN"));
    assert_eq!([&any[..1], &any[2..]].concat(), [echo, tcp, udp]);
    assert_eq!(lines(Protocol::Any, &[], Family::V6).len(), 4);
    assert_eq!(lines(Protocol::Tcp, &[], Family::V4)[1..], [tcp]);
    assert_eq!(lines(Protocol::Udp, &[(80, 80), (40999, 50000)], Family::V4)[1..], [udp]);
    assert!(lines(Protocol::Tcp, &[(80, 80), (443, 443), (41000, 50000)], Family::V4).is_empty());
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
        lines(&plan, Family::V4, "LOADED-3-M")[2..],
        ["-d 192.0.2.100/32 -j LOADED-3-Q", "-s 198.51.100.11/32 -j LOADED-3-F"]
    );
}

/// What a backend may do in one service it may do in all: it is the same host.
#[test]
fn replies_are_asked_where_they_come_from_unless_a_service_says_otherwise() {
    let mut plan = plan(&["192.0.2.100"], &["198.51.100.11", "198.51.100.12"], Protocol::Tcp, &[(80, 80)]);
    let mut open = plan.services[0].clone();
    (open.name, open.vips, open.ports) =
        ("open".to_owned(), addresses(&["192.0.2.101"]), vec![PortRange { low: 81, high: 81 }]);
    open.backends.remove(0);
    open.policy.asymmetric = true;
    plan.services.push(open);
    let main = lines(&plan, Family::V4, "LOADED-3-M");
    assert_eq!(
        main[2..],
        [
            "-s 198.51.100.11/32 -p tcp -m tcp --sport 80 -j LOADED-3-F",
            "-s 198.51.100.12/32 -p tcp -m tcp --sport 80:81 -j LOADED-3-R",
        ]
    );
    assert_eq!(lines(&plan, Family::V4, "LOADED-3-F"), ["-m rpfilter --invert -j RETURN", "-g LOADED-3-R"]);
    let only = "-m bpf --bytecode \"4,32 0 0 12,21 1 0 3325256715,6 0 0 0,6 0 0 1\" -m rpfilter --invert -j RETURN";
    assert_eq!(lines(&plan, Family::V4, "LOADED-3-I")[0], only);
    let checked = rules(&plan);
    plan.services[0].policy.asymmetric = true;
    assert_ne!(rules(&plan), checked, "a reload must write it");
    assert!(!rules(&plan).text(Family::V4).unwrap().contains("rpfilter"));
}

#[test]
fn replies_of_backends_that_answer_clients_themselves_are_nobodys_business() {
    let mut plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Tcp, &[(80, 80)]);
    plan.services[0].mode = Mode::Dsr;
    let requests = "-d 192.0.2.100/32 -p tcp -m tcp --dport 80 -j LOADED-3-Q";
    assert_eq!(lines(&plan, Family::V4, "LOADED-3-M"), [requests]);
    assert_eq!(lines(&plan, Family::V4, "LOADED-3-E"), ["-d 192.0.2.100/32 -j LOADED-3-Q"]);
    // Unless they serve in the other mode, too.
    let mut nat = plan.services[0].clone();
    (nat.name, nat.mode, nat.vips) = ("nat".to_owned(), Mode::Nat, addresses(&["192.0.2.101"]));
    plan.services.push(nat);
    assert!(lines(&plan, Family::V4, "LOADED-3-M").iter().any(|rule| rule.starts_with("-s 198.51.100.11/32 ")));
}

#[test]
fn packets_that_nobody_takes_pass_only_where_none_is_translated() {
    let mut plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Tcp, &[(80, 80)]);
    let queues = |plan: &Plan| lines(plan, Family::V4, "LOADED-3-Q").split_off(1);
    let ends = |plan: &Plan, end: &str| queues(plan).iter().all(|rule| rule.ends_with(end));
    assert!(queues(&plan)[0].ends_with("-j NFQUEUE --queue-num 3") && queues(&plan)[1] == "-j NFQUEUE --queue-num 4");
    plan.services[0].mode = Mode::Dsr;
    assert!(!ends(&plan, "--queue-bypass"));
    let closed = rules(&plan);
    plan.on_failure.no_worker = loaded_ipc::OnFailure::Pass;
    assert!(ends(&plan, " --queue-bypass"), "{:?}", queues(&plan));
    assert_eq!(queues(&plan)[1], "-j NFQUEUE --queue-num 4 --queue-bypass");
    assert_ne!(rules(&plan), closed, "a reload must write it");
    // No such plan is made, but a service of the other mode may still be leaving.
    plan.services[0].mode = Mode::Nat;
    assert!(!queues(&plan).iter().any(|rule| rule.contains("bypass")));
}

#[test]
fn every_port_of_a_protocol_and_two_services_at_one_vip() {
    let mut plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Tcp, &[]);
    let mut dns = plan.services[0].clone();
    (dns.protocol, dns.ports) = (Protocol::Udp, vec![PortRange { low: 53, high: 53 }]);
    plan.services.push(dns);
    assert_eq!(
        lines(&plan, Family::V4, "LOADED-3-M")[1..],
        [
            "-d 192.0.2.100/32 -p tcp -j LOADED-3-Q",
            "-d 192.0.2.100/32 -p udp -m udp --dport 53 -j LOADED-3-Q",
            "-s 198.51.100.11/32 -p tcp -j LOADED-3-F",
            "-s 198.51.100.11/32 -p udp -m udp --sport 53 -j LOADED-3-F",
        ]
    );
}

#[test]
fn fragments_go_to_the_workers_where_the_kernel_does_not_reassemble_them() {
    let mut plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Udp, &[(53, 53)]);
    plan.defragment = false;
    let fragment = "-m bpf --bytecode \"5,32 0 0 4,84 0 0 16383,21 1 0 0,6 0 0 1,6 0 0 0\"";
    assert_eq!(
        lines(&plan, Family::V4, "LOADED-3-M"),
        [
            format!("-d 192.0.2.100/32 {fragment} -j LOADED-3-Q"),
            "-d 192.0.2.100/32 -p udp -m udp --dport 53 -j LOADED-3-Q".to_owned(),
            format!("-s 198.51.100.11/32 {fragment} -j LOADED-3-F"),
            "-s 198.51.100.11/32 -p udp -m udp --sport 53 -j LOADED-3-F".to_owned(),
        ]
    );
    assert!(!rules(&plan).text(Family::V4).unwrap().contains("-m socket"));
}

#[test]
fn one_worker_needs_no_program() {
    let plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    let steering = Steering::new(&plan, HashKeys::new([0; 6]));
    let text = RuleSet::new(&Reach::of(&plan), &[3], &steering).text(Family::V4).unwrap();
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
        text.lines().filter_map(|l| l.split_once(" -s ")?.1.strip_suffix("/32 -j LOADED-3-F")).collect();
    let mut wanted = names;
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    assert_eq!(lines(&plan, Family::V4, "LOADED-3-M").len(), 2 + 1 + 16);
    assert_eq!(text.matches("-m iprange").count(), 256 + 16);
    let longest = text.lines().filter_map(|line| line.strip_prefix(':')?.split(' ').next()).map(str::len).max();
    assert!(longest.unwrap() + "65535".len() <= 28, "iptables takes 28 characters: {longest:?}");
}

#[test]
fn what_is_there_is_replaced_and_what_is_wanted_no_more_goes() {
    let plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    let save = "*raw\n:PREROUTING ACCEPT [0:0]\n:LOADED-3 - [0:0]\n:LOADED-3-B9 - [0:0]\n:LOADED-4 - [0:0]\n\
        -A PREROUTING -j LOADED-3\n-A PREROUTING -j LOADED-4\nCOMMIT\n";
    let present = RawTable::parse(save).of(3);
    let change = rules(&plan).script(Family::V4, &present, rules(&plan).matches().next().unwrap());
    assert_eq!(change.matches("-D PREROUTING -j LOADED-3\n").count(), 1);
    assert_eq!(change.matches("-I PREROUTING 1 -j LOADED-3\n").count(), 1);
    assert!(change.contains("-F LOADED-3-B9\n") && change.ends_with("-X LOADED-3-B9\nCOMMIT\n"), "{change}");
    assert!(!change.contains("LOADED-4") && !change.contains("LOADED-3-T"), "{change}");

    let nothing = RuleSet::nothing(3);
    assert_eq!(
        nothing.script(Family::V4, &present, Matches::NONE),
        "*raw\n-D PREROUTING -j LOADED-3\n-F LOADED-3\n-F LOADED-3-B9\n-X LOADED-3\n-X LOADED-3-B9\nCOMMIT\n"
    );
}

fn reach_rules(reach: &Reach) -> RuleSet {
    RuleSet::new(reach, &[3, 4], &Steering::with_prefixes(32, 64, HashKeys::new([1, 2, 3, 4, 5, 6])))
}

fn served(vips: &[&str], backends: &[&str], protocol: Protocol, ports: &[(u16, u16)]) -> Served {
    Served::of(&plan(vips, backends, protocol, ports).services[0])
}

fn chain(reach: &Reach, name: &str) -> Vec<String> {
    let rules = reach_rules(reach);
    rules
        .chains(Family::V4, rules.matches().next().unwrap())
        .iter()
        .find(|chain| chain.name == name)
        .map(|chain| chain.rules.clone())
        .unwrap()
}

#[test]
fn what_leaves_is_reached_as_long_as_it_is_named() {
    let plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Tcp, &[(80, 80)]);
    let mut reach = Reach::of(&plan);
    reach.extend(served(&["192.0.2.100"], &["198.51.100.11", "198.51.100.12"], Protocol::Tcp, &[(80, 81)]));
    reach.extend(served(&["192.0.2.101"], &["198.51.100.12"], Protocol::Udp, &[(53, 53)]));
    assert_eq!(
        chain(&reach, "LOADED-3-M"),
        [
            "-d 192.0.2.100/32 -p tcp -m tcp --dport 80:81 -j LOADED-3-Q",
            "-d 192.0.2.101/32 -p udp -m udp --dport 53 -j LOADED-3-Q",
            "-s 198.51.100.11/32 -p tcp -m tcp --sport 80:81 -j LOADED-3-F",
            "-s 198.51.100.12/32 -p tcp -m tcp --sport 80:81 -j LOADED-3-F",
            "-s 198.51.100.12/32 -p udp -m udp --sport 53 -j LOADED-3-F",
        ]
    );
    assert!(chain(&reach, "LOADED-3").contains(&"-s 192.0.2.101/32 -g LOADED-3-S".to_owned()));
}

/// What goes to backends' own addresses meets the workers where a service adopts replies, and stays tracked. Ports that services
/// share are one rule; a service of all ports has none.
#[test]
fn what_passes_the_vips_is_seen_where_replies_are_adopted() {
    let adopting = |protocol, ports: &[(u16, u16)]| {
        let mut served = served(&["192.0.2.100"], &["198.51.100.11", "198.51.100.12"], protocol, ports);
        served.adopts = true;
        served
    };
    let mut reach = Reach::of(&plan(&["192.0.2.101"], &["198.51.100.11"], Protocol::Tcp, &[(81, 81)]));
    reach.extend(adopting(Protocol::Tcp, &[(80, 80)]));
    reach.extend(adopting(Protocol::Udp, &[(53, 53)]));
    reach.extend(adopting(Protocol::Any, &[]));
    let past = |rule: &String| rule.ends_with("-j LOADED-3-P");
    let rules: Vec<_> = chain(&reach, "LOADED-3-M").into_iter().filter(past).collect();
    assert_eq!(
        rules,
        [
            "-d 198.51.100.11/32 -p tcp -m tcp --dport 80 -j LOADED-3-P",
            "-d 198.51.100.11/32 -p udp -m udp --dport 53 -j LOADED-3-P",
            "-d 198.51.100.12/32 -p tcp -m tcp --dport 80 -j LOADED-3-P",
            "-d 198.51.100.12/32 -p udp -m udp --dport 53 -j LOADED-3-P",
        ]
    );
    // Steered as requests are, by the source.
    assert_eq!(chain(&reach, "LOADED-3-P"), chain(&reach, "LOADED-3-Q")[1..]);
}

/// Also where there are so many backends that ranges of them have chains.
#[test]
fn what_passes_the_vips_is_seen_among_many_backends() {
    let all: Vec<_> = (0..40).map(|n| format!("198.51.100.{n}")).collect();
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    let mut reach = Reach::of(&plan(&["192.0.2.101"], &["198.51.100.11"], Protocol::Tcp, &[(81, 81)]));
    let mut served = served(&["192.0.2.100"], &all, Protocol::Tcp, &[(80, 80)]);
    served.adopts = true;
    reach.extend(served);
    let ranges = chain(&reach, "LOADED-3-M").into_iter().filter(|rule| rule.contains("iprange"));
    let (from, to): (Vec<_>, Vec<_>) = ranges.partition(|rule| rule.contains("--src-range"));
    assert_eq!((from.len(), to.len()), (3, 3), "{from:?} {to:?}");
    // A jump, not a goto: what is in a range of sources may go to a backend.
    assert!(from.iter().all(|rule| rule.contains(" -j LOADED-3-B")), "{from:?}");
}

/// Replies come from the backends' ports. One that is leaving may have another, or none.
#[test]
fn replies_are_known_by_the_backends_port() {
    let mut plan = plan(&["192.0.2.100"], &["198.51.100.11", "198.51.100.12"], Protocol::Tcp, &[(80, 80), (443, 443)]);
    plan.services[0].backends[0].port = Some(8080);
    let mut reach = Reach::of(&plan);
    let mut sctp = served(&["192.0.2.100"], &["198.51.100.11", "198.51.100.12"], Protocol::Sctp, &[(80, 80)]);
    sctp.backends[0].port = Some(36412);
    reach.extend(sctp);
    let mut second = served(&["192.0.2.100"], &["198.51.100.11"], Protocol::Tcp, &[(80, 80), (443, 443)]);
    second.backends[0].port = Some(8443);
    reach.extend(second);
    assert_eq!(
        chain(&reach, "LOADED-3-M"),
        [
            "-d 192.0.2.100/32 -p tcp -m multiport --dports 80,443 -j LOADED-3-Q",
            "-d 192.0.2.100/32 -p sctp -m multiport --dports 80 -j LOADED-3-Q",
            "-s 198.51.100.11/32 -p tcp -m multiport --sports 8080,8443 -j LOADED-3-F",
            "-s 198.51.100.11/32 -p sctp -m multiport --sports 36412 -j LOADED-3-F",
            "-s 198.51.100.12/32 -p tcp -m multiport --sports 80,443 -j LOADED-3-F",
            "-s 198.51.100.12/32 -p sctp -m multiport --sports 80 -j LOADED-3-F",
        ]
    );
}

/// A rule `-s VIP` comes first, and one for a name server passes its packets: such a backend's replies would not be queued.
#[test]
fn an_address_that_changed_its_role_has_the_new_one() {
    let mut now = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    now.nameservers = addresses(&["192.0.2.53"]);
    let mut reach = Reach::of(&now);
    reach.extend(served(
        &["198.51.100.11", "192.0.2.53", "192.0.2.7"],
        &["192.0.2.100", "192.0.2.8"],
        Protocol::Any,
        &[],
    ));
    assert_eq!(reach.served[1].vips, addresses(&["192.0.2.7"]));
    let left: Vec<_> = reach.served[1].backends.iter().map(|backend| backend.address).collect();
    assert_eq!(left, addresses(&["192.0.2.8"]));
    reach.extend(served(&["198.51.100.11"], &["192.0.2.9"], Protocol::Any, &[]));
    assert_eq!(reach.served.len(), 2, "nothing can come to it any more");
}

/// Whether the rules of a chain, clause by clause, take this packet; and in how many rules they do it.
fn taking(rules: &[String], side: &str, address: &str, protocol: &str, port: u16) -> usize {
    let within = |list: &str| {
        list.split(',').any(|range| {
            let (low, high) = range.split_once(':').unwrap_or((range, range));
            (low.parse().unwrap()..=high.parse().unwrap()).contains(&port)
        })
    };
    let matches = |rule: &&String| {
        let words: Vec<_> = rule.split(' ').collect();
        let after = |flag: &str| words.iter().position(|word| word.starts_with(flag)).map(|at| words[at + 1]);
        after(side) == Some(&format!("{address}/32"))
            && after("-p").is_none_or(|p| p == protocol)
            && after(if side == "-d" { "--dport" } else { "--sport" }).is_none_or(within)
    };
    rules.iter().filter(matches).count()
}

const VIPS: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];
const REALS: [&str; 3] = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];

fn any_served() -> impl proptest::strategy::Strategy<Value = Served> {
    let some = |list: [&'static str; 3]| prop::sample::subsequence(list.to_vec(), 1..=3);
    let ports = prop::collection::vec((1_u16..40, 0_u16..8), 0..12);
    let others = prop::collection::vec(prop::option::of(20_u16..50), 3);
    (some(VIPS), some(REALS), 0..4, ports, others).prop_map(|(vips, backends, protocol, ports, others)| {
        let ports: Vec<_> = ports.iter().map(|(low, more)| (*low, low + more)).collect();
        let mut served = match protocol {
            0 => return served(&vips, &backends, Protocol::Any, &[]),
            1 => served(&vips, &backends, Protocol::Tcp, &ports),
            2 => served(&vips, &backends, Protocol::Sctp, &ports),
            _ => served(&vips, &backends, Protocol::Udp, &ports),
        };
        served.backends.iter_mut().zip(others).for_each(|(backend, port)| backend.port = port);
        served
    })
}

proptest! {
    #[test]
    fn rules_are_the_union_without_overlap_in_any_order(all in prop::collection::vec(any_served(), 1..6), turn in 0_usize..6) {
        let empty = Reach { base: 3, nameservers: Vec::new(), defragment: true, whole_vips: false, bypass: false, own_ports: PortRange { low: 32768, high: 60999 }, served: Vec::new() };
        let build = |list: &[&Served]| {
            let mut reach = empty.clone();
            list.iter().for_each(|served| reach.extend((*served).clone()));
            reach
        };
        let order: Vec<_> = all.iter().collect();
        let mut other = [&order[..], &order[..]].concat();
        let turn = turn % other.len();
        other.rotate_left(turn);
        prop_assert_eq!(reach_rules(&build(&order)), reach_rules(&build(&other)), "twice, and in another order");

        let rules = chain(&build(&order), "LOADED-3-M");
        for (protocol, kind) in [("tcp", Protocol::Tcp), ("udp", Protocol::Udp), ("sctp", Protocol::Sctp), ("gre", Protocol::Any)] {
            for port in 0..50 {
                let own = |s: &Served| s.ports.is_empty() || s.ports.iter().any(|p| (p.low..=p.high).contains(&port));
                for (side, addresses) in [("-d", VIPS), ("-s", REALS)] {
                    for address in addresses {
                        let address: IpAddr = address.parse().unwrap();
                        let balanced = |s: &Served| match side {
                            "-d" => s.vips.contains(&address) && own(s),
                            _ => s.backends.iter().filter(|backend| backend.address == address)
                                .any(|backend| backend.port.map_or_else(|| own(s), |other| other == port)),
                        };
                        let meant = |s: &&Served| s.protocol == Protocol::Any || s.protocol == kind;
                        let wanted = all.iter().filter(meant).any(balanced);
                        let address = address.to_string();
                        prop_assert_eq!(taking(&rules, side, &address, protocol, port), usize::from(wanted));
                    }
                }
            }
        }
    }
}

#[test]
fn the_order_of_name_servers_is_no_difference() {
    let mut one = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    one.nameservers = addresses(&["9.9.9.9", "8.8.8.8"]);
    let mut other = one.clone();
    other.nameservers.reverse();
    assert_eq!(rules(&one), rules(&other));
    other.nameservers.pop();
    assert_ne!(rules(&one), rules(&other));
}
