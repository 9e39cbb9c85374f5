//! The operator's commands: drain, disable, enable a backend.

use crate::rig::config::{STICKY, Service, change, config};
use crate::rig::lab::{Lab, eventually, setting};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::machine::timed;
use crate::rig::net::{Family, backend_of, get};
use crate::rig::ports::named;
use crate::rig::requests::{download, small_buffers, sum_of};
use crate::rig::wire::capture;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// A worker that has nothing to do looks at its link every 50 ms.
const HEARD: Duration = Duration::from_millis(150);
const BACKENDS: &[(u16, u16)] = &[(1, 1), (2, 1), (3, 1)];

fn start(lab: &Lab) -> Loaded {
    Loaded::toml(lab, &text(""))
}

fn text(keys: &str) -> String {
    let keys = format!("{STICKY}\n{keys}");
    config("60s", &[Service { keys: &keys, backends: BACKENDS, ..Service::default() }])
}

/// Runs `loaded backend ...`, which must succeed.
#[track_caller]
fn order(loaded: &Loaded, words: &[&str], address: IpAddr) {
    let said = loaded.ask(&[&["backend"], words, &[&address.to_string()]].concat());
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert!(said.out.starts_with(&format!("service web: backend {} is ", named(address))), "{}", said.out);
    std::thread::sleep(HEARD);
}

/// The number of this client's backend.
#[track_caller]
fn place(lab: &Lab, family: Family, client: u16) -> u16 {
    let client = family.client(client);
    let answer = lab.within("client", || get(client, family.vip(), 80)).unwrap_or_else(|e| panic!("{client}: {e}"));
    backend_of(&answer, client)[1..].parse().unwrap()
}

fn count(backend: &Value, key: &str) -> u64 {
    backend[key].as_u64().unwrap_or_else(|| panic!("no {key}: {backend}"))
}

/// A client's connections that are still open in a backend's kernel.
fn open_at(lab: &Lab, backend: u16, client: IpAddr) -> usize {
    let script = format!("ss -Htn state established dst [{client}] | wc -l");
    lab.sh(&format!("b{backend}"), &script).trim().parse().unwrap()
}

#[track_caller]
fn download_begins(lab: &Lab, backend: u16, client: IpAddr) {
    let begun = eventually(Duration::from_secs(10), || open_at(lab, backend, client) == 1);
    assert!(begun, "{} downloads of {client} at b{backend}", open_at(lab, backend, client));
}

/// Whether a packet that reaches the client has a backend's address as its source.
fn names_a_backend(packet: &[u8]) -> bool {
    let source = match packet.first().map(|byte| byte >> 4) {
        Some(4) => IpAddr::from(<[u8; 4]>::try_from(&packet[12..16]).unwrap()),
        Some(6) => IpAddr::from(<[u8; 16]>::try_from(&packet[8..24]).unwrap()),
        _ => return false,
    };
    Family::BOTH.iter().any(|family| (1..=3).any(|n| family.backend(n) == source))
}

#[test]
fn a_drain_lets_downloads_finish_and_new_clients_go_elsewhere() {
    const BYTES: u64 = 6 << 20;
    let Some(lab) = Lab::up() else { return };
    let loaded = start(&lab);
    let want = sum_of(&lab, BYTES);
    for family in Family::BOTH {
        let at = place(&lab, family, 40);
        let address = family.backend(at);
        let tuple = (family.client(40), SocketAddr::new(family.vip(), 80));
        std::thread::scope(|scope| {
            let lab = &lab;
            let running = scope.spawn(|| download(lab, tuple.0, tuple.1, BYTES, "1500k"));
            let backend = || loaded.backend("web", address);
            download_begins(lab, at, tuple.0);
            order(&loaded, &["drain"], address);
            let drained = backend();
            assert_eq!((&drained["admin"], &drained["state"]), (&"draining".into(), &"unchecked".into()), "{drained}");
            assert!((58..=60).contains(&count(&drained, "drain_left")), "{drained}");
            assert!(count(&drained, "flows") >= 1, "{drained}");
            // New clients, and the one whose backend it was.
            for client in (10..34).chain([40]) {
                assert_ne!(place(lab, family, client), at, "{family:?} client {client}");
            }
            std::thread::sleep(Duration::from_millis(1500));
            let later = backend();
            assert!(count(&later, "drain_left") < count(&drained, "drain_left"), "{later}");
            assert_eq!(later["new_flows"], drained["new_flows"], "{later}");
            let said = running.join().unwrap();
            assert_eq!((said.code, &said.out), (Some(0), &want), "{family:?}: {}", said.err);
            assert!(eventually(Duration::from_secs(3), || open_at(lab, at, tuple.0) == 0));
            let text = loaded.ask(&["status"]).out;
            assert!(text.contains(", 1 draining") && text.contains("drain"), "{text}");
        });
        order(&loaded, &["enable"], address);
        assert_eq!(loaded.backend("web", address)["admin"], "enabled");
        assert_eq!(loaded.backend("web", address)["drain_left"], Value::Null);
        assert!(
            (10..50).any(|client| place(&lab, family, client) == at),
            "{family:?}: the backend gets no client after enable"
        );
    }
    loaded.stop();
}

