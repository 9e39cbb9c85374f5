//! What the workers are told. The state is said, not its changes: a worker that does not read is told the last word when it
//! reads again, and one that is gone is nobody's trouble.

use crate::marks::Marks;
use loaded_ipc::{LinkError, Membership, MembershipWriter};
use std::os::fd::{AsFd, BorrowedFd};

/// Backends said again each second to each worker: a worker that died with messages read is followed by one that was told
/// the state before them, and would not hear of them otherwise.
const AGAIN: usize = 64;

/// All workers.
#[derive(Debug)]
pub(crate) struct Writers {
    all: Vec<Writer>,
    targets: usize,
    /// Where saying again goes on.
    again: usize,
}

#[derive(Debug)]
struct Writer {
    link: MembershipWriter,
    /// Of which targets it is owed word.
    owed: Marks,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// The worker does not read; wait for room.
    Full,
    Gone,
}

impl Writers {
    pub(crate) fn new(links: Vec<MembershipWriter>, targets: usize) -> Self {
        let all =
            links.into_iter().map(|link| Writer { link, owed: Marks::new(targets), state: State::Open }).collect();
        Self { all, targets, again: 0 }
    }

    /// The links, for a test double.
    #[cfg(feature = "double")]
    pub(crate) fn links(&self) -> impl Iterator<Item = &MembershipWriter> {
        self.all.iter().map(|writer| &writer.link)
    }

    /// Every worker is owed word of one target.
    pub(crate) fn owe(&mut self, target: usize) {
        for writer in &mut self.all {
            writer.owed.set(target);
        }
    }

    /// Once a second: the next few targets again, round and round.
    pub(crate) fn owe_again(&mut self) {
        for _ in 0..AGAIN.min(self.targets) {
            self.owe(self.again);
            self.again = (self.again + 1) % self.targets;
        }
    }

    /// Says what is owed as far as there is room. `word` gives what to say of a target.
    pub(crate) fn flush(&mut self, word: impl Fn(usize) -> Option<Membership>) {
        for writer in self.all.iter_mut().filter(|writer| writer.state == State::Open) {
            while let Some(target) = writer.owed.next() {
                match word(target).map_or(Ok(()), |word| writer.link.send(&word)) {
                    Ok(()) => writer.owed.clear(target),
                    Err(LinkError::Full) => {
                        writer.state = State::Full;
                        break;
                    }
                    Err(_) => {
                        writer.state = State::Gone;
                        break;
                    }
                }
            }
        }
    }

    /// The links to wait for room on, each with its place.
    pub(crate) fn full(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let full = self.all.iter().enumerate().filter(|(_, writer)| writer.state == State::Full);
        full.map(|(place, writer)| (place, writer.link.as_fd()))
    }

    /// There is room again, or the worker is gone, as the next message will show.
    pub(crate) fn writable(&mut self, place: usize) {
        if let Some(writer) = self.all.get_mut(place)
            && writer.state == State::Full
        {
            writer.state = State::Open;
        }
    }
}
