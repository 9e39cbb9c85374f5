//! The classic format.

use crate::{plan, refused};
use loaded_config::network::Network;
use loaded_config::plan::{Backend, Discover, Place, Plan};
use loaded_config::{ConfigError, Families, LoadedPlan, Overrides, Source, load, parse};
use loaded_ipc::{Affinity, Check, CheckKind, Passive, Policy, Protocol, Strategy};
use std::net::IpAddr;
use std::path::PathBuf;

const GOOD: &str = "VIP4=192.0.2.100\nserver4=198.51.100.11\n";

/// A good file and one more line, the third.
#[track_caller]
fn third_line(line: &str, expected: &str) {
    refused("f", &format!("{GOOD}{line}\n"), expected);
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn addresses(plan: &Plan) -> Vec<IpAddr> {
    plan.services[0].backends.iter().map(|backend| backend.address).collect()
}

#[test]
fn the_least_file_is_one_whole_ip_service() {
    let plan = plan("f", GOOD);
    let service = &plan.services[0];
    assert_eq!(
        (service.name.as_str(), service.protocol, service.strategy),
        ("classic", Protocol::Any, Strategy::RoundRobin)
    );
    assert_eq!(service.affinity, Some(Affinity { prefix4: 32, prefix6: 128, timeout: 3600 }));
    assert_eq!(service.vips, [ip("192.0.2.100")]);
    assert_eq!(service.backends, [Backend { address: ip("198.51.100.11"), port: None, weight: 1, backup: false }]);
    let policy = Policy { adopt: false, ..Policy::STANDARD };
    assert_eq!((service.policy, &service.check, &service.discover, plan.drain), (policy, &None, &None, 300));
    assert_eq!((plan.user.as_str(), plan.cores, plan.queue_base, plan.queue_len), ("nobody", None, 0, 16384));
}

#[test]
fn every_key_of_the_original_is_known() {
    let text = "VIP4=192.0.2.100\nVIP4net=24\nVIP6=2001:db8::100\nVIP6net=64\nNS=192.0.2.53\nNS=2001:db8::53\n\
                FIRST_CORE=1\nLAST_CORE=3\nRIP4=10.0.0.0/8\nRIP6=2001:db8:2::/48\npublic_NIC=eth0\nprivate_NIC=eth0.7\n\
                private_GW=10.0.0.254/8\nnfq_len=1000000\nserver4=10.0.0.1\nserver4=10.0.0.2\nserver6=2001:db8:2::1\n\
                strategy=weighted\nbroadcast=10.255.255.255\nport_alive=80\ncheck_cycle=30\nfailover=0\n";
    let loaded = parse(&[Source::new("f", text)], &Overrides::default()).unwrap();
    assert_eq!(loaded.plan.nameservers, [ip("192.0.2.53"), ip("2001:db8::53")]);
    assert_eq!((loaded.plan.cores, loaded.plan.queue_len), (Some((1, 3)), 1_000_000));
    assert_eq!(loaded.plan.services[0].strategy, Strategy::Weighted);
    assert_eq!(addresses(&loaded.plan), [ip("10.0.0.1"), ip("10.0.0.2"), ip("2001:db8:2::1")]);
    let notes = ["f:19:11: broadcast", "f:20:12: port_alive", "f:21:13: check_cycle"];
    assert_eq!(loaded.notes, notes.map(|note| format!("{note} has no effect without failover (-f)")));
}

/// Defect 9 of the original: the prefix length was parsed as an address, and that said nothing.
#[test]
fn vip4net_is_never_a_vip() {
    for text in [format!("{GOOD}VIP4net=24\n"), format!("VIP4net=24\n{GOOD}")] {
        assert_eq!(plan("f", &text).services[0].vips, [ip("192.0.2.100")]);
    }
    refused("f", "VIP4net=24\nserver4=198.51.100.11\n", "1:1: there is neither VIP4 nor VIP6");
    third_line("VIP4net=33", "3:9: \"33\" is not a number from 1 to 32");
    third_line("VIP4net=0", "3:9: \"0\" is not a number from 1 to 32");
    third_line("VIP6net=129", "3:9: \"129\" is not a number from 1 to 128");
    third_line("VIP4net=255.255.255.0", "3:9: \"255.255.255.0\" is not a number");
}

/// Defect 9 again: `inet_pton(...) < 0` is never true, so a typo was an address.
#[test]
fn malformed_addresses_are_refused() {
    for wrong in [
        "10.0.0",
        "10.0.0.256",
        "10.0.0.1.",
        "010.0.0.1",
        "10.0.0.1/8",
        "10.0.0.1:80",
        "10.0.0.1;",
        "web",
        "2001:db8::1",
    ] {
        third_line(&format!("  server4={wrong}"), &format!("3:11: {wrong:?} is not an IPv4 address"));
        refused("f", &format!("VIP4={wrong}"), &format!("1:6: {wrong:?} is not an IPv4 address"));
    }
    for wrong in ["2001:db8", "2001:db8::1::2", "fe80::1%eth0", "[2001:db8::1]", "12345::", "10.0.0.1"] {
        third_line(&format!("server6={wrong}"), &format!("3:9: {wrong:?} is not an IPv6 address"));
        third_line(&format!("VIP6={wrong}"), &format!("3:6: {wrong:?} is not an IPv6 address"));
    }
    third_line("NS=resolver", "3:4: \"resolver\" is not an IP address");
    third_line("broadcast=2001:db8::ff", "3:11: \"2001:db8::ff\" is neither an IPv4 broadcast address nor ff02::1");
}

#[test]
fn near_misses_name_the_key() {
    third_line("VIP_4=192.0.2.1", "3:1: VIP_4 is not a key; did you mean VIP4?");
    third_line("VIP=192.0.2.1", "3:1: VIP is not a key; did you mean VIP4?");
    third_line("\tsever4=198.51.100.1", "3:2: sever4 is not a key; did you mean server4?");
    third_line("server=198.51.100.1", "3:1: server is not a key; did you mean server4?");
    third_line("Strategy=rr", "3:1: Strategy is not a key; did you mean strategy?");
    third_line("strateg = rr", "3:1: strateg is not a key; did you mean strategy?");
    third_line("ns=192.0.2.53", "3:1: ns is not a key; did you mean NS?");
    third_line("firstcore=1", "3:1: firstcore is not a key; did you mean FIRST_CORE?");
    third_line("Failover", "3:1: Failover is not a key; did you mean failover?");
}

#[test]
fn an_assignment_is_written_as_in_the_shell() {
    third_line("NS = 192.0.2.53", "3:1: write NS=value, without blanks around the =");
    third_line("NS =192.0.2.53", "3:1: write NS=value, without blanks around the =");
    third_line("NS= 192.0.2.53", "3:4: write NS=value, without blanks around the =");
    third_line("NS+=192.0.2.53", "3:1: write NS=value, without blanks around the = and without +");
    third_line("NS=", "3:4: NS has no value");
    third_line("NS=   # none", "3:4: NS has no value");
    third_line("NS", "3:1: NS has no value");
    third_line("NS=\"192.0.2.53\"", "3:4: write the value of NS without quotes");
    third_line("NS='192.0.2.53'", "3:4: write the value of NS without quotes");
    third_line("NS=$DNS", "3:4: write the value of NS itself");
    third_line("NS=192.0.2.53\r", "3:1: the line ends in a carriage return");
    third_line("NS=192.0.2.53 192.0.2.54", "3:15: NS takes one value");
    third_line("export NS=192.0.2.53", "3:1: write NS=value on a line of its own");
    third_line("# loaded: script\nserver4=198.51.100.12", "4:1: server4 is below the line \"# loaded: script\"");
    third_line("[[service]]", "3:1: this is TOML");
}

#[test]
fn numbers_and_words_are_checked() {
    third_line("nfq_len=0", "3:9: \"0\" is not a number from 1 to 10485760");
    third_line("nfq_len=10485761", "3:9: \"10485761\" is not a number from 1 to 10485760");
    third_line("nfq_len=+5", "3:9: \"+5\" is not a number");
    third_line("nfq_len=1k", "3:9: \"1k\" is not a number");
    third_line("port_alive=0", "3:12: \"0\" is not a number from 1 to 65535");
    third_line("port_alive=65536", "3:12: \"65536\" is not a number from 1 to 65535");
    third_line("check_cycle=0", "3:13: \"0\" is not a number from 1 to 86400");
    third_line("strategy=random", "3:10: there is no strategy \"random\"; write rr, weighted or maglev");
    third_line("public_NIC=eth0/1", "3:12: \"eth0/1\" is not the name of an interface");
    third_line("private_NIC=sixteen-letters-", "3:13: \"sixteen-letters-\" is not the name of an interface");
    third_line("FIRST_CORE=1", "3:12: FIRST_CORE needs LAST_CORE");
    third_line("LAST_CORE=1", "3:11: LAST_CORE needs FIRST_CORE");
    third_line("FIRST_CORE=3\nLAST_CORE=1", "4:11: LAST_CORE 1 is below FIRST_CORE 3 (see f:3:12)");
    third_line("FIRST_CORE=-1", "3:12: \"-1\" is not a number");
}

fn failover() -> Overrides {
    Overrides { failover: true, ..Overrides::default() }
}

fn with_failover(text: &str) -> LoadedPlan {
    parse(&[Source::new("f", text)], &failover()).unwrap()
}

#[track_caller]
fn refused_with_failover(line: &str, expected: &str) {
    let error = parse(&[Source::new("f", format!("{GOOD}{line}\n"))], &failover()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("f:{expected}")), "{line:?} gave {error}");
}

