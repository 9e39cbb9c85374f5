//! Numbered datagrams: each must have one answer.

use crate::rig::net::Family;
use nix::sys::socket::{setsockopt, sockopt};
use std::collections::BTreeSet;
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

const ECHO: u16 = 7007;
/// Time between two datagrams of a client.
const INTERVAL: Duration = Duration::from_millis(50);
/// How long answers are awaited after the last datagram.
const LAST_ANSWERS: Duration = Duration::from_secs(3);
/// A client that is late makes up for no more than this.
const BURST: Duration = Duration::from_secs(1);
const BUFFER: usize = 1 << 20;

/// Counts of datagrams.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    sent: u64,
    answered: u64,
    twice: u64,
    /// Refused, or answered with something else.
    otherwise: u64,
}

/// One client.
struct Stream<'a> {
    socket: UdpSocket,
    address: IpAddr,
    /// Number of the next datagram, shared by all clients.
    next: &'a AtomicU64,
    missing: BTreeSet<u64>,
    seen: Datagrams,
}

/// Sends until the soak is over, then waits for the last answers.
pub(super) fn stream(family: Family, n: u16, next: &AtomicU64, over: &AtomicBool) -> Datagrams {
    let address = family.client(n);
    let socket = UdpSocket::bind((address, 0)).unwrap();
    setsockopt(&socket, sockopt::RcvBuf, &BUFFER).unwrap();
    socket.connect((family.vip(), ECHO)).unwrap();
    let mut stream = Stream { socket, address, next, missing: BTreeSet::new(), seen: Datagrams::default() };
    let mut due = Instant::now();
    while !over.load(Relaxed) {
        stream.send();
        due = (due + INTERVAL).max(Instant::now() - BURST);
        stream.hear(due);
    }
    stream.hear(Instant::now() + LAST_ANSWERS);
    stream.seen
}

impl Stream<'_> {
    fn send(&mut self) {
        let number = self.next.fetch_add(1, Relaxed);
        self.missing.insert(number);
        self.seen.sent += 1;
        if self.socket.send(number.to_string().as_bytes()).is_err() {
            self.seen.otherwise += 1;
        }
    }

    fn hear(&mut self, until: Instant) {
        let mut text = [0; 2048];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.socket.recv(&mut text) {
                Ok(length) => self.take(&String::from_utf8_lossy(&text[..length])),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // Somebody has refused a datagram, by ICMP.
                Err(_) => self.seen.otherwise += 1,
            }
        }
    }

    /// Counts an answer: "BACKEND CLIENT NUMBER".
    fn take(&mut self, answer: &str) {
        let words: Vec<_> = answer.split_whitespace().collect();
        let number = match words[..] {
            [_, client, number] if client == self.address.to_string() => number.parse::<u64>().ok(),
            _ => None,
        };
        match number.filter(|number| *number < self.next.load(Relaxed)) {
            None => self.seen.otherwise += 1,
            Some(number) if self.missing.remove(&number) => self.seen.answered += 1,
            Some(_) => self.seen.twice += 1,
        }
    }
}

impl Datagrams {
    pub(super) fn sum(clients: Vec<ScopedJoinHandle<'_, Self>>) -> Self {
        clients.into_iter().map(|client| client.join().unwrap()).fold(Self::default(), |sum, one| Self {
            sent: sum.sent + one.sent,
            answered: sum.answered + one.answered,
            twice: sum.twice + one.twice,
            otherwise: sum.otherwise + one.otherwise,
        })
    }

    /// Whether no more are lost than the `without_room` packets that the machine itself dropped.
    pub(super) fn are_good(&self, without_room: u64) -> bool {
        self.sent > 0 && self.sent - self.answered <= without_room && self.twice + self.otherwise == 0
    }
}

impl fmt::Display for Datagrams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, answered, twice, otherwise } = self;
        write!(f, "{sent} sent, {answered} answered, {twice} twice, {otherwise} otherwise")
    }
}
