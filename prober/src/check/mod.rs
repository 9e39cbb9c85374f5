//! One check: a small state machine driven by "the socket is ready" and "time is up". No call in it blocks.
//!
//! One timeout runs from the first byte sent to the answer: over HTTP, to its status line. Only where a connection follows a ping does each
//! have its own timeout; the latency is that of both together.

mod datagram;
mod dns;
mod http;
mod plan;
mod socket;
mod tcp;

pub(crate) use plan::{CheckPlan, Work};

use crate::ping::Pings;
use crate::random::Random;
use http::{AnswerHead, MAX_REQUEST, Progress};
use loaded_ipc::Cause;
use nix::sys::epoll::EpollFlags;
use socket::{cause_of, close, give_up};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A check in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Number of the probe.
    pub(crate) probe: u16,
    /// When its first packet was sent, microseconds.
    pub(crate) started: u64,
    /// When it times out, microseconds.
    pub(crate) deadline: u64,
    /// When the probe's next check is due, microseconds; known once the result is, while the rest of an answer is read.
    pub(crate) next: Option<u64>,
    stage: CheckStage,
    /// Whether its socket belongs to the probe and goes back to it.
    lent: bool,
}

/// What to check.
#[derive(Debug)]
pub(crate) struct CheckDestination<'t> {
    /// Number of the probe.
    pub(crate) probe: u16,
    /// Where pings go.
    pub(crate) address: IpAddr,
    /// Where connections and datagrams go.
    pub(crate) destination: IpAddr,
    /// To which port, in place of the check's.
    pub(crate) port: Option<u16>,
    /// The probe's own socket for these, if it has one.
    pub(crate) marked: &'t mut Option<OwnedFd>,
}

#[derive(Debug)]
enum CheckStage {
    /// Waits for an echo reply with this token.
    Echo { token: u64 },
    /// Waits for the connection.
    Connect(OwnedFd),
    /// Waits for the status line.
    Status(OwnedFd, AnswerHead),
    /// The result is known; reads the rest of the answer.
    Rest { socket: OwnedFd, read: usize },
    /// Waits for a datagram; notes whether a wrong one has come already.
    Datagram { socket: OwnedFd, id: u16, wrong: bool },
    /// The socket is moving to the next stage, or closed.
    Between,
}

/// The part of a token that is the number of the flight's slot; the rest is random.
const SLOT: u64 = 0xffff;

/// The slot of the flight that an echo reply with this token is for, if it is for one.
pub(crate) fn slot_of(token: u64) -> u16 {
    u16::try_from(token & SLOT).unwrap_or_default()
}

/// What a step of a check led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It goes on.
    Waits,
    /// It ends with this result.
    Ends(Cause),
    /// This is its result, but the answer has a rest: [`Flight::reads_until`] begins to read it.
    Answered(Cause),
    /// The rest of the answer has been read, or enough of it.
    Read,
}

impl Flight {
    /// Starts a check at `now`. `slot` is where an echo reply will find it. An error is its immediate result.
    pub(crate) fn start(
        CheckDestination { probe, address, destination, port, marked }: CheckDestination<'_>,
        plan: &CheckPlan,
        (slot, now): (u16, u64),
        pings: &mut Pings,
        random: &mut Random,
    ) -> Result<Self, Cause> {
        let has_own = marked.is_some();
        let own = port;
        let to = |checked| SocketAddr::new(destination, own.unwrap_or(checked));
        let stage = match &plan.work {
            Work::Echo | Work::EchoTcp { .. } => {
                let token = random.next() & !SLOT | u64::from(slot);
                pings.send(address, token).map_err(cause_of)?;
                CheckStage::Echo { token }
            }
            Work::Http { via: Some(via), .. } => CheckStage::Connect(tcp::connect_to(*via, &mut None)?),
            Work::Tcp { port } | Work::Http { port, .. } => CheckStage::Connect(tcp::connect_to(to(*port), marked)?),
            Work::Udp { port, send, .. } => {
                CheckStage::Datagram { socket: datagram::send_to(to(*port), send, marked)?, id: 0, wrong: false }
            }
            Work::Dns { port, query } => {
                let id = random.short();
                let socket = query.with_id(id, |message| datagram::send_to(to(*port), message, marked))?;
                CheckStage::Datagram { socket, id, wrong: false }
            }
        };
        let (deadline, lent) = (now + plan.timeout(), has_own && marked.is_none());
        Ok(Self { probe, started: now, deadline, next: None, stage, lent })
    }

    /// What to watch for; `None`: an echo reply on a ping socket.
    pub(crate) fn waits_for(&self) -> Option<(BorrowedFd<'_>, EpollFlags)> {
        match &self.stage {
            CheckStage::Connect(socket) => Some((socket.as_fd(), EpollFlags::EPOLLOUT)),
            CheckStage::Status(socket, _) | CheckStage::Rest { socket, .. } | CheckStage::Datagram { socket, .. } => {
                Some((socket.as_fd(), EpollFlags::EPOLLIN))
            }
            CheckStage::Echo { .. } | CheckStage::Between => None,
        }
    }

