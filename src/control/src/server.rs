//! The instance's side, part of the supervisor's poll loop: everything is non-blocking and bounded in time, number and
//! memory, whatever a client does.

use super::connection::{After, Answer, Connection, line};
use super::socket::{Bound, ControlError, group_named, monitor_path};
use super::{Reply, Request};
use nix::poll::{PollFd, PollFlags};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;
use std::io::{ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Clients served at a time; the others wait in the kernel.
pub const MAX_CONNECTIONS: usize = 16;
/// The same, of those that may only read. They are none of the others.
pub const MAX_MONITORS: usize = 8;
/// After an answer to a monitor, how many times as long as it took the next one waits: whatever monitors ask, the supervisor has
/// its time for itself.
const REST: u32 = 20;
/// Connections accepted at a time, including those turned away.
const ACCEPT: usize = 32;
/// How long to stop accepting after the kernel ran out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// The control socket of an instance. Dropping this removes its name.
#[derive(Debug)]
pub struct Control {
    bound: Bound,
    connections: Vec<Connection>,
    paused: Option<Instant>,
    /// Who may ask, and what.
    who: Who,
}

/// Who may ask, and what.
#[derive(Debug)]
enum Who {
    /// Root and this user, everything.
    Operator { own: u32 },
    /// Whoever the kernel lets connect, which are the members of a group: what only reads, and not before this time.
    Monitors { group: String, next: Option<Instant> },
}

impl Control {
    /// Makes the socket, mode 0600: in [`super::DIRECTORY`], which is made if it is not there, or in any directory that is.
    /// What a dead instance has left is replaced. Call it before the supervisor gives up its rights.
    ///
    /// # Errors
    /// When another instance answers there, or the socket cannot be made.
    pub fn bind(path: &Path) -> Result<Self, ControlError> {
        let bound = Bound::new(path, None)?;
        Ok(Self { bound, connections: Vec::new(), paused: None, who: Who::Operator { own: geteuid().as_raw() } })
    }

    /// Makes the socket, mode 0660, by which the members of a group may read, beside the control socket `control`. Who connects
    /// is the kernel's to judge, with every group that a process has.
    ///
    /// # Errors
    /// There is no such group, or the socket cannot be made.
    pub fn for_monitors(control: &Path, group: &str) -> Result<Self, ControlError> {
        let path = monitor_path(control);
        let fail = |source| ControlError::Refused { path: path.clone(), act: "give it to monitor_group", source };
        let bound = Bound::new(&path, Some(group_named(group).map_err(fail)?))?;
        let who = Who::Monitors { group: group.to_owned(), next: None };
        Ok(Self { bound, connections: Vec::new(), paused: None, who })
    }

    /// The group that may read by it; `None`: it is the operator's.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        if let Who::Monitors { group, .. } = &self.who { Some(group) } else { None }
    }

    /// Takes over the socket of another instance, which listens under the name `theirs`, and gives it the name `path`.
    ///
    /// # Errors
    /// When it cannot be given that name.
    pub fn adopt(listener: UnixListener, theirs: &Path, path: &Path) -> Result<Self, ControlError> {
        let bound = Bound::adopt(listener, theirs, path)?;
        Ok(Self { bound, connections: Vec::new(), paused: None, who: Who::Operator { own: geteuid().as_raw() } })
    }

    /// The listening socket itself.
    pub fn listener(&self) -> BorrowedFd<'_> {
        self.bound.listener.as_fd()
    }

    /// Its absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.bound.path()
    }

    /// Adds what to wait for. After the wait call [`Control::serve`], whatever poll has said of them.
    pub fn poll_fds<'a>(&'a self, wanted: &mut Vec<PollFd<'a>>) {
        if self.paused.is_none() && self.connections.len() < self.most() {
            wanted.push(PollFd::new(self.bound.listener.as_fd(), PollFlags::POLLIN));
        }
        // A request that is not read yet would be announced again and again.
        let rests = self.rests(Instant::now());
        let connections = self.connections.iter().filter(|connection| !(rests && connection.is_asking()));
        wanted.extend(connections.filter_map(Connection::poll_fd));
    }

    /// When [`Control::serve`] must be called at the latest, even if nothing has come.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let next = if let Who::Monitors { next, .. } = self.who { next } else { None };
        let next = next.filter(|_| self.connections.iter().any(Connection::is_asking));
        // What is not read yet has no deadline: it waits for us.
        let rests = self.rests(Instant::now());
        let connections = self.connections.iter().filter(|connection| !(rests && connection.is_asking()));
        connections.map(Connection::deadline).chain(self.paused).chain(next).min()
    }

    fn most(&self) -> usize {
        if let Who::Monitors { .. } = self.who { MAX_MONITORS } else { MAX_CONNECTIONS }
    }

    /// Whether requests are left in the kernel: monitors get one answer at a time, and the next after a rest.
    fn rests(&self, now: Instant) -> bool {
        match self.who {
            Who::Operator { .. } => false,
            Who::Monitors { next, .. } => {
                next.is_some_and(|next| now < next) || self.connections.iter().any(Connection::is_waiting)
            }
        }
    }

    /// Accepts, reads, answers and sends what can be without waiting. `answer` is called at most once, so that what else
    /// the supervisor has to do comes between two answers; it must not wait either.
    pub fn serve<R: Into<Answer>>(&mut self, now: Instant, answer: impl FnOnce(Request) -> R) {
        if self.paused.is_some_and(|until| until <= now) {
            self.paused = None;
        }
        if self.paused.is_none() {
            self.accept(now);
        }
        let rests = self.rests(now);
        let group = self.group().map(str::to_owned);
        let mut took = None;
        let permitted = |request: Request| {
            log::debug!("{}: asked for {request:?}", group.as_deref().unwrap_or("control socket"));
            let begin = Instant::now();
            let answer = match &group {
                Some(group) if !request.only_reads() => Reply::error(format!(
                    "group {group} may read status, health, history, metrics and flows, and change nothing; ask as root"
                ))
                .into(),
                _ => answer(request).into(),
            };
            took = Some(begin.elapsed());
            answer
        };
        let mut answer = Some(permitted).filter(|_| !rests);
        // First come, first served, and an answered one leaves: nobody starves.
        self.connections.retain_mut(|connection| connection.serve(now, &mut answer) == After::Open);
        drop(answer);
        if let (Who::Monitors { next, .. }, Some(took)) = (&mut self.who, took) {
            *next = now.checked_add(took.saturating_mul(REST));
        }
    }

    /// Delivers a reply promised by [`Answer::Later`], if its client still waits. The next [`Control::serve`] sends it.
    pub fn settle(&mut self, now: Instant, number: u32, reply: &Reply) {
        let _ = self.connections.iter_mut().any(|connection| connection.settle(now, number, reply));
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPT {
            if self.connections.len() >= self.most() {
                return;
            }
            match self.bound.listener.accept() {
                Ok((stream, _)) => {
                    if let Some(connection) = self.admit(stream, now) {
                        self.connections.push(connection);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    // Most likely EMFILE. The client stays in the backlog, so poll would return at once, for ever.
                    log::warn!("accept on {}: {error}", self.path().display());
                    self.paused = Some(now + PAUSE);
                    return;
                }
            }
        }
    }

    /// The socket's mode keeps others out; a chmod of it must not let them in.
    fn admit(&self, mut stream: UnixStream, now: Instant) -> Option<Connection> {
        stream.set_nonblocking(true).ok()?;
        let uid = getsockopt(&stream, PeerCredentials).ok()?.uid();
        let may = match self.who {
            Who::Operator { own } => uid == 0 || uid == own,
            Who::Monitors { .. } => true,
        };
        if may {
            return Some(Connection::new(stream, now));
        }
        // A short line fits into a socket that is new.
        let _ = stream.write(&line(&Reply::error(format!("uid {uid} may not ask; ask as root"))));
        None
    }
}