#[test]
fn failover_is_turned_on_by_the_option_and_by_the_key() {
    let on = with_failover(GOOD);
    assert!(on.plan.services[0].check.is_some());
    for line in ["failover", "failover\t# on", "failover=1", "failover=1\nfailover"] {
        assert_eq!(plan("f", &format!("{GOOD}{line}\n")), on.plan, "{line}");
    }
    assert_eq!(with_failover(&format!("{GOOD}failover=0\n")).plan, on.plan);
    assert_eq!(plan("f", &format!("{GOOD}failover=0\n")), plan("f", GOOD));
    third_line("failover=yes", "3:10: failover=yes is neither failover=0 nor failover=1");
    third_line(
        "failover\nfailover=0",
        "4:10: failover is 1 already; all files form one configuration, so give it one value",
    );
}

#[test]
fn failover_checks_as_the_original_does() {
    let check = |kind, interval, timeout| {
        Some(Check { kind, interval, interval_down: interval, timeout, jitter: 10, rise: 2, fall: 3 })
    };
    let found = |lines: &str| {
        let loaded = with_failover(&format!("{GOOD}{lines}"));
        assert_eq!(loaded.notes, [""; 0]);
        let service = loaded.plan.services[0].clone();
        (service.check, service.policy.passive)
    };
    assert_eq!(found(""), (check(CheckKind::Icmp, 2000, 1000), None));
    assert_eq!(found("check_cycle=30\n"), (check(CheckKind::Icmp, 30_000, 1000), None));
    let passive = Passive { fails: 3, timeout: 500, hold: 10, port: Some(8080) };
    let both = check(CheckKind::IcmpTcp { port: 8080 }, 1000, 1000);
    assert_eq!(found("port_alive=8080\ncheck_cycle=1\n"), (both, Some(passive)));
    assert_eq!(found("check_cycle=86400\n").0, check(CheckKind::Icmp, 86_400_000, 1000));
}

