//! `loaded.toml`.

use crate::{plan, refused, refused_too};
use loaded_config::plan::Plan;
use loaded_config::{Families, MAGLEV_SEED, Overrides, Source, parse};
use loaded_ipc::{Affinity, AllDown, Idle, Mode, OnBackendDown, Policy, PortRange, Protocol, Strategy};

const NAME: &str = "f.toml";

/// Line 5 is free for one more key of the service; the backend is line 7.
fn service(line: &str) -> String {
    format!(
        "[[service]]\nname = \"web\"\nvip = \"192.0.2.100\"\nprotocol = \"tcp\"\n{line}\n\
         [[service.backend]]\naddress = \"198.51.100.11\"\n"
    )
}

/// A good service but for its line 5, beside `ports` if that is not the line.
#[track_caller]
fn fifth_line(line: &str, expected: &str) {
    refused(NAME, &service(line), expected);
}

#[track_caller]
fn with_ports(line: &str, expected: &str) {
    let text = service(line).replace("protocol = \"tcp\"", "protocol = \"tcp\"; ports = [80]").replace("; ", "\n");
    refused(NAME, &text, expected);
}

/// A key at the top of a good file, line 1.
#[track_caller]
fn top(line: &str, expected: &str) {
    refused(NAME, &format!("{line}\n{}", service("ports = [80]")), expected);
}

/// A line in the backend's table, line 8.
#[track_caller]
fn backend(line: &str, expected: &str) {
    refused(NAME, &format!("{}{line}\n", service("ports = [80]")), expected);
}

fn good(line: &str) -> Plan {
    plan(NAME, &service(&format!("ports = [80]\n{line}")))
}

#[test]
fn the_least_service_has_the_documented_defaults() {
    let plan = good("");
    let service = &plan.services[0];
    assert_eq!((service.protocol, service.strategy), (Protocol::Tcp, Strategy::RoundRobin));
    assert_eq!(service.ports, [PortRange { low: 80, high: 80 }]);
    assert_eq!(service.affinity, Some(Affinity { prefix4: 32, prefix6: 64, timeout: 3600 }));
    assert_eq!((plan.user.as_str(), plan.cores, plan.queue_base), ("nobody", None, 0));
    assert_eq!((plan.queue_len, plan.flows, plan.clients, plan.drain), (16384, 262_144, 262_144, 300));
    let policy = Policy {
        on_backend_down: OnBackendDown::Reset,
        all_down: AllDown::Reject,
        panic_threshold: 0,
        slow_start: 0,
        idle: Idle::STANDARD,
        passive: None,
        asymmetric: false,
        adopt: true,
    };
    assert_eq!((service.policy, &service.check, &service.discover), (policy, &None, &None));
    assert!(!service.backends[0].backup);
}

#[test]
fn values_reach_the_plan() {
    assert_eq!(good("strategy = \"maglev\"").services[0].strategy, Strategy::Maglev { seed: MAGLEV_SEED });
    assert_eq!(good("strategy = \"maglev\"\nseed = 0xff").services[0].strategy, Strategy::Maglev { seed: 255 });
    assert_eq!(good("affinity = \"none\"").services[0].affinity, None);
    let affinity = good("affinity = { by = \"client\", prefix4 = 24, timeout = \"90s\" }").services[0].affinity;
    assert_eq!(affinity, Some(Affinity { prefix4: 24, prefix6: 64, timeout: 90 }));
    let idle = good("idle = { tcp = \"7d\", half_open = \"1s\" }").services[0].policy.idle;
    assert_eq!(idle, Idle { tcp: 604_800, half_open: 1, ..Idle::STANDARD });
    let open = good("asymmetric = true");
    assert!(open.services[0].policy.asymmetric && open.to_string().contains("asymmetric yes: by whatever interface"));
    with_ports("asymmetric = 1", "6:14: asymmetric is 1, a number; write true or false");
    let text = service("ports = [443, \"8000-8010\", 80]");
    let ports: Vec<String> = plan(NAME, &text).services[0].ports.iter().map(ToString::to_string).collect();
    assert_eq!(ports, ["80", "443", "8000-8010"]);
    let cores = |text: &str| plan(NAME, &format!("cores = {text}\n{}", service("ports = \"any\""))).cores;
    assert_eq!((cores("\"1-3\""), cores("\"2\""), cores("2")), (Some((1, 3)), Some((2, 2)), Some((2, 2))));
}

