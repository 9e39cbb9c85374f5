//! HUP: changes take effect, and what does not change does not notice.

mod change;
mod include;
mod refused;

use crate::rig::config::{STICKY, Service, change, config};
use crate::rig::lab::{Lab, base_chains, eventually, setting};
use crate::rig::loaded::{Loaded, children, signal_to};
use crate::rig::machine::measured;
use crate::rig::net::{Family, get};
use crate::rig::packet::Dice;
use crate::rig::requests::{download, sum_of};
use nix::sys::signal::Signal;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

/// A client asks five hundred times a second while the configuration changes ten times.
#[test]
fn no_datagram_is_lost_by_a_reload() {
    const DATAGRAMS: u16 = 2500;
    let Some(lab) = Lab::up() else { return };
    let with = |weight| {
        let backends = &[(1, weight), (2, 1), (3, 1)];
        config("1s", &[Service { protocol: "udp", ports: "7007", keys: STICKY, backends, ..Service::default() }])
    };
    let loaded = Loaded::toml(&lab, &with(1));
    let (chains, before) = (base_chains(&lab), loaded.status()["generation"].as_u64().unwrap());
    assert_eq!(chains.len(), 4, "{chains:?}");
    let stream = |family: Family| {
        let socket = UdpSocket::bind((family.client(30), 0)).unwrap();
        socket.connect((family.vip(), 7007)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        std::thread::scope(|scope| {
            let answers = scope.spawn(|| {
                let (mut missing, mut text) = ((0..DATAGRAMS).collect::<std::collections::BTreeSet<_>>(), [0; 100]);
                while !missing.is_empty() {
                    let Ok(length) = socket.recv(&mut text) else { break };
                    let text = String::from_utf8_lossy(&text[..length]).into_owned();
                    missing.remove(&text.rsplit(' ').next().unwrap().parse().unwrap());
                }
                missing
            });
            for number in 0..DATAGRAMS {
                socket.send(number.to_string().as_bytes()).unwrap();
                std::thread::sleep(Duration::from_millis(2));
            }
            answers.join().unwrap()
        })
    };
    std::thread::scope(|scope| {
        let (lab, stream) = (&lab, &stream);
        let streams = Family::BOTH.map(|family| scope.spawn(move || lab.within("client", || stream(family))));
        for weight in 2..12 {
            change(lab, &loaded, &with(weight));
            std::thread::sleep(Duration::from_millis(300));
        }
        for stream in streams {
            let missing = stream.join().unwrap();
            assert!(missing.is_empty(), "{} lost: {missing:?}", missing.len());
        }
    });
    assert_eq!(loaded.status()["generation"], before + 10);
    assert_eq!(base_chains(&lab), chains, "a base chain was made anew");
    loaded.stop();
}

fn alternating(at: u64) -> String {
    let backends: &[(u16, u16)] =
        if at.is_multiple_of(2) { &[(1, 1), (2, 1), (3, 1)] } else { &[(1, 2), (2, 1), (3, 1)] };
    config("1s", &[Service { backends, ..Service::default() }])
}

/// Any worker, also one that does not serve yet, is killed at any moment of a reload.
#[test]
fn a_worker_that_is_killed_during_a_reload_costs_nothing() {
    const BYTES: u64 = 8 << 20;
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &alternating(0));
    let want = sum_of(&lab, BYTES);
    let mut dice = Dice::new(7);
    let (mut done, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let lab = &lab;
        let fetch = |family: Family| download(lab, family.client(40), SocketAddr::new(family.vip(), 80), BYTES, "1M");
        let downloads = Family::BOTH.map(|family| (family, scope.spawn(move || fetch(family))));
        for round in 1..=setting("E2E_RUNS", 6) {
            lab.file("loaded.toml", &alternating(round));
            let before = loaded.log().len();
            loaded.signal(Signal::SIGHUP);
            std::thread::sleep(Duration::from_millis(u64::try_from(dice.below(120)).unwrap()));
            let workers = loaded.workers();
            signal_to(workers[dice.below(workers.len())], Signal::SIGKILL);
            let says = |word: &str| loaded.log()[before..].contains(word);
            // After one that was refused the files say what holds already.
            let ended = || {
                ["reload: generation", "reload refused", "reload: the configuration is the same"]
                    .map(says)
                    .contains(&true)
            };
            assert!(eventually(Duration::from_secs(15), ended), "reload {round} does not end");
            let ok = loaded.status()["last_reload"]["ok"] == true;
            (done, refused) = (done + u32::from(ok), refused + u32::from(!ok));
            std::thread::sleep(Duration::from_secs(1));
        }
        for (family, download) in downloads {
            let said = download.join().unwrap();
            assert_eq!((said.code, &said.out), (Some(0), &want), "{family:?}: {}", said.err);
        }
    });
    println!("a worker killed in each of {} reloads: {done} done, {refused} refused", done + refused);
    change(&lab, &loaded, &alternating(0).replace("weight = 1", "weight = 3"));
    all_is_well(&lab, &loaded);
    loaded.stop();
}