    /// Whether its socket is the probe's, and stays open.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent
    }

    /// Whether an echo reply with this token is the one it waits for.
    pub(crate) fn awaits_echo(&self, token: u64) -> bool {
        matches!(self.stage, CheckStage::Echo { token: own } if own == token)
    }

    /// The echo reply has arrived; that may have been all.
    pub(crate) fn echoed(
        &mut self,
        plan: &CheckPlan,
        (destination, own): (IpAddr, Option<u16>),
        marked: &mut Option<OwnedFd>,
        now: u64,
    ) -> Step {
        let Work::EchoTcp { port: checked } = plan.work else { return Step::Ends(Cause::Passed) };
        let has_own = marked.is_some();
        match tcp::connect_to(SocketAddr::new(destination, own.unwrap_or(checked)), marked) {
            Ok(socket) => (self.stage, self.lent) = (CheckStage::Connect(socket), has_own),
            Err(cause) => return Step::Ends(cause),
        }
        self.deadline = now + plan.timeout();
        Step::Waits
    }

    /// The socket is ready or has an error. The backend is at `address`, and at `own` if that is another port than the check's.
    pub(crate) fn ready(&mut self, plan: &CheckPlan, (address, own): (IpAddr, Option<u16>)) -> Step {
        match std::mem::replace(&mut self.stage, CheckStage::Between) {
            CheckStage::Connect(socket) => {
                let connected = tcp::connected(&socket);
                match (&plan.work, connected) {
                    (Work::Http { port, request, via, .. }, Ok(())) => {
                        let backend = SocketAddr::new(address, own.unwrap_or(*port));
                        let mut space = [0; MAX_REQUEST];
                        let request = match via {
                            None => Some(request.as_slice()),
                            Some(_) => http::to_checker(request, backend, &mut space),
                        };
                        let sent = request.ok_or(Cause::NotMade).and_then(|request| tcp::send(&socket, request));
                        self.stage = CheckStage::Status(socket, AnswerHead::default());
                        sent.map_or_else(Step::Ends, |()| Step::Waits)
                    }
                    (_, connected) => {
                        self.stage = CheckStage::Connect(socket);
                        Step::Ends(connected.err().unwrap_or(Cause::Passed))
                    }
                }
            }
            CheckStage::Status(socket, mut head) => {
                let progress = http::receive(&socket, &mut head);
                self.stage = CheckStage::Status(socket, head);
                match (progress, &plan.work) {
                    (Progress::More, _) => Step::Waits,
                    (Progress::Status(n), Work::Http { status, .. }) if n >= status.0 && n <= status.1 => {
                        Step::Answered(Cause::Passed)
                    }
                    (Progress::Status(n), _) => Step::Answered(Cause::Status(n)),
                    (Progress::Failed(cause), _) => Step::Ends(cause),
                }
            }
            CheckStage::Rest { socket, mut read } => {
                let over = http::read_rest(&socket, &mut read);
                self.stage = CheckStage::Rest { socket, read };
                if over { Step::Read } else { Step::Waits }
            }
            CheckStage::Datagram { socket, id, mut wrong } => {
                let result = datagram::receive(&socket, &mut wrong, |answer| match &plan.work {
                    Work::Dns { query, .. } => query.judge(id, answer),
                    Work::Udp { expect, .. } => answer.starts_with(expect).then_some(Cause::Passed),
                    _ => None,
                });
                self.stage = CheckStage::Datagram { socket, id, wrong };
                result.map_or(Step::Waits, Step::Ends)
            }
            stage @ (CheckStage::Echo { .. } | CheckStage::Between) => {
                self.stage = stage;
                Step::Waits
            }
        }
    }

    /// Begins to read the rest of the answer: until the check's time is up, or the next one is due.
    pub(crate) fn reads_until(&mut self, next: u64) {
        self.stage = match std::mem::replace(&mut self.stage, CheckStage::Between) {
            CheckStage::Status(socket, _) => CheckStage::Rest { socket, read: 0 },
            stage => stage,
        };
        self.deadline = self.deadline.min(next);
        self.next = Some(next);
    }

    /// Time is up: what that means depends on how far the check got.
    pub(crate) fn late(&self) -> Cause {
        match &self.stage {
            CheckStage::Echo { .. } => Cause::NoEcho,
            CheckStage::Connect(socket) => tcp::not_connected(socket),
            CheckStage::Datagram { wrong: true, .. } => Cause::WrongAnswer,
            CheckStage::Status(..) | CheckStage::Rest { .. } | CheckStage::Datagram { .. } | CheckStage::Between => {
                Cause::AnswerTimeout
            }
        }
    }

    /// Ends the check; closes its socket or returns the borrowed one.
    pub(crate) fn end(self) -> Option<OwnedFd> {
        match self.stage {
            CheckStage::Connect(socket)
            | CheckStage::Status(socket, _)
            | CheckStage::Rest { socket, .. }
            | CheckStage::Datagram { socket, .. } => match self.lent {
                true => {
                    give_up(&socket);
                    Some(socket)
                }
                false => {
                    close(socket);
                    None
                }
            },
            CheckStage::Echo { .. } | CheckStage::Between => None,
        }
    }
}
