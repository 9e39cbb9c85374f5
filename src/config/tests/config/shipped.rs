//! The files in `scripts/` are what their comments say.

use loaded_config::plan::{Backend, Plan, Service};
use loaded_config::{LoadedPlan, MAGLEV_SEED, Overrides, Source, load, parse};
use loaded_ipc::{Affinity, Check, CheckKind, Mode, Passive, Policy, PortRange, Protocol, Strategy};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts").join(name)
}

fn loaded(names: &[&str]) -> LoadedPlan {
    let paths: Vec<_> = names.iter().map(|name| script(name)).collect();
    load(&paths, &Overrides::default()).unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn classic(vips: &[&str], nameservers: &[&str], backends: &[&str]) -> LoadedPlan {
    let service = Service {
        name: "classic".to_owned(),
        vips: ips(vips),
        protocol: Protocol::Any,
        ports: vec![],
        port: None,
        checks_own_ports: false,
        mode: Mode::Nat,
        strategy: Strategy::RoundRobin,
        affinity: Some(Affinity { prefix4: 32, prefix6: 128, timeout: 3600 }),
        policy: Policy { adopt: false, ..Policy::STANDARD },
        check: None,
        discover: None,
        backends: ips(backends)
            .into_iter()
            .map(|address| Backend { address, port: None, weight: 1, backup: false })
            .collect(),
    };
    let plan = Plan {
        user: "nobody".to_owned(),
        cores: Some((0, 1)),
        queue_base: 0,
        queue_len: 16384,
        flows: 262_144,
        clients: 262_144,
        quota: loaded_config::QUOTA,
        unserved: loaded_ipc::Unserved::Pass,
        on_failure: loaded_config::plan::Failures::CLOSED,
        nameservers: ips(nameservers),
        services: vec![service],
        drain: 300,
        stop_hold: 0,
        defragment: true,
        linger: true,
        fast: loaded_config::plan::Fast::Auto,
        host: loaded_config::plan::HostPolicy::Tell,
        log_level: loaded_config::plan::LogLevel::Info,
        metrics: None,
        monitor_group: None,
        notify: vec![],
        notify_user: None,
    };
    LoadedPlan { plan, notes: vec![], sources: vec![], amendments: vec![], forgotten: vec![] }
}

const BACKENDS4: [&str; 3] = ["198.51.100.11", "198.51.100.12", "198.51.100.13"];
const BACKENDS6: [&str; 3] = ["2001:db8:2::11", "2001:db8:2::12", "2001:db8:2::13"];

#[test]
fn the_classic_files_give_their_plan() {
    let plan = |names: &[&str]| loaded(names).plan;
    assert_eq!(plan(&["loaded.config"]), classic(&["192.0.2.100"], &["192.0.2.53"], &BACKENDS4).plan);
    assert_eq!(plan(&["loaded.config6"]), classic(&["2001:db8:1::100"], &["2001:db8:1::53"], &BACKENDS6).plan);
    let both = classic(
        &["192.0.2.100", "2001:db8:1::100"],
        &["192.0.2.53", "2001:db8:1::53"],
        &[BACKENDS4, BACKENDS6].concat(),
    );
    assert_eq!(plan(&["loaded.config", "loaded.config6"]), both.plan);
    let notes = loaded(&["loaded.config", "loaded.config6"]).notes;
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes.iter().all(|note| note.ends_with("has no effect without failover (-f)")), "{notes:?}");
}

/// The file with the lines that are commented out, but start with one of these, taken in.
fn with_lines(name: &str, starts: &[&str]) -> Source {
    let text = std::fs::read_to_string(script(name)).unwrap();
    let line = |line: &str| match line.strip_prefix('#') {
        Some(bare) if starts.iter().any(|start| bare.starts_with(start)) => format!("{bare}\n"),
        _ => format!("{line}\n"),
    };
    Source::new(name, text.lines().map(line).collect::<String>())
}

