//! The one wait of the loop: for the link, the ping sockets, the checks, and workers that did not read.

use crate::MAX_WORKERS;
use crate::clock;
use crate::flights::Flights;
use crate::membership::Writers;
use crate::ping::Pings;
use loaded_ipc::{LinkError, ProberSupervisorLink};
use loaded_sandbox::Family;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use std::os::fd::AsFd;

/// The link, two ping sockets, the checks as one, and the links to workers.
const MAX_POLLED: usize = 4 + MAX_WORKERS;

/// What ended a wait.
#[derive(Debug, Clone, Copy)]
pub(crate) enum EventSource {
    Link,
    Ping(Family),
    Flights,
    Writer(usize),
}

/// Waits at most `timeout` microseconds; what is ready is at the beginning of what it returns. `full`: it also waits
/// until the link has room.
pub(crate) fn wait(
    link: &ProberSupervisorLink,
    full: bool,
    pings: &Pings,
    flights: &Flights,
    writers: &Writers,
    timeout: u64,
) -> Result<[Option<EventSource>; MAX_POLLED], LinkError> {
    let room = if full { PollFlags::POLLOUT } else { PollFlags::empty() };
    let mut polled: [PollFd<'_>; MAX_POLLED] =
        std::array::from_fn(|_| PollFd::new(link.as_fd(), PollFlags::POLLIN | room));
    let mut sources = [EventSource::Link; MAX_POLLED];
    let pings = [Family::V4, Family::V6].into_iter().filter_map(|family| {
        let socket = pings.socket(family)?;
        Some((EventSource::Ping(family), socket, PollFlags::POLLIN))
    });
    let flights = std::iter::once((EventSource::Flights, flights.socket(), PollFlags::POLLIN));
    let writers = writers.full().map(|(worker, link)| (EventSource::Writer(worker), link, PollFlags::POLLOUT));
    let mut count = 1;
    let rest = polled.iter_mut().zip(&mut sources).skip(1);
    for ((polled, noted), (place, fd, events)) in rest.zip(pings.chain(flights).chain(writers)) {
        *polled = PollFd::new(fd, events);
        *noted = place;
        count += 1;
    }
    let mut woken = [None; MAX_POLLED];
    match ppoll(&mut polled[..count], Some(clock::timespec(timeout)), None) {
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(woken),
        Err(errno) => return Err(errno.into()),
    }
    // A flag that nix does not know is an event too.
    let ready = polled[..count].iter().zip(sources).filter(|(polled, _)| polled.any() != Some(false));
    for (woken, (_, place)) in woken.iter_mut().zip(ready) {
        *woken = Some(place);
    }
    Ok(woken)
}
