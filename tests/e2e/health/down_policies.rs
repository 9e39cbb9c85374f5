//! What the policies do to clients of a backend that fails its checks but still serves.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::net::{ANSWER_TIMEOUT, Family, backend_of, dial, get};
use crate::rig::servers::{Mood, PORT, Server, backends, becomes, datagrams, echo, service, timed, webs};
use crate::rig::wire::capture;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BYTES: usize = 48 << 20;
/// At this pace the download takes more than four seconds.
const PIECE: usize = 512 << 10;
const PAUSE: Duration = Duration::from_millis(45);

/// Web and echo on all three backends, whose state is that of the servers on [`PORT`].
fn toml(keys: &str, members: &str) -> String {
    let check =
        format!("kind = \"http\", port = {PORT}, interval = \"200ms\", timeout = \"200ms\", rise = 2, fall = 2");
    let keys = format!("strategy = \"rr\"\naffinity = \"none\"\n{keys}\ncheck = {{ {check} }}");
    let of = |name, protocol, port| service(name, protocol, port, &keys) + members;
    format!("cores = \"0-1\"\n{}{}", of("web", "tcp", 80), of("echo", "udp", 7007))
}

fn all_become(loaded: &Loaded, n: u16, state: &str) {
    ["web", "echo"].iter().for_each(|name| becomes(loaded, name, n, state));
}

/// Lets the checks of a backend pass or fail, and waits until supervisor and workers know.
fn turn(loaded: &Loaded, servers: &[Server], n: u16, up: bool) {
    servers[usize::from(n) - 1].set(Mood::Says(if up { 200 } else { 503 }));
    all_become(loaded, n, if up { "up" } else { "down" });
}

/// The backend that has an established connection with this client's port, if there is just one.
fn home(lab: &Lab, client: SocketAddr) -> Option<u16> {
    let open = |n: &u16| {
        let peer = if client.is_ipv4() { client.to_string() } else { format!("[{}]:{}", client.ip(), client.port()) };
        lab.sh(&format!("b{n}"), &format!("ss -Hnt state established 'sport = :80' dst '{peer}'")).lines().count() == 1
    };
    let all: Vec<u16> = (1..=3).filter(open).collect();
    assert!(all.len() < 2, "{client} is connected with {all:?}");
    all.first().copied()
}

/// Reads a large file slowly; returns what came before the end or an error.
fn download(mut stream: TcpStream, read: &AtomicU64) -> (Vec<u8>, Option<io::Error>) {
    let mut all = Vec::new();
    let mut piece = vec![0; PIECE];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return (all, None),
            Ok(length) => all.extend_from_slice(&piece[..length]),
            Err(error) => return (all, Some(error)),
        }
        let before = read.swap(u64::try_from(all.len()).unwrap(), Ordering::Relaxed);
        if all.len() / PIECE > usize::try_from(before).unwrap() / PIECE {
            std::thread::sleep(PAUSE);
        }
    }
}

/// After a reset, the reader still gets what the client's kernel had received before it: up to 32 MiB, or three seconds at
/// this pace (tcp_rmem of Linux 6.18). So it may hold no more than two pieces.
fn begin_download(lab: &Lab, family: Family) -> TcpStream {
    let mut stream = lab.within("client", || dial(family.client(20), SocketAddr::new(family.vip(), 80))).unwrap();
    setsockopt(&stream, sockopt::RcvBufForce, &PIECE).unwrap();
    let range = format!("Range: bytes=0-{}\r\n", BYTES - 1);
    write!(stream, "GET /big HTTP/1.1\r\nHost: vip\r\n{range}Connection: close\r\n\r\n").unwrap();
    stream
}

fn has_source(packet: &[u8], address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => packet.first().is_some_and(|b| b >> 4 == 4) && packet.get(12..16) == Some(&v4.octets()[..]),
        IpAddr::V6(v6) => packet.first().is_some_and(|b| b >> 4 == 6) && packet.get(8..24) == Some(&v6.octets()[..]),
    }
}

/// A client's UDP flow to this backend.
fn flow_at(lab: &Lab, family: Family, n: u16) -> UdpSocket {
    let mut sockets = (0..30).map(|_| datagrams(lab, family, 20, 7007));
    let is_there = |socket: &UdpSocket| echo(socket, ANSWER_TIMEOUT).unwrap() == format!("b{n}");
    sockets.find(is_there).unwrap_or_else(|| panic!("no flow to b{n} of 30"))
}

/// What a client sees that has a download and a UDP flow at the same backend.
struct Seen {
    body: Vec<u8>,
    error: Option<io::Error>,
    /// From when the status said that the backend is down.
    after: Duration,
    datagrams: [io::Result<String>; 2],
}

