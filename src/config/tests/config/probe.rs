//! How backends are looked after in TOML: `check`, `passive`, `discover`, and the option `-f`.

use crate::{plan, refused};
use loaded_config::plan::{Discover, Plan, Service};
use loaded_config::{Families, Overrides, Source, parse};
use loaded_ipc::{Check, CheckKind, Passive};

const NAME: &str = "f.toml";

/// Line 6 and more are `lines`, above the backend.
fn text(protocol: &str, ports: &str, lines: &str) -> String {
    format!(
        "[[service]]\nname = \"web\"\nvip = [\"192.0.2.100\"]\nprotocol = \"{protocol}\"\nports = {ports}\n{lines}\n\
         [[service.backend]]\naddress = \"198.51.100.11\"\n"
    )
}

fn service(protocol: &str, ports: &str, lines: &str) -> Service {
    plan(NAME, &text(protocol, ports, lines)).services.remove(0)
}

fn check(line: &str) -> Check {
    service("tcp", "[80]", &format!("check = {line}")).check.unwrap()
}

/// A service on TCP port 80 with a check, refused at `column` of line 6.
#[track_caller]
fn bad_check(line: &str, expected: &str) {
    refused(NAME, &text("tcp", "[80]", &format!("check = {line}")), &format!("6:{expected}"));
}

#[track_caller]
fn bad(protocol: &str, ports: &str, lines: &str, expected: &str) {
    refused(NAME, &text(protocol, ports, lines), expected);
}

#[test]
fn the_least_check_has_the_documented_defaults() {
    let expected = Check {
        kind: CheckKind::Icmp,
        interval: 2000,
        interval_down: 2000,
        timeout: 1000,
        jitter: 10,
        rise: 2,
        fall: 3,
    };
    assert_eq!(check("{ kind = \"icmp\" }"), expected);
    // A short interval shortens the rest with it.
    let short = check("{ kind = \"icmp\", interval = \"500ms\" }");
    assert_eq!((short.interval, short.interval_down, short.timeout), (500, 500, 500));
    let text = "{ kind = \"icmp\", interval = \"10s\", interval_down = \"1s\", timeout = \"1s\", jitter = 0, rise = 1, fall = 255 }";
    let expected =
        Check { interval: 10_000, interval_down: 1000, timeout: 1000, jitter: 0, rise: 1, fall: 255, ..expected };
    assert_eq!(check(text), expected);
}

#[test]
fn kinds_take_their_port_from_a_service_that_has_one() {
    assert_eq!(check("{ kind = \"tcp\" }").kind, CheckKind::Tcp { port: 80 });
    assert_eq!(check("{ kind = \"icmp+tcp\" }").kind, CheckKind::IcmpTcp { port: 80 });
    assert_eq!(check("{ kind = \"tcp\", port = 8080 }").kind, CheckKind::Tcp { port: 8080 });
    let udp = service("udp", "[514]", "check = { kind = \"udp\", send = \"?\" }").check.unwrap().kind;
    assert_eq!(udp, CheckKind::Udp { port: 514, send: b"?".to_vec(), expect: vec![] });
    let dns = |protocol, ports| {
        let check = service(protocol, ports, "check = { kind = \"dns\", name = \"example.com.\" }").check.unwrap();
        let CheckKind::Dns { port, name } = check.kind else { panic!("{check:?}") };
        assert_eq!(name, "example.com.");
        port
    };
    assert_eq!((dns("udp", "[5353]"), dns("udp", "\"any\""), dns("tcp", "[853]")), (5353, 53, 53));
}

