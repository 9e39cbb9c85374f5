//! The loop: start the checks that are due, report, wait, handle what has arrived. It waits in ppoll and nowhere else.

use crate::check::{CheckPlan, Destination, Flight, Step};
use crate::clock::{self, SECOND};
use crate::discovery::Discovery;
use crate::health::Health;
use crate::hostile;
use crate::membership::Writers;
use crate::ping::Pings;
use crate::random::Random;
use crate::report::Reports;
use crate::schedule::{self, Schedule};
use crate::setup::{Setup, TargetSetup};
use crate::target::Target;
use crate::{MAX_FLIGHTS, MAX_WORKERS};
use loaded_ipc::{Cause, LinkError, Membership, MembershipWriter, ProberSupervisorLink, ToProber};
use loaded_sandbox::Family;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use std::os::fd::{AsFd, OwnedFd};

/// Datagrams read from a ping socket before other sockets get their turn.
const ECHOES_AT_ONCE: usize = 64;
/// The link, two ping sockets, the checks in flight, and the links to workers that do not read.
const MAX_POLLED: usize = 3 + MAX_FLIGHTS + MAX_WORKERS;

/// The prober at work. It knows nothing of its process, so tests run it in a thread without a sandbox.
#[derive(Debug)]
pub struct Prober<'l> {
    generation: u64,
    link: &'l ProberSupervisorLink,
    writers: Writers,
    pings: Pings,
    plans: Vec<CheckPlan>,
    targets: Vec<Target>,
    schedule: Schedule,
    /// The checks under way, by slot.
    flights: Vec<Option<Flight>>,
    /// Free slots.
    free: Vec<usize>,
    discovery: Discovery,
    reports: Reports,
    random: Random,
    next_second: u64,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy)]
enum EventSource {
    Link,
    Ping(Family),
    Flight(usize),
    Writer(usize),
}

impl<'l> Prober<'l> {
    /// Allocates everything it will need. Links and ping sockets must be non-blocking. Only the first [`MAX_WORKERS`]
    /// of `workers` are told. `marked` holds the sockets of the targets that have a virtual IP, in the same order.
    #[must_use]
    pub fn new(
        setup: Setup,
        link: &'l ProberSupervisorLink,
        workers: Vec<MembershipWriter>,
        pings: Pings,
        marked: Vec<OwnedFd>,
    ) -> Self {
        let Setup { generation, seed, plans, targets, sweeps } = setup;
        let mut workers = workers;
        workers.truncate(MAX_WORKERS);
        let count = targets.len();
        // Keeps all sockets together within the numbers that the sandbox allows to checks.
        let flights = MAX_FLIGHTS.saturating_sub(marked.len());
        let mut marked = marked.into_iter();
        let target = |setup: TargetSetup| Target {
            backend: setup.backend,
            address: setup.address,
            destination: setup.vip.unwrap_or(setup.address),
            marked: setup.vip.and_then(|_| marked.next()),
            check: setup.check,
            health: Health::new(setup.up, setup.proven),
            cause: Cause::Unchecked,
            latency: 0,
            measure_from: 0,
            reported: setup.proven.then_some(setup.up),
        };
        Self {
            generation,
            link,
            writers: Writers::new(workers, count),
            pings,
            plans,
            targets: targets.into_iter().map(target).collect(),
            schedule: Schedule::new(count),
            flights: std::iter::repeat_with(|| None).take(flights).collect(),
            free: (0..flights).rev().collect(),
            discovery: Discovery::new(sweeps),
            reports: Reports::new(count),
            random: Random::new(seed),
            next_second: u64::MAX,
        }
    }

    /// Waits for `Go`, then works until the link ends.
    ///
    /// # Errors
    /// Always: [`LinkError::Closed`] when the supervisor has closed the link, which is no failure; otherwise what is
    /// wrong with the link.
    pub fn run(&mut self) -> Result<std::convert::Infallible, LinkError> {
        self.wait_for_go()?;
        hostile::play(&self.plans, self.link, &self.writers, &self.targets, self.generation)?;
        self.begin();
        loop {
            self.poll_once()?;
        }
    }