#[test]
fn a_broadcast_address_asks_for_discovery() {
    let place = |network: &str, to: &str, interface: Option<&str>| Place {
        network: Network::parse(network).unwrap(),
        to: ip(to),
        interface: interface.map(str::to_owned),
    };
    let found = |text: &str| with_failover(text).plan.services[0].discover.clone();
    let four = "RIP4=198.51.100.0/24\nbroadcast=198.51.100.255\n";
    let place4 = place("198.51.100.0/24", "198.51.100.255", None);
    let expected = Discover { places: vec![place4.clone()], limit: 64, interval: 10_000 };
    assert_eq!(found(&format!("{GOOD}{four}")), Some(expected.clone()));
    // It may stand for all backends, and is the look of each cycle.
    let alone = format!("VIP4=192.0.2.100\n{four}check_cycle=3\n");
    assert_eq!(found(&alone), Some(Discover { interval: 3000, ..expected.clone() }));
    refused("f", &alone, "1:6: service \"classic\" has no backend");
    let six =
        format!("{GOOD6}RIP6=2001:db8:2::/64\nprivate_NIC=eth1\nbroadcast=ff02::1\nprivate_GW=2001:db8:2::fe/64\n");
    let place6 = place("2001:db8:2::/64", "ff02::1", Some("eth1"));
    assert_eq!(found(&six), Some(Discover { places: vec![place6.clone()], ..expected.clone() }));
    let sources = [Source::new("four", format!("{GOOD}{four}")), Source::new("six", six)];
    let both = parse(&sources, &failover()).unwrap().plan;
    let both = both.services[0].discover.clone();
    assert_eq!(both, Some(Discover { places: vec![place4, place6], ..expected.clone() }));
    let narrowed = parse(&sources, &Overrides { families: Families::V4, ..failover() }).unwrap().plan;
    assert_eq!(narrowed.services[0].discover, Some(expected));
}

