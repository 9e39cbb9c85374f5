//! A prober without its sandbox, in a thread and a network of its own; the test holds the other ends of its links.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod server;

use loaded_ipc::{
    BackendIndex, Cause, Check, CheckKind, FromProber, Link, LinkError, MembershipReader, Pinger, ProberLink, ToProber,
};
use loaded_prober::{Assembly, Flights, Pings, Prober};
use nix::sched::{CloneFlags, unshare};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Checks under way at a time, where a test does not care.
pub(crate) const SLOTS: u16 = 4096;
pub(crate) const BOTH: [&str; 2] = ["127.0.0.1", "::1"];

/// Runs a test in a new network with nothing but a loopback. Skipped without root, unless LOADED_CI is set.
pub(crate) fn in_network(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("LOADED_CI").is_none(), "LOADED_CI is set and this is not root");
        println!("skipped: needs root");
        return;
    }
    let ended = thread::spawn(|| {
        new_network();
        test();
    })
    .join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// Moves this thread, and those it starts, into a new network.
pub(crate) fn new_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network of our own: run the tests as root");
    ip("link set lo up");
    sysctl("ipv4/ping_group_range", "0 2147483647");
}

pub(crate) fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status().expect("ip");
    assert!(done.success(), "ip {arguments}");
}

pub(crate) fn sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/{name}"), value).expect("sysctl");
}

/// The ping sockets, as the supervisor opens them.
pub(crate) fn pings(pinger: Pinger) -> Pings {
    let open = |family, protocol| -> Option<(OwnedFd, Pinger)> {
        let kind = match pinger {
            Pinger::None => return None,
            Pinger::Ping => SockType::Datagram,
            Pinger::Raw => SockType::Raw,
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, kind, flags, protocol).expect("ping socket");
        setsockopt(&socket, sockopt::Broadcast, &true).expect("broadcast");
        Some((socket, pinger))
    };
    Pings::new(open(AddressFamily::Inet, SockProtocol::Icmp), open(AddressFamily::Inet6, SockProtocol::IcmpV6))
}

/// A check with short times: 100 ms interval, 300 ms timeout, rise 2, fall 3, no jitter.
pub(crate) fn check(kind: CheckKind) -> Check {
    Check { kind, interval: 100, interval_down: 100, timeout: 300, jitter: 0, rise: 2, fall: 3 }
}

pub(crate) fn http(port: u16) -> CheckKind {
    CheckKind::Http {
        port,
        method: "GET".into(),
        path: "/".into(),
        host: "a.example".into(),
        status: (200, 399),
        via: None,
    }
}

/// One unproven target for each check, in the same order.
pub(crate) fn each(targets: Vec<(IpAddr, Check)>) -> Vec<ToProber> {
    let mut messages = Vec::new();
    for (index, (_, check)) in (0..).zip(&targets) {
        messages.push(ToProber::Check { index, check: check.clone() });
    }
    for (index, (address, _)) in (0..).zip(targets) {
        messages.push(target(index, address, index));
    }
    messages
}

pub(crate) fn target(index: u16, address: IpAddr, check: u16) -> ToProber {
    ToProber::Target { backend: BackendIndex(index), address, check, port: None, up: true, proven: false, vip: None }
}

pub(crate) struct Rig {
    pub(crate) supervisor: ProberLink,
    pub(crate) workers: Vec<MembershipReader>,
    prober: JoinHandle<LinkError>,
}

impl Rig {
    /// Starts a prober with the items of a transaction and says `Go`.
    pub(crate) fn start(items: Vec<ToProber>, workers: usize, pinger: Pinger) -> Self {
        Self::start_with(items, workers, pinger, Vec::new(), SLOTS)
    }

    /// The same, with sockets for the targets that have a virtual IP, and room for so many checks at a time.
    pub(crate) fn start_with(
        items: Vec<ToProber>,
        workers: usize,
        pinger: Pinger,
        marked: Vec<OwnedFd>,
        slots: u16,
    ) -> Self {
        let (supervisor, link) = ProberLink::pair().expect("pair");
        let (readers, writers) = (0..workers)
            .map(|_| {
                let (reader, writer) = Link::pair().expect("pair");
                writer.set_nonblocking().expect("nonblocking");
                reader.set_nonblocking().expect("nonblocking");
                (reader, writer)
            })
            .unzip();
        supervisor.set_nonblocking().expect("nonblocking");
        link.set_nonblocking().expect("nonblocking");
        let mut assembly = Assembly::new(42);
        let all = [ToProber::Begin { generation: 7 }].into_iter().chain(items).chain([ToProber::Commit]);
        let setup = all.map(|message| assembly.take(message).expect("good")).last().flatten().expect("whole");
        let flights = Flights::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll"), slots);
        let prober = thread::spawn(move || {
            let Err(error) = Prober::new(setup, &link, writers, pings(pinger), marked, flights).run();
            error
        });
        supervisor.send(&ToProber::Go).expect("go");
        Self { supervisor, workers: readers, prober }
    }

    /// Reads messages until `enough` returns true; panics after `time`.
    pub(crate) fn hear(&self, time: Duration, mut enough: impl FnMut(FromProber) -> bool) {
        let end = Instant::now() + time;
        loop {
            match self.supervisor.receive() {
                Ok(message) => {
                    if enough(message) {
                        return;
                    }
                }
                Err(LinkError::Empty) => {
                    assert!(Instant::now() < end, "the prober did not say it in time");
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Everything said within `time`, each with when it was heard.
    pub(crate) fn listen(&self, time: Duration) -> Vec<(Instant, FromProber)> {
        let end = Instant::now() + time;
        let mut heard = Vec::new();
        while Instant::now() < end {
            match self.supervisor.receive() {
                Ok(message) => heard.push((Instant::now(), message)),
                Err(LinkError::Empty) => thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
        }
        heard
    }

    /// The first change of each of `count` backends.
    pub(crate) fn first_changes(&self, count: usize) -> Vec<(bool, Cause, u32)> {
        let mut all = vec![None; count];
        self.hear(Duration::from_secs(10), |message| {
            if let FromProber::Changed { backend, up, cause, latency } = message {
                all[usize::from(backend.0)].get_or_insert((up, cause, latency));
            }
            all.iter().all(Option::is_some)
        });
        all.into_iter().flatten().collect()
    }

    /// Closes the link, which must end the prober.
    pub(crate) fn stop(self) {
        let Self { supervisor, workers, prober } = self;
        drop(supervisor);
        let error = prober.join().expect("no panic");
        assert!(matches!(error, LinkError::Closed), "{error}");
        drop(workers);
    }

    /// How it ended on its own.
    pub(crate) fn ended(self) -> LinkError {
        self.prober.join().expect("no panic")
    }
}