#[test]
fn a_backend_is_counted_in_each_service() {
    let text = format!("{}{}", service("ports = [80]"), service("ports = [443]").replace("web", "tls"));
    let plan = plan(NAME, &text);
    assert_eq!(plan.services[0].backends, plan.services[1].backends);
}

#[test]
fn policies_reach_the_plan() {
    let text = "on_backend_down = \"rehash\"\nall_down = \"last\"\npanic_threshold = 50\nslow_start = \"30s\"";
    let policy = good(text).services[0].policy;
    assert_eq!((policy.on_backend_down, policy.all_down), (OnBackendDown::Rehash, AllDown::Last));
    assert_eq!((policy.panic_threshold, policy.slow_start), (50, 30));
    assert_eq!(good("slow_start = \"0s\"").services[0].policy.slow_start, 0);
    assert_eq!(plan(NAME, &format!("drain = \"7d\"\n{}", service("ports = [80]"))).drain, 604_800);
    let text = service("ports = [80]") + "[[service.backend]]\naddress = \"198.51.100.12\"\nbackup = true\n";
    let backups: Vec<bool> = plan(NAME, &text).services[0].backends.iter().map(|backend| backend.backup).collect();
    assert_eq!(backups, [false, true]);
}

#[test]
fn policies_are_checked() {
    with_ports("on_backend_down = \"kill\"", "6:19: on_backend_down cannot be \"kill\"; write reset, rehash or drain");
    with_ports("on_backend_down = 1", "6:19: on_backend_down is 1, a number");
    with_ports("all_down = \"rejct\"", "6:12: all_down cannot be \"rejct\"; write reject, drop or last");
    with_ports("panic_threshold = 101", "6:19: panic_threshold is 101; write a number from 0 to 100");
    with_ports("panic_threshold = \"50%\"", "6:19: panic_threshold is \"50%\", a string");
    with_ports("slow_start = \"61m\"", "6:14: \"61m\" is not a duration from 0s to 1h");
    with_ports("slow_start = \"500ms\"", "6:14: \"500ms\" is finer than a second");
    top("drain = \"0s\"", "1:9: \"0s\" is not a duration from 1s to 7d");
    top("drain = \"8d\"", "1:9: \"8d\" is not a duration from 1s to 7d");
    backend("backup = \"yes\"", "8:10: backup is \"yes\", a string; write true or false");
    backend("backup = true", "7:11: service \"web\" has IPv4 backups only; at least one backend must not be a backup");
}

#[test]
fn unknown_keys_name_the_nearest() {
    top("usr = \"x\"", "1:1: unknown key \"usr\" in the top level; did you mean user?");
    top("queue-len = 1", "1:1: unknown key \"queue-len\" in the top level; did you mean queue_len?");
    top("colour = 1", "1:1: unknown key \"colour\" in the top level; it takes user, cores,");
    fifth_line("prots = [80]", "5:1: unknown key \"prots\" in [[service]]; did you mean ports?");
    with_ports("Strategy = \"rr\"", "6:1: unknown key \"Strategy\" in [[service]]; did you mean strategy?");
    backend("wieght = 2", "8:1: unknown key \"wieght\" in [[service.backend]]; did you mean weight?");
    with_ports(
        "affinity = { by = \"client\", prefix = 4 }",
        "6:29: unknown key \"prefix\" in affinity; did you mean prefix4?",
    );
    refused(
        NAME,
        "[[services]]\nname = \"a\"\n",
        "1:3: unknown key \"services\" in the top level; did you mean \
        service?",
    );
    refused_too(NAME, "VIP4=1\n", "1:1: unknown key \"VIP4\" in the top level");
}

