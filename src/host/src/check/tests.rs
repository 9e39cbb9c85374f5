//! Problems found on hosts that are only described.

use super::*;
use crate::fixture::plan;
use crate::route::parse_routes;
use loaded_ipc::Protocol;

/// eth0: 192.0.2.0/24 and the default route; eth1: 198.51.100.0/24; eth1.7: 198.51.100.128/25 twice; a rejected route.
const ROUTES: &str = "\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth1\t006433C6\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
eth9\t806433C6\t00000000\t0001\t0\t0\t900\t80FFFFFF\t0\t0\t0
eth1.7\t806433C6\t00000000\t0001\t0\t0\t100\t80FFFFFF\t0\t0\t0
*\t636433C6\t00000000\t0201\t0\t0\t0\tFFFFFFFF\t0\t0\t0
";
const TRIE: &str = "\
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.100
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
";

/// eth1: 2001:db8:2::/64; the default route by a router on eth0.
const ROUTES6: &str = "\
20010db8000200000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003     eth0
";

fn problems(vip: &str, backends: &[&str], settings: &[(&str, i64)]) -> Vec<String> {
    problems_of(&plan(&[vip], backends, Protocol::Any, &[]), settings)
}

fn problems_of(plan: &Plan, settings: &[(&str, i64)]) -> Vec<String> {
    let text = |problem: &Problem| {
        let severity = if problem.severity == Severity::Fatal { "fatal" } else { "warning" };
        format!("{severity}: {problem}")
    };
    found(plan, settings, ROUTES6).iter().map(text).collect()
}

/// What would be written with `host = "set"`.
fn settable(plan: &Plan, settings: &[(&str, i64)], routes6: &str) -> Vec<String> {
    let all = found(plan, settings, routes6);
    all.iter().flat_map(|problem| &problem.settings).map(ToString::to_string).collect()
}

fn found(plan: &Plan, settings: &[(&str, i64)], routes6: &str) -> Vec<Problem> {
    let host = Host {
        routes: if cfg!(target_endian = "little") { parse_routes(ROUTES) } else { Vec::new() },
        locals: parse_locals(TRIE),
        networks: if cfg!(target_endian = "little") {
            ConnectedNetworks::parse(ROUTES, routes6)
        } else {
            ConnectedNetworks::default()
        },
        own: ["192.0.2.100", "2001:db8:1::100"].map(|address| address.parse().unwrap()).into(),
        sysctl: &|key| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| *value),
        links: Links::default(),
        leads_out: &|_| true,
        reaches: &|_| true,
        passes: &|_| true,
        network_around: &|_| None,
        is_bridge_port: &|_| false,
    };
    host.problems(plan)
}

const GOOD: [(&str, i64); 3] =
    [("ipv4/ip_forward", 1), ("ipv6/conf/all/forwarding", 1), ("ipv4/conf/eth1/accept_local", 1)];

#[test]
fn the_longest_prefix_and_then_the_smallest_metric_wins() {
    let routes = parse_routes(ROUTES);
    let interface = |address: &str| lookup(&routes, address.parse().unwrap()).map(|route| route.interface.as_str());
    assert_eq!(interface("198.51.100.11"), Some("eth1"));
    assert_eq!(interface("198.51.100.99"), None, "the longest one throws packets away");
    assert_eq!(interface("198.51.100.200"), Some("eth1.7"));
    assert_eq!(interface("8.8.8.8"), Some("eth0"));
    assert_eq!(parse_locals(TRIE), BTreeSet::from([Ipv4Addr::new(192, 0, 2, 100)]));
}

#[test]
fn a_host_that_is_set_up_has_no_problem() {
    assert_eq!(problems("192.0.2.100", &["198.51.100.11"], &GOOD), [""; 0]);
    assert_eq!(problems("2001:db8::1", &["2001:db8::2"], &GOOD), [""; 0]);
    let one_armed = [("ipv4/conf/eth0/accept_local", 1), ("ipv4/conf/all/rp_filter", 1)];
    assert_eq!(problems("192.0.2.100", &["192.0.2.11"], &one_armed), [""; 0]);
}

#[test]
fn forwarding_off_is_fatal_for_the_family_that_is_used() {
    let off = [("ipv4/ip_forward", 0), ("ipv6/conf/all/forwarding", 0)];
    let v4 = problems("192.0.2.100", &["192.0.2.11"], &[&off[..], &[("ipv4/conf/all/accept_local", 1)]].concat());
    assert!(v4.len() == 1 && v4[0].starts_with("fatal: ") && v4[0].ends_with("net.ipv4.ip_forward=1"), "{v4:?}");
    let v6 = problems("2001:db8::1", &["2001:db8::2"], &off);
    assert!(v6.len() == 1 && v6[0].contains("net.ipv6.conf.all.forwarding=1"), "{v6:?}");
}

