//! What a pair of balancers keeps when one of them crashes, and how long its clients wait: of `loaded`, and in the same lab, by turns,
//! of the kernel's NAT with conntrackd (`rig/conntrackd.rs`). `E2E_CRASHES` is how many crashes of each. What `loaded` keeps is tested by
//! `two_machines`, so this one runs only when asked for (`--ignored beside_conntrackd::`). docs/figures.md has the result.

use crate::rig::conntrackd;
use crate::rig::kept_open::{KeptOpen, PATIENCE, downloads_during, served_again};
use crate::rig::lab::{Lab, eventually, setting};
use crate::rig::loaded::Loaded;
use crate::rig::net::Family;
use crate::rig::pair::{self, A, B};
use crate::rig::servers::{backends, datagrams, echo, service};
use crate::rig::wire::Tcpdump;
use std::net::UdpSocket;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

const READY: Duration = Duration::from_secs(30);
/// A client that gets no answer to a datagram sends the next one.
const AGAIN: Duration = Duration::from_millis(100);
/// What is begun reaches the other balancer within this time, where anything is told.
const TOLD: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pair {
    Loaded,
    Conntrackd,
}

/// What became of ten clients of a kind, five of each family, IPv4 first.
type Ten = Vec<bool>;

/// What was seen in all crashes of one pair.
#[derive(Default)]
struct Seen {
    /// Downloads, connections that are asked, idle ones, sockets of datagrams.
    kept: [Vec<Ten>; 4],
    /// Until a client got a new connection, an answer on its old one, an answer to a datagram; `None`: never.
    waits: [Vec<Option<Duration>>; 3],
    /// Packets in a backend's name that came to the client.
    strays: usize,
}

#[test]
#[ignore = "compares, for docs/figures.md"]
fn a_crash_keeps_everything() {
    let crashes = setting("E2E_CRASHES", 1).max(1);
    if conntrackd::script().is_none() {
        return;
    }
    let (mut ours, mut theirs) = (Seen::default(), Seen::default());
    for round in 0..crashes {
        let mut turns = [(Pair::Loaded, &mut ours), (Pair::Conntrackd, &mut theirs)];
        turns.rotate_left(usize::try_from(round % 2).unwrap());
        for (pair, seen) in turns {
            let Some(lab) = Lab::up() else { return };
            crash(&lab, pair, seen);
        }
    }
    for (pair, seen) in [(Pair::Loaded, &ours), (Pair::Conntrackd, &theirs)] {
        tell(pair, seen);
    }
    assert!(ours.kept.iter().flatten().flatten().all(|kept| *kept) && ours.strays == 0, "loaded lost some");
    assert!(ours.waits.iter().flatten().all(Option::is_some), "somebody was never answered: {:?}", ours.waits);
}

fn crash(lab: &Lab, which: Pair, seen: &mut Seen) {
    pair::up(lab);
    let serving = serve(lab, which);
    let strays = Tcpdump::of(lab, "client", &pair::backends());
    let (mut asked, mut idle) = (KeptOpen::some(lab), KeptOpen::idle(lab));
    let each = Family::BOTH.into_iter().flat_map(|family| (25..30).map(move |n| (family, n)));
    let sockets: Vec<_> = each.map(|(family, n)| datagrams(lab, family, n, 7007)).collect();
    let ask = |socket: &UdpSocket| echo(socket, PATIENCE).ok();
    let at_first: Vec<_> = sockets.iter().map(ask).collect();
    assert!(at_first.iter().all(Option::is_some), "{at_first:?}");
    std::thread::sleep(TOLD);
    let downloads = downloads_during(lab, || {
        let waits = waits(lab, which, &mut asked, &sockets);
        for (all, some) in seen.waits.iter_mut().zip(waits) {
            all.extend(some);
        }
    });
    let goes_on = |all: &mut [KeptOpen]| -> Ten { all.iter_mut().map(answers).collect() };
    let echoed: Vec<_> = sockets.iter().map(ask).collect();
    let kept: [Ten; 4] = [
        downloads.iter().map(Result::is_ok).collect(),
        goes_on(&mut asked),
        goes_on(&mut idle),
        echoed.iter().zip(&at_first).map(|(now, then)| now == then).collect(),
    ];
    println!("{which:?}: kept {kept:?}");
    for (all, some) in seen.kept.iter_mut().zip(kept) {
        all.push(some);
    }
    seen.strays += strays.end().lines().count();
    drop(serving);
}