/// A client that connects again from a port that had a flow at the draining backend is sent to another.
#[test]
fn an_old_tuple_opens_elsewhere_during_a_drain() {
    let Some(lab) = Lab::up() else { return };
    let loaded = start(&lab);
    for family in Family::BOTH {
        let (client, vip) = (family.client(40), SocketAddr::new(family.vip(), 80).ip());
        let ask = || {
            let host = if vip.is_ipv6() { format!("[{vip}]") } else { vip.to_string() };
            // A reset at the end leaves no TIME-WAIT, so that the port can be used again.
            let script = "import socket, struct, sys
s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
s.settimeout(3)
s.bind((sys.argv[1], 31000)); s.connect((sys.argv[2].strip('[]'), 80))
s.send(b'GET / HTTP/1.1\\r\\nHost: vip\\r\\n\\r\\n')
text = b''
while not text.endswith(b'\\n') or text.endswith(b'\\r\\n'): text += s.recv(1000)
print(text.split(b'\\r\\n\\r\\n')[1].decode().split()[0])";
            let said = lab.exec("client", &["python3", "-c", script, &client.to_string(), &host]);
            assert_eq!(said.code, Some(0), "{}", said.err);
            said.out.trim().to_owned()
        };
        let at = ask();
        assert_eq!(ask(), at, "the reused port goes to the draining backend");
        let address = family.backend(at[1..].parse().unwrap());
        order(&loaded, &["drain"], address);
        assert_ne!(ask(), at, "{family:?}");
        order(&loaded, &["enable"], address);
    }
    loaded.stop();
}

#[test]
fn the_deadline_of_a_drain_is_kept() {
    timed(|lab| {
        small_buffers(lab);
        let loaded = start(lab);
        let mut times = Vec::new();
        for family in Family::BOTH {
            for _ in 0..setting("E2E_RUNS", 1) {
                times.push(deadline(lab, &loaded, family));
            }
        }
        println!("a drain of 3 s ends a download after {times:?}");
        loaded.stop();
    });
}