#[test]
fn a_local_vip_needs_accept_local_towards_each_backend() {
    let found = problems("192.0.2.100", &["198.51.100.11", "198.51.100.200", "198.51.100.201"], &GOOD);
    assert!(found.len() == 1 && found[0].ends_with("sysctl -w net/ipv4/conf/eth1.7/accept_local=1"), "{found:?}");
    assert_eq!(problems("192.0.2.101", &["198.51.100.11"], &[]), [""; 0], "this VIP is not local");
}

#[test]
fn strict_reverse_path_filtering_is_named_with_the_interfaces_switch_alone() {
    let strict = |more: &[(&str, i64)]| problems("192.0.2.100", &["198.51.100.11"], &[&GOOD[..], more].concat());
    let both = strict(&[("ipv4/conf/all/rp_filter", 1), ("ipv4/conf/eth1/rp_filter", 1)]);
    assert!(both.len() == 1 && both[0].starts_with("fatal: "), "{both:?}");
    assert!(both[0].ends_with("sysctl -w net.ipv4.conf.eth1.rp_filter=2"), "{both:?}");
    assert_eq!(
        strict(&[("ipv4/conf/all/rp_filter", 1), ("ipv4/conf/eth1/rp_filter", 2)]),
        [""; 0],
        "the greater counts"
    );
}

#[test]
fn answers_of_our_own_need_accept_local_where_clients_come_in() {
    let mut one = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    assert_eq!(problems_of(&one, &GOOD), [""; 0], "none of the policies answers");
    let martian = "warning: resets and rejections to clients that come in by eth0 are dropped by this kernel as martian: \
                   sysctl -w net.ipv4.conf.eth0.accept_local=1";
    one.services[0].policy.on_backend_down = OnBackendDown::Reset;
    let good = [&GOOD[..], &[("ipv4/conf/eth9/accept_local", 1), ("ipv4/conf/eth1.7/accept_local", 1)]].concat();
    assert_eq!(problems_of(&one, &good), [martian]);
    one.services[0].policy.on_backend_down = OnBackendDown::Rehash;
    one.services[0].policy.all_down = AllDown::Reject;
    // A second service behind the same interface asks for the same.
    one.services.push(one.services[0].clone());
    assert_eq!(problems_of(&one, &good), [martian]);
    let all = [&good[..], &[("ipv4/conf/eth0/accept_local", 1)]].concat();
    assert_eq!(problems_of(&one, &all), [""; 0]);
    one.services.iter_mut().for_each(|service| service.vips = vec!["192.0.2.101".parse().unwrap()]);
    assert_eq!(problems_of(&one, &good), [""; 0], "this VIP is not local");
}

fn direct(vip: &str, backends: &[&str], settings: &[(&str, i64)]) -> Vec<String> {
    let mut plan = plan(&[vip], backends, Protocol::Any, &[]);
    plan.services[0].mode = Mode::Dsr;
    let on = [("ipv4/ip_forward", 1), ("ipv6/conf/all/forwarding", 1)];
    problems_of(&plan, &[&on, settings].concat())
}

#[test]
fn a_host_that_is_set_up_for_direct_return_has_no_problem() {
    assert_eq!(direct("203.0.113.1", &["198.51.100.11"], &[]), [""; 0]);
    assert_eq!(direct("2001:db8:9::1", &["2001:db8:2::11"], &[]), [""; 0]);
    // Loose filters, redirects where no client is, and a way back to the VIP by the clients' interface.
    let settings =
        [("ipv4/conf/eth1/send_redirects", 1), ("ipv4/conf/eth1/rp_filter", 1), ("ipv4/conf/eth0/rp_filter", 1)];
    assert_eq!(direct("203.0.113.1", &["198.51.100.11"], &settings), [""; 0]);
}

#[test]
fn direct_return_needs_a_vip_that_is_not_local_and_backends_on_a_link() {
    for (vip, backend) in [("192.0.2.100", "198.51.100.11"), ("2001:db8:1::100", "2001:db8:2::11")] {
        let found = direct(vip, &[backend], &[]);
        assert!(
            found.len() == 1 && found[0].starts_with(&format!("fatal: {vip} is an address of this host")),
            "{found:?}"
        );
    }
    for (vip, backend) in [("203.0.113.1", "10.1.1.1"), ("2001:db8:9::1", "2001:db8:3::11")] {
        let found = direct(vip, &[backend], &[]);
        let expected = format!("fatal: backend {backend} is not in a network of this host");
        assert!(found.len() == 1 && found[0].starts_with(&expected), "{found:?}");
    }
    let found = direct("192.0.2.101", &["198.51.100.11"], &[]);
    assert!(found.len() == 1 && found[0].contains("ip neigh add proxy 192.0.2.101 dev eth0"), "{found:?}");
}