#[test]
fn keys_of_later_versions_are_refused() {
    with_ports("limit = 5", "6:1: limit is not part of this version; remove it");
    top("metrics = \"localhost:9273\"", "1:11: \"localhost:9273\" is no address with a port; write");
    with_ports("mode = \"tun\"", "6:8: there is no mode \"tun\"; write nat or dsr");
}

#[test]
fn a_group_may_read_with_and_without_metrics() {
    let read = |top: &str| {
        let source = Source::new(NAME, format!("{top}\n{}", service("ports = [80]")));
        parse(&[source], &Overrides::default()).unwrap().plan
    };
    let plan = read("metrics = \"unix:/run/m.sock\"\nmonitor_group = \"adm\"");
    assert_eq!(
        (plan.metrics.unwrap().to_string().as_str(), plan.monitor_group.as_deref()),
        ("unix:/run/m.sock", Some("adm"))
    );
    for top in ["monitor_group = \"adm\"", "monitor_group = \"adm\"\nmetrics = \"[::1]:9273\""] {
        assert_eq!(read(top).monitor_group.as_deref(), Some("adm"), "{top}");
    }
}

#[test]
fn direct_server_return_is_a_mode_that_judges_no_packets() {
    assert_eq!(good("").services[0].mode, Mode::Nat);
    assert_eq!(good("mode = \"nat\"").services[0].mode, Mode::Nat);
    let plan = good("mode = \"dsr\"\ncheck = { kind = \"tcp\" }");
    assert_eq!(plan.services[0].mode, Mode::Dsr);
    assert_eq!(plan.services[0].policy.passive, None, "which a check alone would bring with nat");
    let nothing = "7:14: in mode \"dsr\" replies do not come this way, so asymmetric = true has no effect; take it out";
    with_ports("mode = \"dsr\"; asymmetric = true", nothing);
    assert!(!good("mode = \"dsr\"\nasymmetric = false").to_string().contains("asymmetric"));
    assert!(!good("mode = \"dsr\"\nadopt = false").to_string().contains("adopt"));
    let unseen = "7:11: in mode \"dsr\" no worker sees what backends answer; leave passive out";
    with_ports("mode = \"dsr\"; passive = true", unseen);
    with_ports("mode = \"dsr\"; passive = { fails = 2 }", unseen);
}

#[test]
fn keys_in_the_wrong_table_are_shown_their_place() {
    top("failover = true", "1:1: failover has no place in the top level; it belongs into the classic format");
    top("check = {}", "1:1: check has no place in the top level; it belongs into a [[service]]");
    top("control = \"/run/x\"", "1:1: control has no place in the top level; it belongs on the command line");
    with_ports(
        "drain = \"1m\"",
        "6:1: drain has no place in [[service]]; it belongs to the top level, above the first",
    );
    backend(
        "slow_start = \"1s\"",
        "8:1: slow_start has no place in [[service.backend]]; it belongs into the [[service]]",
    );
    with_ports(
        "on_backend_dwon = \"reset\"",
        "6:1: unknown key \"on_backend_dwon\" in [[service]]; did you mean on_backend_down?",
    );
    with_ports("checks = {}", "6:1: unknown key \"checks\" in [[service]]; did you mean check?");
}

#[test]
fn broken_toml_has_a_place() {
    refused(NAME, "user = \n", "1:8: not TOML: ");
    refused(NAME, "cores = 1\ncores = 2\n", "2:1: not TOML: ");
    refused_too(NAME, "user = \"a\u{fffd}\"\n[[service]]\n", "1:8: \"a\u{fffd}\" is not an account name");
    refused_too(NAME, "[[service]]\nvip = \"192.0.2.1\"\n", "1:1: name is missing; write name =");
    refused(NAME, "", "1:1: service is missing; write a [[service]]");
    refused(NAME, "[service]\nname = \"a\"\n", "1:1: there may be several; write [[service]] in [[ ]]");
}

