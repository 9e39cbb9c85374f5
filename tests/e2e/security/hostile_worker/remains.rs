//! What remains to a worker that was taken over: each line of the list that is printed and written down, with a proof that
//! it is so. What has no proof is not on the list, and the other way round.

use super::outside::View;
use super::stays;
use super::system::{Aim, ECHO, Heard, RECOVERY_TIMEOUT, System, payload};
use crate::rig::lab::{double, eventually, shipped};
use crate::rig::loaded::signal_to;
use crate::rig::net::{Family, ask, get};
use crate::rig::wire::{HEADER, open};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv};
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

const NOW: Duration = Duration::from_millis(500);
/// A worker that stands still is found within two seconds.
const FOUND: Duration = Duration::from_secs(6);

type Proof = fn(&mut System, Family);

const PROOFS: [(&str, Proof); 12] = [
    ("any verdict on packets of its own queue, or none", any_verdict),
    ("sending them on to another queue, where they are packets like any other", another_queue),
    ("other content for them, from anybody and to anybody", other_content),
    ("their mark, which in mode dsr names a backend, and their priority", mark_and_priority),
    (
        "any bytes in its own tables and counters: what its successors remember of flows and clients, and what is shown \
         of them",
        own_memory,
    ),
    (
        "where there is a kernel path, packets of its own clients sent on between configured virtual IPs and backends, past \
         other rules, until 30 s after its end",
        sent_on_by_the_kernel,
    ),
    ("any bytes on its link to the supervisor; what is no answer to a question ends it", any_bytes),
    (
        "untrue answers to loaded explain, an untrue count to loaded flows --end, and last words in the log",
        untrue_answers,
    ),
    ("hearing what is for it: its packets, the supervisor, the prober, the time", hearing),
    (
        "standing still: it is replaced after 1.5 s, or, where it counts as one that works, its packets wait",
        standing_still,
    ),
    ("using up its core", using_up_its_core),
    ("ending, with any code", ending),
];

/// The section of `--print-sandbox worker`.
fn printed() -> Vec<String> {
    let output = Command::new(crate::rig::lab::binary()).args(["--print-sandbox", "worker"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip_while(|line| !line.starts_with("remains ")).skip(1);
    lines.take_while(|line| line.starts_with("  ")).map(|line| line.trim().to_owned()).collect()
}

#[test]
fn the_list_is_written_down_as_it_is_printed() {
    let printed = printed();
    assert!(printed.iter().eq(PROOFS.iter().map(|(line, _)| line)), "printed: {printed:#?}");
    let page = fs::read_to_string(shipped("docs/security.md")).unwrap();
    let (_, behind) = page.split_once("## What remains to a hostile worker").unwrap();
    let lines = behind.lines().skip(1).skip_while(|line| !line.starts_with("* "));
    let written: Vec<_> = lines.map_while(|line| line.strip_prefix("* ")).collect();
    assert_eq!(written, printed, "docs/security.md");
}

#[test]
fn what_remains_is_as_listed() {
    if double().is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for family in Family::BOTH {
            scope.spawn(move || {
                let Some(mut system) = System::up() else { return };
                system.lab.sh("lb", WATCH);
                let before = View::first(&system.lab);
                system.under_traffic(|system| {
                    for (line, proof) in PROOFS {
                        let begin = Instant::now();
                        proof(system, family);
                        system.settle();
                        system.check(&before, line);
                        println!("{family:?}: remains: {line} ({:.1?})", begin.elapsed());
                    }
                });
                system.loaded.stop();
            });
        }
    });
}

/// The line on the kernel path, wherever that is off by default.
#[test]
fn its_flows_are_sent_on_by_the_kernel() {
    for family in Family::BOTH {
        let Some(mut system) = System::up_with("fast = \"auto\"\n") else { return };
        sent_on_by_the_kernel(&mut system, family);
        system.loaded.stop();
    }
}

/// Counts marked packets and such of a priority, behind the hook where they get them.
const WATCH: &str = "nft 'table inet watch { chain seen { type filter hook prerouting priority filter; \
    meta mark 0x40000001 counter comment \"mark\"; meta priority 0:7 counter comment \"priority\"; }; }'";

fn watched(system: &System, what: &str) -> u64 {
    let text = system.lab.sh("lb", "nft list table inet watch");
    let line = text.lines().find(|line| line.contains(&format!("\"{what}\""))).unwrap_or_else(|| panic!("{text}"));
    let (_, count) = line.split_once("packets ").unwrap();
    count.split(' ').next().unwrap().parse().unwrap()
}

fn at(process: u32) -> Aim {
    Aim { process, signal: 0 }
}