/// The bad input: a check type that needs a missing field.
#[test]
fn missing_keys_of_a_kind_are_named() {
    bad_check("{ interval = \"1s\" }", "9: kind is missing; write kind =");
    bad_check("{ kind = \"udp\", port = 53 }", "9: send is missing; write what the backend answers to");
    bad_check("{ kind = \"dns\" }", "9: name is missing");
    bad_check("{ kind = \"udp\", send = \"\" }", "9: port is missing: a check of kind \"udp\" needs one");
    for (kind, protocol, ports) in [
        ("tcp", "tcp", "[80, 443]"),
        ("tcp", "tcp", "[\"80-81\"]"),
        ("http", "tcp", "\"any\""),
        ("icmp+tcp", "udp", "[53]"),
    ] {
        let expected = format!(
            "6:9: port is missing: a check of kind {kind:?} needs one, and service \"web\" does not have exactly one tcp port"
        );
        bad(protocol, ports, &format!("check = {{ kind = \"{kind}\" }}"), &expected);
    }
}

#[test]
fn keys_of_another_kind_are_refused() {
    bad_check(
        "{ kind = \"icmp\", port = 80 }",
        "26: port does not belong to a check of kind \"icmp\", which has no keys of",
    );
    bad_check(
        "{ kind = \"tcp\", path = \"/\" }",
        "25: path does not belong to a check of kind \"tcp\", which has port",
    );
    bad_check("{ kind = \"http\", send = \"x\" }", "26: send does not belong to a check of kind \"http\"");
    bad_check(
        "{ kind = \"dns\", name = \"a\", expect = \"x\" }",
        "37: expect does not belong to a check of kind \"dns\"",
    );
    bad_check("{ kind = \"tcp\", prot = 80 }", "25: unknown key \"prot\" in check; did you mean port?");
    bad_check("{ kind = \"https\" }", "18: there is no kind \"https\": the prober has no TLS library");
    bad_check("{ kind = \"htp\" }", "18: there is no check of kind \"htp\"; did you mean http?");
    bad_check(
        "{ kind = \"arp\" }",
        "18: there is no check of kind \"arp\"; write one of icmp, tcp, icmp+tcp, http, udp, dns",
    );
    bad_check("\"icmp\"", "9: check is \"icmp\", a string; write a table");
}

#[test]
fn an_http_check_asks_like_a_client_of_the_vip() {
    let http = |port, host: &str| CheckKind::Http {
        port,
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: host.to_owned(),
        status: (200, 399),
        via: None,
    };
    assert_eq!(check("{ kind = \"http\" }").kind, http(80, "192.0.2.100"));
    assert_eq!(check("{ kind = \"http\", port = 8080 }").kind, http(8080, "192.0.2.100:8080"));
    let six = text("tcp", "[80]", "check = { kind = \"http\", port = 81 }")
        .replace("192.0.2.100", "2001:db8::100")
        .replace("198.51.100.11", "2001:db8:2::11");
    assert_eq!(plan(NAME, &six).services[0].check.as_ref().unwrap().kind, http(81, "[2001:db8::100]:81"));
    let text =
        "{ kind = \"http\", method = \"HEAD\", path = \"/healthz?full=1\", host = \"www.example.com\", status = 204 }";
    let expected = CheckKind::Http {
        port: 80,
        method: "HEAD".to_owned(),
        path: "/healthz?full=1".to_owned(),
        host: "www.example.com".to_owned(),
        status: (204, 204),
        via: None,
    };
    assert_eq!(check(text).kind, expected);
    let asked = |via: &str| check(&format!("{{ kind = \"http\", via = {via:?} }}")).kind.via();
    assert_eq!(asked("127.0.0.1:974"), "127.0.0.1:974".parse().ok());
    assert_eq!(asked("[::1]:974"), "[::1]:974".parse().ok());
}

