//! Rules as nft 1.0.6 writes them.

use super::*;
use crate::matches::{Match, States};
use crate::rule::Ruling;
use loaded_config::network::Network;

/// The rules of one chain with these statements, and a set and a map.
fn rules(statements: &str) -> Vec<(Vec<Match>, Ruling)> {
    let listed = format!(
        r#"{{"nftables": [{{"metainfo": {{"version": "1.0.6"}}}}, {{"table": {{"family": "inet", "name": "t", "handle": 1}}}},
        {{"set": {{"family": "inet", "name": "bad", "table": "t", "type": "ipv4_addr",
          "elem": [{{"prefix": {{"addr": "10.0.0.0", "len": 8}}}}, {{"elem": {{"val": "192.0.2.7", "timeout": 9}}}},
                   {{"range": ["192.168.1.1", "192.168.1.9"]}}]}}}},
        {{"map": {{"family": "inet", "name": "vm", "table": "t", "type": "ifname", "map": "verdict",
          "elem": [["eth0", {{"jump": {{"target": "sub"}}}}], ["eth1", {{"accept": null}}]]}}}},
        {{"chain": {{"family": "inet", "table": "t", "name": "c", "handle": 3, "type": "filter", "hook": "forward", "prio": 10,
          "policy": "accept"}}}},
        {{"rule": {{"family": "inet", "table": "t", "chain": "c", "handle": 10, "expr": [{statements}]}}}}]}}"#
    );
    let tables = tables(&listed, |_, _| false).unwrap();
    assert_eq!((tables[0].bases[0].hook, tables[0].bases[0].priority), (Hook::Forward, 10));
    tables[0].chains["c"].iter().map(|rule| (rule.matches.clone(), rule.ruling.clone())).collect()
}

fn span(network: &str) -> (std::net::IpAddr, std::net::IpAddr) {
    let network = Network::parse(network).unwrap();
    (network.first(), network.last())
}

fn all(matches: &[Match]) -> Match {
    Match::All(matches.to_vec())
}