/// Both balancers, the first with the virtual IPs.
#[track_caller]
fn serve(lab: &Lab, which: Pair) -> Vec<Loaded> {
    if which == Pair::Conntrackd {
        pair::link(lab);
        for who in [A, B] {
            conntrackd::serve(lab, who);
            pair::is_active(lab, A);
        }
        return Vec::new();
    }
    let echoes = service("echo", "udp", 7007, "strategy = \"maglev\"") + &backends(&[1, 2, 3], "");
    let one = |who| {
        let loaded = pair::serve(lab, who, &echoes);
        let is_ready = || loaded.ask(&["health"]).code == Some(0);
        assert!(eventually(READY, is_ready), "{:?}", loaded.ask(&["health"]));
        pair::keepalived(lab, who);
        pair::is_active(lab, A);
        loaded
    };
    [A, B].map(one).into()
}

/// The first balancer's host is gone: its cables, then all of its processes. How long clients wait from then on: those that begin, those
/// that ask on a connection that they have, and those that send datagrams.
fn waits(lab: &Lab, which: Pair, asked: &mut [KeptOpen], sockets: &[UdpSocket]) -> [Vec<Option<Duration>>; 3] {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let (mut answered, mut echoed) = (Vec::new(), Vec::new());
        let begun = served_again(lab, || {
            pair::cables(lab, A, "down");
            if which == Pair::Conntrackd {
                pair::cut_link(lab);
            }
            pair::kill_all(lab, A);
            let spawn_ask = |one| scope.spawn(move || answers(one).then(|| began.elapsed()));
            answered = asked.iter_mut().map(spawn_ask).collect();
            let is_echoed = |socket: &UdpSocket| eventually(PATIENCE, || echo(socket, AGAIN).is_ok());
            let spawn_echo = |socket| scope.spawn(move || is_echoed(socket).then(|| began.elapsed()));
            echoed = sockets.iter().map(spawn_echo).collect();
        });
        [begun.into_iter().map(Some).collect(), ended(answered), ended(echoed)]
    })
}

fn ended(all: Vec<ScopedJoinHandle<'_, Option<Duration>>>) -> Vec<Option<Duration>> {
    all.into_iter().map(|one| one.join().unwrap()).collect()
}

/// Whether its own backend answers.
fn answers(kept: &mut KeptOpen) -> bool {
    kept.ask().is_ok_and(|backend| backend == kept.backend())
}

fn tell(which: Pair, seen: &Seen) {
    println!("{which:?}: {} packets in a backend's name at the client", seen.strays);
    for (what, tens) in ["downloads", "connections that are asked", "idle ones", "datagrams"].iter().zip(&seen.kept) {
        let kept =
            |range: std::ops::Range<usize>| tens.iter().flat_map(move |ten| &ten[range.clone()]).filter(|kept| **kept);
        println!(
            "  {what}: kept {} with IPv4 and {} with IPv6 of {} each",
            kept(0..5).count(),
            kept(5..10).count(),
            tens.len() * 5
        );
    }
    for (what, waits) in ["begins", "asks on", "sends a datagram"].iter().zip(&seen.waits) {
        let mut times: Vec<_> = waits.iter().flatten().map(Duration::as_millis).collect();
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len().saturating_sub(1) * percent + 50) / 100);
        println!(
            "  ms until one that {what} is answered, of {}, at 0, 10, 25, 50, 75, 90, 100 %: {:?}; never: {}",
            waits.len(),
            [0, 10, 25, 50, 75, 90, 100].map(|percent| at(percent).copied().unwrap_or_default()),
            waits.len() - times.len()
        );
    }
}
