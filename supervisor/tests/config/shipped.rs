//! The files in `scripts/` are what their comments say.

use loaded_ipc::{Affinity, BackendIndex, PortRange, Protocol, Strategy};
use loaded_supervisor::config::{Loaded, MAGLEV_SEED, Overrides, load};
use loaded_supervisor::plan::{Member, Plan, Service};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts").join(name)
}

fn loaded(names: &[&str]) -> Loaded {
    let paths: Vec<_> = names.iter().map(|name| script(name)).collect();
    load(&paths, &Overrides::default()).unwrap()
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn classic(vips: &[&str], nameservers: &[&str], backends: &[&str]) -> Loaded {
    let member = |index| Member { backend: BackendIndex(index), weight: 1 };
    let service = Service {
        name: "classic".to_owned(),
        vips: ips(vips),
        protocol: Protocol::Any,
        ports: vec![],
        strategy: Strategy::RoundRobin,
        affinity: Some(Affinity { prefix4: 32, prefix6: 128, timeout: 3600 }),
        members: (0..).take(backends.len()).map(member).collect(),
    };
    let plan = Plan {
        user: "nobody".to_owned(),
        cores: Some((0, 1)),
        queue_base: 0,
        queue_len: 16384,
        flows: 262_144,
        clients: 262_144,
        nameservers: ips(nameservers),
        services: vec![service],
        backends: ips(backends),
    };
    Loaded { plan, notes: vec![] }
}

const BACKENDS4: [&str; 3] = ["198.51.100.11", "198.51.100.12", "198.51.100.13"];
const BACKENDS6: [&str; 3] = ["2001:db8:2::11", "2001:db8:2::12", "2001:db8:2::13"];

#[test]
fn the_classic_files_give_their_plan() {
    assert_eq!(loaded(&["loaded.config"]), classic(&["192.0.2.100"], &["192.0.2.53"], &BACKENDS4));
    assert_eq!(loaded(&["loaded.config6"]), classic(&["2001:db8:1::100"], &["2001:db8:1::53"], &BACKENDS6));
    let both = classic(
        &["192.0.2.100", "2001:db8:1::100"],
        &["192.0.2.53", "2001:db8:1::53"],
        &[BACKENDS4, BACKENDS6].concat(),
    );
    assert_eq!(loaded(&["loaded.config", "loaded.config6"]), both);
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
    assert_eq!(web.members.iter().map(|member| member.weight).collect::<Vec<_>>(), [3, 1, 1]);
    assert_eq!((dns.protocol, dns.affinity), (Protocol::Udp, None));
    assert_eq!(dns.members, [Member { backend: BackendIndex(3), weight: 1 }]);
}

#[test]
fn the_listing_tells_what_will_be_served() {
    let expected = "\
workers      as nobody, on cores 0-1
queues       core n answers queue 0 + n; 16384 packets may wait in each
tables       262144 flows and 262144 clients a worker
name server  192.0.2.53, port 53 is not balanced
service classic
  vip        192.0.2.100
  balances   TCP and UDP on every port, ICMP echo
  strategy   rr
  affinity   a client (IPv4 /32, IPv6 /128) keeps its backend until 3600 s after its last packet
  backend    198.51.100.11, weight 1
  backend    198.51.100.12, weight 1
  backend    198.51.100.13, weight 1
";
    assert_eq!(loaded(&["loaded.config"]).plan.to_string(), expected);
}