/// Two workers serve, no other child is left, and clients are served.
#[track_caller]
fn all_is_well(lab: &Lab, loaded: &Loaded) {
    let two = || children(loaded.pid()).len() == 2 && loaded.workers().len() == 2;
    assert!(eventually(Duration::from_secs(5), two), "{:?} are left", children(loaded.pid()));
    let serving = || {
        let status = loaded.status();
        let all = status["processes"].as_array().unwrap().iter().all(|process| process["serving"] == true);
        all && status["generation"].as_u64() >= Some(1)
    };
    assert!(eventually(Duration::from_secs(5), serving), "{}", loaded.status());
    for family in Family::BOTH {
        for n in 10..16 {
            lab.within("client", || get(family.client(n), family.vip(), 80)).unwrap();
        }
    }
}

/// A second HUP arrives during a reload that fails: the second reload is made.
#[test]
fn a_reload_asked_for_during_one_that_fails_is_made() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &alternating(0));
    let next =
        (1..=20).find_map(|attempt| new_worker_held(&lab, &loaded, attempt)).expect("each reload was over too soon");
    let place = loaded.log().len();
    loaded.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(100));
    signal_to(next, Signal::SIGKILL);
    let says = |what: &str| eventually(Duration::from_secs(5), || loaded.log()[place..].contains(what));
    assert!(says("reload refused"), "it is done");
    assert!(says("reload: generation"), "the second HUP is forgotten");
    assert_eq!(loaded.status()["last_reload"]["ok"], true);
    all_is_well(&lab, &loaded);
    loaded.stop();
}

/// Begins a reload, and stops one of its new workers; `None` if the reload was over by then, as it is where this test has to
/// wait for its turn.
fn new_worker_held(lab: &Lab, loaded: &Loaded, attempt: u64) -> Option<u32> {
    let (old, place) = (children(loaded.pid()), loaded.log().len());
    lab.file("loaded.toml", &alternating(attempt));
    loaded.signal(Signal::SIGHUP);
    // A reload takes a few hundredths of a second, so there is no time to sleep.
    let is_worker = |pid: &u32| {
        let said = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        said.contains("--role\0worker")
    };
    let is_new = |pid: &u32| !old.contains(pid) && is_worker(pid);
    let is_over = || loaded.log()[place..].contains("reload: generation");
    let next = loop {
        match children(loaded.pid()).into_iter().find(is_new) {
            Some(next) => break next,
            None => assert!(!is_over(), "no new worker was seen"),
        }
    };
    signal_to(next, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(100));
    if !is_over() {
        return Some(next);
    }
    signal_to(next, Signal::SIGCONT);
    let settled = || children(loaded.pid()).iter().filter(|pid| is_worker(pid)).count() == 2;
    assert!(eventually(Duration::from_secs(5), settled), "the old workers stay");
    None
}

/// A datagram every 40 ms: the worker is never idle and never busy. It hears orders all the same.
#[test]
fn a_worker_with_a_trickle_of_packets_lets_go() {
    measured(|lab| {
        let with = |weight| {
            let backends = &[(1, weight), (2, 1)];
            config("1s", &[Service { protocol: "udp", ports: "7007", backends, ..Service::default() }])
        };
        let loaded = Loaded::toml(lab, &with(1));
        let over = std::sync::atomic::AtomicBool::new(false);
        let mut times = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                lab.within("client", || {
                    let socket = UdpSocket::bind((Family::V4.client(10), 0)).unwrap();
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        socket.send_to(b"x", (Family::V4.vip(), 7007)).unwrap();
                        std::thread::sleep(Duration::from_millis(40));
                    }
                });
            });
            std::thread::sleep(Duration::from_millis(300));
            for weight in 2..6 {
                lab.file("loaded.toml", &with(weight));
                let began = std::time::Instant::now();
                loaded.signal(Signal::SIGHUP);
                let done = || loaded.log().matches("reload: generation").count() == usize::from(weight) - 1;
                let done = eventually(Duration::from_secs(10), done);
                times.push(if done { began.elapsed() } else { Duration::MAX });
            }
            over.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        println!("reloads with a trickle of packets: {times:?}");
        assert!(!loaded.log().contains("does not go"), "a worker was killed");
        assert!(times.iter().all(|time| *time < Duration::from_millis(800)), "{times:?}");
        loaded.stop();
    });
}