/// No packet may come with the backend's own address.
fn suffer(lab: &Lab, loaded: &Loaded, servers: &[Server], family: Family) -> (u16, Seen) {
    let stream = begin_download(lab, family);
    let client = stream.local_addr().unwrap();
    let read = AtomicU64::new(0);
    let act = || {
        std::thread::scope(|scope| {
            let running = scope.spawn(|| (download(stream, &read), Instant::now()));
            assert!(eventually(ANSWER_TIMEOUT, || read.load(Ordering::Relaxed) > 1 << 20), "no download");
            let n = home(lab, client).unwrap();
            let flow = flow_at(lab, family, n);
            turn(loaded, servers, n, false);
            let down = Instant::now();
            // An idle worker looks at its links every 50 ms: it may hear a little later what the supervisor knows.
            std::thread::sleep(Duration::from_millis(200));
            let datagrams = [(); 2].map(|()| echo(&flow, ANSWER_TIMEOUT));
            for _ in 0..6 {
                let answer = lab.within("client", || get(family.client(21), family.vip(), 80)).unwrap();
                assert_ne!(backend_of(&answer, family.client(21)), format!("b{n}"), "a new connection");
            }
            let ((body, error), end) = running.join().unwrap();
            (n, Seen { body, error, after: end.saturating_duration_since(down), datagrams })
        })
    };
    let ((n, seen), packets) = capture(lab, "client", act);
    let own = packets.iter().filter(|packet| has_source(packet, family.backend(n))).count();
    let open = || home(lab, client).is_some();
    println!("{family:?}: {} bytes, {:?} {:?} after b{n} was down", seen.body.len(), seen.error, seen.after);
    assert!(packets.len() > 100 && own == 0, "{family:?}: {own} of {} packets have b{n}'s own address", packets.len());
    assert!(eventually(Duration::from_secs(3), || !open()), "{family:?}: the backend's side stays open");
    turn(loaded, servers, n, true);
    (n, seen)
}

/// Runs the case with this policy, for both families.
fn policy(name: &str, judge: impl Fn(&Lab, u16, Seen)) {
    let Some(lab) = Lab::up() else { return };
    let servers = webs(&lab);
    let loaded = Loaded::toml(&lab, &toml(&format!("on_backend_down = \"{name}\""), &backends(&[1, 2, 3], "")));
    (1..=3).for_each(|n| all_become(&loaded, n, "up"));
    for family in Family::BOTH {
        let (n, seen) = suffer(&lab, &loaded, &servers, family);
        judge(&lab, n, seen);
    }
    loaded.stop();
}

#[track_caller]
fn is_reset(seen: &Seen) {
    assert_eq!(seen.error.as_ref().map(io::Error::kind), Some(ErrorKind::ConnectionReset), "{:?}", seen.error);
    assert!(seen.body.len() < BYTES && seen.after < Duration::from_secs(1), "{:?} after it was down", seen.after);
}

#[track_caller]
fn goes_on_elsewhere(answer: &io::Result<String>, n: u16) {
    let name = answer.as_ref().unwrap_or_else(|error| panic!("UDP does not move: {error}"));
    assert_ne!(name, &format!("b{n}"), "UDP stays at the backend that is down");
}

#[test]
fn reset_ends_connections_on_both_sides() {
    policy("reset", |_, n, seen| {
        is_reset(&seen);
        let [first, second] = seen.datagrams;
        assert_eq!(first.unwrap_err().kind(), ErrorKind::ConnectionRefused, "the UDP client is refused");
        goes_on_elsewhere(&second, n);
    });
}

#[test]
fn rehash_moves_datagrams_and_a_new_backend_resets_connections() {
    policy("rehash", |_, n, seen| {
        is_reset(&seen);
        seen.datagrams.iter().for_each(|answer| goes_on_elsewhere(answer, n));
    });
}

#[test]
fn drain_lets_downloads_finish_and_moves_datagrams() {
    policy("drain", |_, n, seen| {
        assert!(seen.error.is_none(), "{:?}", seen.error);
        let begin = seen.body.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let path = std::env::var("LAB_DATA").unwrap_or("/var/cache/loaded-lab".to_owned()) + "/big";
        let mut wanted = vec![0; BYTES];
        std::fs::File::open(path).unwrap().read_exact(&mut wanted).unwrap();
        assert!(seen.after > Duration::from_millis(300), "it was over {:?} after b{n} was down", seen.after);
        assert!(seen.body[begin..] == wanted, "{} bytes came, not those of the file", seen.body.len() - begin);
        seen.datagrams.iter().for_each(|answer| goes_on_elsewhere(answer, n));
    });
}