#[test]
fn each_comparison_is_read() {
    let state = |invalid, untracked| Match::State(States { invalid, untracked });
    let any = |one: Match| Match::Any(vec![one]);
    let v4 = Match::Family(Family::V4);
    for (left, op, right, expected) in [
        (r#"{"ct": {"key": "state"}}"#, "in", r#"["established", "related"]"#, all(&[state(false, false)])),
        (r#"{"ct": {"key": "state"}}"#, "!=", r#""invalid""#, all(&[any(state(true, false)).not()])),
        (r#"{"ct": {"key": "state"}}"#, "==", r#"{"set": ["untracked"]}"#, all(&[any(state(false, true))])),
        (r#"{"ct": {"key": "status"}}"#, "!=", r#""dnat""#, all(&[Match::Tracked])),
        (r#"{"meta": {"key": "iifname"}}"#, "==", r#""eth*""#, all(&[any(Match::Input("eth*".into()))])),
        (r#"{"meta": {"key": "l4proto"}}"#, "==", r#""tcp""#, all(&[any(Match::Protocol(6))])),
        (r#"{"meta": {"key": "protocol"}}"#, "==", r#""arp""#, all(&[any(Match::never())])),
        (r#"{"meta": {"key": "mark"}}"#, "==", "1", all(&[any(Match::Part)])),
        (r#"{"meta": {"key": "iifgroup"}}"#, "==", "5", Match::Unread),
        (
            r#"{"payload": {"protocol": "ip", "field": "saddr"}}"#,
            "==",
            r#""@bad""#,
            all(&[
                v4.clone(),
                Match::Source(vec![
                    span("10.0.0.0/8"),
                    span("192.0.2.7/32"),
                    ([192, 168, 1, 1].into(), [192, 168, 1, 9].into()),
                ]),
            ]),
        ),
        (r#"{"payload": {"protocol": "ip", "field": "saddr"}}"#, "==", r#""@gone""#, Match::Unread),
        (
            r#"{"payload": {"protocol": "ip", "field": "daddr"}}"#,
            "!=",
            r#""192.0.2.1""#,
            all(&[v4.clone(), Match::Destination(vec![span("192.0.2.1/32")]).not()]),
        ),
        (
            r#"{"payload": {"protocol": "tcp", "field": "dport"}}"#,
            "!=",
            r#"{"range": [80, 90]}"#,
            all(&[Match::Protocol(6), Match::DestinationPort(vec![(80, 90)]).not()]),
        ),
        (
            r#"{"payload": {"protocol": "th", "field": "dport"}}"#,
            ">",
            "1024",
            all(&[Match::DestinationPort(vec![(1025, 65_535)])]),
        ),
        (
            r#"{"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["fin", "syn", "rst", "ack"]]}"#,
            "==",
            r#""syn""#,
            all(&[Match::Protocol(6), any(Match::Flags { mask: 0x17, value: 2 })]),
        ),
        (
            r#"{"payload": {"protocol": "tcp", "field": "flags"}}"#,
            "in",
            r#""syn""#,
            all(&[Match::Protocol(6), Match::Flags { mask: 2, value: 0 }.not()]),
        ),
        (r#"{"payload": {"protocol": "ip", "field": "ttl"}}"#, "<", "3", all(&[v4, Match::Part])),
        (
            r#"{"fib": {"result": "oif", "flags": ["saddr", "mark", "iif"]}}"#,
            "==",
            "false",
            all(&[any(Match::RouteBack { strict: true, local: false }.not())]),
        ),
        (
            r#"{"fib": {"result": "check", "flags": ["saddr"]}}"#,
            "==",
            "true",
            all(&[any(Match::RouteBack { strict: false, local: false })]),
        ),
        (
            r#"{"fib": {"result": "type", "flags": ["daddr"]}}"#,
            "!=",
            r#"{"set": ["local", "broadcast"]}"#,
            all(&[Match::Any(vec![Match::DestinationLocal, Match::never()]).not()]),
        ),
        (r#"{"numgen": {"mode": "random", "mod": 10, "offset": 0}}"#, "<", "5", all(&[Match::Part])),
    ] {
        let statement = format!(
            r#"{{"match": {{"op": "{op}", "left": {left}, "right": {right}}}}}, {{"counter": null}}, {{"drop": null}}"#
        );
        assert_eq!(rules(&statement), [(vec![expected], Ruling::Drop)], "{left} {op} {right}");
    }
}

#[test]
fn maps_of_verdicts_are_rules_one_for_each_element() {
    let found = rules(r#"{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@vm"}}"#);
    let rulings: Vec<_> = found.iter().map(|(_, ruling)| ruling.clone()).collect();
    assert_eq!(rulings, [Ruling::Jump("sub".into()), Ruling::Accept]);
    assert_eq!(found[0].0, [all(&[Match::Any(vec![Match::Input("eth0".into())])])]);
    let both = r#"{"vmap": {"key": {"concat": [{"meta": {"key": "iifname"}}, {"meta": {"key": "oifname"}}]},
                   "data": {"set": [[{"concat": ["eth0", "eth1"]}, {"drop": null}]]}}}"#;
    let one = |part: Match| all(&[Match::Any(vec![part])]);
    let expected = all(&[one(Match::Input("eth0".into())), one(Match::Output("eth1".into()))]);
    assert_eq!(rules(both), [(vec![expected], Ruling::Drop)]);
    assert_eq!(rules(r#"{"vmap": {"key": {"osf": {}}, "data": "@vm"}}"#), [(vec![Match::Unread], Ruling::Hands)]);
}

#[test]
fn each_verdict_is_read() {
    for (statement, ruling) in [
        (r#"{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}"#, Ruling::Drop),
        (r#"{"log": {"prefix": "x"}}, {"jump": {"target": "sub"}}"#, Ruling::Jump("sub".into())),
        (r#"{"return": null}"#, Ruling::Return),
        (r#"{"queue": {"num": 5}}"#, Ruling::Queues(5, 5)),
        (r#"{"queue": null}"#, Ruling::Queues(0, 0)),
        (r#"{"queue": {"num": {"range": [1, 3]}, "flags": "fanout"}}"#, Ruling::Queues(1, 3)),
        (r#"{"queue": {"num": 5, "flags": ["bypass", "fanout"]}}"#, Ruling::Hands),
        (r#"{"queue": {"num": {"jhash": {}}}}"#, Ruling::Hands),
        (r#"{"masquerade": null}"#, Ruling::Nothing),
        (r#"{"something new": null}"#, Ruling::Hands),
    ] {
        assert_eq!(rules(statement), [(vec![], ruling)], "{statement}");
    }
    assert_eq!(rules(r#"{"limit": {"rate": 10}}, {"accept": null}"#), [(vec![Match::Part], Ruling::Accept)]);
}

#[test]
fn a_chain_is_where_its_hook_and_priority_put_it() {
    let chain = |kind: &str, hook: &str, priority: i32, more: &str| {
        let text = format!(r#"{{"type": "{kind}", "hook": "{hook}", "prio": {priority}, "policy": "drop"{more}}}"#);
        base("c", &serde_json::from_str(&text).unwrap())
    };
    let order = |hook, priority| chain("filter", hook, priority, "").map(|base| base.order);
    assert_eq!(order("prerouting", -301), Some(ChainOrder::Before));
    assert_eq!(order("prerouting", -300), Some(ChainOrder::Unknown));
    assert_eq!(order("prerouting", -299), Some(ChainOrder::Behind));
    assert_eq!(order("ingress", 0), Some(ChainOrder::Before));
    assert_eq!(order("input", 0), None);
    assert_eq!(chain("nat", "prerouting", -100, ""), None);
    let ingress = chain("filter", "ingress", 0, r#", "dev": ["eth0", "eth1"]"#).unwrap();
    assert!(ingress.drops && ingress.devices == ["eth0", "eth1"]);
}

#[test]
fn interfaces_of_chains_are_read_where_the_json_has_none() {
    let listed = r#"{"nftables": [{"chain": {"family": "netdev", "table": "n", "name": "in", "handle": 1, "type": "filter",
                    "hook": "ingress", "prio": 0, "policy": "accept"}}]}"#;
    let mut tables = tables(listed, |_, _| false).unwrap();
    assert!(tables.iter().any(lacks_devices));
    let header = |table: &str, devices: &str| {
        format!(
            "table {table} {{\n\tchain in {{\n\t\ttype filter hook ingress {devices} priority filter; policy accept;\n\t}}\n}}\n"
        )
    };
    add_devices(&mut tables, &header("netdev other", "device \"lo\""));
    assert!(tables.iter().any(lacks_devices));
    add_devices(&mut tables, &header("netdev n", "devices = { \"eth0\", \"eth1\" }"));
    assert_eq!(tables[0].bases[0].devices, ["eth0", "eth1"]);
}

#[test]
fn no_json_makes_it_panic() {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        Just("null"),
        Just("7"),
        Just("true"),
        Just("\"@bad\""),
        Just("\"tcp\""),
        Just("[]"),
        Just("\"saddr\""),
        Just("70000"),
    ];
    let value = leaf.prop_map(str::to_owned).prop_recursive(4, 40, 4, |inner| {
        let key = prop_oneof![
            Just("match"),
            Just("left"),
            Just("right"),
            Just("op"),
            Just("payload"),
            Just("protocol"),
            Just("field"),
            Just("vmap"),
            Just("key"),
            Just("data"),
            Just("set"),
            Just("concat"),
            Just("range"),
            Just("prefix"),
            Just("&"),
        ];
        prop_oneof![
            proptest::collection::vec((key, inner.clone()), 1..4).prop_map(|pairs| {
                let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
                format!("{{{}}}", pairs.join(", "))
            }),
            proptest::collection::vec(inner, 0..4).prop_map(|all| format!("[{}]", all.join(", "))),
        ]
    });
    proptest!(|(statements in proptest::collection::vec(value, 0..4))| {
        let _ = rules(&statements.join(", "));
    });
}
