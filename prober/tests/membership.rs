//! What the prober says, to whom and when.

mod rig;

use loaded_ipc::{
    BackendIndex, Cause, Check, CheckKind, FromProber, LinkError, Membership, Pinger, ServiceIndex, ToProber,
};
use rig::{Rig, check, each, in_network, ip, new_network, server, sysctl, target};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn words(rig: &Rig, worker: usize) -> Vec<Membership> {
    std::iter::from_fn(|| rig.workers[worker].receive().ok()).collect()
}

#[test]
fn every_worker_is_told_every_backend_and_each_change() {
    in_network(|| {
        let port = server::closed(LOCAL);
        let check = Check { rise: 1, fall: 1, ..check(CheckKind::Tcp { port }) };
        let targets = [(BackendIndex(9), false), (BackendIndex(4000), true)].map(|(backend, up)| ToProber::Target {
            backend,
            port: None,
            address: LOCAL,
            check: 0,
            up,
            proven: true,
            vip: None,
        });
        let items = [ToProber::Check { index: 0, check }].into_iter().chain(targets).collect();
        let listener = TcpListener::bind(SocketAddr::new(LOCAL, port)).expect("bind");
        let rig = Rig::start(items, 3, Pinger::None);
        rig.hear(Duration::from_secs(3), |message| match message {
            FromProber::Changed { backend, up, cause, .. } => {
                assert_eq!((backend, up, cause), (BackendIndex(9), true, Cause::Passed));
                true
            }
            FromProber::Measured { backend, cause, .. } => {
                assert_eq!((backend, cause), (BackendIndex(4000), Cause::Passed));
                false
            }
            other => !matches!(other, FromProber::Alive { .. }) && panic!("{other:?}"),
        });
        drop(listener);
        let mut down = 0;
        rig.hear(Duration::from_secs(3), |message| {
            down += u8::from(matches!(message, FromProber::Changed { up: false, cause: Cause::Refused, .. }));
            down == 2
        });
        thread::sleep(Duration::from_millis(100));
        for worker in 0..3 {
            let words = words(&rig, worker);
            let first: Vec<_> = words[..2].iter().map(|word| (word.backend.0, word.up)).collect();
            assert_eq!(first, [(9, false), (4000, true)]);
            assert!(words.iter().all(|word| word.generation == 7));
            let last: HashMap<_, _> = words.iter().map(|word| (word.backend.0, word.up)).collect();
            assert_eq!(last, HashMap::from([(9, false), (4000, false)]));
            assert!(words.contains(&Membership { generation: 7, backend: BackendIndex(9), up: true }));
        }
        rig.stop();
    });
}

/// A worker may die having read messages that its successor needs.
#[test]
fn workers_are_told_again() {
    in_network(|| {
        let check = check(CheckKind::Tcp { port: server::silent(LOCAL) });
        let mut items = vec![ToProber::Check { index: 0, check: Check { interval: 60_000, ..check } }];
        items.extend((0..100).map(|n| target(n, LOCAL, 0)));
        let rig = Rig::start(items, 1, Pinger::None);
        rig.listen(Duration::from_millis(1200));
        assert!(words(&rig, 0).len() >= 200, "once at Go, once at the first result");
        rig.listen(Duration::from_millis(2200));
        let mut again: Vec<_> = words(&rig, 0).iter().map(|word| (word.backend.0, word.up)).collect();
        again.sort_unstable();
        again.dedup();
        assert_eq!(again, (0..100).map(|n| (n, true)).collect::<Vec<_>>());
        rig.stop();
    });
}