/// Connections and datagrams by backend, of both families together.
fn spread(lab: &Lab) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for family in Family::BOTH {
        for n in 10..34 {
            let client = family.client(n);
            let answer = lab.within("client", || get(client, family.vip(), 80)).unwrap();
            let echoed = echo(&datagrams(lab, family, n, 7007), ANSWER_TIMEOUT).unwrap();
            for name in [backend_of(&answer, client), echoed] {
                *counts.entry(name).or_insert(0) += 1;
            }
        }
    }
    counts
}

#[track_caller]
fn are_used(lab: &Lab, wanted: &[&str]) {
    let counts = spread(lab);
    println!("{counts:?}");
    assert_eq!(counts.keys().map(String::as_str).collect::<Vec<_>>(), wanted);
    assert!(counts.values().all(|count| count * wanted.len() > 70), "not evenly: {counts:?}");
}

#[test]
fn backups_serve_only_while_no_primary_can() {
    let Some(lab) = Lab::up() else { return };
    let servers = webs(&lab);
    let loaded = Loaded::toml(&lab, &toml("", &(backends(&[1, 2], "") + &backends(&[3], "backup = true"))));
    (1..=3).for_each(|n| all_become(&loaded, n, "up"));
    are_used(&lab, &["b1", "b2"]);
    turn(&loaded, &servers, 1, false);
    are_used(&lab, &["b2"]);
    turn(&loaded, &servers, 2, false);
    are_used(&lab, &["b3"]);
    assert_eq!(loaded.status()["services"][0]["state"], "backup");
    turn(&loaded, &servers, 1, true);
    are_used(&lab, &["b1"]);
    turn(&loaded, &servers, 2, true);
    are_used(&lab, &["b1", "b2"]);
    loaded.stop();
}

#[test]
fn below_the_threshold_checks_are_not_believed() {
    let Some(lab) = Lab::up() else { return };
    let servers = webs(&lab);
    let loaded = Loaded::toml(&lab, &toml("panic_threshold = 50", &backends(&[1, 2, 3], "")));
    (1..=3).for_each(|n| all_become(&loaded, n, "up"));
    turn(&loaded, &servers, 1, false);
    are_used(&lab, &["b2", "b3"]);
    turn(&loaded, &servers, 2, false);
    are_used(&lab, &["b1", "b2", "b3"]);
    assert_eq!(loaded.status()["services"][0]["state"], "panic");
    turn(&loaded, &servers, 2, true);
    are_used(&lab, &["b2", "b3"]);
    loaded.stop();
}

/// All backends go down, b3 last.
#[test]
fn with_all_down_clients_get_what_is_configured() {
    let Some(lab) = Lab::up() else { return };
    let servers = webs(&lab);
    for policy in ["reject", "drop", "last"] {
        let loaded = Loaded::toml(&lab, &toml(&format!("all_down = \"{policy}\""), &backends(&[1, 2, 3], "")));
        (1..=3).for_each(|n| all_become(&loaded, n, "up"));
        (1..=3).for_each(|n| turn(&loaded, &servers, n, false));
        for family in Family::BOTH {
            let limit = Duration::from_millis(700);
            let vip = SocketAddr::new(family.vip(), 80);
            let (tcp, time) = timed(|| lab.within("client", || TcpStream::connect_timeout(&vip, limit).map(drop)));
            let udp = echo(&datagrams(&lab, family, 20, 7007), limit);
            println!("{policy}, {family:?}: {tcp:?} after {time:?}, {udp:?}");
            let kinds = (tcp.map_err(|e| e.kind()), udp.map_err(|e| e.kind()));
            match policy {
                "reject" => {
                    let refused = ErrorKind::ConnectionRefused;
                    assert_eq!(kinds, (Err(refused), Err(refused)));
                    assert!(time < Duration::from_millis(300), "{time:?}");
                }
                "drop" => assert_eq!(kinds, (Err(ErrorKind::TimedOut), Err(ErrorKind::WouldBlock))),
                _ => {
                    assert_eq!(kinds, (Ok(()), Ok("b3".to_owned())));
                    let answer = lab.within("client", || get(family.client(20), family.vip(), 80)).unwrap();
                    assert_eq!(backend_of(&answer, family.client(20)), "b3");
                }
            }
        }
        (1..=3).for_each(|n| turn(&loaded, &servers, n, true));
        are_used(&lab, &["b1", "b2", "b3"]);
        let log = loaded.log();
        let lines: Vec<_> =
            log.lines().filter(|line| line.contains("all backends are down") && !line.contains("verdict: ")).collect();
        assert_eq!(lines.len(), 2, "one for each service: {lines:?}");
        loaded.stop();
    }
}
