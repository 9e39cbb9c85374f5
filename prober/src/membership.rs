//! Membership messages to the workers. They carry states, not changes: a worker that has not read for a while gets the
//! current state when it reads again. Replacing a dead worker is the supervisor's job.

use crate::pending::PendingSet;
use loaded_ipc::{LinkError, Membership, MembershipWriter};
use std::os::fd::{AsFd, BorrowedFd};

/// Backends whose state is repeated to each worker every second. A worker may die with messages read; its successor was
/// configured with an older state and would miss them.
const AGAIN: usize = 64;

/// The links to all workers.
#[derive(Debug)]
pub(crate) struct Writers {
    pub(crate) all: Vec<Writer>,
    targets: usize,
    /// The next target to repeat.
    again: usize,
}

#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) link: MembershipWriter,
    /// The targets whose state it is still owed.
    owed: PendingSet,
    state: LinkState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    Open,
    /// The worker does not read: wait until the link is writable.
    Full,
    Gone,
}

impl Writers {
    pub(crate) fn new(links: Vec<MembershipWriter>, targets: usize) -> Self {
        let all = links
            .into_iter()
            .map(|link| Writer { link, owed: PendingSet::new(targets), state: LinkState::Open })
            .collect();
        Self { all, targets, again: 0 }
    }

    /// Owes every worker the state of one target.
    pub(crate) fn owe(&mut self, target: usize) {
        for writer in &mut self.all {
            writer.owed.set(target);
        }
    }

    /// Owes every worker the next [`AGAIN`] targets again; called once a second.
    pub(crate) fn owe_again(&mut self) {
        for _ in 0..AGAIN.min(self.targets) {
            self.owe(self.again);
            self.again = (self.again + 1) % self.targets;
        }
    }

    /// Sends what is owed until the links are full. `word` makes the message about a target.
    pub(crate) fn flush(&mut self, word: impl Fn(usize) -> Option<Membership>) {
        for writer in self.all.iter_mut().filter(|writer| writer.state == LinkState::Open) {
            while let Some(target) = writer.owed.next() {
                match word(target).map_or(Ok(()), |word| writer.link.send(&word)) {
                    Ok(()) => writer.owed.clear(target),
                    Err(LinkError::Full) => {
                        writer.state = LinkState::Full;
                        break;
                    }
                    Err(_) => {
                        writer.state = LinkState::Gone;
                        break;
                    }
                }
            }
        }
    }

    /// The full links, each with its index, to be polled until they are writable.
    pub(crate) fn full(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let full = self.all.iter().enumerate().filter(|(_, writer)| writer.state == LinkState::Full);
        full.map(|(place, writer)| (place, writer.link.as_fd()))
    }

    /// The link is writable again, or the worker is gone, which the next message will show.
    pub(crate) fn writable(&mut self, place: usize) {
        if let Some(writer) = self.all.get_mut(place)
            && writer.state == LinkState::Full
        {
            writer.state = LinkState::Open;
        }
    }
}