#[test]
fn discovery_stays_in_the_private_network() {
    refused_with_failover(
        "broadcast=198.51.100.255",
        "3:11: broadcast=198.51.100.255 also needs RIP4: only nodes within it may join",
    );
    refused_with_failover(
        "broadcast=ff02::1",
        "3:11: broadcast=ff02::1 also needs RIP6: only nodes within it may join",
    );
    refused_with_failover(
        "RIP4=198.51.100.0/24\nbroadcast=198.51.101.255",
        "4:11: broadcast 198.51.101.255 is outside of the network 198.51.100.0/24 (see f:3:6)",
    );
    let wide = "RIP4=198.51.0.0/16\nprivate_GW=198.51.100.254/24\nbroadcast=198.51.100.255";
    refused_with_failover(
        wide,
        "3:6: RIP4 198.51.0.0/16 is wider than private_GW's network 198.51.100.0/24, the only one in which nodes can be \
         asked (see f:4:12)",
    );
    plan("f", &format!("{GOOD}{wide}\n"));
    refused_with_failover(
        "RIP4=198.51.0.0/16\nprivate_GW=198.51.0.254/24\nbroadcast=198.51.100.255",
        "3:6: RIP4 198.51.0.0/16 is wider than private_GW's network 198.51.0.0/24",
    );
    with_failover(&format!("{GOOD}RIP4=198.51.100.0/24\nprivate_GW=198.51.0.254/16\nbroadcast=198.51.100.255\n"));
    refused_with_failover(
        "RIP4=198.0.0.0/7\nbroadcast=198.51.100.255",
        "3:6: 198.0.0.0/7 cannot be searched: its prefix length is not between /8 and /30",
    );
    let six = "VIP6=2001:db8:1::100\nserver6=2001:db8:2::11\nbroadcast=ff02::1\n";
    refused_with_failover(
        &format!("{six}RIP6=2001:db8:2::/64"),
        "5:11: broadcast=ff02::1 needs private_NIC in the same file",
    );
    refused_with_failover(
        &format!("{six}private_NIC=eth1\nRIP6=2001:db8::/32"),
        "7:6: 2001:db8::/32 cannot be searched: its prefix length is not between /48 and /128",
    );
    third_line("broadcast=198.51.100.255\nbroadcast=198.51.100.127", "4:11: broadcast is 198.51.100.255 already");
}

#[test]
fn addresses_must_fit_together() {
    third_line("server4=192.0.2.100", "3:9: 192.0.2.100 is a VIP and cannot be a backend too (see f:1:6)");
    third_line("server4=198.51.100.11", "3:9: 198.51.100.11 is a backend of \"classic\" twice");
    third_line(
        "RIP4=198.51.100.0/29",
        "2:9: backend 198.51.100.11 is outside of the network 198.51.100.0/29 (see f:3:6)",
    );
    third_line("RIP4=198.51.100.1/24", "3:6: 198.51.100.1/24 has host bits set; write 198.51.100.0/24");
    third_line("RIP4=2001:db8::/32", "3:6: 2001:db8::/32 is an IPv6 network; it belongs to RIP6");
    third_line("RIP6=10.0.0.0/8", "3:6: 10.0.0.0/8 is an IPv4 network; it belongs to RIP4");
    third_line("RIP4=198.51.100.0", "3:6: \"198.51.100.0\" has no prefix length");
    third_line("RIP4=198.51.100.0/33", "3:6: prefix length: \"198.51.100.0/33\" is not a number from 0 to 32");
    third_line("private_GW=198.51.100.11/24", "3:12: the gateway 198.51.100.11 is a backend too (see f:2:9)");
    third_line("private_GW=192.0.2.100/24", "3:12: the gateway 192.0.2.100 is a VIP too (see f:1:6)");
    third_line("NS=192.0.2.100", "3:4: 192.0.2.100 is a VIP; as a name server");
    third_line(
        "VIP4=192.0.2.101",
        "3:6: VIP4 is 192.0.2.100 already; all files form one configuration, so give it one value (see f:1:6)",
    );
}

#[test]
fn the_vip_may_lie_in_the_backends_network() {
    plan("f", "VIP4=10.0.0.100\nRIP4=10.0.0.0/8\nserver4=10.0.0.1\n");
}

