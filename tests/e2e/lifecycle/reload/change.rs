//! Each kind of change in a reload affects exactly what it names.

use crate::rig::config::{FREE, STICKY, Service, change, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::lab::{base_chains, more_vips};
use crate::rig::loaded::Loaded;
use crate::rig::machine::{paired, timed};
use crate::rig::net::{Family, backend_of, get};
use crate::rig::requests::{download, small_buffers, sum_of, url, wrk};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// How many of one client's connections each backend answers.
#[track_caller]
fn spread(lab: &Lab, from: IpAddr, to: SocketAddr, connections: usize) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    lab.within("client", || {
        for _ in 0..connections {
            let answer = get(from, to.ip(), to.port()).unwrap_or_else(|e| panic!("{from} to {to}: {e}"));
            *seen.entry(backend_of(&answer, from)).or_default() += 1;
        }
    });
    seen
}

/// The balancer's own kernel refuses the connection: no service takes it.
#[track_caller]
fn is_refused(lab: &Lab, family: Family, vip: u16, port: u16) {
    let answer = lab.within("client", || get(family.client(11), family.client(vip), port));
    assert_eq!(answer.map_err(|e| e.kind()), Err(ErrorKind::ConnectionRefused), "{family:?} {vip}:{port}");
}

/// For each backend of an unchanged service: what must stay the same, and the counters that must not fall.
fn known(loaded: &Loaded) -> (Vec<Value>, Vec<[u64; 5]>) {
    let status = loaded.status();
    let service = status["services"].as_array().unwrap().iter().find(|service| service["name"] == "steady").unwrap();
    let backends = service["backends"].as_array().unwrap();
    let same = backends.iter().map(|b| serde_json::json!([b["address"], b["index"], b["since"], b["state"]])).collect();
    let counts = ["new_flows", "packets_to", "bytes_to", "packets_from", "bytes_from"];
    (same, backends.iter().map(|b| counts.map(|count| b[count].as_u64().unwrap())).collect())
}

#[test]
fn services_that_stay_do_not_notice_those_that_change() {
    const BYTES: u64 = 12 << 20;
    paired(|lab| {
        more_vips(lab);
        let steady = Service { name: "steady", backends: &[(1, 1), (2, 1), (3, 1)], ..Service::default() };
        let side = Service { name: "side", vips: &[101], ports: "81", keys: FREE, ..Service::default() };
        let loaded = Loaded::toml(lab, &config("1s", &[steady.clone(), side.clone()]));
        let (chains, want) = (base_chains(lab), sum_of(lab, BYTES));
        std::thread::scope(|scope| {
            let fetch =
                |family: Family| download(lab, family.client(40), SocketAddr::new(family.vip(), 80), BYTES, "1M");
            let downloads = Family::BOTH.map(|family| (family, scope.spawn(move || fetch(family))));
            let load = Family::BOTH.map(|family| scope.spawn(move || wrk(lab, &url(family.vip(), 80, "small"), 8, 11)));
            std::thread::sleep(Duration::from_millis(500));
            let mut was = known(&loaded);
            let mut to = |changed: &[&Service<'_>]| {
                let services: Vec<_> = std::iter::once(&steady).chain(changed.iter().copied()).cloned().collect();
                change(lab, &loaded, &config("1s", &services));
                let is = known(&loaded);
                assert_eq!(is.0, was.0, "backends that do not change");
                let pairs = was.1.iter().flatten().zip(is.1.iter().flatten());
                assert!(pairs.clone().all(|(was, is)| was <= is), "counters: {was:?}, then {is:?}");
                was = is;
                for backend in loaded.status()["services"][0]["backends"].as_array().unwrap() {
                    assert_eq!(backend["state"], "unchecked", "{backend}");
                }
            };
            every_change(lab, &loaded, &side, &mut to);
            for (family, download) in downloads {
                let said = download.join().unwrap();
                assert_eq!((said.code, &said.out), (Some(0), &want), "{family:?}: {}", said.err);
            }
            load.into_iter().for_each(|load| load.join().unwrap());
        });
        assert_eq!(base_chains(lab), chains, "a base chain was made anew");
        loaded.stop();
    });
}