#[test]
fn what_goes_on_the_wire_is_checked() {
    let http = |key: &str, expected: &str| bad_check(&format!("{{ kind = \"http\", {key} }}"), expected);
    http("path = \"healthz\"", "33: \"healthz\" is not a path");
    http("path = \"/a b\"", "33: \"/a b\" is not a path");
    http("path = \"/\\r\\nX: 1\"", "33: \"/\\r\\nX: 1\" is not a path");
    http(&format!("path = \"/{}\"", "a".repeat(128)), "33: \"/aaa");
    http("method = \"get\"", "35: \"get\" is not an HTTP method");
    http("method = \"\"", "35: \"\" is not an HTTP method");
    http("host = \"a\\r\\nb\"", "33: \"a\\r\\nb\" is not a host");
    http("host = \"\"", "33: \"\" is not a host");
    for wrong in ["localhost:974", "127.0.0.1", "127.0.0.1:0", "0.0.0.0:974", "[ff02::1]:974"] {
        http(&format!("via = {wrong:?}"), &format!("32: {wrong:?} is not where a checker listens"));
    }
    http("status = 99", "35: status is 99; write a number from 200 to 599");
    http("status = \"200-600\"", "35: \"600\" is not a number from 200 to 599");
    http("status = 103", "35: 103 has the status of an interim answer (1xx), which decides nothing; write 200 to 599");
    http("status = \"100-399\"", "35: 100-399 has the status of an interim answer (1xx)");
    http("status = \"399-200\"", "35: the range 399-200 runs backwards; write 200-399");
    let dns = |name: &str, expected: &str| bad_check(&format!("{{ kind = \"dns\", name = \"{name}\" }}"), expected);
    for wrong in ["", ".", "a..b", ".a", "a b", "ü.example", &format!("{}.example", "a".repeat(64))] {
        dns(wrong, &format!("32: {wrong:?} is not a DNS name"));
    }
    dns(&"abc.".repeat(33), "32: \"abc.");
    let udp = |line: &str| service("udp", "[9]", &format!("check = {{ kind = \"udp\", {line} }}")).check.unwrap().kind;
    let expected = CheckKind::Udp { port: 9, send: vec![0, 255], expect: vec![b'o', b'k', 0] };
    assert_eq!(udp("send = [0x00, 0xff], expect = \"ok\\u0000\""), expected);
    bad("udp", "[9]", "check = { kind = \"udp\", send = [256] }", "6:33: send is 256; write a number from 0 to 255");
    let long = format!("check = {{ kind = \"udp\", send = \"{}\" }}", "a".repeat(129));
    bad("udp", "[9]", &long, "6:32: send has 129 bytes; at most 128 fit");
}

#[test]
fn the_pace_is_checked() {
    let pace = |keys: &str, expected: &str| bad_check(&format!("{{ kind = \"icmp\", {keys} }}"), expected);
    pace("interval = \"99ms\"", "37: \"99ms\" is not a duration from 100ms to 1d");
    pace("interval = \"25h\"", "37: \"25h\" is not a duration from 100ms to 1d");
    pace("interval = 2", "37: interval is 2, a number; write in quotes one number and ms");
    pace("timeout = \"9ms\"", "36: \"9ms\" is not a duration from 10ms to 1m");
    pace(
        "timeout = \"2001ms\"",
        "36: timeout is 2001ms, but a check must be over before the next begins; write at most 2s",
    );
    pace(
        "timeout = \"1s\", interval_down = \"500ms\"",
        "36: timeout is 1s, but a check must be over before the next begins; write at most 500ms",
    );
    pace("jitter = 51", "35: jitter is 51; write a number from 0 to 50");
    pace("rise = 0", "33: rise is 0; write a number from 1 to 255");
    pace("fall = 256", "33: fall is 256; write a number from 1 to 255");
}

#[test]
fn passive_judgement_comes_with_a_check() {
    let passive = |ports: &str, lines: &str| service("tcp", ports, lines).policy.passive;
    let default = Passive { fails: 3, timeout: 500, hold: 10, port: None };
    let icmp = "check = { kind = \"icmp\" }";
    assert_eq!(passive("[80]", ""), None);
    assert_eq!(passive("[80]", icmp), Some(default));
    assert_eq!(passive("[80]", &format!("{icmp}\npassive = false")), None);
    assert_eq!(passive("[80]", "passive = true"), Some(default));
    assert_eq!(passive("[80]", "passive = { port = 80 }"), Some(Passive { port: Some(80), ..default }));
    let some = Passive { fails: 1, timeout: 50, hold: 3600, port: Some(443) };
    let text = "passive = { fails = 1, timeout = \"50ms\", hold = \"1h\", port = 443 }";
    assert_eq!(passive("[80, 443]", text), Some(some));
    // Many ports: the check's, if clients open it too; else packets tell nothing unasked.
    let tcp = |port: u16| format!("check = {{ kind = \"tcp\", port = {port} }}");
    assert_eq!(passive("[80, 443]", &tcp(443)), Some(Passive { port: Some(443), ..default }));
    assert_eq!(passive("\"any\"", &tcp(443)), Some(Passive { port: Some(443), ..default }));
    assert_eq!(passive("[80, 443]", &tcp(8080)), None);
    assert_eq!(passive("[80, 443]", icmp), None);
    assert_eq!(passive("[80]", &tcp(8080)), Some(default));
}