#[test]
fn families_are_not_mixed() {
    third_line("VIP6=2001:db8::100", "3:6: 2001:db8::100 is an IPv6 VIP, but service \"classic\" has no IPv6 backend");
    third_line("server6=2001:db8::1", "3:9: 2001:db8::1 is an IPv6 backend, but service \"classic\" has no IPv6 VIP");
    refused("f", "VIP4=192.0.2.100\n", "1:6: service \"classic\" has no backend");
    refused("f", "", "1:1: there is neither VIP4 nor VIP6");
}

#[test]
fn only_hosts_are_vips_and_backends() {
    for wrong in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"] {
        third_line(&format!("server4={wrong}"), &format!("3:9: {wrong} is "));
        refused("f", &format!("VIP4={wrong}\nserver4=10.0.0.1"), &format!("1:6: {wrong} is "));
    }
    third_line("private_GW=127.0.0.1/8", "3:12: 127.0.0.1 is a loopback address");
    third_line("NS=0.0.0.0", "3:4: 0.0.0.0 is the unspecified address");
    plan("f", &format!("{GOOD}NS=127.0.0.53\n"));
}

const GOOD6: &str = "VIP6=2001:db8:1::100\nserver6=2001:db8:2::11\nNS=2001:db8:1::53\n";

#[test]
fn files_merge_into_one_service() {
    let sources = [Source::new("four", GOOD), Source::new("six", GOOD6)];
    let plan = parse(&sources, &Overrides::default()).unwrap().plan;
    assert_eq!(plan.services.len(), 1);
    assert_eq!(plan.services[0].vips, [ip("192.0.2.100"), ip("2001:db8:1::100")]);
    assert_eq!(addresses(&plan), [ip("198.51.100.11"), ip("2001:db8:2::11")]);
    assert_eq!(plan, crate::plan("both", &format!("{GOOD}{GOOD6}")));
}

#[test]
fn merged_files_must_agree_and_errors_name_both() {
    let merged = |four: &str, six: &str| {
        let sources = [Source::new("four", format!("{GOOD}{four}")), Source::new("six", format!("{GOOD6}{six}"))];
        parse(&sources, &Overrides::default())
    };
    let error = merged("strategy=rr\n", "strategy=weighted\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "six:4:10: strategy is rr already; all files form one configuration, so give it one value (see four:3:10)"
    );
    assert!(merged("strategy=rr\npublic_NIC=a\n", "strategy=rr\npublic_NIC=b\n").is_ok());
    let error = merged("", "server4=198.51.100.11\n").unwrap_err().to_string();
    assert!(error.starts_with("six:4:9: 198.51.100.11 is a backend of \"classic\" twice"), "{error}");
}

#[test]
fn the_options_narrow_the_plan() {
    let sources = [Source::new("f", format!("{GOOD}{GOOD6}"))];
    let narrowed = |families| parse(&sources, &Overrides { families, ..Overrides::default() }).unwrap().plan;
    assert_eq!(narrowed(Families::V4), plan("f", GOOD));
    assert_eq!(narrowed(Families::V6), plan("f", GOOD6));
    let overrides = Overrides { families: Families::V6, ..Overrides::default() };
    let error = parse(&[Source::new("f", GOOD)], &overrides).unwrap_err().to_string();
    assert_eq!(error, "f:1:6: -6 leaves nothing to serve: there is no IPv6 VIP");
}

#[test]
fn the_command_line_wins_and_is_checked() {
    let with = |overrides| parse(&[Source::new("f", format!("{GOOD}nfq_len=5\n"))], &overrides);
    let overrides = Overrides {
        queue_len: Some(7),
        queue_base: Some(100),
        user: Some("www-data".to_owned()),
        ..Overrides::default()
    };
    let plan = with(overrides).unwrap().plan;
    assert_eq!((plan.queue_len, plan.queue_base, plan.user.as_str()), (7, 100, "www-data"));
    let error = with(Overrides { user: Some("root".to_owned()), ..Overrides::default() }).unwrap_err();
    assert!(matches!(error, ConfigError::Option { option: "-U", .. }), "{error}");
    let error = with(Overrides { queue_len: Some(0), ..Overrides::default() }).unwrap_err();
    assert!(matches!(error, ConfigError::Option { option: "-Q", .. }), "{error}");
}

#[test]
fn a_missing_file_is_an_error() {
    let error = load(&[PathBuf::from("/nonexistent/x")], &Overrides::default()).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
}
