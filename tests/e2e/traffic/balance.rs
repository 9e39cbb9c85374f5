//! The main job: clients reach all backends and stay with theirs, over both families in one process.

use crate::rig::lab::{BACKENDS, Lab};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, ask, backend_of};
use crate::rig::requests::{pings, places};
use std::collections::BTreeSet;
use std::net::SocketAddr;

#[test]
fn clients_reach_every_backend_and_stay_with_theirs() {
    let Some(lab) = Lab::up() else { return };
    // Nobody may know his neighbours: a balancer that eats neighbour discovery shows here.
    for who in ["client", "lb"].iter().chain(&BACKENDS) {
        lab.sh(who, "ip -6 neigh flush all; ip -4 neigh flush all");
        assert_eq!(lab.sh(who, "ip -6 neigh show nud permanent"), "", "a static neighbour");
    }
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        let places = places(&lab, family, 4);
        let seen: BTreeSet<_> = places.values().map(String::as_str).collect();
        assert_eq!(seen, BTreeSet::from(BACKENDS), "{family:?}");
        // Round robin gives each about ten of thirty; two workers deal by themselves.
        for backend in BACKENDS {
            let clients = places.values().filter(|place| *place == backend).count();
            assert!((6..=14).contains(&clients), "{family:?}: {backend} has {clients} of 30 clients");
        }
        // A client is an address: its datagrams go where its connections go.
        lab.within("client", || {
            for (&client, place) in &places {
                let answer = ask(client, SocketAddr::new(family.vip(), 7007), "hello there").unwrap();
                assert_eq!(&backend_of(&answer, client), place, "UDP goes elsewhere");
                assert!(answer.ends_with(" hello there"), "{answer:?}");
            }
        });
    }
    loaded.stop();
}

/// Echo requests that a host's kernel has received, of both families.
fn echoes(lab: &Lab, who: &str) -> u64 {
    let text = lab.sh(who, "nstat -asz IcmpInEchos Icmp6InEchos");
    let lines = text.lines().filter(|line| line.contains("InEchos"));
    lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn pings_reach_backends_also_in_pieces() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    for family in Family::BOTH {
        for size in [56, 8000, 60000] {
            let at_backends = || BACKENDS.iter().map(|backend| echoes(&lab, backend)).sum::<u64>();
            let (backends, balancer) = (at_backends(), echoes(&lab, "lb"));
            pings(&lab, "client", (family.client(12), family.vip()), 5, size);
            assert_eq!(at_backends() - backends, 5, "{family:?}: the backends' own count");
            assert_eq!(echoes(&lab, "lb"), balancer, "{family:?}: the balancer has answered itself");
        }
    }
    assert_eq!(loaded.count("dropped_fragment"), 0);
    loaded.stop();
}

/// A datagram of several fragments arrives whole, both ways.
#[test]
fn large_datagrams_arrive_whole() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    let text: String = (0..2000).map(|n| format!("{n:04}")).collect();
    for family in Family::BOTH {
        let client = family.client(20);
        let answer = lab.within("client", || ask(client, SocketAddr::new(family.vip(), 7007), &text)).unwrap();
        assert!(answer.ends_with(&format!(" {text}")), "{family:?}: {} bytes came back", answer.len());
    }
    loaded.stop();
}
