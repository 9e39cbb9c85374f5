//! One connection: a request in, an answer out, and the end. Nothing here blocks.

use crate::answer::{MAX_HEAD, Response};
use crate::clock::SECOND;
use crate::request::{self, MAX_REQUEST, Request, Wanted};
use crate::shelf::{FRESH, Shelves};
use loaded_ipc::Document;
use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use nix::unistd::close;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// How long a request may take to come, microseconds.
const REQUEST_DEADLINE: u64 = 5 * SECOND;
/// How long the supervisor may take to make a document.
const DOCUMENT_DEADLINE: u64 = 3 * SECOND;
/// How long an answer may take to be read.
const TAKE_DEADLINE: u64 = 10 * SECOND;
/// How long the other side may take to close.
const END_DEADLINE: u64 = SECOND;
/// Bytes sent before other connections get their turn.
const SENT_AT_ONCE: usize = 256 * 1024;
/// Bytes read and forgotten at a time, once there is an answer.
const FORGOTTEN_AT_ONCE: usize = 1024;

/// A place for a connection, with room for its request.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) connection: Option<Connection>,
    request: [u8; MAX_REQUEST],
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    phase: Phase,
    /// When it is given up.
    pub(crate) deadline: u64,
    /// When it last got on.
    pub(crate) progress: u64,
}

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "each slot has room for the largest; a box would be allocated for each answer"
)]
enum Phase {
    /// So many bytes of a request have come.
    Asking(usize),
    /// For a document that the supervisor makes.
    Waiting(Document, bool),
    Answering(Answer),
    /// The answer has been sent; the other side is to close. What it still sends is forgotten: to close on it would be a
    /// reset, which may overtake the answer (RFC 9112 §9.6).
    Ending,
}

#[derive(Debug)]
struct Answer {
    head: [u8; MAX_HEAD],
    head_length: usize,
    body: Body,
    /// Of head and body together.
    sent: usize,
}

#[derive(Debug, Clone, Copy)]
enum Body {
    Text(&'static [u8]),
    /// A version on a shelf, which this connection reads.
    Version(Document, usize),
    /// It was asked for the head alone.
    Nothing,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum After {
    Open,
    Over,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self { connection: None, request: [0; MAX_REQUEST] }
    }

    /// Somebody has connected.
    pub(crate) fn take(&mut self, socket: OwnedFd, now: u64) {
        let deadline = now + REQUEST_DEADLINE;
        self.connection = Some(Connection { socket, phase: Phase::Asking(0), deadline, progress: now });
    }

    /// Reads what has come, or sends what there is to send, and closes what is over.
    pub(crate) fn advance(&mut self, shelves: &mut Shelves, now: u64) {
        let Some(connection) = &mut self.connection else { return };
        let after = match &mut connection.phase {
            Phase::Asking(length) => match read(&connection.socket, &mut self.request[*length..]) {
                Read::Nothing => After::Open,
                Read::End => After::Over,
                Read::Bytes(more) => {
                    *length += more;
                    connection.progress = now;
                    match request::judge(&self.request[..*length]) {
                        Some(request) => connection.judged(request, shelves, now),
                        None => After::Open,
                    }
                }
            },
            Phase::Waiting(..) => After::Open,
            Phase::Answering(_) => connection.send(shelves, now),
            Phase::Ending => match read(&connection.socket, &mut self.request[..FORGOTTEN_AT_ONCE]) {
                Read::Nothing | Read::Bytes(_) => After::Open,
                Read::End => After::Over,
            },
        };
        if after == After::Over {
            self.close(shelves);
        }
    }

    /// The document that it waits for may be there, or will not come any more.
    pub(crate) fn wake(&mut self, shelves: &mut Shelves, now: u64) {
        let Some(connection) = &mut self.connection else { return };
        let after = match connection.phase {
            Phase::Waiting(document, head_only) => connection.look(document, head_only, shelves, now),
            _ => After::Open,
        };
        if after == After::Over {
            self.close(shelves);
        }
    }

    /// Gives up whoever is too slow.
    pub(crate) fn give_up_late(&mut self, shelves: &mut Shelves, now: u64) {
        let Some(connection) = self.connection.as_mut().filter(|connection| connection.deadline <= now) else { return };
        let after = match connection.phase {
            Phase::Waiting(_, head_only) => connection.answer(Response::Unavailable, None, head_only, shelves, now),
            _ => After::Over,
        };
        if after == After::Over {
            self.close(shelves);
        }
    }

    /// There will be no more documents: only what is being answered goes on.
    pub(crate) fn finish(&mut self, shelves: &mut Shelves, now: u64) {
        let Some(connection) = &mut self.connection else { return };
        let after = match connection.phase {
            Phase::Asking(_) => After::Over,
            Phase::Waiting(_, head_only) => connection.answer(Response::Unavailable, None, head_only, shelves, now),
            Phase::Answering(_) | Phase::Ending => After::Open,
        };
        if after == After::Over {
            self.close(shelves);
        }
    }

    /// Closes the connection, whatever it does.
    pub(crate) fn close(&mut self, shelves: &mut Shelves) {
        let Some(Connection { phase, socket, .. }) = self.connection.take() else { return };
        if let Phase::Answering(answer) = phase {
            answer.release(shelves);
        }
        // By hand: dropping it would call fcntl(2) first where the standard library was built with checks.
        let _ = close(socket);
    }
}

impl Connection {
    /// What to wait for. Nothing while a document is awaited, or poll would say again and again that somebody has gone.
    pub(crate) fn wanted(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let flags = match self.phase {
            Phase::Asking(_) | Phase::Ending => PollFlags::POLLIN,
            Phase::Answering(_) => PollFlags::POLLOUT,
            Phase::Waiting(..) => return None,
        };
        Some((self.socket.as_fd(), flags))
    }