    fn wait_for_go(&self) -> Result<(), LinkError> {
        loop {
            match ppoll(&mut [PollFd::new(self.link.as_fd(), PollFlags::POLLIN)], None, None) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            match self.link.receive() {
                Ok(ToProber::Go) => return Ok(()),
                Ok(other) => return Err(LinkError::Malformed(format!("{other:?} instead of Go"))),
                Err(LinkError::Empty) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Schedules the first checks and sweeps, and owes every worker the state of every backend.
    fn begin(&mut self) {
        let now = clock::now();
        self.next_second = now;
        for (number, target) in (0u16..).zip(&self.targets) {
            let Some(plan) = self.plans.get(usize::from(target.check)) else { continue };
            self.schedule.add(number, now + schedule::first_wait(plan, target.health, &mut self.random));
            self.writers.owe(usize::from(number));
        }
        self.discovery.begin(now, &mut self.random);
    }

    /// One round of the loop.
    fn poll_once(&mut self) -> Result<(), LinkError> {
        let now = clock::now();
        if now >= self.next_second {
            self.next_second = now + SECOND;
            self.reports.alive();
            self.writers.owe_again();
        }
        self.start_due(now);
        self.discovery.send(now, &mut self.pings, &mut self.random);
        self.tell(now)?;
        let mut woken = [None; MAX_POLLED];
        self.wait(clock::now(), &mut woken)?;
        for place in woken.into_iter().map_while(|place| place) {
            match place {
                EventSource::Link => self.hear_supervisor()?,
                EventSource::Ping(family) => self.hear_echoes(family),
                EventSource::Flight(slot) => self.advance(slot, |flight, plan, _| flight.ready(plan)),
                EventSource::Writer(worker) => self.writers.writable(worker),
            }
        }
        // Only now, so that an answer which has arrived counts even if this process was late.
        self.give_up_late(clock::now());
        Ok(())
    }

    fn start_due(&mut self, now: u64) {
        while !self.free.is_empty()
            && let Some(number) = self.schedule.take(now)
        {
            let Some(target) = self.targets.get_mut(usize::from(number)) else { continue };
            let Some(plan) = self.plans.get(usize::from(target.check)) else { continue };
            let started = clock::now();
            let destination = Destination {
                target: number,
                address: target.address,
                destination: target.destination,
                marked: &mut target.marked,
            };
            match Flight::start(destination, plan, started, &mut self.pings, &mut self.random) {
                Ok(flight) => {
                    if let Some(slot) = self.free.pop() {
                        self.flights[slot] = Some(flight);
                    }
                }
                Err(cause) => {
                    let next = self.conclude(number, started, cause);
                    self.schedule.add(number, next);
                }
            }
        }
    }

    fn tell(&mut self, now: u64) -> Result<(), LinkError> {
        self.reports.flush(self.link, &mut self.targets, &mut self.discovery, now)?;
        let (generation, targets) = (self.generation, &self.targets);
        self.writers.flush(|place| {
            let Target { backend, health, .. } = targets.get(place)?;
            Some(Membership { generation, backend: *backend, up: health.up() })
        });
        Ok(())
    }

    /// Microseconds until something is due; at most a second.
    fn until_next(&self, now: u64) -> u64 {
        let check = self.schedule.next().filter(|_| !self.free.is_empty());
        let deadlines = self.flights.iter().flatten().map(|flight| flight.deadline);
        let all = deadlines.chain(check).chain(self.discovery.next()).chain([self.next_second]);
        all.min().map_or(SECOND, |at| at.saturating_sub(now).min(SECOND))
    }

    /// Waits, and records what is ready at the beginning of `woken`.
    fn wait(&self, now: u64, woken: &mut [Option<EventSource>; MAX_POLLED]) -> Result<(), LinkError> {
        let room = if self.reports.full() { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut polled: [PollFd<'_>; MAX_POLLED] =
            std::array::from_fn(|_| PollFd::new(self.link.as_fd(), PollFlags::POLLIN | room));
        let mut sources = [EventSource::Link; MAX_POLLED];
        let pings = [Family::V4, Family::V6].into_iter().filter_map(|family| {
            let socket = self.pings.socket(family)?;
            Some((EventSource::Ping(family), socket, PollFlags::POLLIN))
        });
        let flights = self.flights.iter().enumerate().filter_map(|(slot, flight)| {
            let (socket, events) = flight.as_ref()?.waits_for()?;
            Some((EventSource::Flight(slot), socket, events))
        });
        let writers = self.writers.full().map(|(worker, link)| (EventSource::Writer(worker), link, PollFlags::POLLOUT));
        let mut count = 1;
        let rest = polled.iter_mut().zip(&mut sources).skip(1);
        for ((polled, noted), (place, fd, events)) in rest.zip(pings.chain(flights).chain(writers)) {
            *polled = PollFd::new(fd, events);
            *noted = place;
            count += 1;
        }
        match ppoll(&mut polled[..count], Some(clock::timespec(self.until_next(now))), None) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        // A flag that nix does not know is an event too.
        let ready = polled[..count].iter().zip(sources).filter(|(polled, _)| polled.any() != Some(false));
        for (woken, (_, place)) in woken.iter_mut().zip(ready) {
            *woken = Some(place);
        }
        Ok(())
    }

    /// The supervisor sends nothing to a prober at work; it ends one by closing the link.
    fn hear_supervisor(&mut self) -> Result<(), LinkError> {
        self.reports.writable();
        match self.link.receive() {
            Err(LinkError::Empty) => Ok(()),
            Err(error) => Err(error),
            Ok(message) => Err(LinkError::Malformed(format!("{message:?} while checking"))),
        }
    }

    fn hear_echoes(&mut self, family: Family) {
        for _ in 0..ECHOES_AT_ONCE {
            let Some(reply) = self.pings.receive(family) else { return };
            let Some((from, token)) = reply else { continue };
            let flight = self.flights.iter().position(|flight| {
                let Some(flight) = flight else { return false };
                let target = self.targets.get(usize::from(flight.target));
                flight.awaits_echo(token) && target.is_some_and(|target| target.address == from)
            });
            match flight {
                Some(slot) => self.advance(slot, |flight, plan, target| {
                    flight.echoed(plan, target.destination, &mut target.marked, clock::now())
                }),
                None => self.discovery.hear(from, token, clock::now()),
            }
        }
    }

    /// Advances a check one step, and acts by what that led to.
    fn advance(&mut self, slot: usize, step: impl FnOnce(&mut Flight, &CheckPlan, &mut Target) -> Step) {
        let Some(flight) = self.flights.get_mut(slot).and_then(Option::as_mut) else { return };
        let Some(target) = self.targets.get_mut(usize::from(flight.target)) else { return };
        let Some(plan) = self.plans.get(usize::from(target.check)) else { return };
        match step(flight, plan, target) {
            Step::Waits => {}
            Step::Read => self.land(slot, None),
            Step::Ends(cause) => self.land(slot, Some(cause)),
            Step::Answered(cause) => {
                let (number, started) = (flight.target, flight.started);
                let next = self.conclude(number, started, cause);
                if let Some(flight) = self.flights.get_mut(slot).and_then(Option::as_mut) {
                    flight.reads_until(next);
                }
            }
        }
    }

    fn give_up_late(&mut self, now: u64) {
        for slot in 0..self.flights.len() {
            if let Some(flight) = &self.flights[slot]
                && flight.deadline <= now
            {
                let cause = flight.next.is_none().then(|| flight.late());
                self.land(slot, cause);
            }
        }
    }

    /// Ends a flight and schedules the target's next check. `cause`: its result, unless that is known already.
    fn land(&mut self, slot: usize, cause: Option<Cause>) {
        let Some(flight) = self.flights.get_mut(slot).and_then(Option::take) else { return };
        let (number, started, known) = (flight.target, flight.started, flight.next);
        if let (Some(socket), Some(target)) = (flight.end(), self.targets.get_mut(usize::from(number))) {
            target.marked = Some(socket);
        }
        self.free.push(slot);
        let next = cause.map(|cause| self.conclude(number, started, cause)).or(known);
        self.schedule.add(number, next.unwrap_or_default().max(clock::now()));
    }

    /// Judges the result of a check and records what to report. Returns when the next one is due.
    fn conclude(&mut self, number: u16, started: u64, cause: Cause) -> u64 {
        let place = usize::from(number);
        let now = clock::now();
        let Some(target) = self.targets.get_mut(place) else { return now };
        let Some(plan) = self.plans.get(usize::from(target.check)) else { return now };
        target.cause = cause;
        target.latency = u32::try_from(now.saturating_sub(started).min(plan.timeout())).unwrap_or(u32::MAX);
        let changed = target.health.judge(cause, plan.rise, plan.fall);
        self.reports.result(place, target, changed, now);
        if changed {
            self.writers.owe(place);
        }
        now.max(started + schedule::wait(plan, target.health.up(), &mut self.random))
    }
}