#[test]
fn redirects_and_strict_filters_are_named_for_direct_return() {
    let shared = |settings: &[(&str, i64)]| direct("203.0.113.1", &["192.0.2.11"], settings);
    let found = shared(&[("ipv4/conf/eth0/send_redirects", 1)]);
    assert!(found.len() == 1 && found[0].ends_with("net.ipv4.conf.eth0.send_redirects=0"), "{found:?}");
    let strict = [("ipv4/conf/all/rp_filter", 1)];
    assert_eq!(shared(&strict), [""; 0], "the way back to the VIP is the default route's");
    let found = shared(&[&strict[..], &[("ipv4/conf/all/src_valid_mark", 1)]].concat());
    assert!(found.len() == 1 && found[0].starts_with("fatal: ") && found[0].contains("src_valid_mark"), "{found:?}");
    // A route of its own by another interface, as an answer for it wants it.
    let found = direct("198.51.100.7", &["192.0.2.11"], &strict);
    assert!(found.iter().any(|text| text.contains("come in by eth0 are dropped by strict")), "{found:?}");
}

#[test]
fn what_nobody_serves_at_a_vip_that_is_not_local_should_be_dropped() {
    let mut one = plan(&["203.0.113.1"], &["198.51.100.11"], Protocol::Tcp, &[(80, 80)]);
    one.services[0].mode = Mode::Dsr;
    let on = [("ipv4/ip_forward", 1), ("ipv6/conf/all/forwarding", 1)];
    let found = problems_of(&one, &on);
    assert!(found.len() == 1 && found[0].ends_with("unserved = \"drop\""), "{found:?}");
    one.unserved = loaded_ipc::Unserved::Drop;
    assert_eq!(problems_of(&one, &on), [""; 0]);
}

#[test]
fn one_interface_for_clients_and_backends_must_send_no_redirects() {
    let on = [("ipv4/conf/all/send_redirects", 1)];
    let found = problems("192.0.2.100", &["192.0.2.11"], &[&GOOD[..], &on].concat());
    let cure = "sysctl -w net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0";
    assert!(
        found
            .iter()
            .any(|text| text.starts_with("warning: clients and backends are both on eth0") && text.ends_with(cure))
    );
    let off = problems("192.0.2.100", &["192.0.2.11"], &GOOD);
    let two_armed = problems("192.0.2.100", &["198.51.100.11"], &[&GOOD[..], &on].concat());
    assert!(!off.iter().chain(&two_armed).any(|text| text.contains("redirects")), "{off:?} {two_armed:?}");
}

#[test]
fn of_very_many_backends_without_a_route_a_few_are_named() {
    let found: Vec<_> =
        no_routes((0..=250).map(|n| IpAddr::from([10, 0, 0, n]))).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 5);
    assert_eq!(found[0], "no route to backend 10.0.0.0 in the main table: ip route add 10.0.0.0 via …");
    assert_eq!(found[4], "no route to 247 more backends of IPv4 in the main table");
}

#[test]
fn a_route_that_throws_packets_away_is_none() {
    let found = problems("192.0.2.100", &["198.51.100.99"], &GOOD);
    let said = "warning: the route to backend 198.51.100.99 throws its packets away; to see it: ip route show match 198.51.100.99";
    assert_eq!(found, [said]);
    let more: Vec<_> = (0..=250).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    let found = refused_routes(&more);
    assert_eq!(found.len(), 5);
    assert_eq!(found[4].to_string(), "the routes to 247 more backends throw their packets away");
}

