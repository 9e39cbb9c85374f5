//! The loop: hear the supervisor, accept, move connections along, give up those that are late. It waits in ppoll and nowhere
//! else.

use crate::clock::{self, SECOND};
use crate::connection::Slot;
use crate::shelf::{Incoming, Shelves};
use loaded_ipc::{ExporterSupervisorLink, FromExporter, LinkError, ToExporter};
use loaded_sandbox::{CONNECTIONS, accept};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use std::os::fd::{AsFd, BorrowedFd};

/// Connections at a time.
pub(crate) const SLOTS: usize = CONNECTIONS.unsigned_abs() as usize;
/// The link, the listener, and the connections.
const MAX_POLLED: usize = 2 + SLOTS;
/// Connections accepted before those there are get their turn.
const ACCEPTED_AT_ONCE: usize = 16;
/// Messages heard before connections get their turn.
const HEARD_AT_ONCE: usize = 64;
/// Where all places are taken, a connection that has not got on for so many microseconds gives way to somebody new.
const PATIENCE: u64 = SECOND;
/// Between two signs of life.
const ALIVE_EVERY: u64 = 5 * SECOND;
/// How long answers may take to be read after Stop.
const STOP_DEADLINE: u64 = SECOND / 2;

/// The exporter at work. It knows nothing of its process, so tests run it in a thread without a sandbox.
#[derive(Debug)]
pub(crate) struct Exporter<'l> {
    link: &'l ExporterSupervisorLink,
    listener: BorrowedFd<'l>,
    slots: Vec<Slot>,
    shelves: Shelves,
    incoming: Option<Incoming>,
    /// When it must have ended, once it was told to.
    stops: Option<u64>,
    next_sign: u64,
}

impl<'l> Exporter<'l> {
    /// Allocates everything it will need. Link and listener must be non-blocking.
    pub(crate) fn new(link: &'l ExporterSupervisorLink, listener: BorrowedFd<'l>) -> Self {
        let slots = std::iter::repeat_with(Slot::new).take(SLOTS).collect();
        Self { link, listener, slots, shelves: Shelves::new(), incoming: None, stops: None, next_sign: 0 }
    }

    /// Works until it was told to stop and everybody has an answer.
    ///
    /// # Errors
    /// [`LinkError::Closed`] when the supervisor has closed the link, which is no failure; otherwise what is wrong with it.
    pub(crate) fn run(&mut self) -> Result<(), LinkError> {
        loop {
            let now = clock::now();
            if let Some(until) = self.stops {
                if until <= now || self.slots.iter().all(|slot| slot.connection.is_none()) {
                    return Ok(());
                }
                self.wait_and_serve(now)?;
                continue;
            }
            if now >= self.next_sign && self.say(&FromExporter::Alive)? {
                self.next_sign = now + ALIVE_EVERY;
            }
            self.ask()?;
            self.wait_and_serve(now)?;
        }
    }

    /// Asks the supervisor for what is wanted.
    fn ask(&mut self) -> Result<(), LinkError> {
        while let Some(document) = self.shelves.owed() {
            if !self.say(&FromExporter::Wanted(document))? {
                return Ok(());
            }
            self.shelves.of(document).is_owed = false;
        }
        Ok(())
    }

    fn wait_and_serve(&mut self, now: u64) -> Result<(), LinkError> {
        let accepts = self.accepts(now);
        let ready = self.wait(now, accepts)?;
        let now = clock::now();
        if ready[0] && self.stops.is_none() {
            self.hear(now)?;
        }
        for at in 0..SLOTS {
            if ready[2 + at] {
                self.slots[at].advance(&mut self.shelves, now);
            }
            self.slots[at].give_up_late(&mut self.shelves, now);
        }
        // Last, so that whoever has just got on gives way to nobody.
        if ready[1] && accepts {
            self.accept(now);
        }
        Ok(())
    }