#[test]
fn the_classic_files_have_failover_and_discovery_in_them() {
    let failover = Overrides { failover: true, ..Overrides::default() };
    let paths = ["loaded.config", "loaded.config6"].map(script);
    let loaded = load(&paths, &failover).unwrap();
    assert_eq!(loaded.notes, [""; 0]);
    let service = &loaded.plan.services[0];
    let check = service.check.as_ref().unwrap();
    assert_eq!((&check.kind, check.interval), (&CheckKind::IcmpTcp { port: 80 }, 2000));
    assert_eq!(service.discover, None);
    let sources = ["loaded.config", "loaded.config6"].map(|name| with_lines(name, &["failover=", "broadcast="]));
    let plan = parse(&sources, &Overrides::default()).unwrap().plan;
    let discover = plan.services[0].discover.clone().unwrap();
    let places: Vec<String> = discover.places.iter().map(ToString::to_string).collect();
    assert_eq!(
        places,
        ["198.51.100.0/24, asked by 198.51.100.255 on eth1", "2001:db8:2::/64, asked by ff02::1 on eth1"]
    );
    assert_eq!(plan.services[0].check, service.check);
}

/// The shell's view of each key is the reader's, as far as the shell keeps it (the last of several).
#[test]
fn the_classic_files_are_shell_scripts_with_the_same_values() {
    for (name, seen) in [
        ("loaded.config", "192.0.2.100 192.0.2.53 0 1 16384 198.51.100.13 rr"),
        ("loaded.config6", "2001:db8:1::100 2001:db8:1::53 0 1 16384 2001:db8:2::13 rr"),
    ] {
        assert!(Command::new("sh").arg("-n").arg(script(name)).status().unwrap().success(), "sh -n {name}");
        let text = std::fs::read_to_string(script(name)).unwrap();
        let (config, _) = text.split_once("# loaded: script").unwrap();
        let echo = "echo ${VIP4-$VIP6} $NS $FIRST_CORE $LAST_CORE $nfq_len ${server4-$server6} $strategy";
        let output = Command::new("sh").arg("-c").arg(format!("{config}\n{echo}")).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), seen);
    }
}

#[test]
fn the_classic_files_touch_no_rule_and_flush_nothing() {
    for name in ["loaded.config", "loaded.config6"] {
        let text = std::fs::read_to_string(script(name)).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        for line in code {
            assert!(
                !["iptables", "ip6tables", "nft ", "flush", " del "].iter().any(|word| line.contains(word)),
                "{line}"
            );
        }
    }
}

#[test]
fn the_sample_toml_is_what_it_says() {
    let plan = loaded(&["loaded.toml"]).plan;
    assert_eq!((plan.user.as_str(), plan.cores, plan.queue_base, plan.queue_len), ("nobody", Some((0, 1)), 0, 16384));
    assert_eq!(plan.nameservers, ips(&["192.0.2.53", "2001:db8:1::53"]));
    let [web, dns] = plan.services.as_slice() else { panic!("{plan}") };
    assert_eq!(web.strategy, Strategy::Maglev { seed: MAGLEV_SEED });
    assert_eq!(web.affinity, Some(Affinity { prefix4: 32, prefix6: 64, timeout: 3600 }));
    assert_eq!(web.ports.last(), Some(&PortRange { low: 8000, high: 8010 }));
    assert_eq!(
        web.backends.iter().map(|backend| (backend.weight, backend.backup)).collect::<Vec<_>>(),
        [(3, false), (1, true), (1, false)]
    );
    let kind = CheckKind::Http {
        port: 80,
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: "192.0.2.100".to_owned(),
        status: (200, 399),
        via: None,
    };
    let check = Check { kind, interval: 2000, interval_down: 2000, timeout: 1000, jitter: 10, rise: 2, fall: 3 };
    assert_eq!(web.check, Some(check));
    assert_eq!(web.policy.passive, Some(Passive { fails: 3, timeout: 500, hold: 10, port: Some(80) }));
    assert_eq!((dns.protocol, dns.affinity, dns.policy.passive), (Protocol::Udp, None, None));
    assert_eq!(dns.backends[0].destination().to_string(), "198.51.100.13:5353");
    let elsewhere = parse(&[with_lines("loaded.toml", &["port = 8080"])], &Overrides::default()).unwrap().plan;
    assert!(elsewhere.services[0].backends.iter().all(|backend| backend.port == Some(8080)));
}

