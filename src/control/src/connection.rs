//! One connection: a request in, an answer out. Nothing here blocks.

use super::{MAX_ANSWER, MAX_REQUEST, Reply, Request};
use nix::poll::{PollFd, PollFlags};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a client may take to send its request.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(1);
/// How long a client may take to read its answer.
pub const TAKE_DEADLINE: Duration = Duration::from_secs(2);
/// How long an answer that others have to provide may take.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
/// How long a change may take until workers serve by it; less than clients wait.
pub const CHANGE_DEADLINE: Duration = Duration::from_secs(25);

/// A client that may ask.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    deadline: Instant,
    phase: RequestPhase,
}

#[derive(Debug)]
enum RequestPhase {
    /// Bytes of a request so far.
    Asking(Vec<u8>),
    /// Waits for the answer with this number.
    Waiting(u32),
    /// Sends an answer, from this offset on.
    Answering(Vec<u8>, usize),
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// This reply, at once.
    Now(Reply),
    /// Later: [`super::Control::settle`] delivers the reply with this number.
    Later(u32),
    /// The same, after a change for which workers start anew.
    AfterChange(u32),
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Now(reply)
    }
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It stays open.
    Open,
    /// It is finished.
    Over,
}

impl Connection {
    /// `stream` must be non-blocking.
    pub(super) fn new(stream: UnixStream, now: Instant) -> Self {
        Self { stream, deadline: now + REQUEST_DEADLINE, phase: RequestPhase::Asking(Vec::new()) }
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Whether it waits for an answer that others have to provide.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self.phase, RequestPhase::Waiting(_))
    }

    /// Whether its request has not come yet.
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.phase, RequestPhase::Asking(_))
    }

    /// What to wait for; nothing while its answer is awaited, or poll would report again and again that the client is
    /// gone.
    pub(super) fn poll_fd(&self) -> Option<PollFd<'_>> {
        let wanted = match self.phase {
            RequestPhase::Asking(_) => PollFlags::POLLIN,
            RequestPhase::Waiting(_) => return None,
            RequestPhase::Answering(..) => PollFlags::POLLOUT,
        };
        Some(PollFd::new(self.stream.as_fd(), wanted))
    }

    /// The answer with this number is there. `false`: this connection does not wait for it.
    pub(super) fn settle(&mut self, now: Instant, number: u32, reply: &Reply) -> bool {
        let waits = matches!(self.phase, RequestPhase::Waiting(waited) if waited == number);
        if waits {
            self.respond(now, reply);
        }
        waits
    }

    fn wait(&mut self, number: u32, deadline: Instant) -> After {
        (self.phase, self.deadline) = (RequestPhase::Waiting(number), deadline);
        After::Open
    }

    fn respond(&mut self, now: Instant, reply: &Reply) {
        self.phase = RequestPhase::Answering(line(reply), 0);
        self.deadline = now + TAKE_DEADLINE;
    }

    /// Does what is possible without blocking. `answer` is taken once it was called; without it nothing is read, and the
    /// request stays in the kernel.
    pub(super) fn serve<R, A>(&mut self, now: Instant, answer: &mut Option<A>) -> After
    where
        R: Into<Answer>,
        A: FnOnce(Request) -> R,
    {
        if let RequestPhase::Asking(bytes) = &mut self.phase {
            let Some(respond) = answer.take() else { return After::Open };
            let reply = match receive(&mut self.stream, bytes) {
                Ok(Some(request)) => match respond(request).into() {
                    Answer::Now(reply) => reply,
                    Answer::Later(number) => return self.wait(number, now + ANSWER_DEADLINE),
                    Answer::AfterChange(number) => return self.wait(number, now + CHANGE_DEADLINE),
                },
                none => {
                    *answer = Some(respond);
                    match none {
                        Ok(_) if now < self.deadline => return After::Open,
                        Ok(_) => Reply::error(format!("no complete request within {REQUEST_DEADLINE:?}")),
                        Err(text) => Reply::error(text),
                    }
                }
            };
            self.respond(now, &reply);
        }
        if matches!(self.phase, RequestPhase::Waiting(_)) && self.deadline <= now {
            self.respond(now, &Reply::error("no answer in time"));
        }
        self.send(now)
    }

    fn send(&mut self, now: Instant) -> After {
        let RequestPhase::Answering(bytes, sent) = &mut self.phase else { return After::Open };
        while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(0) => return After::Over,
                Ok(n) => *sent += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && now < self.deadline => return After::Open,
                // The client is gone, or does not read.
                Err(_) => return After::Over,
            }
        }
        After::Over
    }
}

/// Reads what has come. `None`: not a whole line yet.
fn receive(stream: &mut UnixStream, bytes: &mut Vec<u8>) -> Result<Option<Request>, String> {
    // One byte more than a request and its newline can have.
    let room = MAX_REQUEST + 2 - bytes.len();
    let mut part = [0; 4096];
    let mut taken = 0;
    while taken < room {
        let most = part.len().min(room - taken);
        match stream.read(&mut part[..most]) {
            Ok(0) if bytes.is_empty() => return Err("the connection ended without a request".to_owned()),
            Ok(0) => return Err("the connection ended within the request: a request is a line".to_owned()),
            Ok(n) => {
                bytes.extend_from_slice(&part[..n]);
                taken += n;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(format!("read the request: {error}")),
        }
        if bytes.contains(&b'\n') {
            break;
        }
    }
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if end + 1 < bytes.len() => {
            Err("there is more than one line: a connection is for one request".to_owned())
        }
        Some(end) => Request::parse(&bytes[..end]).map(Some),
        None if bytes.len() > MAX_REQUEST => Err(format!("the request is longer than {MAX_REQUEST} bytes")),
        None => Ok(None),
    }
}

/// A reply as one line of JSON.
pub(super) fn line(reply: &Reply) -> Vec<u8> {
    let refusal = |text: &str| format!("{{\"error\":{{\"text\":\"{text}\"}}}}").into_bytes();
    let mut bytes = match serde_json::to_vec(reply) {
        Ok(bytes) if bytes.len() < MAX_ANSWER => bytes,
        Ok(_) => refusal("the answer is too long for the control socket"),
        Err(_) => refusal("the answer cannot be written as JSON"),
    };
    bytes.push(b'\n');
    bytes
}