#[test]
fn clients_may_come_by_every_interface_that_leads_to_no_backend() {
    let mut one = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    one.services[0].policy.on_backend_down = OnBackendDown::Reset;
    let eth0 = [&GOOD[..], &[("ipv4/conf/eth0/accept_local", 1)]].concat();
    let host = |settings: &[(&str, i64)]| {
        let second = format!("{ROUTES}eth2\t00C84CC0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
        let host = Host {
            routes: parse_routes(&second),
            locals: parse_locals(TRIE),
            networks: ConnectedNetworks::parse(&second, ""),
            links: Links::default(),
            own: BTreeSet::new(),
            sysctl: &|key| settings.iter().find(|(name, _)| *name == key).map(|(_, value)| *value),
            leads_out: &|_| true,
            reaches: &|_| true,
            passes: &|_| true,
            network_around: &|_| None,
            is_bridge_port: &|_| false,
        };
        host.problems(&one).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let found = host(&eth0);
    let cure = "sysctl -w net/ipv4/conf/eth1.7/accept_local=1 net.ipv4.conf.eth2.accept_local=1 net.ipv4.conf.eth9.accept_local=1";
    assert!(
        found.iter().any(|text| text.starts_with("if clients come in by eth1.7, eth2, eth9, ") && text.ends_with(cure))
    );
    let found = host(&[&eth0[..], &[("ipv4/conf/eth2/accept_local", 1)]].concat());
    assert!(!found.iter().any(|text| text.contains("eth2")), "{found:?}");
}

#[cfg(target_endian = "little")]
#[test]
fn forwarding_on_for_each_interface_in_use_is_forwarding() {
    let plan = plan(&["192.0.2.100"], &["198.51.100.11"], Protocol::Any, &[]);
    let off = [("ipv4/ip_forward", 0), ("ipv4/conf/eth1/accept_local", 1), ("ipv4/conf/eth0/forwarding", 1)];
    assert_eq!(settable(&plan, &off, ""), ["net.ipv4.conf.eth1.forwarding=1"], "not for all");
    assert_eq!(problems_of(&plan, &[&off[..], &[("ipv4/conf/eth1/forwarding", 1)]].concat()), [""; 0]);
    let plan = self::plan(&["2001:db8:1::100"], &["2001:db8:2::11"], Protocol::Any, &[]);
    let old = [("ipv6/conf/all/forwarding", 0)];
    assert_eq!(settable(&plan, &old, ROUTES6), ["net.ipv6.conf.all.forwarding=1"], "an older kernel has nothing less");
    let new = [&old[..], &[("ipv6/conf/eth0/force_forwarding", 0), ("ipv6/conf/eth1/force_forwarding", 0)]].concat();
    let both = ["net.ipv6.conf.eth0.force_forwarding=1", "net.ipv6.conf.eth1.force_forwarding=1"];
    assert_eq!(settable(&plan, &new, ROUTES6), both);
    let forced = [&old[..], &[("ipv6/conf/eth0/force_forwarding", 1), ("ipv6/conf/eth1/force_forwarding", 1)]].concat();
    assert_eq!(problems_of(&plan, &forced), [""; 0]);
}

/// The default route of a host that has it by router advertisements would be gone, and the host with it.
#[cfg(target_endian = "little")]
#[test]
fn a_host_that_would_lose_its_default_route_is_told_how_to_keep_it() {
    let advertised = ROUTES6.replace("00000003     eth0", "00450003     eth0");
    let plan = plan(&["2001:db8:1::100"], &["2001:db8:2::11"], Protocol::Any, &[]);
    let off = [("ipv6/conf/all/forwarding", 0), ("ipv6/conf/eth0/accept_ra", 1)];
    assert_eq!(settable(&plan, &off, &advertised), [""; 0]);
    let told = found(&plan, &off, &advertised)[0].to_string();
    assert!(told.contains("and eth0, configured by router advertisements, needs accept_ra=2"), "{told}");
    assert!(told.ends_with("sysctl -w net.ipv6.conf.eth0.accept_ra=2 net.ipv6.conf.all.forwarding=1"), "{told}");
    let kept = [("ipv6/conf/all/forwarding", 0), ("ipv6/conf/eth0/accept_ra", 2)];
    assert_eq!(settable(&plan, &kept, &advertised), ["net.ipv6.conf.all.forwarding=1"]);
    let mixed = [&kept[..], &[("ipv6/conf/eth1/forwarding", 1)]].concat();
    assert_eq!(settable(&plan, &mixed, &advertised), [""; 0], "eth1's would be off when it is put back");
}

#[cfg(target_endian = "little")]
#[test]
fn only_what_sends_redirects_is_turned_off() {
    let plan = plan(&["192.0.2.100"], &["192.0.2.11"], Protocol::Any, &[]);
    let good = [("ipv4/ip_forward", 1), ("ipv4/conf/eth0/accept_local", 1)];
    let on = |more: &[(&str, i64)]| settable(&plan, &[&good[..], more].concat(), "");
    let all = "net.ipv4.conf.all.send_redirects=0";
    assert_eq!(on(&[("ipv4/conf/all/send_redirects", 1)]), [all]);
    let both = on(&[("ipv4/conf/all/send_redirects", 1), ("ipv4/conf/eth0/send_redirects", 1)]);
    assert_eq!(both, [all, "net.ipv4.conf.eth0.send_redirects=0"]);
}
