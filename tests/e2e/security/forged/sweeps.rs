//! Guesses at live connections: an attacker who knows both addresses tries all of the client's ports with segments in the
//! client's name. He may end nothing and move nothing, whatever their backend is about to do; who really ends a connection
//! can begin another on its ports at once.

use super::{ACK, FIN, RST, SYN, Segment, answer, ask_all, let_workers_catch_up, times};
use crate::rig::config::{FREE, STICKY, Service, config};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::machine::paired;
use crate::rig::net::{Family, dial_from, get};
use crate::rig::packet::Dice;
use crate::rig::wire::Sender;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const CONNECTIONS: u16 = 50;
/// The first of them is here, and each next one so many ports above.
pub(super) const FIRST: u16 = 40_000;
const APART: u16 = 20;
/// Whose connections they are.
pub(super) const VICTIM: u16 = 20;
/// Longer than a worker that has nothing to do looks at its link.
const HEARD: Duration = Duration::from_millis(200);

/// The flags of the segments of one port, in this order.
pub(super) type Guess = &'static [u8];

pub(super) const RESET: Guess = &[RST];
pub(super) const END: Guess = &[FIN | ACK, RST];
const SWEEPS: [(&str, Guess); 5] =
    [("RST", RESET), ("SYN", &[SYN]), ("RST+SYN", &[RST, SYN]), ("FIN", &[FIN | ACK]), ("FIN+SYN", &[FIN | ACK, SYN])];

/// What is about to become of the backend of the first connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Sound,
    Draining,
    Ejected,
}

pub(super) fn text(affinity: &str) -> String {
    let keys = format!("strategy = \"rr\"\n{affinity}\npassive = {{ fails = 3, timeout = \"1m\", hold = \"5m\" }}");
    // Three, and their number divides neither that of the connections nor that of the flows which a sweep opens: in turn, a
    // connection that is moved seldom meets its own backend again.
    let backends = &[(1, 1), (2, 1), (3, 1)];
    format!("cores = \"0-1\"\n{}", config("60s", &[Service { keys: &keys, backends, ..Service::default() }]))
}

/// Connections from these very ports, each of which has been asked once; and how long the slowest took.
pub(super) fn open(lab: &Lab, family: Family) -> (Vec<TcpStream>, Vec<String>, Duration) {
    let (mut names, mut slowest) = (Vec::new(), Duration::ZERO);
    let one = |n: u16| {
        let began = Instant::now();
        let from = SocketAddr::new(family.client(VICTIM), FIRST + n * APART);
        let stream = dial_from(from, SocketAddr::new(family.vip(), 80));
        let mut stream = stream.unwrap_or_else(|error| panic!("{from}: {error}"));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\n\r\n").unwrap();
        names.push(answer(&mut stream).unwrap_or_else(|error| panic!("{from}: {error}")));
        slowest = slowest.max(began.elapsed());
        stream
    };
    let streams = lab.within("client", || (0..CONNECTIONS).map(one).collect());
    (streams, names, slowest)
}

/// Ends connections by FINs, the backend's first, so that the client's kernel lets go of its ports.
pub(super) fn close(streams: Vec<TcpStream>) {
    for mut stream in streams {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    std::thread::sleep(Duration::from_millis(50));
}

/// Sends these segments from all of the client's ports to the VIP, with numbers that are guessed. Every other time with a wrong
/// checksum, so that no host hears them.
pub(super) fn sweep(lab: &Lab, sender: &Sender, family: Family, guess: Guess, dice: &mut Dice) {
    let count = u32::from(CONNECTIONS * APART) * times();
    let first = u32::from(FIRST) - count.min(u32::from(FIRST) - 1);
    let ports: Vec<u16> = (first..first + 2 * count).map_while(|port| u16::try_from(port).ok()).collect();
    let mut number = || u32::try_from(dice.word() >> 32).unwrap();
    for right in [true, false] {
        for some in ports.chunks(128) {
            let mut frames = Vec::new();
            for (port, flags) in some.iter().flat_map(|port| guess.iter().map(move |flags| (*port, *flags))) {
                let (from, to) = (SocketAddr::new(family.client(VICTIM), port), SocketAddr::new(family.vip(), 80));
                let acknowledged = if flags & ACK == 0 { 0 } else { number() };
                let segment = Segment { from, to, flags, sequence: number(), acknowledged };
                frames.push(sender.frame(&if right { segment.sound() } else { segment.wrong() }));
            }
            sender.send_all(&frames);
            let_workers_catch_up(lab);
        }
    }
    assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "{}", lab.queues());
    // Answers of backends are on their way.
    std::thread::sleep(Duration::from_millis(50));
}