    /// Waits until something is due. Of the link, the listener and each slot: whether it is ready.
    fn wait(&self, now: u64, accepts: bool) -> Result<[bool; MAX_POLLED], LinkError> {
        let owes = self.shelves.owed().is_some();
        let of_link = if owes { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut polled: [PollFd<'_>; MAX_POLLED] = std::array::from_fn(|_| PollFd::new(self.link.as_fd(), of_link));
        let mut places = [0; MAX_POLLED];
        // After Stop the supervisor has closed the link.
        let mut count = usize::from(self.stops.is_none());
        let listener = accepts.then_some((1, (self.listener, PollFlags::POLLIN)));
        let slots = self.slots.iter().enumerate();
        let slots = slots.filter_map(|(at, slot)| Some((2 + at, slot.connection.as_ref()?.wanted()?)));
        for (place, (fd, flags)) in listener.into_iter().chain(slots) {
            (polled[count], places[count]) = (PollFd::new(fd, flags), place);
            count += 1;
        }
        let mut ready = [false; MAX_POLLED];
        match ppoll(&mut polled[..count], Some(clock::timespec(self.until_next(now))), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(ready),
            Err(errno) => return Err(errno.into()),
        }
        // A flag that nix does not know is an event too.
        for (polled, place) in polled[..count].iter().zip(places) {
            ready[place] = polled.any() != Some(false);
        }
        Ok(ready)
    }

    /// Microseconds until something is due that no descriptor announces.
    fn until_next(&self, now: u64) -> u64 {
        let of_slots = self.slots.iter().filter_map(|slot| slot.connection.as_ref());
        let late = of_slots.clone().map(|connection| connection.deadline);
        let patience = of_slots.map(|connection| connection.progress + PATIENCE).filter(|at| *at > now);
        let full = self.free().is_none();
        let all = late.chain(patience.filter(|_| full)).chain(self.stops).chain([self.next_sign]);
        all.min().map_or(SECOND, |at| at.saturating_sub(now))
    }

    fn hear(&mut self, now: u64) -> Result<(), LinkError> {
        for _ in 0..HEARD_AT_ONCE {
            let message = match self.link.receive() {
                Ok(message) => message,
                Err(LinkError::Empty) => return Ok(()),
                Err(error) => return Err(error),
            };
            match (message, self.incoming.take()) {
                (ToExporter::Document { document, bytes, serves }, None) => {
                    self.incoming = Some(self.shelves.of(document).expect(document, bytes, serves)?);
                }
                (ToExporter::Part(part), Some(mut incoming)) => {
                    match self.shelves.of(incoming.document).take(&mut incoming, &part, now)? {
                        false => self.incoming = Some(incoming),
                        true => self.slots.iter_mut().for_each(|slot| slot.wake(&mut self.shelves, now)),
                    }
                }
                (ToExporter::Stop, None) => {
                    self.stops = Some(now + STOP_DEADLINE);
                    self.slots.iter_mut().for_each(|slot| slot.finish(&mut self.shelves, now));
                    return Ok(());
                }
                (message, _) => return Err(out_of_turn(&message)),
            }
        }
        Ok(())
    }

    /// The first free slot.
    fn free(&self) -> Option<usize> {
        self.slots.iter().position(|slot| slot.connection.is_none())
    }

    /// Where all slots are taken: the one whose connection has not got on for longest, if that is too long.
    fn hesitant(&self, now: u64) -> Option<usize> {
        let connections = self.slots.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.connection.as_ref()?)));
        let slow = connections.filter(|(_, one)| !one.waits() && one.progress + PATIENCE <= now);
        slow.min_by_key(|(_, one)| one.progress).map(|(at, _)| at)
    }

    fn accepts(&self, now: u64) -> bool {
        self.stops.is_none() && (self.free().is_some() || self.hesitant(now).is_some())
    }

    fn accept(&mut self, now: u64) {
        for _ in 0..ACCEPTED_AT_ONCE {
            let Some(at) = self.free().or_else(|| self.hesitant(now)) else { return };
            // Its number must be free before another connection can have one.
            self.slots[at].close(&mut self.shelves);
            match accept(self.listener) {
                Ok(socket) => self.slots[at].take(socket, now),
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                // Whatever else it is concerns whoever has connected, or passes (accept(2), "Error handling").
                Err(_) => return,
            }
        }
    }

    /// Returns whether it was sent.
    fn say(&self, message: &FromExporter) -> Result<bool, LinkError> {
        match self.link.send(message) {
            Ok(()) => Ok(true),
            Err(LinkError::Full) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// A message that does not belong where it came. What it holds is not repeated: it may be a part of a document.
pub(crate) fn out_of_turn(message: &ToExporter) -> LinkError {
    let name = match message {
        ToExporter::Hello { .. } => "Hello",
        ToExporter::Go => "Go",
        ToExporter::Document { .. } => "Document",
        ToExporter::Part(_) => "Part",
        ToExporter::Stop => "Stop",
    };
    LinkError::Malformed(format!("{name} out of turn"))
}