#[test]
fn types_and_ranges_are_checked() {
    top("user = 5", "1:8: user is 5, a number; write a string in quotes");
    top("queue_len = \"5\"", "1:13: queue_len is \"5\", a string; write a number without quotes");
    top("queue_len = 0", "1:13: queue_len is 0; write a number from 1 to 10485760");
    top("queue_len = -1", "1:13: queue_len is -1; write a number from 1 to 10485760");
    top("queue_base = 65536", "1:14: queue_base is 65536; write a number from 0 to 65535");
    top("quota = { percent = 0 }", "1:21: percent is 0; write a number from 1 to 100");
    top("quota = { prefix4 = 33 }", "1:21: prefix4 is 33; write a number from 1 to 32");
    top("quota = { share = 3 }", "1:11: unknown key \"share\" in quota");
    top("quota = 3", "1:9: quota is 3, a number; write a table");
    top("flows = 1023", "1:9: flows is 1023; write a number from 1024 to 67108864");
    top(
        "clients = 99999999999999999999999999999999999999999",
        "1:11: clients is 99999999999999999999999999999999999999999; write a number from",
    );
    top("cores = \"3-1\"", "1:9: the range 3-1 runs backwards; write 1-3");
    top("cores = \"0,2\"", "1:9: \"0,2\" is not a number");
    top("queue_base = 65530\ncores = \"0-9\"", "2:9: core 9 would answer queue 65530 + 9");
    top("nameservers = []", "1:15: nameservers is empty");
    top("nameservers = [\"192.0.2.53\", \"dns\"]", "1:30: \"dns\" is not an IP address");
    backend("weight = 0", "8:10: weight is 0; write a number from 1 to 256");
    backend("weight = 257", "8:10: weight is 257; write a number from 1 to 256");
    backend("weight = 1.5", "8:10: weight is 1.5, a number with a fraction");
}

#[test]
fn root_is_no_worker() {
    top("user = \"root\"", "1:8: workers read hostile packets and never run as root");
    top("user = \"0\"", "1:8: workers read hostile packets and never run as root");
    top("user = \"\"", "1:8: \"\" is not an account name");
    top("user = \"a:b\"", "1:8: \"a:b\" is not an account name");
}

#[test]
fn ports_are_checked() {
    fifth_line("", "1:1: ports is missing; write ports = [80, 443] or ports = \"any\"");
    fifth_line("ports = 80", "5:9: ports is 80, a number");
    fifth_line("ports = \"80\"", "5:9: ports is \"80\"; write an array");
    fifth_line("ports = []", "5:9: ports is empty");
    fifth_line("ports = [0]", "5:10: ports is 0; write a number from 1 to 65535");
    fifth_line("ports = [80, 65536]", "5:14: ports is 65536; write a number from 1 to 65535");
    fifth_line("ports = [\"0-5\"]", "5:10: \"0\" is not a number from 1 to 65535");
    fifth_line("ports = [\"90-80\"]", "5:10: the range 90-80 runs backwards; write 80-90");
    fifth_line("ports = [443, \"80-90\", 85]", "5:24: ports 80-90 and 85 overlap (see f.toml:5:15)");
    fifth_line("ports = [80, 80]", "5:14: ports 80 and 80 overlap (see f.toml:5:10)");
    let any = service("ports = [80]").replace("\"tcp\"", "\"any\"");
    refused(NAME, &any, "5:9: protocol \"any\" takes every port");
    refused(
        NAME,
        &service("").replace("tcp", "dccp"),
        "4:12: there is no protocol \"dccp\"; write tcp, udp, sctp or any",
    );
}