/// Up and down twice a second; the prober looks every 100 ms.
#[test]
fn a_flapping_backend_is_judged_by_rows() {
    const HALF: Duration = Duration::from_millis(250);
    const QUICK: usize = 12;
    /// From the prober's message to its being heard here, on a busy machine.
    const HEARD: Duration = Duration::from_millis(30);
    in_network(|| {
        let port = server::closed(LOCAL);
        let quick = check(CheckKind::Tcp { port });
        let slow = Check { fall: 5, ..quick.clone() };
        // Five checks fall in a full cycle, two or three in each half, depending on where in it they began.
        let mut targets = vec![(LOCAL, quick); QUICK];
        targets.push((LOCAL, slow));
        let rig = Rig::start(each(targets), 0, Pinger::None);
        let began = Instant::now();
        thread::spawn(move || {
            // Up in the even halves, by this clock and not by a sum of sleeps.
            for half in 0u32.. {
                let listener = (half % 2 == 0).then(|| TcpListener::bind(SocketAddr::new(LOCAL, port)).expect("bind"));
                thread::sleep((began + HALF * (half + 1)).saturating_duration_since(Instant::now()));
                drop(listener);
            }
        });
        let mut turns = 0;
        let mut state = [None; QUICK + 1];
        for (heard, message) in rig.listen(Duration::from_secs(6)) {
            let FromProber::Changed { backend, up, .. } = message else { continue };
            let first = state[usize::from(backend.0)].replace(up).is_none();
            if first {
                continue;
            }
            assert!(usize::from(backend.0) < QUICK, "five failures need more than a half");
            turns += 1;
            // rise 2: one interval between the results; fall 3: two. All within one half, and in the right one. What is said at
            // the end of a half may be heard at the begin of the next.
            let fits = |time: Duration| {
                let (half, since) = (time.as_millis() / HALF.as_millis(), time.as_millis() % HALF.as_millis());
                (half % 2 == 0) == up && since >= if up { 95 } else { 195 }
            };
            let time = heard - began;
            assert!(fits(time) || fits(time.saturating_sub(HEARD)), "turned {up} at {time:?}");
        }
        assert!(turns >= 4, "it turned {turns} times");
        rig.stop();
    });
}

/// Services that have a backend in common, and ask for the same, share its checks; each hears of every change.
#[test]
fn backends_of_several_services_share_a_check() {
    in_network(|| {
        let listener = TcpListener::bind((LOCAL, 0)).expect("bind");
        listener.set_nonblocking(true).expect("nonblocking");
        let port = listener.local_addr().expect("address").port();
        let quick = check(CheckKind::Tcp { port });
        let slow = Check { interval: 400, interval_down: 400, ..quick.clone() };
        let checks = [quick, slow].into_iter().zip(0..).map(|(check, index)| ToProber::Check { index, check });
        let targets = (0..10).map(|n| target(n, LOCAL, 0)).chain([target(10, LOCAL, 1)]);
        let rig = Rig::start(checks.chain(targets).collect(), 1, Pinger::None);
        assert!(rig.first_changes(11).iter().all(|(up, ..)| *up));
        while listener.accept().is_ok() {}
        rig.listen(Duration::from_secs(2));
        let made = std::iter::from_fn(|| listener.accept().ok()).count();
        assert!((10..=27).contains(&made), "20 checks at 100 ms, 5 at 400 ms: {made}");
        drop(listener);
        let mut down = HashMap::new();
        rig.hear(Duration::from_secs(5), |message| {
            if let FromProber::Changed { backend, up, cause, .. } = message {
                down.insert(backend.0, (up, cause));
            }
            down.len() == 11
        });
        assert!(down.values().all(|change| *change == (false, Cause::Refused)), "{down:?}");
        rig.listen(Duration::from_millis(50));
        let last: HashMap<_, _> = words(&rig, 0).iter().map(|word| (word.backend.0, word.up)).collect();
        assert_eq!(last, (0..11).map(|n| (n, false)).collect());
        rig.stop();
    });
}

/// A supervisor or a worker that does not read does not stop it, and both then hear the latest state.
#[test]
fn peers_that_do_not_read_are_told_the_last_word() {
    in_network(|| {
        let port = server::closed(LOCAL);
        let check = Check { rise: 1, fall: 1, interval: 300, interval_down: 300, ..check(CheckKind::Tcp { port }) };
        let mut items = vec![ToProber::Check { index: 0, check }];
        items.extend((0..1000).map(|n| target(n, LOCAL, 0)));
        let mut rig = Rig::start(items, 3, Pinger::None);
        drop(rig.workers.remove(0));
        thread::sleep(Duration::from_millis(1500));
        let listener = TcpListener::bind(SocketAddr::new(LOCAL, port)).expect("bind");
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::MAXCONN).expect("a longer queue");
        listener.set_nonblocking(true).expect("nonblocking");
        let end = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < end {
            if listener.accept().is_err() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let mut last = HashMap::new();
        let mut said = 0;
        let (mut states, mut words_said) = (HashMap::new(), 0);
        // Two seconds, or longer on a busy machine, until all are known.
        let (end, latest) = (Instant::now() + Duration::from_secs(2), Instant::now() + Duration::from_secs(20));
        let is_over = |known: (usize, usize)| Instant::now() > if known == (1000, 1000) { end } else { latest };
        while !is_over((last.len(), states.len())) {
            for (_, message) in rig.listen(Duration::from_millis(2)) {
                if let FromProber::Changed { backend, up, .. } = message {
                    said += 1;
                    last.insert(backend, up);
                }
            }
            for word in words(&rig, 1) {
                words_said += 1;
                states.insert(word.backend, word.up);
            }
            while listener.accept().is_ok() {}
        }
        assert_eq!((last.len(), states.len()), (1000, 1000));
        assert!(last.values().all(|up| *up) && states.values().all(|up| *up));
        assert!(said <= 2000 && words_said <= 4000, "{said} and {words_said} words are more than the last ones");
        rig.stop();
    });
}

