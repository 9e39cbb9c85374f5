//! The checks under way, by slot. The kernel watches their sockets (epoll), and deadlines are looked through only when
//! one may be over: with thousands of dead backends a round of the loop costs what has happened, not what is waiting.

use crate::check::Flight;
use loaded_ipc::Cause;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::{AsFd, BorrowedFd};

/// Events taken from the kernel in one round of the loop.
pub(crate) const EVENTS: usize = 256;
/// The deadline of a free slot.
const NEVER: u64 = u64::MAX;

/// The checks under way.
#[derive(Debug)]
pub struct Flights {
    epoll: Epoll,
    slots: Vec<FlightSlot>,
    free: Vec<u16>,
    /// By slot, microseconds.
    deadlines: Vec<u64>,
    /// No deadline is earlier.
    soonest: u64,
}

#[derive(Debug, Default)]
struct FlightSlot {
    flight: Option<Flight>,
    /// What epoll watches for, if it watches.
    watched: Option<EpollFlags>,
}

impl Flights {
    /// Room for `slots` checks at the same time; `epoll` watches nothing else.
    #[must_use]
    pub fn new(epoll: Epoll, slots: u16) -> Self {
        Self {
            epoll,
            slots: std::iter::repeat_with(FlightSlot::default).take(usize::from(slots)).collect(),
            free: (0..slots).rev().collect(),
            deadlines: vec![NEVER; usize::from(slots)],
            soonest: NEVER,
        }
    }

    /// Ready when an event waits for [`Self::events`].
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// The slot that the next check will have; `None`: all are taken.
    pub(crate) fn free(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Whether so few slots are free that they are kept for backends that answer: a quarter.
    pub(crate) fn is_scarce(&self) -> bool {
        self.free.len() <= self.slots.len() / 4
    }

    /// Puts a check into the slot that [`Self::free`] has told, and watches its socket.
    pub(crate) fn add(&mut self, flight: Flight) -> Option<u16> {
        let slot = self.free.pop()?;
        self.slots.get_mut(usize::from(slot))?.flight = Some(flight);
        Some(slot)
    }

    pub(crate) fn get(&mut self, slot: u16) -> Option<&mut Flight> {
        self.slots.get_mut(usize::from(slot))?.flight.as_mut()
    }

    /// To be called after each step of a check: watches what it now waits for, until its deadline.
    pub(crate) fn watch(&mut self, slot: u16) -> Result<(), Cause> {
        let place = usize::from(slot);
        let (Some(FlightSlot { flight: Some(flight), watched }), Some(deadline)) =
            (self.slots.get_mut(place), self.deadlines.get_mut(place))
        else {
            return Ok(());
        };
        *deadline = flight.deadline;
        self.soonest = self.soonest.min(flight.deadline);
        let Some((socket, flags)) = flight.waits_for() else { return Ok(()) };
        let mut event = EpollEvent::new(flags, u64::from(slot));
        let done = match *watched {
            Some(before) if before == flags => Ok(()),
            Some(_) => self.epoll.modify(socket, &mut event),
            None => self.epoll.add(socket, event),
        };
        // The kernel's memory, or fs.epoll.max_user_watches, is at its end (epoll_ctl(2)).
        done.map_err(|_| Cause::NotMade)?;
        *watched = Some(flags);
        Ok(())
    }

    /// Takes a check out and frees its slot.
    pub(crate) fn take(&mut self, slot: u16) -> Option<Flight> {
        let place = usize::from(slot);
        let FlightSlot { flight, watched } = std::mem::take(self.slots.get_mut(place)?);
        let flight = flight?;
        // A socket that is closed leaves by itself (epoll(7)), but a lent one stays open.
        if let (Some(_), true, Some((socket, _))) = (watched, flight.is_lent(), flight.waits_for()) {
            let _ = self.epoll.delete(socket);
        }
        if let Some(deadline) = self.deadlines.get_mut(place) {
            *deadline = NEVER;
        }
        self.free.push(slot);
        Some(flight)
    }

    /// The slots whose sockets are ready or have an error, at the beginning of `ready`.
    pub(crate) fn events(&self, ready: &mut [Option<u16>; EVENTS]) -> Result<(), Errno> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno),
        };
        for (slot, event) in ready.iter_mut().zip(&events[..count]) {
            *slot = u16::try_from(event.data()).ok();
        }
        Ok(())
    }

    /// No check is late before this time.
    pub(crate) fn soonest(&self) -> Option<u64> {
        (self.soonest != NEVER).then_some(self.soonest)
    }

    /// The next slot from `from` on whose deadline is over. After the last one [`Self::soonest`] is exact again.
    pub(crate) fn late(&mut self, from: u16, now: u64) -> Option<u16> {
        if now < self.soonest {
            return None;
        }
        let late = (0u16..).zip(&self.deadlines).skip(usize::from(from)).find(|(_, deadline)| **deadline <= now);
        if late.is_none() {
            self.soonest = self.deadlines.iter().copied().min().unwrap_or(NEVER);
        }
        late.map(|(slot, _)| slot)
    }
}
