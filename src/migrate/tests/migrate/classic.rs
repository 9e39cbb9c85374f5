use crate::{plan_of, unreadable};
use loaded_config::{Overrides, Source, parse};
use loaded_migrate::{Format, Options, migrate};

const V4: &str = "\
#!/bin/sh
VIP4=192.0.2.100
VIP4net=24
NS=192.0.2.53
FIRST_CORE=0
LAST_CORE=1
RIP4=198.51.100.0/24
public_NIC=eth0
private_NIC=eth1
private_GW=198.51.100.254/24
nfq_len=4096
server4=198.51.100.11
  server4=198.51.100.12
strategy=maglev
port_alive=80
check_cycle=5
broadcast=198.51.100.255
# loaded: script
ip addr add $VIP4 dev $public_NIC
";

const V6: &str = "VIP6=2001:db8:1::100\nserver6=2001:db8:2::11\nstrategy=maglev\n";

/// The same files, read as they are and migrated, make the same plan.
#[test]
fn the_plan_stays_what_it_was() {
    let files = [Source::new("a", V4), Source::new("b", V6)];
    for failover in [false, true] {
        for sources in [&files[..1], &files[..]] {
            let before = parse(sources, &Overrides { failover, ..Overrides::default() }).unwrap().plan;
            let migrated = migrate(sources, Format::Classic, &Options { vips: Vec::new(), failover }).unwrap();
            let after = plan_of(&migrated).unwrap();
            assert_eq!(before, after, "{}", migrated.toml);
            // Without -f three keys are without effect.
            assert_eq!(migrated.lost.len(), if failover { 0 } else { 3 }, "{:#?}", migrated.lost);
        }
    }
}

#[test]
fn what_only_the_script_needs_is_named() {
    let options = Options { vips: Vec::new(), failover: true };
    let migrated = migrate(&[Source::new("a", V4)], Format::Classic, &options).unwrap();
    for line in ["a:3:1: VIP4net=24", "a:8:1: public_NIC=eth0", "a:10:1: private_GW=", "a:18:1: # loaded: script"] {
        assert!(migrated.toml.contains(&format!("# note: {line}")), "{line}:\n{}", migrated.toml);
    }
}

#[test]
fn mistakes_are_named_as_loaded_names_them() {
    let error = unreadable(Format::Classic, "VIP4=192.0.2.100\nserver4=nowhere\n");
    assert!(error.starts_with("2:9: \"nowhere\" is not an IPv4 address"), "{error}");
}