/// What the sample calls a default is one: without those lines the plan is the same.
#[test]
fn the_defaults_of_the_sample_are_the_defaults() {
    let text = std::fs::read_to_string(script("loaded.toml")).unwrap();
    let keys = [
        "user",
        "queue",
        "flows",
        "clients",
        "mode",
        "seed",
        "affinity = { by",
        "on_backend_down",
        "all_down",
        "panic",
        "slow",
        "method",
        "path",
        "host",
        "status",
        "interval",
        "timeout",
        "log_level",
        "jitter",
        "rise",
        "fall",
        "[service.passive]",
        "fails",
        "hold",
        "drain",
        "backup = false",
    ];
    let mut table = "";
    let kept = text.lines().filter(|line| {
        if line.starts_with('[') {
            table = line;
        }
        !(table == "[service.passive]" || keys.iter().any(|key| line.starts_with(key)))
    });
    let bare: String = kept.map(|line| format!("{line}\n")).collect();
    assert!(bare.lines().count() + 25 < text.lines().count(), "{bare}");
    let plan = parse(&[Source::new("bare.toml", bare)], &Overrides::default()).unwrap().plan;
    assert_eq!(plan, loaded(&["loaded.toml"]).plan);
}

#[test]
fn the_sample_toml_can_discover() {
    let keys = ["[service.discover]", "network", "interface", "to4", "limit", "interval"];
    let plan = parse(&[with_lines("loaded.toml", &keys)], &Overrides::default()).unwrap().plan;
    let text = plan.to_string();
    for line in [
        "  discover   198.51.100.0/24, asked by 198.51.100.255 on eth1, every 10s, at most 64 backends\n",
        "  discover   2001:db8:2::/64, asked by ff02::1 on eth1, every 10s, at most 64 backends\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn the_listing_tells_what_will_be_served() {
    let expected = "\
workers      as nobody, on cores 0-1
queues       core n answers queue 0 + n; 16384 packets may wait in each
tables       262144 flows and 262144 clients a worker
quota        a source /24 (IPv4) or /48 (IPv6) keeps 2 % of the flows once half of them are open
drain        removed and drained backends keep their flows for 5m
name server  192.0.2.53, port 53 is not balanced
service classic
  vip        192.0.2.100
  balances   every IP protocol (TCP, UDP, SCTP, ESP, GRE …) on every port, and ICMP echo
  mode       nat: packets get the backend's address
  strategy   rr: in turn; most connections end when another balancer takes over
  affinity   a client (IPv4 /32, IPv6 /128) keeps its backend until 1h after its last packet
  check      none: every backend counts as up
  passive    none: workers do not judge backends by their packets
  one down   reset: the client's next packet is answered by a reset
  all down   reject: new flows are answered by a reset
  panic      never: checks are always believed
  slow start none: a backend that came up gets its share at once
  idle       flows are forgotten after 124m tcp, 30s half open, 30s closing, 3m udp, 1m echo
  asymmetric no: replies come only by an interface that the route to their backend leads through
  adopt      no: a reply of a connection that is not known here passes as the backend's own
  backend    198.51.100.11, weight 1
  backend    198.51.100.12, weight 1
  backend    198.51.100.13, weight 1
";
    assert_eq!(loaded(&["loaded.config"]).plan.to_string(), expected);
}

#[test]
fn the_listing_tells_how_backends_are_looked_after() {
    let text = loaded(&["loaded.toml"]).plan.to_string();
    for line in [
        "  check      http GET / on port 80, host 192.0.2.100, status 200-399, every 2s or up to 10 % sooner, failed after 1s; down \
         after 3 failures, up after 2 successes\n",
        "  check      dns query for www.example.com to port 5353 every 2s",
        "  passive    3 connection attempts to port 80 refused, or unanswered for 500ms: no new flows for 10s\n",
        "  backend    198.51.100.12, weight 1, backup\n",
    ] {
        assert!(text.contains(line), "no {line} in\n{text}");
    }
}