#[test]
fn passive_judgement_is_checked() {
    let many =
        "6:11: passive needs a port: service \"web\" has many, and a client that tries a closed one would take healthy";
    bad("tcp", "[80, 443]", "passive = true", many);
    bad("tcp", "\"any\"", "passive = {}", many);
    bad("tcp", "[80, 443]", "passive = true\ncheck = { kind = \"tcp\", port = 8080 }", many);
    bad("tcp", "[80]", "passive = { port = 81 }", "6:20: 81 is no port of service \"web\"");
    bad("tcp", "[80]", "passive = \"yes\"", "6:11: passive is \"yes\", a string; write true, false or a table");
    bad("tcp", "[80]", "passive = { fail = 1 }", "6:13: unknown key \"fail\" in passive; did you mean fails?");
    bad("tcp", "[80]", "passive = { fails = 0 }", "6:21: fails is 0; write a number from 1 to 255");
    bad("tcp", "[80]", "passive = { timeout = \"49ms\" }", "6:23: \"49ms\" is not a duration from 50ms to 1m");
    bad("tcp", "[80]", "passive = { hold = \"2h\" }", "6:20: \"2h\" is not a duration from 1s to 1h");
}

const ICMP: &str = "check = { kind = \"icmp\" }\n";

fn discover(line: &str) -> Discover {
    service("tcp", "[80]", &format!("{ICMP}discover = {line}")).discover.unwrap()
}

#[test]
fn discovery_asks_the_broadcast_address_or_all_nodes() {
    let found = discover("{ network = \"198.51.100.0/24\" }");
    assert_eq!((found.limit, found.interval, found.places.len()), (64, 10_000, 1));
    assert_eq!(found.places[0].to_string(), "198.51.100.0/24, asked by 198.51.100.255");
    let found = discover(
        "{ network = [\"10.0.0.0/30\", \"10.1.0.0/8\"], limit = 1 }".replace("10.1.0.0/8", "11.0.0.0/8").as_str(),
    );
    assert_eq!(found.places[1].to.to_string(), "11.255.255.255");
    let found = discover(
        "{ network = \"198.51.100.0/24\", to4 = \"198.51.100.127\", interface = \"eth1\", interval = \"1s\" }",
    );
    assert_eq!(found.places[0].to_string(), "198.51.100.0/24, asked by 198.51.100.127 on eth1");
    // A service may have no other backend.
    let line =
        format!("{ICMP}discover = {{ network = [\"198.51.100.0/24\", \"2001:db8:2::/64\"], interface = \"eth1\" }}");
    let text = text("tcp", "[80]", &line).replace("\"192.0.2.100\"", "\"192.0.2.100\", \"2001:db8:1::100\"");
    let (alone, _) = text.split_once("[[service.backend]]").unwrap();
    let plan = plan(NAME, alone);
    assert_eq!(plan.services[0].backends, []);
    let places = |plan: &Plan| plan.services[0].discover.as_ref().unwrap().places.clone();
    assert_eq!(places(&plan)[1].to_string(), "2001:db8:2::/64, asked by ff02::1 on eth1");
    let overrides = Overrides { families: Families::V6, ..Overrides::default() };
    let narrowed = parse(&[Source::new(NAME, alone)], &overrides).unwrap().plan;
    assert_eq!(places(&narrowed), &places(&plan)[1..]);
    // Backups alone are enough where others can be found.
    let backup = text.replace("2001:db8:2::11", "2001:db8:3::11") + "backup = true\n";
    assert!(crate::plan(NAME, &backup).services[0].backends[0].backup);
}

