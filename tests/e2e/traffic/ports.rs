//! Backends on other ports than their service, as clients, backends and operators see them. `E2E_PORTS` has the other tests
//! run so too (`rig/ports.rs`).

use crate::rig::config::{FREE, Service, change, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use crate::rig::requests::{download, sum_of};
use crate::rig::servers::HEARD;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// Where b1 listens besides 80, and where nobody does.
const FIRST: u16 = 10_080;
const SECOND: u16 = 10_081;
const CLOSED: u16 = 10_099;

/// At which ports of b1 nginx has answered since the log had this many lines.
fn answered(lab: &Lab, lines: usize) -> BTreeMap<u16, usize> {
    let mut ports = BTreeMap::new();
    for line in &lab.access_log("b1")[lines..] {
        *ports.entry(line.split(' ').nth(1).unwrap().parse().unwrap()).or_default() += 1;
    }
    ports
}

/// The ports that answer this many requests of each family.
fn ports_of(lab: &Lab, requests: usize) -> Vec<u16> {
    let lines = lab.access_log("b1").len();
    lab.within("client", || {
        for family in Family::BOTH {
            for _ in 0..requests {
                get(family.client(11), family.vip(), 80).unwrap();
            }
        }
    });
    assert!(eventually(Duration::from_secs(2), || answered(lab, lines).values().sum::<usize>() == requests * 2));
    answered(lab, lines).into_keys().collect()
}

/// Backend b1 of both families, once at each of these ports.
fn of_b1(keys: &str, ports: &[u16]) -> String {
    let [v4, v6] = Family::BOTH.map(Family::vip);
    let one = |port: &u16| {
        Family::BOTH.map(|f| format!("[[service.backend]]\naddress = \"{}\"\nport = {port}\n", f.backend(1)))
    };
    format!(
        "cores = \"0-1\"\n[[service]]\nname = \"web\"\nvip = [\"{v4}\", \"{v6}\"]\nprotocol = \"tcp\"\nports = [80]\n{keys}\n{}",
        ports.iter().flat_map(one).collect::<String>()
    )
}

/// Each is checked where its packets go, is drained by its name, and is counted by itself.
#[test]
fn an_address_with_two_ports_is_two_backends() {
    let Some(lab) = Lab::up() else { return };
    let keys = format!("{FREE}\ncheck = {{ kind = \"tcp\", interval = \"200ms\", timeout = \"150ms\" }}");
    let loaded = Loaded::toml(&lab, &of_b1(&keys, &[FIRST, SECOND, CLOSED]));
    let state = |address: &str, port: u16| {
        let status = loaded.status();
        let backends = status["services"][0]["backends"].as_array().unwrap();
        let is = |backend: &&serde_json::Value| backend["address"] == address && backend["port"] == port;
        backends.iter().find(is).unwrap()["state"].as_str().unwrap().to_owned()
    };
    let addresses = Family::BOTH.map(|family| family.backend(1).to_string());
    let settled =
        || addresses.iter().all(|a| state(a, CLOSED) == "down" && state(a, FIRST) == "up" && state(a, SECOND) == "up");
    assert!(eventually(Duration::from_secs(5), settled), "{}", loaded.status());
    assert_eq!(ports_of(&lab, 20), [FIRST, SECOND]);
    for address in &addresses {
        let name = SocketAddr::new(address.parse().unwrap(), FIRST).to_string();
        let said = loaded.ask(&["backend", "drain", &name]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains(&format!("backend {name} is draining")), "{}", said.out);
        let wrong = SocketAddr::new(address.parse().unwrap(), 80).to_string();
        let said = loaded.ask(&["backend", "drain", &wrong]);
        assert_eq!(said.code, Some(1));
        assert!(said.err.contains(&format!("no service has a backend {wrong}")), "{}", said.err);
    }
    std::thread::sleep(HEARD);
    assert_eq!(ports_of(&lab, 20), [SECOND]);
    let said = loaded.ask(&["explain", "tcp", "192.0.2.10:4000", "192.0.2.100:80"]);
    assert!(said.out.contains(" 198.51.100.11:10081, chosen by rr among 1"), "{}", said.out);
    let metrics = loaded.ask(&["metrics"]).out;
    for name in ["198.51.100.11:10080", "198.51.100.11:10081", "[2001:db8:2::11]:10099"] {
        assert!(
            metrics.contains(&format!("loaded_backend_up{{service=\"web\",backend=\"{name}\"")),
            "{name}: {metrics}"
        );
    }
    assert!(loaded.ask(&["status"]).out.contains("  [2001:db8:2::11]:10081 "));
    // Without a port the name means all of an address.
    assert_eq!(loaded.ask(&["backend", "enable", "198.51.100.11"]).out.lines().count(), 3);
    loaded.stop();
}

/// Downloads go on where they began, whatever port new connections get.
#[test]
fn a_reload_to_another_port_moves_no_connection() {
    const BYTES: u64 = 8 << 20;
    let Some(lab) = Lab::up() else { return };
    let at = |keys: &str| {
        let keys = format!("{FREE}\n{keys}");
        config("60s", &[Service { keys: &keys, backends: &[(1, 1)], ..Service::default() }])
    };
    let loaded = Loaded::toml(&lab, &at(""));
    let want = sum_of(&lab, BYTES);
    std::thread::scope(|scope| {
        let (lab, loaded) = (&lab, &loaded);
        let fetch = |family: Family| download(lab, family.client(40), SocketAddr::new(family.vip(), 80), BYTES, "1M");
        let begin = || Family::BOTH.map(|family| (family, scope.spawn(move || fetch(family))));
        let mut downloads = Vec::new();
        for (keys, port) in [("port = 10080", FIRST), ("port = 10081", SECOND), ("", 80)] {
            downloads.extend(begin());
            std::thread::sleep(Duration::from_millis(700));
            change(lab, loaded, &at(keys));
            assert_eq!(ports_of(lab, 4), [port]);
        }
        for (family, download) in downloads {
            let said = download.join().unwrap();
            assert_eq!((said.code, &said.out), (Some(0), &want), "{family:?}: {}", said.err);
        }
    });
    // With the kernel path that is where they went, whatever the port.
    if loaded.status()["kernel_path"]["off"].is_null() {
        let [kernel, worker] = ["kernel_returned", "returned"].map(|label| loaded.packets(&[label]));
        assert!(kernel > worker, "{}", loaded.ask(&["status"]).out);
    }
    loaded.stop();
}
