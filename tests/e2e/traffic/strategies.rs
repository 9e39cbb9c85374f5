//! How the strategies spread clients and connections.

use crate::rig::lab::Lab;
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, ask, backend_of, get};
use crate::rig::requests::places;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// A service over both families. `weights` are those of the three backends.
fn toml(strategy: &str, affinity: &str, weights: [u16; 3]) -> String {
    let backend = |(n, weight)| {
        let one =
            |family: Family| format!("[[service.backend]]\naddress = \"{}\"\nweight = {weight}\n", family.backend(n));
        Family::BOTH.map(one).concat()
    };
    let backends: String = (1..).zip(weights).map(backend).collect();
    format!(
        "cores = \"0-1\"\n[[service]]\nname = \"web\"\nvip = [\"{}\", \"{}\"]\nprotocol = \"tcp\"\nports = [80]\n\
         strategy = \"{strategy}\"\naffinity = {affinity}\n{backends}",
        Family::V4.vip(),
        Family::V6.vip()
    )
}

/// Opens `each` connections from each of 40 clients; returns their number by backend.
fn spread(lab: &Lab, family: Family, each: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    lab.within("client", || {
        for client in (10..50).flat_map(|n| std::iter::repeat_n(family.client(n), each)) {
            let answer = get(client, family.vip(), 80).unwrap();
            *counts.entry(backend_of(&answer, client)).or_insert(0) += 1;
        }
    });
    counts
}

#[track_caller]
fn is_near(counts: &BTreeMap<String, usize>, expected: [usize; 3], slack: usize) {
    for (name, expected) in ["b1", "b2", "b3"].into_iter().zip(expected) {
        let count = counts.get(name).copied().unwrap_or(0);
        assert!(count.abs_diff(expected) <= slack, "{name}: {count} of {counts:?}, expected {expected} ± {slack}");
    }
}

#[test]
fn round_robin_without_affinity_deals_connections_evenly() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &toml("rr", "\"none\"", [1, 1, 1]));
    for family in Family::BOTH {
        // Each of two workers deals evenly, so no more than one connection a worker is out of place.
        is_near(&spread(&lab, family, 6), [80, 80, 80], 2);
    }
    loaded.stop();
}

#[test]
fn round_robin_honours_weights() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &toml("rr", "\"none\"", [3, 1, 1]));
    for family in Family::BOTH {
        is_near(&spread(&lab, family, 5), [120, 40, 40], 6);
    }
    loaded.stop();
}

#[test]
fn weighted_counts_clients() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &toml("weighted", "{ by = \"client\", prefix6 = 128 }", [3, 1, 1]));
    for family in Family::BOTH {
        // 40 clients, five connections each: 24 : 8 : 8 clients, whatever each worker has got of them.
        is_near(&spread(&lab, family, 5), [120, 40, 40], 15);
    }
    loaded.stop();
}

/// Two runs without common state, with new keys for steering and tables, agree on every client.
#[test]
fn maglev_agrees_with_itself() {
    let Some(lab) = Lab::up() else { return };
    let run = |lab: &Lab| {
        let loaded = Loaded::toml(lab, &toml("maglev", "{ by = \"client\", prefix6 = 128 }", [1, 1, 1]));
        let places = Family::BOTH.map(|family| places(lab, family, 1));
        loaded.stop();
        places
    };
    let first = run(&lab);
    assert_eq!(run(&lab), first);
    for places in first {
        for backend in ["b1", "b2", "b3"] {
            let clients = places.values().filter(|place| *place == backend).count();
            assert!((3..=20).contains(&clients), "{backend} has {clients} of 30 clients");
        }
    }
}

/// A service on some ports leaves the others to the host itself.
#[test]
fn other_ports_are_not_balanced() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &toml("rr", "\"client\"", [1, 1, 1]));
    for family in Family::BOTH {
        let client = family.client(10);
        lab.within("client", || {
            backend_of(&get(client, family.vip(), 80).unwrap(), client);
            // nginx of the backends listens on 81, too; the balancer itself does not.
            assert!(get(client, family.vip(), 81).is_err(), "port 81 is balanced");
            assert!(ask(client, SocketAddr::new(family.vip(), 7007), "hello").is_err(), "UDP is balanced");
        });
    }
    assert_eq!(loaded.count("passed_unserved"), 0, "such packets reach no worker");
    loaded.stop();
}

/// With affinity by prefix, all addresses of a prefix are one client.
#[test]
fn a_prefix_is_one_client() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &toml("rr", "{ by = \"client\", prefix4 = 24, prefix6 = 64 }", [1, 1, 1]));
    for family in Family::BOTH {
        let counts = spread(&lab, family, 1);
        assert_eq!(counts.len(), 1, "{family:?}: one client, one backend: {counts:?}");
    }
    loaded.stop();
}