#[test]
fn strategy_and_affinity_are_checked() {
    with_ports("strategy = \"random\"", "6:12: there is no strategy \"random\"");
    with_ports("seed = 1", "6:8: strategy rr has no seed; only maglev has one");
    with_ports("seed = -1", "6:8: seed is -1; write a number from 0 to 9223372036854775807");
    with_ports("affinity = \"source\"", "6:12: there is no affinity \"source\"");
    with_ports("affinity = { prefix4 = 24 }", "6:12: by is missing; write by = \"client\"");
    with_ports("affinity = { by = \"cookie\" }", "6:19: affinity by \"cookie\" does not exist");
    with_ports("affinity = { by = \"client\", prefix4 = 33 }", "6:39: prefix4 is 33; write a number from 1 to 32");
    with_ports("affinity = { by = \"client\", prefix6 = 0 }", "6:39: prefix6 is 0; write a number from 1 to 128");
    with_ports("affinity = { by = \"client\", timeout = \"500ms\" }", "6:39: \"500ms\" is finer than a second");
    with_ports("affinity = { by = \"client\", timeout = \"1 h\" }", "6:39: \"1 h\" is not a duration");
    with_ports("affinity = { by = \"client\", timeout = 60 }", "6:39: timeout is 60, a number");
    with_ports("idle = \"30s\"", "6:8: idle is \"30s\", a string");
    with_ports("idle = { tcp = 30 }", "6:16: tcp is 30, a number");
    with_ports("idle = { udp = \"0s\" }", "6:16: \"0s\" is not a duration from 1s to 7d");
    with_ports("idle = { echo = \"8d\" }", "6:17: \"8d\" is not a duration from 1s to 7d");
    with_ports("idle = { half-open = \"1s\" }", "6:10: unknown key \"half-open\" in idle; did you mean half_open?");
}

#[test]
fn names_and_addresses_are_checked() {
    let with = |from: &str, to: &str| service("ports = [80]").replace(from, to);
    refused(NAME, &with("\"web\"", "\"\""), "2:8: \"\" is not a service name");
    refused(NAME, &with("\"web\"", "\"a b\""), "2:8: \"a b\" is not a service name");
    refused(NAME, &with("\"192.0.2.100\"", "\"192.0.2\""), "3:7: \"192.0.2\" is not an IP address");
    refused(NAME, &with("\"192.0.2.100\"", "[]"), "3:7: vip is empty");
    refused(
        NAME,
        &with("\"192.0.2.100\"", "[\"192.0.2.1\", \"192.0.2.1\"]"),
        "3:21: service \"web\" has the VIP 192.0.2.1 twice",
    );
    refused(NAME, &with("\"192.0.2.100\"", "\"::1\""), "3:7: ::1 is a loopback address");
    refused(NAME, &with("198.51.100.11", "224.0.0.1"), "7:11: 224.0.0.1 is a multicast address");
    refused(
        NAME,
        &with("198.51.100.11", "192.0.2.100"),
        "7:11: 192.0.2.100 is a VIP and cannot be a backend too (see f.toml:3:7)",
    );
    refused(
        NAME,
        &with("198.51.100.11", "2001:db8::1"),
        "3:7: 192.0.2.100 is an IPv4 VIP, but service \"web\" has no IPv4 backend",
    );
    refused(NAME, &with("[[service.backend]]\naddress = \"198.51.100.11\"", ""), "1:1: backend is missing");
    refused(NAME, &with("[[service.backend]]\naddress = \"198.51.100.11\"", "backend = []"), "6:11: backend is empty");
    backend("[[service.backend]]\naddress = \"198.51.100.11\"", "9:11: 198.51.100.11 is a backend of \"web\" twice");
    backend(
        "[[service.backend]]\naddress = \"2001:db8::1\"",
        "9:11: 2001:db8::1 is an IPv6 backend, but service \"web\" has no IPv6 VIP",
    );
    backend("[[service.backend]]\nweight = 1", "8:1: address is missing");
}