#[track_caller]
fn hears(system: &System, family: Family, attempt: &str, process: u32, expected: Heard) {
    let place = system.loaded.log().len();
    let limit = if expected == Heard::Nothing { Duration::from_millis(200) } else { Duration::from_secs(2) };
    assert_eq!(system.order(family, attempt, at(process), limit), expected, "{attempt}\n{}", system.tail());
    assert_eq!(system.deaths_since(place), [""; 0], "{attempt}");
}

/// A datagram of worker 0's client, that nobody reads the answer to.
fn send(system: &System, family: Family) {
    system.lab.within("client", || {
        let socket = UdpSocket::bind((system.victim(family), 0)).unwrap();
        socket.send_to(b"anybody?", SocketAddr::new(family.vip(), ECHO)).unwrap();
    });
}

fn waiting(system: &System, queue: &str) -> u32 {
    let queues = system.lab.queues();
    let columns: Vec<Vec<&str>> = queues.lines().map(|line| line.split_whitespace().collect()).collect();
    columns.iter().find(|columns| columns[0] == queue).unwrap()[2].parse().unwrap()
}

/// Packets that have come to a queue: the kernel's last id of it.
fn arrived(system: &System, queue: &str) -> u32 {
    let queues = system.lab.queues();
    let columns: Vec<Vec<&str>> = queues.lines().map(|line| line.split_whitespace().collect()).collect();
    columns.iter().find(|columns| columns[0] == queue).unwrap()[7].parse().unwrap()
}

fn any_verdict(system: &mut System, family: Family) {
    hears(system, family, "verdict: drop", 0, Heard::Nothing);
    hears(system, family, "verdict: let it pass as it came", 0, Heard::Refused);
    hears(system, family, "verdict: nobody's queue", 0, Heard::Nothing);
    hears(system, family, "verdict: nobody's queue, or pass", 0, Heard::Refused);
    assert_eq!(waiting(system, "0"), 0);
    // The kernel takes no verdict that would let it lose a packet, and none that it does not know.
    let refused = || system.loaded.status()["faults"]["verdict_refused"].as_u64().unwrap();
    let before = refused();
    hears(system, family, "verdict: stolen", 0, Heard::Nothing);
    hears(system, family, "verdict: of no kind", 0, Heard::Nothing);
    send(system, family);
    assert!(eventually(RECOVERY_TIMEOUT, || refused() >= before + 2), "{} refused, before {before}", refused());
    // Attributes that no packet has here do nothing, and lengths that do not hold are the kernel's to find out.
    hears(system, family, "verdict: conntrack", 0x1234, Heard::Refused);
    hears(system, family, "verdict: more content than is sent", 0, Heard::Refused);
    hears(system, family, "verdict: one byte of content", 0, Heard::Nothing);
    not_of_others_packets(system, family);
    hears(system, family, "verdict: none", 0, Heard::Nothing);
    assert_eq!(waiting(system, "0"), 1, "it waits for ever");
    free_what_waits(system);
}

/// Ends the worker, with what it holds, as if by its own doing. That comes again, and with it the order, until the third death; so its
/// successor must go, too.
fn free_what_waits(system: &mut System) {
    for _ in 0..4 {
        if waiting(system, "0") > 0 {
            let place = system.loaded.log().len();
            signal_to(system.workers[0], Signal::SIGSEGV);
            assert!(eventually(RECOVERY_TIMEOUT, || !system.deaths_since(place).is_empty()));
            system.settle();
        }
    }
    assert_eq!(waiting(system, "0"), 0, "{}", system.tail());
}

/// A packet waits in queue 1, for worker 1 is stopped for a moment; worker 0 drops it, by its id.
fn not_of_others_packets(system: &System, family: Family) {
    let (from, to) = (system.decent(family), SocketAddr::new(family.vip(), ECHO));
    let sibling = system.workers[1];
    signal_to(sibling, Signal::SIGSTOP);
    let answer = std::thread::scope(|scope| {
        let answer = scope.spawn(|| system.lab.within("client", || ask(from, to, "still there?")));
        let waits = eventually(Duration::from_secs(1), || waiting(system, "1") > 0);
        let heard = system.order(family, "verdict: of packets in another queue", at(arrived(system, "1")), NOW);
        let still = waiting(system, "1");
        signal_to(sibling, Signal::SIGCONT);
        assert!(waits && still > 0 && heard == Heard::Answer(0), "{waits} {still} {heard:?}");
        answer.join().unwrap()
    });
    assert!(answer.is_ok_and(|text| text.contains("still there?")), "a packet of queue 1 is gone");
}