/// Brings the backend into this state, from being sound.
fn bring(lab: &Lab, loaded: &Loaded, state: State, family: Family, home: &str) {
    let address = family.backend(home[1..].parse().unwrap());
    match state {
        State::Sound => {}
        State::Draining => {
            let said = loaded.ask(&["backend", "drain", &address.to_string()]);
            assert_eq!(said.code, Some(0), "{}", said.err);
        }
        // It refuses what is new, for a moment, and no connection ends by that.
        State::Ejected => {
            let rule = "tcp dport 80 tcp flags & (syn | ack) == syn reject with tcp reset";
            lab.sh(
                home,
                &format!("nft 'add table inet no; add chain inet no in {{ type filter hook input priority 0; }}; add rule inet no in {rule}'"),
            );
            let knock = || get(family.client(VICTIM), family.vip(), 80).is_err();
            let refused = lab.within("client", || (0..12).filter(|_| knock()).count());
            lab.sh(home, "nft delete table inet no");
            assert_eq!(refused, 3, "{family:?}: refusals until {home} was out");
        }
    }
    std::thread::sleep(HEARD);
}

fn loses_nothing(affinity: &str, state: State) {
    paired(|lab| keeps_connections(lab, affinity, state));
}

fn keeps_connections(lab: &Lab, affinity: &str, state: State) {
    let loaded = Loaded::toml(lab, &text(affinity));
    let sender = Sender::to_balancer(lab, "client", "eth0");
    let (mut dice, mut lost) = (Dice::new(0x7377_6565_7073), Vec::new());
    for family in Family::BOTH {
        let (mut streams, names, _) = open(lab, family);
        bring(lab, &loaded, state, family, &names[0]);
        let began = Instant::now();
        for (name, guess) in SWEEPS {
            sweep(lab, &sender, family, guess, &mut dice);
            let dead = ask_all(&mut streams);
            if dead > 0 {
                lost.push(format!("{family:?} {name}: {dead} of {}", streams.len() + dead));
                drop(std::mem::take(&mut streams));
                break;
            }
        }
        println!("{family:?}, {state:?}, {affinity}: {:.1?}, lost {lost:?}", began.elapsed());
        let live = streams.len();
        close(streams);
        if live > 0 {
            let (again, _, slowest) = open(lab, family);
            println!("{family:?}: again on the same ports, the slowest after {slowest:.1?}");
            assert!(slowest < Duration::from_millis(500), "{family:?}: {slowest:?}");
            close(again);
        }
    }
    assert!(lost.is_empty(), "{state:?}, {affinity}: connections lost by {lost:?}");
    loaded.stop();
}

#[test]
fn flows_balanced_by_themselves_are_neither_moved_nor_ended() {
    loses_nothing(FREE, State::Sound);
}

#[test]
fn flows_balanced_by_themselves_stay_at_a_backend_that_drains() {
    loses_nothing(FREE, State::Draining);
}

#[test]
fn flows_balanced_by_themselves_stay_at_a_backend_that_is_ejected() {
    loses_nothing(FREE, State::Ejected);
}

#[test]
fn flows_of_a_client_with_a_backend_are_neither_moved_nor_ended() {
    loses_nothing(STICKY, State::Sound);
}

#[test]
fn flows_of_a_client_with_a_backend_stay_while_it_drains() {
    loses_nothing(STICKY, State::Draining);
}

#[test]
fn flows_of_a_client_with_a_backend_stay_while_it_is_ejected() {
    loses_nothing(STICKY, State::Ejected);
}