#[test]
fn services_do_not_overlap() {
    let two = |line: &str, change: (&str, &str)| {
        let second = service(line).replace("web", "second").replace(change.0, change.1);
        format!("{}{second}", service("ports = [80, \"8000-8010\"]"))
    };
    let same = ("", "");
    let expected = "10:7: services \"web\" and \"second\" both claim 192.0.2.100";
    refused(NAME, &two("ports = [8080, \"8005-8020\"]", same), &format!("{expected} tcp port 8005 (see f.toml:3:7)"));
    refused(NAME, &two("ports = \"any\"", same), &format!("{expected} tcp port 80"));
    refused(NAME, &two("", ("\"tcp\"", "\"any\"")), &format!("{expected}, one of them for every protocol and port"));
    plan(NAME, &two("ports = [8080]", same));
    plan(NAME, &two("ports = [80]", ("\"tcp\"", "\"udp\"")));
    plan(NAME, &two("ports = [80]", ("192.0.2.100", "192.0.2.101")));
    let twice = format!("{}{}", service("ports = [80]"), service("ports = [81]"));
    refused(NAME, &twice, "9:8: a second service is named \"web\" (see f.toml:2:8)");
    let crossed = two("ports = [81]", ("198.51.100.11", "192.0.2.101")).replacen("192.0.2.100", "192.0.2.101", 1);
    refused(NAME, &crossed, "14:11: 192.0.2.101 is a VIP and cannot be a backend too (see f.toml:3:7)");
}

#[test]
fn sizes_are_bounded() {
    let many = |count: u32, least: u32| (least..least + count).map(|n| n.to_string()).collect::<Vec<_>>();
    plan(NAME, &service(&format!("ports = [{}]", many(256, 1).join(","))));
    fifth_line(&format!("ports = [{}]", many(257, 1).join(",")), "5:926: more than 256 port ranges in one service");
    let services: String =
        (1..=257).map(|n| service(&format!("ports = [{n}]")).replace("web", &format!("s{n}"))).collect();
    refused(NAME, &services, "1794:8: more than 256 services");
    let backends = |count: u32| -> String {
        let one = |n: u32| format!("[[service.backend]]\naddress = \"10.0.{}.{}\"\n", n >> 8, n & 255);
        service("ports = [80]") + &(1..count).map(one).collect::<String>()
    };
    assert_eq!(plan(NAME, &backends(4096)).services[0].backends.len(), 4096);
    refused(NAME, &backends(4097), "8199:11: more than 4096 backends");
    // The same address in another service counts again, and so does what may be found.
    let twice = backends(4096) + &service("ports = [81]").replace("web", "second");
    refused(NAME, &twice, "8204:11: more than 4096 backends");
    let discover = "check = { kind = \"icmp\" }\ndiscover = { network = \"10.0.0.0/8\", limit = 64 }\nports = [80]";
    let found = |count: u32| backends(count).replace("ports = [80]", discover);
    assert_eq!(plan(NAME, &found(4032)).services[0].backends.len(), 4032);
    refused(NAME, &found(4033), "6:12: more than 4096 backends, counting those that discover may add");
}

#[test]
fn narrowing_drops_services_of_the_other_family() {
    let six = service("ports = [80]")
        .replace("web", "six")
        .replace("192.0.2.", "2001:db8::")
        .replace("198.51.100.", "2001:db8:2::");
    let sources = [Source::new(NAME, format!("{}{six}", service("ports = [80]")))];
    let names = |families| -> Vec<String> {
        let plan = parse(&sources, &Overrides { families, ..Overrides::default() }).unwrap().plan;
        plan.services.into_iter().map(|service| service.name).collect()
    };
    assert_eq!(names(Families::Both), ["web", "six"]);
    assert_eq!(names(Families::V4), ["web"]);
    assert_eq!(names(Families::V6), ["six"]);
}

#[test]
fn toml_stands_alone() {
    let sources = [Source::new("f", "VIP4=192.0.2.1\n"), Source::new(NAME, service("ports = [80]"))];
    let error = parse(&sources, &Overrides::default()).unwrap_err().to_string();
    assert!(error.starts_with("f.toml: refused: a TOML file is a whole configuration"), "{error}");
}

