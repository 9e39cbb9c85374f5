//! Thousands of backends: none waits for another's timeout, and what begins late is told.

mod rig;

use loaded_ipc::{Cause, Check, CheckKind, FromProber, Pinger, ToProber};
use nix::sys::resource::{UsageWho, getrusage};
use rig::{Rig, SLOTS, check, http, in_network, ip, server, target};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
/// Fewer checks at a time than there are backends.
const FEW: u16 = 256;
/// Half of the backends that there can be.
const HALF: u16 = 2048;
/// Backends that die during the test.
const VICTIMS: u16 = 32;
const INTERVAL: Duration = Duration::from_secs(1);

/// Another address of this host for each number.
fn local(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::from([127, 1, high, low])
}

/// An address where nobody is: packets to it are lost.
fn nobody(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    IpAddr::from([10, 9, high, low])
}

/// Accepts connections at every address, until it is dropped.
struct Listener(u16, std::sync::Arc<std::sync::atomic::AtomicBool>, Option<thread::JoinHandle<()>>);

impl Listener {
    fn start() -> Self {
        let listener = TcpListener::bind((ANY, 0)).expect("bind");
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN).expect("a longer queue");
        listener.set_nonblocking(true).expect("nonblocking");
        let port = listener.local_addr().expect("address").port();
        let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let end = std::sync::Arc::clone(&over);
        let thread = thread::spawn(move || {
            while !end.load(std::sync::atomic::Ordering::Relaxed) {
                while listener.accept().is_ok() {}
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self(port, over, Some(thread))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.1.store(true, std::sync::atomic::Ordering::Relaxed);
        self.2.take().map(thread::JoinHandle::join);
    }
}

/// Half of 4096 backends answer nothing. Returns how long after the death of some others all of them were found, and
/// how many checks began late.
fn find_the_dead(slots: u16) -> (Duration, u32) {
    ip("link add v0 type veth peer name v1");
    ip("link set v0 arp off up");
    ip("link set v1 up");
    ip("addr add 10.8.0.1/24 dev v0");
    ip("route add 10.9.0.0/16 dev v0");
    let (sound, doomed) = (Listener::start(), Listener::start());
    let pace = |port| Check { interval: 1000, interval_down: 1000, timeout: 900, ..check(CheckKind::Tcp { port }) };
    let checks =
        [sound.0, doomed.0].into_iter().zip(0..).map(|(port, index)| ToProber::Check { index, check: pace(port) });
    let dead = (0..HALF).map(|n| target(n, nobody(n), 0));
    let live = (HALF..2 * HALF).map(|n| target(n, local(n), u16::from(n < HALF + VICTIMS)));
    let rig = Rig::start_with(checks.chain(dead).chain(live).collect(), 2, Pinger::None, Vec::new(), slots);
    let mut unknown: HashSet<u16> = (0..2 * HALF).collect();
    let mut wrong = 0;
    rig.hear(Duration::from_secs(60), |message| {
        if let FromProber::Changed { backend, up, .. } = message {
            unknown.remove(&backend.0);
            wrong += u32::from(up == (backend.0 < HALF));
        }
        unknown.is_empty()
    });
    assert_eq!(wrong, 0, "the dead are down, the others up");
    rig.listen(3 * INTERVAL);
    let used = |who| getrusage(who).expect("usage");
    let before = used(UsageWho::RUSAGE_SELF);
    rig.listen(3 * INTERVAL);
    let after = used(UsageWho::RUSAGE_SELF);
    let (user, system) = (after.user_time() - before.user_time(), after.system_time() - before.system_time());
    println!("{slots} slots: user {user:?}, system {system:?} in {:?}, with the servers and this test", 3 * INTERVAL);
    drop(doomed);
    let died = Instant::now();
    let (mut found, mut late) = (0, 0);
    rig.hear(Duration::from_secs(60), |message| {
        match message {
            FromProber::Changed { backend, up, cause, .. } => {
                assert!((HALF..HALF + VICTIMS).contains(&backend.0), "{backend} {up} {cause}");
                assert_eq!((up, cause), (false, Cause::Refused));
                found += 1;
            }
            FromProber::Alive { late: more, delay } => {
                assert_eq!(more == 0, delay == 0);
                late += more;
            }
            _ => {}
        }
        found == VICTIMS
    });
    let found = died.elapsed();
    println!("{slots} slots: the last was found after {found:?}, {late} checks began late");
    drop(sound);
    rig.stop();
    (found, late)
}

/// `fall` is 3.
const IN_TIME: Duration = Duration::from_secs(3 + 1);

#[test]
fn a_death_is_found_in_time_beside_thousands_of_dead() {
    in_network(|| {
        let (found, _) = find_the_dead(SLOTS);
        assert!(found < IN_TIME, "{found:?}");
    });
}

/// With too few descriptors the dead are checked late, and that is told; the others are not.
#[test]
fn where_room_is_scarce_the_dead_wait_and_no_other() {
    in_network(|| {
        let (found, late) = find_the_dead(FEW);
        assert!(found < IN_TIME, "{found:?}");
        assert!(late > 0, "dead ones wait for their turn");
    });
}

/// Connections of clients to a port. The kernel does not list its sockets at a single moment: while others are made,
/// one may be there twice.
fn connections(port: &str) -> usize {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/tcp").expect("sockets");
    let ends = |line: &str| line.split_whitespace().skip(1).take(2).map(str::to_owned).collect::<Vec<_>>();
    sockets.lines().filter(|line| line.contains(port)).map(ends).collect::<HashSet<_>>().len()
}

#[test]
fn a_thousand_targets_wait_for_their_turn() {
    const PAUSE: Duration = Duration::from_millis(100);
    in_network(|| {
        let port = server::crowd(ANY, PAUSE);
        let check = Check { interval: 60_000, timeout: 2000, ..check(http(port)) };
        let mut items = vec![ToProber::Check { index: 0, check }];
        // Nothing is known: all are due within a second, at 100 ms each, faster than they can be made.
        items.extend((0..1000).map(|n| target(n, local(n), 0)));
        let began = Instant::now();
        let rig = Rig::start_with(items, 1, Pinger::None, Vec::new(), FEW);
        let mut most = 0;
        let mut changed = HashMap::new();
        let hex = format!(":{port:04X} 01 ");
        rig.hear(Duration::from_secs(20), |message| {
            if let FromProber::Changed { backend, up, cause, latency } = message {
                assert_eq!((up, cause), (true, Cause::Passed));
                assert!((100_000..600_000).contains(&latency), "a wait for a turn is no latency: {latency}");
                assert!(changed.insert(backend, latency).is_none(), "{backend} changed twice");
            }
            if changed.len() % 10 == 0 {
                most = most.max(connections(&hex));
            }
            changed.len() == 1000
        });
        assert!(most > 50 && most <= 264, "{most} at once after {:?}", began.elapsed());
        rig.stop();
    });
}

#[test]
fn no_more_than_the_limit_are_in_flight() {
    in_network(|| {
        let port = server::silent(ANY);
        let check = Check { interval: 60_000, timeout: 1500, ..check(http(port)) };
        let mut items = vec![ToProber::Check { index: 0, check }];
        items.extend((0..1000).map(|n| target(n, local(n), 0)));
        let rig = Rig::start_with(items, 0, Pinger::None, Vec::new(), FEW);
        let hex = format!(":{port:04X} 01 ");
        let mut most = 0;
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(1200) {
            thread::sleep(Duration::from_millis(20));
            most = most.max(connections(&hex));
        }
        // Until here none is late, so none has made room for another.
        assert_eq!(most, usize::from(FEW));
        let all = rig.first_changes(1000);
        assert!(all.iter().all(|change| *change == (false, Cause::AnswerTimeout, 1_500_000)));
        rig.stop();
    });
}