#[test]
fn discovery_is_checked() {
    let place = |line: &str, expected: &str| {
        bad("tcp", "[80]", &format!("{ICMP}discover = {{ {line} }}"), &format!("7:{expected}"));
    };
    bad("tcp", "[80]", "discover = { network = \"10.0.0.0/8\" }", "6:12: discover needs a check too");
    place("limit = 5", "12: network is missing");
    place("network = []", "24: network is empty");
    place("network = \"10.0.0.0\"", "24: \"10.0.0.0\" has no prefix length");
    place("network = \"10.0.0.1/8\"", "24: 10.0.0.1/8 has host bits set; write 10.0.0.0/8");
    place("network = \"10.0.0.0/7\"", "24: 10.0.0.0/7 cannot be searched: its prefix length is not between /8 and /30");
    place("network = \"10.0.0.0/31\"", "24: 10.0.0.0/31 cannot be searched");
    place(
        "network = \"2001:db8::/47\"",
        "24: 2001:db8::/47 cannot be searched: its prefix length is not between /48 and",
    );
    place("network = \"127.0.0.0/8\"", "24: 127.0.0.0/8 has no addresses that backends can have");
    place("network = \"224.0.0.0/24\"", "24: 224.0.0.0/24 has no addresses that backends can have");
    place("network = \"fe80::/64\"", "24: fe80::/64 has no addresses that backends can have");
    place("network = \"2001:db8::/64\"", "24: 2001:db8::/64 is an IPv6 network, but service \"web\" has no IPv6 VIP");
    place(
        "network = [\"10.0.0.0/24\", \"10.0.0.0/25\"]",
        "40: the networks 10.0.0.0/24 and 10.0.0.0/25 overlap (see f.toml:7:25)",
    );
    place("network = \"10.0.0.0/24\", to4 = \"10.0.1.255\"", "45: 10.0.1.255 is outside of every IPv4 network here");
    place("network = \"10.0.0.0/24\", interface = \"a/b\"", "51: \"a/b\" is not the name of an interface");
    place("network = \"10.0.0.0/24\", limit = 1025", "47: limit is 1025; write a number from 1 to 1024");
    place("network = \"10.0.0.0/24\", interval = \"999ms\"", "50: \"999ms\" is not a duration from 1s to 1d");
    place("network = \"10.0.0.0/24\", nic = \"eth1\"", "39: unknown key \"nic\" in discover; it takes network,");
    let six = text("tcp", "[80]", &format!("{ICMP}discover = {{ network = \"2001:db8:2::/64\" }}"))
        .replace("\"192.0.2.100\"", "\"192.0.2.100\", \"2001:db8:1::100\"");
    refused(NAME, &six, "7:24: interface is missing: ff02::1 exists on every link");
}

#[test]
fn failover_gives_a_check_to_services_without_one() {
    let both = text("tcp", "[80]", "") + &text("tcp", "[81]", "check = { kind = \"tcp\" }").replace("web", "second");
    let failover = Overrides { failover: true, ..Overrides::default() };
    let plan = parse(&[Source::new(NAME, both)], &failover).unwrap().plan;
    let [first, second] = plan.services.as_slice() else { panic!("{plan}") };
    assert_eq!(first.check, Some(check("{ kind = \"icmp\" }")));
    assert_eq!(first.policy.passive, Some(Passive { fails: 3, timeout: 500, hold: 10, port: None }));
    assert_eq!(second.check, Some(Check { kind: CheckKind::Tcp { port: 81 }, ..check("{ kind = \"icmp\" }") }));
}

/// A datagram may go unanswered for many good reasons.
#[test]
fn udp_services_are_not_judged_by_packets() {
    let check = "check = { kind = \"udp\", send = \"?\" }";
    assert_eq!(service("udp", "[514]", check).policy.passive, None);
    bad("udp", "[514]", "passive = true", "6:11: passive judges by TCP connections, and a service of protocol \"udp\"");
}