#[test]
fn it_lives_and_ends_by_its_link() {
    in_network(|| {
        let rig = Rig::start(Vec::new(), 0, Pinger::None);
        let lives = rig.listen(Duration::from_millis(2500));
        assert!(lives.iter().all(|(_, message)| matches!(message, FromProber::Alive { .. })));
        assert_eq!(lives.len(), 3);
        rig.stop();

        let rig = Rig::start(Vec::new(), 0, Pinger::None);
        rig.supervisor.send(&ToProber::Go).expect("send");
        assert!(matches!(rig.ended(), LinkError::Malformed(text) if text.contains("while checking")));
    });
}

#[test]
fn measurements_are_rare() {
    in_network(|| {
        let rig =
            Rig::start(each(vec![(LOCAL, check(CheckKind::Tcp { port: server::silent(LOCAL) }))]), 0, Pinger::None);
        let heard = rig.listen(Duration::from_millis(5600));
        let measured: Vec<_> = heard.iter().filter(|(_, m)| matches!(m, FromProber::Measured { .. })).collect();
        assert_eq!(measured.len(), 2, "{measured:?}");
        assert!(measured[1].0 - measured[0].0 >= Duration::from_millis(4990));
        rig.stop();
    });
}

#[test]
fn nodes_that_answer_are_seen() {
    in_network(|| {
        let (tell, node) = mpsc::channel();
        let (moved, go) = mpsc::channel();
        let (done, end) = mpsc::channel::<()>();
        thread::spawn(move || {
            new_network();
            tell.send(nix::unistd::gettid()).expect("send");
            go.recv().expect("veth");
            sysctl("ipv4/icmp_echo_ignore_broadcasts", "0");
            for address in ["10.9.0.2/24 brd +", "192.0.2.2/24", "fd00:9::2/64 nodad"] {
                ip(&format!("addr add {address} dev n1"));
            }
            ip("link set n1 up");
            tell.send(nix::unistd::gettid()).expect("send");
            let _ = end.recv();
        });
        let thread = node.recv().expect("node");
        ip(&format!("link add n0 type veth peer name n1 netns {thread}"));
        moved.send(()).expect("send");
        node.recv().expect("node");
        for address in ["10.9.0.1/24 brd +", "fd00:9::1/64 nodad"] {
            ip(&format!("addr add {address} dev n0"));
        }
        ip("link set n0 up");
        let interface = std::fs::read_to_string("/sys/class/net/n0/ifindex");
        let interface = interface
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or_else(|| nix::net::if_::if_nametoindex("n0").expect("n0"));
        let address = |text: &str| text.parse::<IpAddr>().expect("address");
        let look = |service, to, from, interface, network, prefix| ToProber::Discover {
            service: ServiceIndex(service),
            to: address(to),
            from: address(from),
            interface,
            network: address(network),
            prefix,
            interval: 500,
        };
        let rig = Rig::start(
            vec![
                look(1, "10.9.0.255", "0.0.0.0", 0, "10.9.0.0", 24),
                look(2, "10.9.0.255", "0.0.0.0", 0, "10.9.0.128", 25),
                look(3, "ff02::1", "fd00:9::1", interface, "fd00:9::", 64),
                look(4, "ff02::1", "fd00:9::1", interface, "fd00:8::", 64),
            ],
            0,
            Pinger::Ping,
        );
        let mut times: HashMap<(u16, IpAddr), Vec<Instant>> = HashMap::new();
        for (heard, message) in rig.listen(Duration::from_millis(3200)) {
            match message {
                FromProber::Seen { service, address } => times.entry((service.0, address)).or_default().push(heard),
                FromProber::Alive { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        let mut who: Vec<_> = times.keys().copied().collect();
        who.sort_unstable();
        assert_eq!(who, [(1, address("10.9.0.2")), (3, address("fd00:9::2"))]);
        for heard in times.values() {
            assert!((2..=7).contains(&heard.len()), "{heard:?}");
            assert!(heard.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_millis(490)), "{heard:?}");
        }
        rig.stop();
        drop(done);
    });
}