fn deadline(lab: &Lab, loaded: &Loaded, family: Family) -> Duration {
    let (at, client) = (place(lab, family, 40), family.client(40));
    let address = family.backend(at);
    let (took, packets) = capture(lab, "client", || {
        std::thread::scope(|scope| {
            let running = scope.spawn(|| download(lab, client, SocketAddr::new(family.vip(), 80), 1 << 30, "300k"));
            download_begins(lab, at, client);
            let began = Instant::now();
            order(loaded, &["drain", "--deadline", "3s"], address);
            let said = running.join().unwrap();
            let took = began.elapsed();
            assert_eq!(said.code, Some(56), "{}", said.err);
            assert!(said.err.contains("Connection reset by peer"), "{}", said.err);
            took
        })
    });
    assert!((Duration::from_millis(2900)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert!(packets.len() > 100 && !packets.iter().any(|packet| names_a_backend(packet)), "a backend's own address");
    assert!(eventually(Duration::from_secs(2), || open_at(lab, at, client) == 0), "the backend's side stays open");
    let backend = loaded.backend("web", address);
    assert_eq!((&backend["admin"], &backend["drain_left"]), (&"disabled".into(), &0.into()), "{backend}");
    order(loaded, &["enable"], address);
    took
}

#[test]
fn disabling_ends_flows_at_once() {
    const BYTES: u64 = 4 << 20;
    timed(|lab| {
        small_buffers(lab);
        let loaded = start(lab);
        for family in Family::BOTH {
            // Also where flows of a backend that is down may drain: this one is not down, it is to be empty.
            for policy in ["reset", "drain"] {
                change_policy(lab, &loaded, policy);
                let (at, client) = (place(lab, family, 40), family.client(40));
                std::thread::scope(|scope| {
                    let vip = SocketAddr::new(family.vip(), 80);
                    let running = scope.spawn(move || download(lab, client, vip, BYTES, "1500k"));
                    download_begins(lab, at, client);
                    let began = Instant::now();
                    order(&loaded, &["disable"], family.backend(at));
                    assert_eq!(loaded.backend("web", family.backend(at))["admin"], "disabled");
                    assert_ne!(place(lab, family, 40), at, "{family:?}, {policy}: a new connection");
                    let said = running.join().unwrap();
                    assert!(said.err.contains("Connection reset by peer"), "{policy}: {said:?}");
                    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
                });
                let closed = || open_at(lab, at, client) == 0;
                assert!(eventually(Duration::from_secs(3), closed), "{policy}: the backend's side stays open");
                order(&loaded, &["enable"], family.backend(at));
            }
        }
        loaded.stop();
    });
}

fn change_policy(lab: &Lab, loaded: &Loaded, policy: &str) {
    lab.file("loaded.toml", &text(&format!("on_backend_down = {policy:?}")));
    assert!(loaded.reload().0);
}

#[test]
fn what_does_not_exist_is_an_error() {
    let Some(lab) = Lab::up() else { return };
    let loaded = start(&lab);
    let before = loaded.status()["services"].clone();
    for (words, code, text) in [
        (&["drain", "198.51.100.99"][..], 1, "no service has a backend 198.51.100.99; loaded status shows"),
        (&["enable", "2001:db8:2::99"], 1, "no service has a backend 2001:db8:2::99"),
        (&["disable", "198.51.100.11", "--service", "wep"], 1, "service \"wep\" has no backend 198.51.100.11"),
        (&["drain", "192.0.2.100"], 1, "no service has a backend 192.0.2.100"),
        (&["drain", "b1"], 2, "invalid value 'b1'"),
        (&["drain", "198.51.100.11", "--deadline", "0s"], 2, "is not a duration from 1s to 7d"),
        (&["drain", "198.51.100.11", "--deadline", "8d"], 2, "is not a duration from 1s to 7d"),
        (&["drain"], 2, "<ADDR[:PORT]>"),
        (&["stop", "198.51.100.11"], 2, "unrecognized subcommand 'stop'"),
    ] {
        let said = loaded.ask(&[&["backend"], words].concat());
        assert!(said.code == Some(code) && said.err.contains(text) && said.out.is_empty(), "{words:?}: {said:?}");
    }
    assert_eq!(loaded.status()["services"], before);
    loaded.stop();
}

/// Drain and disable outlast a reload and the death of each process; `--service` limits them to one service.
#[test]
fn what_the_operator_wants_outlives_reloads_and_deaths() {
    let Some(lab) = Lab::up() else { return };
    let check = "check = { kind = \"tcp\", interval = \"500ms\" }";
    let loaded = Loaded::toml(&lab, &text(check));
    let [drained, disabled] = [1, 2].map(|n| Family::BOTH.map(|family| family.backend(n)));
    drained.into_iter().for_each(|address| order(&loaded, &["drain", "--service", "web"], address));
    disabled.into_iter().for_each(|address| order(&loaded, &["disable"], address));
    let holds = |after: &str| {
        let admin = |address| loaded.backend("web", address)["admin"].as_str().unwrap().to_owned();
        assert_eq!(drained.map(admin), ["draining"; 2], "after {after}");
        assert_eq!(disabled.map(admin), ["disabled"; 2], "after {after}");
        for (family, client) in Family::BOTH.into_iter().flat_map(|family| (10..20).map(move |n| (family, n))) {
            assert_eq!(place(&lab, family, client), 3, "after {after}: {family:?} client {client}");
        }
        count(&loaded.backend("web", drained[0]), "drain_left")
    };
    let mut left = holds("the orders");
    let mut falls = |now: u64, after: &str| {
        assert!(now <= left && now > 0, "after {after}: the deadline went from {left} to {now} s");
        left = now;
    };
    change(&lab, &loaded, &text(&format!("{check}\nstrategy = \"weighted\"")));
    falls(holds("a reload"), "a reload");
    for at in [0, 1] {
        let workers = loaded.workers();
        signal_to(workers[at], Signal::SIGKILL);
        let replaced = || loaded.workers().len() == 2 && !loaded.workers().contains(&workers[at]);
        assert!(eventually(Duration::from_secs(5), replaced), "worker {at} is not replaced");
        falls(holds("a worker's death"), "a worker's death");
    }
    signal_to(loaded.prober().unwrap(), Signal::SIGKILL);
    std::thread::sleep(Duration::from_secs(1));
    falls(holds("the prober's death"), "the prober's death");
    let client = Family::V4.client(10);
    order(&loaded, &["disable"], Family::V4.backend(3));
    let refused = lab.within("client", || get(client, Family::V4.vip(), 80)).map_err(|e| e.kind());
    assert_eq!(refused, Err(ErrorKind::ConnectionRefused), "nobody is left");
    order(&loaded, &["enable"], Family::V4.backend(1));
    assert_eq!(place(&lab, Family::V4, 10), 1);
    let history = loaded.json(&["history"]);
    let ours = || history.as_array().unwrap().iter().filter(|event| event["by"] == "operator");
    assert_eq!(ours().filter(|event| !event["address"].is_null()).count(), 6, "{history}");
    // The last two orders change the service, too: nobody is left, and somebody is again.
    assert_eq!(ours().filter(|event| event["address"].is_null()).count(), 2, "{history}");
    loaded.stop();
}