fn every_change(lab: &Lab, loaded: &Loaded, side: &Service<'_>, to: &mut dyn FnMut(&[&Service<'_>])) {
    let at = |family: Family, vip, port| SocketAddr::new(family.client(vip), port);
    let served = |places: &[(u16, u16)]| {
        for (family, (vip, port)) in
            Family::BOTH.into_iter().flat_map(|family| places.iter().map(move |p| (family, *p)))
        {
            spread(lab, family.client(20), at(family, vip, port), 2);
        }
    };
    let refused = |vip, port| Family::BOTH.into_iter().for_each(|family| is_refused(lab, family, vip, port));
    for family in Family::BOTH {
        let seen = spread(lab, family.client(20), at(family, 101, 81), 30);
        assert!(
            seen.values().all(|n| (8..=22).contains(n)) && seen.len() == 2,
            "{family:?}: {seen:?} of equal weights"
        );
    }
    // Weights.
    to(&[&Service { backends: &[(1, 9), (2, 1)], ..side.clone() }]);
    for family in Family::BOTH {
        let seen = spread(lab, family.client(20), at(family, 101, 81), 30);
        assert!((24..30).contains(&seen["b1"]), "{family:?}: {seen:?} of weights 9 and 1");
    }
    // Strategy and policy. What the operator wants stays.
    to(&[&Service { keys: "affinity = \"none\"\nstrategy = \"maglev\"\nall_down = \"reject\"", ..side.clone() }]);
    let service = || loaded.status()["services"][1].clone();
    assert!(service()["strategy"].as_str().unwrap().starts_with("maglev"), "{}", service());
    for (family, n) in Family::BOTH.into_iter().flat_map(|family| [(family, 1), (family, 2)]) {
        let said = loaded.ask(&["backend", "disable", &family.backend(n).to_string(), "--service", "side"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    // The shell's own end is 1 where the connection is refused, 124 where nobody answers.
    let knock = |family: Family| {
        let script = format!("exec 3<>/dev/tcp/{}/81", family.client(101));
        lab.exec("client", &["timeout", "0.7", "bash", "-c", &script]).code
    };
    // A worker that has nothing to do looks at its link every 50 ms, and with the kernel path it has little to do.
    let refuses = || Family::BOTH.map(knock) == [Some(1); 2];
    assert!(eventually(Duration::from_secs(1), refuses), "all_down = reject: {:?}", Family::BOTH.map(knock));
    to(&[&Service { keys: "affinity = \"none\"\nall_down = \"drop\"\non_backend_down = \"rehash\"", ..side.clone() }]);
    assert_eq!(Family::BOTH.map(knock), [Some(124); 2], "all_down = drop");
    assert_eq!((&service()["on_backend_down"], &service()["strategy"]), (&"rehash".into(), &"rr".into()));
    for (family, n) in Family::BOTH.into_iter().flat_map(|family| [(family, 1), (family, 2)]) {
        assert_eq!(loaded.ask(&["backend", "enable", &family.backend(n).to_string()]).code, Some(0));
    }
    // Ports: one more, then another one.
    to(&[&Service { ports: "80, 81", ..side.clone() }]);
    served(&[(101, 80), (101, 81)]);
    to(&[&Service { ports: "80", ..side.clone() }]);
    served(&[(101, 80)]);
    refused(101, 81);
    // VIPs: one more, then another one.
    refused(102, 81);
    to(&[&Service { vips: &[101, 102], ..side.clone() }]);
    served(&[(101, 81), (102, 81)]);
    to(&[&Service { vips: &[102], ..side.clone() }]);
    served(&[(102, 81)]);
    refused(101, 81);
    // Services: one more, then less.
    let extra = Service { name: "extra", vips: &[103], backends: &[(3, 1)], ..Service::default() };
    to(&[side, &extra]);
    for family in Family::BOTH {
        assert_eq!(spread(lab, family.client(20), at(family, 103, 80), 3), BTreeMap::from([("b3".to_owned(), 3)]));
    }
    to(&[side]);
    refused(103, 80);
    served(&[(101, 81)]);
}

#[test]
fn an_added_backend_joins_when_its_first_check_passes() {
    let Some(lab) = Lab::up() else { return };
    more_vips(&lab);
    let check = "check = { kind = \"tcp\", interval = \"500ms\", timeout = \"200ms\", rise = 3 }";
    let checked = format!("{FREE}\npassive = false\n{check}");
    let with = |backends| {
        let web = Service { keys: &checked, backends, ..Service::default() };
        let plain = Service { name: "plain", vips: &[101], keys: FREE, backends, ..Service::default() };
        config("1s", &[web, plain])
    };
    let loaded = Loaded::toml(&lab, &with(&[(1, 1), (2, 1)]));
    lab.kill_web("b3");
    change(&lab, &loaded, &with(&[(1, 1), (2, 1), (3, 1)]));
    let index = Family::BOTH.map(|family| loaded.backend("web", family.backend(3))["index"].clone());
    for family in Family::BOTH {
        let seen = spread(&lab, family.client(20), SocketAddr::new(family.vip(), 80), 30);
        assert_eq!(seen.keys().collect::<Vec<_>>(), ["b1", "b2"], "{family:?}: a backend that no check has passed");
        let backend = loaded.backend("web", family.backend(3));
        assert_eq!((&backend["state"], &backend["new_flows"]), (&"down".into(), &0.into()), "{backend}");
        // Nobody looks, so it is believed.
        assert_eq!(loaded.backend("plain", family.backend(3))["state"], "unchecked");
    }
    lab.start_web("b3");
    for family in Family::BOTH {
        let up = || loaded.backend("web", family.backend(3))["state"] == "up";
        assert!(eventually(Duration::from_secs(5), up), "{family:?}: {}", loaded.backend("web", family.backend(3)));
        for (vip, kind) in [(family.vip(), "checked"), (family.client(101), "unchecked")] {
            let seen = spread(&lab, family.client(20), SocketAddr::new(vip, 80), 30);
            assert_eq!(seen.len(), 3, "{family:?}, {kind}: {seen:?}");
        }
    }
    assert_eq!(Family::BOTH.map(|family| loaded.backend("web", family.backend(3))["index"].clone()), index);
    loaded.stop();
}

fn vip(family: Family) -> SocketAddr {
    SocketAddr::new(family.vip(), 80)
}

/// Its flows go on until the deadline, then they are reset; new flows go elsewhere at once.
#[test]
fn a_removed_backend_drains_until_its_deadline() {
    const BYTES: u64 = 3 << 20;
    timed(|lab| {
        small_buffers(lab);
        let with = |backends| config("4s", &[Service { keys: STICKY, backends, ..Service::default() }]);
        let loaded = Loaded::toml(lab, &with(&[(3, 1)]));
        let want = sum_of(lab, BYTES);
        std::thread::scope(|scope| {
            let short = |family: Family| download(lab, family.client(40), vip(family), BYTES, "1500k");
            let long = |family: Family| download(lab, family.client(41), vip(family), 1 << 30, "1M");
            let short = Family::BOTH.map(|family| scope.spawn(move || short(family)));
            let long = Family::BOTH.map(|family| scope.spawn(move || long(family)));
            let flows = |family: Family| loaded.backend("web", family.backend(3))["flows"].as_u64().unwrap();
            let begun = || Family::BOTH.map(flows) == [2, 2];
            assert!(eventually(Duration::from_secs(3), begun), "{:?}", Family::BOTH.map(flows));
            change(lab, &loaded, &with(&[(1, 1)]));
            let removed = std::time::Instant::now();
            for family in Family::BOTH {
                let backend = loaded.backend("web", family.backend(3));
                assert_eq!(backend["state"], "leaving", "{backend}");
                assert!(
                    (1..=4).contains(&backend["drain_left"].as_u64().unwrap()) && backend["flows"] == 2,
                    "{backend}"
                );
                // Also clients that were its own.
                for n in [20, 40, 41] {
                    assert!(spread(lab, family.client(n), vip(family), 2).contains_key("b1"), "{family:?} client {n}");
                }
            }
            for download in short {
                let said = download.join().unwrap();
                assert_eq!((said.code, &said.out), (Some(0), &want), "one that ends in time: {}", said.err);
            }
            for download in long {
                let said = download.join().unwrap();
                assert!(said.err.contains("reset by peer"), "one that does not: {:?} {}", said.code, said.err);
            }
            let after = removed.elapsed();
            println!("reset {after:?} after the removal");
            assert!((Duration::from_secs(3)..Duration::from_secs(8)).contains(&after), "{after:?}");
        });
        let open = || lab.sh("b3", "ss -Htn state established '( sport = :80 )' | wc -l");
        assert!(eventually(Duration::from_secs(3), || open().trim() == "0"), "the backend is not told: {}", open());
        loaded.stop();
    });
}
