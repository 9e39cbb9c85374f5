//! The routing rules and routes by mark are there exactly while a DSR service needs them.

use super::{ALL, SOME, answering, text};
use crate::rig::config::{FREE, Service, change, config};
use crate::rig::direct_return::{routes, up};
use crate::rig::lab::{BACKENDS, Lab, Said, eventually};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::net::Family;
use nix::sys::signal::Signal;
use std::time::Duration;

/// The number of our routing rules in both families.
fn rules(lab: &Lab) -> usize {
    routes(lab).lines().filter(|line| line.contains("fwmark")).count()
}

#[test]
fn a_reload_adds_and_removes_backends_and_their_routes() {
    let Some(lab) = up() else { return };
    let before = routes(&lab);
    let loaded = Loaded::toml(&lab, &text(FREE, "", SOME));
    // Two services of two backends in two families.
    assert_eq!(rules(&lab), 8);
    change(&lab, &loaded, &text(FREE, "", ALL));
    assert_eq!(rules(&lab), 12);
    for family in Family::BOTH {
        assert_eq!(answering(&lab, family), BACKENDS.map(str::to_owned).into(), "{family:?}");
    }
    change(&lab, &loaded, &text(FREE, "", SOME));
    for family in Family::BOTH {
        assert_eq!(answering(&lab, family), ["b1", "b2"].map(str::to_owned).into(), "{family:?}");
    }
    // Who leaves keeps its route while a worker may still send to it.
    assert_eq!(rules(&lab), 12);
    assert!(eventually(Duration::from_secs(45), || rules(&lab) == 8), "{}", routes(&lab));
    // A backend behind a router cannot be had.
    let bad = text(FREE, "", SOME).replace("\"198.51.100.12\"", "\"203.0.113.12\"");
    lab.file("loaded.toml", &bad);
    let (ok, said) = loaded.reload();
    assert!(!ok && said.contains("203.0.113.12"), "{said}");
    assert_eq!(rules(&lab), 8);
    loaded.stop();
    assert_eq!(routes(&lab), before);
}

#[test]
fn what_a_killed_instance_leaves_is_replaced_and_then_removed() {
    let Some(lab) = up() else { return };
    let before = routes(&lab);
    let mut first = Loaded::toml(&lab, &text(FREE, "", ALL));
    let served = routes(&lab);
    first.end(Signal::SIGKILL);
    assert_eq!(routes(&lab), served, "a killed instance removes nothing");
    let second = Loaded::toml(&lab, &text(FREE, "", ALL));
    assert_eq!(routes(&lab), served);
    for family in Family::BOTH {
        assert_eq!(answering(&lab, family), BACKENDS.map(str::to_owned).into(), "{family:?}");
    }
    // Its workers too: else what they serve would have to drain first.
    let workers = second.workers();
    drop(second);
    workers.into_iter().for_each(|pid| signal_to(pid, Signal::SIGKILL));
    assert!(eventually(Duration::from_secs(2), || lab.queues().is_empty()), "{}", lab.queues());
    // One that needs no routes takes the left ones out.
    let nat = config("2s", &[Service { vips: &[110], ..Service::default() }]);
    let third = Loaded::toml(&lab, &nat);
    assert_eq!(routes(&lab), before);
    third.stop();
}

#[test]
fn routes_that_others_take_away_come_back() {
    let Some(lab) = up() else { return };
    let loaded = Loaded::toml(&lab, &text(FREE, "", ALL));
    let served = routes(&lab);
    lab.sh("lb", "ip link set eth1 down; ip link set eth1 up; ip -6 address add 2001:db8:2::fe/64 dev eth1 nodad");
    lab.sh("lb", "ip rule del priority 10000");
    assert_ne!(routes(&lab), served);
    assert!(eventually(Duration::from_secs(25), || routes(&lab) == served), "{}", routes(&lab));
    for family in Family::BOTH {
        assert_eq!(answering(&lab, family), BACKENDS.map(str::to_owned).into(), "{family:?}");
    }
    loaded.stop();
}

fn refused(lab: &Lab) -> Said {
    let config = lab.file("loaded.toml", &text(FREE, "", ALL));
    let binary = crate::rig::lab::binary();
    lab.exec("lb", &[binary.to_str().unwrap(), "-D", "-c", &config])
}

#[test]
fn somebody_elses_rule_in_the_way_is_named_and_nothing_changes() {
    let Some(lab) = up() else { return };
    lab.sh("lb", "ip rule add priority 10003 from 10.9.9.9 lookup 77");
    let before = (routes(&lab), lab.rules());
    let said = refused(&lab);
    assert_ne!(said.code, Some(0));
    assert!(
        said.err.contains("10003: from 10.9.9.9 lookup 77") && said.err.contains("rule del priority 10003"),
        "{said:?}"
    );
    assert_eq!((routes(&lab), lab.rules()), before);
}

#[test]
fn a_vip_that_is_the_balancers_own_is_refused_with_the_cure() {
    let Some(lab) = up() else { return };
    for family in Family::BOTH {
        lab.sh("lb", &format!("ip address add {} dev eth0", family.vip()));
    }
    let before = (routes(&lab), lab.rules());
    let said = refused(&lab);
    assert_ne!(said.code, Some(0));
    for family in Family::BOTH {
        let own = format!("loaded: error: {} is an address of this host", family.vip());
        let mut lines = said.err.lines().filter(|line| line.starts_with(&own) && line.contains("ip address del"));
        assert!(lines.next().is_some_and(|line| line.matches("error: ").count() == 1), "{said:?}");
    }
    assert_eq!((routes(&lab), lab.rules()), before);
}
