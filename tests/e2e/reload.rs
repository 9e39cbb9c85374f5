//! HUP: what changes takes effect, and what does not change does not notice.

mod change;
mod refused;
mod text;

use crate::lab::{Lab, Said, eventually, setting};
use crate::loaded::{Loaded, children, signal_to};
use crate::net::{Family, get};
use crate::packet::Dice;
use nix::sys::signal::Signal;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
pub(crate) use text::{FREE, STICKY, Service, config};

/// What the backends serve, and where the tests find it.
fn data() -> String {
    std::env::var("LAB_DATA").unwrap_or("/var/cache/loaded-lab".to_owned()) + "/big"
}

/// What `sha256sum` says of the first bytes of the big file.
pub(crate) fn sum_of(lab: &Lab, bytes: u64) -> String {
    lab.sh("client", &format!("head -c {bytes} {} | sha256sum", data()))
}

/// `http://ADDRESS:PORT/PATH`, whatever the family.
pub(crate) fn url(vip: IpAddr, port: u16, path: &str) -> String {
    format!("http://{}/{path}", SocketAddr::new(vip, port))
}

/// The first bytes of the big file, at a rate of curl's. Its output is their sum if all of them came.
pub(crate) fn download(lab: &Lab, from: IpAddr, to: SocketAddr, bytes: u64, rate: &str) -> Said {
    let (range, url) = (format!("0-{}", bytes - 1), url(to.ip(), to.port(), "big"));
    let curl =
        format!("curl -gsS --interface {from} --limit-rate {rate} --max-time 100 -r {range} '{url}' | sha256sum");
    lab.exec("client", &["bash", "-o", "pipefail", "-c", &curl])
}

/// What came before a reset waits for the reader in the client's kernel: here not for long.
pub(crate) fn small_buffers(lab: &Lab) {
    lab.sh("client", "sysctl -qw net.ipv4.tcp_rmem='4096 65536 65536'");
}

/// `wrk` on connections that stay, for so many seconds: there must be not one error.
#[track_caller]
pub(crate) fn wrk(lab: &Lab, url: &str, connections: u16, seconds: u64) {
    let (connections, seconds) = (format!("-c{connections}"), format!("-d{seconds}s"));
    let said = lab.exec("client", &["wrk", "-t1", &connections, &seconds, url]);
    assert_eq!(said.code, Some(0), "wrk: {}", said.err);
    assert!(["Socket errors", "Non-2xx"].iter().all(|problem| !said.out.contains(problem)), "{url}: {}", said.out);
    println!("{}", said.out.lines().find(|line| line.contains(" requests in ")).unwrap_or_default().trim());
}

/// Writes another configuration and reloads; it must be taken.
#[track_caller]
pub(crate) fn change(lab: &Lab, loaded: &Loaded, text: &str) {
    lab.file("loaded.toml", text);
    let (ok, said) = loaded.reload();
    assert!(ok && said.starts_with("generation"), "{said}");
}

/// More VIPs for the balancer: 101, 102 and 103 of both families.
pub(crate) fn more_vips(lab: &Lab) {
    let namespace = lab.namespace("lb");
    for n in 101..=103 {
        for (address, flag) in [(Family::V4.client(n), "/24"), (Family::V6.client(n), "/64")] {
            let words = ["ip", "-n", &namespace, "address", "add", &format!("{address}{flag}"), "dev", "eth0", "nodad"];
            let words = if address.is_ipv4() { &words[..8] } else { &words };
            assert_eq!(lab.exec("lb", words).code, Some(0), "{address}");
        }
    }
}

/// The base chains of netfilter with their numbers and their tables': another one has another number.
pub(crate) fn base_chains(lab: &Lab) -> Vec<String> {
    let text = lab.sh("lb", "nft -a list ruleset");
    let mut chains = Vec::new();
    let (mut table, mut chain) = ("", "");
    for line in text.lines().map(str::trim) {
        match line.split_whitespace().next() {
            Some("table") => table = line,
            Some("chain") => chain = line,
            Some("type") => chains.push(format!("{table} {chain}")),
            _ => {}
        }
    }
    chains.sort();
    chains
}

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

/// Any worker, also one that is to serve next, at any moment of a reload.
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

/// Two workers serve, nobody else is left, and clients are served.
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

/// The first reload cannot be done, and so the second one is.
#[test]
fn a_reload_asked_for_during_one_that_fails_is_made() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &alternating(0));
    let old = children(loaded.pid());
    lab.file("loaded.toml", &alternating(1));
    loaded.signal(Signal::SIGHUP);
    // A reload takes a few hundredths of a second, so there is no time to sleep.
    let next = loop {
        if let Some(next) = children(loaded.pid()).into_iter().find(|pid| !old.contains(pid)) {
            break next;
        }
    };
    signal_to(next, Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(100));
    loaded.signal(Signal::SIGHUP);
    std::thread::sleep(Duration::from_millis(100));
    signal_to(next, Signal::SIGKILL);
    assert!(eventually(Duration::from_secs(5), || loaded.log().contains("reload refused")), "it is done");
    let done = || loaded.log().contains("reload: generation");
    assert!(eventually(Duration::from_secs(5), done), "the second HUP is forgotten");
    assert_eq!(loaded.status()["last_reload"]["ok"], true);
    all_is_well(&lab, &loaded);
    loaded.stop();
}

/// A datagram every 40 ms: never a moment's rest, and never much to do. Orders are heard all the same.
#[test]
fn a_worker_with_a_trickle_of_packets_lets_go() {
    let Some(lab) = Lab::up() else { return };
    let with = |weight| {
        let backends = &[(1, weight), (2, 1)];
        config("1s", &[Service { protocol: "udp", ports: "7007", backends, ..Service::default() }])
    };
    let loaded = Loaded::toml(&lab, &with(1));
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
}