/// `[on_failure]` with these lines (from line 2), then a service of this mode.
fn failing(lines: &str, mode: &str) -> String {
    format!("[on_failure]\n{lines}\n{}", service(&format!("ports = [80]\nmode = \"{mode}\"")))
}

#[test]
fn failures_are_closed_unless_something_else_is_said() {
    use loaded_config::plan::Failures;
    use loaded_ipc::OnFailure::{Drop, Pass};
    let failures = |lines: &str, mode: &str| plan(NAME, &failing(lines, mode)).on_failure;
    assert_eq!(good("").on_failure, Failures::CLOSED);
    let closed = "no_worker = \"drop\"\nqueue_full = \"drop\"\nreceive_overrun = \"drop\"\nparse_error = \"drop\"";
    assert_eq!(failures(closed, "nat"), Failures::CLOSED);
    for (lines, expected) in [
        ("no_worker = \"pass\"", Failures { no_worker: Pass, ..Failures::CLOSED }),
        ("queue_full = \"pass\"", Failures { queue_full: Pass, ..Failures::CLOSED }),
        ("queue_full = \"pass\"\nreceive_overrun = \"pass\"", Failures { queue_full: Pass, ..Failures::CLOSED }),
        (
            "parse_error = \"pass\"\nno_worker = \"drop\"",
            Failures { parse_error: Pass, no_worker: Drop, ..Failures::CLOSED },
        ),
    ] {
        assert_eq!(failures(lines, "dsr"), expected, "{lines}");
    }
    let shown = plan(NAME, &failing("queue_full = \"pass\"", "dsr")).to_string();
    assert!(
        shown.contains("on failure   drop: no process has bound the queue\n             pass: the queue or its socket"),
        "{shown}"
    );
    assert!(!good("").to_string().contains("on failure"));
}

#[test]
fn what_passes_untranslated_is_refused_with_its_place() {
    let why = "cannot be pass, because service \"web\" has mode nat: an untranslated packet would reach this host's own stack";
    for (lines, place) in [
        ("no_worker = \"pass\"", "2:13: no_worker"),
        ("no_worker = \"drop\"\nqueue_full = \"pass\"", "3:14: queue_full"),
        ("no_worker = \"drop\"\nparse_error = \"pass\"", "3:15: parse_error"),
    ] {
        refused(NAME, &failing(lines, "nat"), &format!("{place} {why}"));
        // One of several is enough.
        let both = failing(lines, "dsr") + &service("ports = [81]\nmode = \"nat\"").replace("\"web\"", "\"other\"");
        refused(NAME, &both, &format!("{place} {}", why.replace("web", "other")));
    }
    let overrun =
        |lines: &str, place: &str| refused(NAME, &failing(lines, "dsr"), &format!("{place}: receive_overrun is "));
    overrun("receive_overrun = \"pass\"", "2:19");
    overrun("queue_full = \"pass\"\nreceive_overrun = \"drop\"", "3:19");
    refused(
        NAME,
        &failing("parse_error = \"open\"", "dsr"),
        "2:15: parse_error cannot be \"open\"; write drop or pass",
    );
    refused(NAME, &failing("all_down = \"drop\"", "dsr"), "2:1: all_down has no place in [on_failure]");
    top("no_worker = \"drop\"", "1:1: no_worker has no place in the top level; it belongs into the table [on_failure]");
}