    /// Whether the supervisor keeps it waiting.
    pub(crate) fn waits(&self) -> bool {
        matches!(self.phase, Phase::Waiting(..))
    }

    fn judged(&mut self, request: Request, shelves: &mut Shelves, now: u64) -> After {
        let Request { wanted, head_only } = request;
        match wanted {
            Wanted::Document(document) => {
                shelves.want(document, now);
                self.phase = Phase::Waiting(document, head_only);
                self.deadline = now + DOCUMENT_DEADLINE;
                self.look(document, head_only, shelves, now)
            }
            Wanted::Style => self.answer(Response::Style, None, head_only, shelves, now),
            Wanted::Refused(refusal) => self.answer(Response::Refused(refusal), None, head_only, shelves, now),
        }
    }

    fn look(&mut self, document: Document, head_only: bool, shelves: &mut Shelves, now: u64) -> After {
        // Whoever asks gets what is no older than a moment before he asked.
        let asked = self.deadline.saturating_sub(DOCUMENT_DEADLINE);
        let shelf = shelves.of(document);
        match shelf.newest(asked.saturating_sub(FRESH)) {
            Some(version) => {
                let response = Response::Found(document, shelf.serves(version));
                self.answer(response, Some((document, version)), head_only, shelves, now)
            }
            None => After::Open,
        }
    }

    fn answer(
        &mut self,
        response: Response,
        version: Option<(Document, usize)>,
        head_only: bool,
        shelves: &mut Shelves,
        now: u64,
    ) -> After {
        let body = version.map_or(Body::Text(response.text()), |(document, version)| Body::Version(document, version));
        let mut head = [0; MAX_HEAD];
        let head_length = response.head(body.bytes(shelves).len(), &mut head);
        let body = if head_only { Body::Nothing } else { body };
        if let Body::Version(document, version) = body {
            shelves.of(document).begin(version);
        }
        self.phase = Phase::Answering(Answer { head, head_length, body, sent: 0 });
        (self.deadline, self.progress) = (now + TAKE_DEADLINE, now);
        self.send(shelves, now)
    }

    /// Sends what the socket takes.
    fn send(&mut self, shelves: &mut Shelves, now: u64) -> After {
        let Phase::Answering(answer) = &mut self.phase else { return After::Open };
        let mut room = SENT_AT_ONCE;
        loop {
            let rest = answer.rest(shelves);
            let rest = &rest[..rest.len().min(room)];
            if rest.is_empty() {
                break;
            }
            match send(self.socket.as_raw_fd(), rest, MsgFlags::MSG_NOSIGNAL) {
                Ok(sent) => {
                    answer.sent += sent;
                    room -= sent;
                    self.progress = now;
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return After::Open,
                Err(_) => return After::Over,
            }
        }
        if !answer.rest(shelves).is_empty() {
            return After::Open;
        }
        answer.release(shelves);
        self.phase = Phase::Ending;
        (self.deadline, self.progress) = (now + END_DEADLINE, now);
        match shutdown(self.socket.as_raw_fd(), Shutdown::Write) {
            Ok(()) => After::Open,
            Err(_) => After::Over,
        }
    }
}

impl Answer {
    /// What is still to be sent: of the head, or then of the body.
    fn rest<'a>(&'a self, shelves: &'a Shelves) -> &'a [u8] {
        match self.sent.checked_sub(self.head_length) {
            None => &self.head[self.sent..self.head_length],
            Some(of_body) => self.body.bytes(shelves).get(of_body..).unwrap_or_default(),
        }
    }

    fn release(&self, shelves: &mut Shelves) {
        if let Body::Version(document, version) = self.body {
            shelves.of(document).end(version);
        }
    }
}

impl Body {
    fn bytes<'a>(&self, shelves: &'a Shelves) -> &'a [u8] {
        match self {
            Self::Text(text) => text,
            Self::Version(document, version) => shelves.bytes(*document, *version),
            Self::Nothing => &[],
        }
    }
}

enum Read {
    Bytes(usize),
    Nothing,
    End,
}

fn read(socket: &OwnedFd, room: &mut [u8]) -> Read {
    match recv(socket.as_raw_fd(), room, MsgFlags::empty()) {
        Ok(0) => Read::End,
        Ok(length) => Read::Bytes(length),
        Err(Errno::EAGAIN | Errno::EINTR) => Read::Nothing,
        Err(_) => Read::End,
    }
}