fn another_queue(system: &mut System, family: Family) {
    // Worker 1 has made a flow of it and sent it to a backend; the answer comes by way of worker 0, which knows no such
    // flow, and so with the backend's own address.
    let from = system.lab.within("client", || {
        let socket = UdpSocket::bind((system.victim(family), 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let order = payload("verdict: another queue", at(0));
        socket.send_to(&order, SocketAddr::new(family.vip(), ECHO)).unwrap();
        socket.recv_from(&mut [0; 512]).map(|(_, from)| from)
    });
    let from = from.unwrap_or_else(|error| panic!("no answer: {error}\n{}", system.tail()));
    assert!((1..=3).any(|n| from == SocketAddr::new(family.backend(n), ECHO)), "{from}");
}

fn other_content(system: &mut System, family: Family) {
    // What comes back through the backend is what the worker wrote: the kernel's answer, no error.
    hears(system, family, "clock_gettime", 0, Heard::Answer(0));
    let nobody: IpAddr = if family == Family::V4 { "203.0.113.9" } else { "2001:db8:99::9" }.parse().unwrap();
    let socket = system.lab.within("client", open);
    hears(system, family, "verdict: another packet", 0, Heard::Nothing);
    let (end, mut frame) = (Instant::now() + RECOVERY_TIMEOUT, [0; 4096]);
    let mut comes = || {
        while Instant::now() < end {
            match recv(socket.as_raw_fd(), &mut frame, MsgFlags::empty()) {
                Ok(length) if source(&frame[HEADER.min(length)..length]) == Some(nobody) => return true,
                _ => {}
            }
        }
        false
    };
    assert!(comes(), "nothing from {nobody}");
}

fn source(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => Some(IpAddr::from(*packet.get(12..)?.first_chunk::<4>()?)),
        6 => Some(IpAddr::from(*packet.get(8..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

fn mark_and_priority(system: &mut System, family: Family) {
    for (attempt, what, value) in [("verdict: mark", "mark", 0x4000_0001), ("verdict: priority", "priority", 7)] {
        let before = watched(system, what);
        hears(system, family, attempt, value, Heard::Refused);
        assert_eq!(watched(system, what), before + 1, "{what}");
    }
}

fn own_memory(system: &mut System, family: Family) {
    // Of any backend: the worker sets that of the one it uses next.
    let most = || {
        let status = system.loaded.status();
        let backends = status["services"][0]["backends"].as_array().unwrap().clone();
        backends.iter().map(|backend| backend["flows"].as_u64().unwrap()).max().unwrap()
    };
    hears(system, family, "counters: all as large as can be", 0, Heard::Answer(0));
    assert_eq!(most(), u64::MAX);
    hears(system, family, "counters: all back to nothing", 0, Heard::Answer(0));
    assert!(most() < 10_000);
    hears(system, family, "flows: any entries", 0, Heard::Answer(0));
    hears(system, family, "clients: any entries", 0, Heard::Answer(0));
}

/// A flow that the worker has entered for a client of its own, at a backend where no honest worker would send that client, goes
/// on while the worker stands still.
fn sent_on_by_the_kernel(system: &mut System, family: Family) {
    if system.loaded.status()["kernel_path"]["off"].is_string() {
        return;
    }
    let to = SocketAddr::new(family.vip(), ECHO);
    let home = system.lab.within("client", || ask(system.victim(family), to, "home?")).unwrap();
    let other = if home.contains("b1") { 2 } else { 1 };
    let socket = system.lab.within("client", || UdpSocket::bind((system.victim(family), 0)).unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    // Backends have numbers in the order of the configuration, IPv4 first.
    let index = other - 1 + if family == Family::V6 { 3 } else { 0 };
    let aim = Aim { process: socket.local_addr().unwrap().port().into(), signal: index };
    let heard = system.order(family, "flows: one that nobody has opened", aim, Duration::from_secs(2));
    assert_eq!(heard, Heard::Answer(0), "{}", system.tail());
    let forwarded = || system.loaded.packets(&["kernel_forwarded"]);
    let before = forwarded();
    signal_to(system.workers[0], Signal::SIGSTOP);
    socket.send_to(b"who?", to).unwrap();
    let mut text = [0; 512];
    let answer = socket.recv(&mut text).map(|length| String::from_utf8_lossy(&text[..length]).into_owned());
    signal_to(system.workers[0], Signal::SIGCONT);
    let answer = answer.unwrap_or_else(|error| panic!("no answer: {error}\n{}", system.tail()));
    assert!(answer.contains(&format!("b{other}")), "{answer}");
    assert!(forwarded() > before);
}

fn any_bytes(system: &mut System, family: Family) {
    let place = system.loaded.log().len();
    system.order(family, "link: bytes that are no message", at(0), NOW);
    assert!(eventually(RECOVERY_TIMEOUT, || !system.deaths_since(place).is_empty()), "{}", system.tail());
}

fn untrue_answers(system: &mut System, family: Family) {
    let end = |port: u16| move |address| SocketAddr::new(address, port).to_string();
    let (client, vip) = (end(5000)(system.victim(family)), end(ECHO)(family.vip()));
    let words = ["explain", "udp", &client, &vip];
    let said = |system: &System| system.loaded.json(&words)["outcome"].as_str().unwrap().to_owned();
    let truth = said(system);
    assert!(truth.starts_with("forwarded"), "{truth}");
    // It listens for a question, and until then stands still.
    let lie = std::thread::scope(|scope| {
        scope.spawn(|| system.order(family, "link: a lie about a packet", at(0), Duration::from_secs(2)));
        std::thread::sleep(Duration::from_millis(100));
        said(system)
    });
    assert_eq!(lie, "passed_foreign");
    assert_eq!(said(system), truth);
    untrue_counts(system, family);

    let place = system.loaded.log().len();
    system.order(family, "link: last words that forge a log", at(0), NOW);
    assert!(eventually(RECOVERY_TIMEOUT, || !system.deaths_since(place).is_empty()), "{}", system.tail());
    let deaths = system.deaths_since(place);
    assert!(
        deaths.iter().all(|death| death.contains("ended with code 3: ?[2J?loaded: worker[1]: killed")),
        "{deaths:?}"
    );
    assert!(system.loaded.log()[place..].lines().all(|line| !line.starts_with("loaded: worker[1]")));
}

/// What it says to have ended is at most what its table has places for, two for each flow that it can hold, and the flows are still
/// in the list; the next process ends them, and says how many.
fn untrue_counts(system: &mut System, family: Family) {
    const PLACES: u64 = 2 * 2048;
    let client = system.victim(family).to_string();
    let ended = |system: &System| {
        let ended = system.loaded.json(&["flows", "--end", "--client", &client]);
        assert_eq!(ended["unsaid"].as_array().map(Vec::len), Some(0), "{ended}");
        ended["ended"].as_u64().unwrap()
    };
    let living = |system: &System| {
        let list = system.loaded.json(&["flows", "--client", &client]);
        list["flows"].as_array().unwrap().iter().filter(|flow| flow["state"] != "ended").count() as u64
    };
    let lie = std::thread::scope(|scope| {
        let order = "link: a lie about ended flows";
        scope.spawn(|| system.order(family, order, at(0), Duration::from_secs(2)));
        std::thread::sleep(Duration::from_millis(100));
        ended(system)
    });
    assert!((PLACES..PLACES + 64).contains(&lie), "{lie}");
    let left = living(system);
    assert!(left > 0, "{}", system.loaded.ask(&["flows"]).out);
    assert_eq!((ended(system), living(system)), (left, 0));
}

fn hearing(system: &mut System, family: Family) {
    for attempt in ["recvmmsg on the queue", "read on the link", "read on the membership link", "clock_gettime"] {
        let heard = system.order(family, attempt, at(0), Duration::from_secs(2));
        assert!(matches!(heard, Heard::Answer(-4095..)), "{attempt}: {heard:?}\n{}", system.tail());
    }
}

fn standing_still(system: &mut System, family: Family) {
    let place = system.loaded.log().len();
    system.order(family, "counters: as of one that works", at(0), NOW);
    send(system, family);
    assert!(stays(Duration::from_millis(2500), || system.deaths_since(place).is_empty()), "{}", system.tail());
    assert!(waiting(system, "0") > 0);
    free_what_waits(system);
}

fn using_up_its_core(system: &mut System, family: Family) {
    let place = system.loaded.log().len();
    system.order(family, "time: spin", at(0), NOW);
    send(system, family);
    assert!(eventually(FOUND, || system.loaded.log()[place..].contains("worker[0]: hung: ")), "{}", system.tail());
    assert!(eventually(RECOVERY_TIMEOUT, || !system.deaths_since(place).is_empty()));
}

fn ending(system: &mut System, family: Family) {
    for (attempt, code) in [("exit_group", "code 42"), ("time: end as if in order", "code 0")] {
        let place = system.loaded.log().len();
        system.order(family, attempt, at(0), RECOVERY_TIMEOUT);
        let deaths = system.deaths_since(place);
        assert!(!deaths.is_empty() && deaths.iter().all(|death| death.contains(code)), "{attempt}: {deaths:?}");
        system.settle();
    }
    let body = system.lab.within("client", || get(system.victim(family), family.vip(), 80));
    assert!(body.is_ok(), "{body:?}");
}