#[test]
fn a_strategy_that_a_second_balancer_does_not_share_is_noted() {
    let notes = |top: &str, strategy: &str| {
        let text = format!("{top}{}", service(&format!("ports = [80]\nstrategy = \"{strategy}\"")));
        parse(&[Source::new(NAME, text)], &Overrides::default()).unwrap().notes
    };
    for strategy in ["rr", "weighted"] {
        assert!(
            good(&format!("strategy = \"{strategy}\"")).to_string().contains("end when another balancer takes over")
        );
        assert_eq!(notes("", strategy), [""; 0], "nothing shows that there is a second one");
        let expected = format!(
            "{NAME}:3:8: with strategy {strategy} most connections of service \"web\" end when another balancer takes over: \
             that one chooses other backends; to avoid that, write strategy = \"maglev\" on both"
        );
        assert_eq!(notes("stop_hold = \"10s\"\n", strategy), [expected]);
    }
    assert_eq!(notes("stop_hold = \"10s\"\n", "maglev"), [""; 0]);
}

#[test]
fn downloads_that_a_second_balancer_does_not_go_on_with_are_noted() {
    let notes = |keys: &str, (old, new): (&str, &str)| {
        let text = service(&format!("strategy = \"maglev\"\n{keys}")).replace(old, new);
        parse(&[Source::new(NAME, format!("stop_hold = \"10s\"\n{text}"))], &Overrides::default()).unwrap().notes
    };
    const SAID: &str = "3:8: downloads from service \"web\" end when another balancer takes over: ";
    let same = ("", "");
    for (keys, change) in
        [("ports = [80]\nadopt = false", same), ("ports = \"any\"", same), ("", ("\"tcp\"", "\"any\""))]
    {
        let notes = notes(keys, change);
        assert!(notes.len() == 1 && notes[0].contains(&format!("{SAID}its backends' packets pass")), "{notes:?}");
    }
    let two = ("\"192.0.2.100\"", "[\"192.0.2.99\", \"192.0.2.100\"]");
    let said = format!("{SAID}nothing tells there which of 192.0.2.99 and 192.0.2.100");
    assert!(notes("ports = [80]", two).iter().any(|note| note.contains(&said)), "{:?}", notes("ports = [80]", two));
    assert_eq!(notes("ports = [80]\nmode = \"dsr\"", same), [""; 0], "backends answer past it");
}

#[test]
fn several_balancers_at_once_need_what_each_of_them_knows() {
    let lacks = |keys: &str| good(keys).services[0].lacks_for_several();
    const FIT: &str = "strategy = \"maglev\"\naffinity = \"none\"";
    assert_eq!(lacks(FIT), [""; 0]);
    assert_eq!(lacks(""), ["strategy = \"maglev\"", "affinity = \"none\""]);
    assert_eq!(lacks(&format!("{FIT}\npassive = true")), ["passive = false"]);
    assert_eq!(lacks(&format!("{FIT}\nadopt = false")), ["adopt = true (a protocol and ports that are named)"]);
    assert_eq!(lacks("mode = \"dsr\""), [""; 0], "backends answer past all of them");
}

#[test]
fn replies_are_adopted_where_backends_speak_on_their_own_behalf_seldom() {
    let adopts = |keys: &str| good(keys).services[0].policy.adopt;
    assert!(adopts("") && adopts("adopt = true") && !adopts("adopt = false"));
    assert!(!adopts("mode = \"dsr\""));
    assert!(good("").to_string().contains("adopt      yes: a reply of a connection that is not known here begins one"));
    with_ports(
        "mode = \"dsr\"; adopt = true",
        "7:9: in mode \"dsr\" replies do not come this way, so adopt = true has no effect; take it out",
    );
    fifth_line(
        "ports = \"any\"\nadopt = true",
        "6:9: backends open connections of their own from any port; name the service's ports, or take adopt out",
    );
    let of =
        |protocol: &str| plan(NAME, &service("ports = [80]").replace("\"tcp\"", protocol)).services[0].policy.adopt;
    assert!(of("\"udp\"") && of("\"sctp\""));
    let any = service("adopt = true").replace("\"tcp\"", "\"any\"");
    refused(NAME, &any, "5:9: backends have traffic of their own; name the protocol and the service's ports");
    with_ports("adopt = 1", "6:9: adopt is 1, a number; write true or false");
}
