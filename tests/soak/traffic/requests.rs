//! HTTP requests at a bounded rate, over a kept connection or each over a new one.

use crate::rig::net::dial_within;
use crate::rig::packet::Dice;
use nix::errno::Errno;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{ScopedJoinHandle, sleep};
use std::time::Duration;

/// A late answer is no error; one that takes longer than this is.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes of /small.
const BODY: usize = 612;
/// Errors that are quoted.
const TOLD: usize = 5;

/// A client with one connection at a time.
#[derive(Clone, Copy)]
pub(super) struct Client {
    pub(super) from: IpAddr,
    pub(super) to: SocketAddr,
    /// Whether a connection is kept until it fails.
    pub(super) stays: bool,
    /// Mean pause before each request.
    pub(super) pause: Duration,
}

/// What clients have seen.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) done: u64,
    connect: u64,
    write: u64,
    read: u64,
    timeout: u64,
    /// Status other than 200, or another length.
    answer: u64,
    first: Vec<String>,
    clients: usize,
}

/// The step at which a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    Write,
    Read,
    Answer,
}

impl Client {
    /// Sends requests until `over` is set.
    pub(super) fn ask(self, answers: &AtomicU64, over: &AtomicBool) -> Asked {
        let mut asked = Asked { clients: 1, ..Asked::default() };
        let from = SocketAddr::new(self.from, 0);
        while !over.load(Relaxed) {
            match dial_within(CONNECT_TIMEOUT, from, self.to) {
                Ok(stream) => self.use_up(stream, &mut asked, answers, over),
                Err(error) => {
                    asked.fail(self, Step::Connect, &error);
                    sleep(self.pause);
                }
            }
        }
        asked
    }

    /// Sends requests over one connection for as long as it lasts.
    fn use_up(self, mut stream: TcpStream, asked: &mut Asked, answers: &AtomicU64, over: &AtomicBool) {
        let port = stream.local_addr().map_or(0, |address| address.port());
        let mut dice = Dice::new(u64::from(port) << 20);
        while !over.load(Relaxed) {
            let most = usize::try_from(2 * self.pause.as_micros()).unwrap();
            sleep(Duration::from_micros(u64::try_from(dice.below(most)).unwrap()));
            if let Err((step, error)) = self.request(&mut stream) {
                asked.fail(self, step, &error);
                return;
            }
            asked.done += 1;
            answers.fetch_add(1, Relaxed);
            if !self.stays {
                return;
            }
        }
    }

    fn request(self, stream: &mut TcpStream) -> Result<(), (Step, io::Error)> {
        let connection = if self.stays { "keep-alive" } else { "close" };
        let text = format!("GET /small HTTP/1.1\r\nHost: {}\r\nConnection: {connection}\r\n\r\n", self.to);
        stream.write_all(text.as_bytes()).map_err(|error| (Step::Write, error))?;
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        loop {
            match stream.read(&mut part).map_err(|error| (Step::Read, error))? {
                0 => return Err((Step::Read, ErrorKind::UnexpectedEof.into())),
                length => answer.extend_from_slice(&part[..length]),
            }
            if is_whole(&answer).map_err(|error| (Step::Answer, error))? {
                return Ok(());
            }
        }
    }
}

/// Whether the answer is complete; an error if it can never be right.
fn is_whole(answer: &[u8]) -> io::Result<bool> {
    let Some(head) = answer.windows(4).position(|end| end == b"\r\n\r\n") else { return Ok(false) };
    let head_is_good = answer.starts_with(b"HTTP/1.1 200 ");
    if !head_is_good || answer.len() > head + 4 + BODY {
        return Err(io::Error::other(format!("{:?}", String::from_utf8_lossy(answer))));
    }
    Ok(answer.len() == head + 4 + BODY)
}

impl Asked {
    fn fail(&mut self, client: Client, step: Step, error: &io::Error) {
        // A blocking socket says EAGAIN when its time is up, connect() EINPROGRESS.
        let is_late = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
            || error.raw_os_error() == Some(Errno::EINPROGRESS as i32);
        let count = match step {
            _ if is_late => &mut self.timeout,
            Step::Connect => &mut self.connect,
            Step::Write => &mut self.write,
            Step::Read => &mut self.read,
            Step::Answer => &mut self.answer,
        };
        *count += 1;
        if self.first.len() < TOLD {
            self.first.push(format!("{}: {step:?}: {error}", client.from));
        }
    }

    /// Adds up all these clients.
    pub(super) fn sum(clients: Vec<ScopedJoinHandle<'_, Self>>) -> Self {
        clients.into_iter().map(|client| client.join().unwrap()).fold(Self::default(), |mut sum, one| {
            sum.done += one.done;
            sum.connect += one.connect;
            sum.write += one.write;
            sum.read += one.read;
            sum.timeout += one.timeout;
            sum.answer += one.answer;
            sum.clients += one.clients;
            sum.first.extend(one.first);
            sum
        })
    }

    fn errors(&self) -> u64 {
        self.connect + self.write + self.read + self.timeout + self.answer
    }

    pub(super) fn is_perfect(&self) -> bool {
        self.done > 0 && self.errors() == 0
    }

    pub(super) fn first_errors(&self) -> String {
        self.first.iter().take(TOLD).cloned().collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, connect, write, read, timeout, answer, clients, .. } = self;
        let kinds = format!("connect {connect}, write {write}, read {read}, timeout {timeout}, answer {answer}");
        write!(f, "{done} requests, {} errors ({kinds}), {clients} clients", self.errors())
    }
}

#[test]
fn an_answer_is_whole_or_wrong() {
    let page = [&b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"[..], &[b'x'; BODY]].concat();
    assert!(is_whole(&page).unwrap());
    assert!(!is_whole(&page[..20]).unwrap() && !is_whole(&page[..page.len() - 1]).unwrap());
    assert!(is_whole(&[&page[..], b"x"].concat()).is_err());
    assert!(is_whole(b"HTTP/1.1 404 Not Found\r\n\r\n").is_err());
}
