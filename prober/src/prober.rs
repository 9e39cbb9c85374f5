//! The loop: start the checks that are due, report, wait, handle what has arrived. It waits in ppoll and nowhere else.

use crate::MAX_WORKERS;
use crate::check::{CheckDestination, CheckPlan, Flight, Step, slot_of};
use crate::clock::{self, SECOND};
use crate::discovery::Discovery;
use crate::flights::{EVENTS, Flights};
use crate::hostile;
use crate::membership::Writers;
use crate::ping::Pings;
use crate::random::Random;
use crate::report::Reports;
use crate::schedule::{self, Schedule};
use crate::setup::Setup;
use crate::target::{Probe, Target, arrange};
use crate::wait::{EventSource, wait};
use loaded_ipc::{Cause, LinkError, Membership, MembershipWriter, ProberSupervisorLink, ToProber};
use loaded_sandbox::Family;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use std::os::fd::{AsFd, OwnedFd};

/// Datagrams read from a ping socket before other sockets get their turn.
const ECHOES_AT_ONCE: usize = 64;
/// Checks started before their answers get their turn.
const STARTS_AT_ONCE: usize = 64;
/// The prober at work. It knows nothing of its process, so tests run it in a thread without a sandbox.
#[derive(Debug)]
pub struct Prober<'l> {
    generation: u64,
    link: &'l ProberSupervisorLink,
    writers: Writers,
    pings: Pings,
    plans: Vec<CheckPlan>,
    probes: Vec<Probe>,
    targets: Vec<Target>,
    schedule: Schedule,
    flights: Flights,
    discovery: Discovery,
    reports: Reports,
    random: Random,
    next_second: u64,
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
        flights: Flights,
    ) -> Self {
        let Setup { generation, seed, plans, targets, sweeps } = setup;
        let mut workers = workers;
        workers.truncate(MAX_WORKERS);
        let (probes, targets) = arrange(targets, marked);
        Self {
            generation,
            link,
            writers: Writers::new(workers, targets.len()),
            pings,
            plans,
            schedule: Schedule::new(probes.len()),
            reports: Reports::new(targets.len()),
            probes,
            targets,
            flights,
            discovery: Discovery::new(sweeps),
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
        for (number, probe) in (0u16..).zip(&self.probes) {
            let Some(plan) = self.plans.get(usize::from(probe.check)) else { continue };
            let targets = || probe.targets.iter().filter_map(|place| self.targets.get(usize::from(*place)));
            let proven = targets().all(|target| target.health.proven());
            let interval = targets().map(|target| plan.interval(target.health.up())).min().unwrap_or(SECOND);
            let first = now + schedule::first_wait(interval, proven, &mut self.random);
            self.schedule.add(number, first, probe.down);
        }
        (0..self.targets.len()).for_each(|place| self.writers.owe(place));
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
        let timeout = self.until_next(clock::now());
        let woken = wait(self.link, self.reports.full(), &self.pings, &self.flights, &self.writers, timeout)?;
        for place in woken.into_iter().map_while(|place| place) {
            match place {
                EventSource::Link => self.hear_supervisor()?,
                EventSource::Ping(family) => self.hear_echoes(family),
                EventSource::Flights => self.hear_answers()?,
                EventSource::Writer(worker) => self.writers.writable(worker),
            }
        }
        // Only now, so that an answer which has arrived counts even if this process was late.
        self.give_up_late(clock::now());
        Ok(())
    }

    fn start_due(&mut self, now: u64) {
        for _ in 0..STARTS_AT_ONCE {
            let Some(slot) = self.flights.free() else { return };
            let Some((due, number)) = self.schedule.take(now, self.flights.is_scarce()) else { return };
            let Some(probe) = self.probes.get_mut(usize::from(number)) else { continue };
            let Some(plan) = self.plans.get(usize::from(probe.check)) else { continue };
            let started = clock::now();
            self.reports.began(started.saturating_sub(due));
            let destination = CheckDestination {
                probe: number,
                address: probe.address,
                destination: probe.destination,
                port: probe.port,
                marked: &mut probe.marked,
            };
            match Flight::start(destination, plan, (slot, started), &mut self.pings, &mut self.random) {
                Ok(flight) => {
                    self.flights.add(flight);
                    self.watch(slot);
                }
                Err(cause) => {
                    let next = self.conclude(number, started, cause);
                    self.add_next(number, next);
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
        let check = self.flights.free().and_then(|_| self.schedule.next(self.flights.is_scarce()));
        let all =
            self.flights.soonest().into_iter().chain(check).chain(self.discovery.next()).chain([self.next_second]);
        all.min().map_or(SECOND, |at| at.saturating_sub(now).min(SECOND))
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
            let slot = slot_of(token);
            let flight = self.flights.get(slot).filter(|flight| flight.awaits_echo(token));
            let probe = flight.and_then(|flight| self.probes.get(usize::from(flight.probe)));
            match probe.is_some_and(|probe| probe.address == from) {
                true => self.advance(slot, |flight, plan, probe| {
                    flight.echoed(plan, (probe.destination, probe.port), &mut probe.marked, clock::now())
                }),
                false => self.discovery.hear(from, token, clock::now()),
            }
        }
    }

    fn hear_answers(&mut self) -> Result<(), LinkError> {
        let mut ready = [None; EVENTS];
        self.flights.events(&mut ready)?;
        for slot in ready.into_iter().flatten() {
            self.advance(slot, |flight, plan, probe| flight.ready(plan, (probe.address, probe.port)));
        }
        Ok(())
    }

    /// Advances a check one step, and acts by what that led to.
    fn advance(&mut self, slot: u16, step: impl FnOnce(&mut Flight, &CheckPlan, &mut Probe) -> Step) {
        let Some(flight) = self.flights.get(slot) else { return };
        let Some(probe) = self.probes.get_mut(usize::from(flight.probe)) else { return };
        let Some(plan) = self.plans.get(usize::from(probe.check)) else { return };
        match step(flight, plan, probe) {
            Step::Waits => self.watch(slot),
            Step::Read => self.land(slot, None),
            Step::Ends(cause) => self.land(slot, Some(cause)),
            Step::Answered(cause) => {
                let (number, started) = (flight.probe, flight.started);
                let next = self.conclude(number, started, cause);
                if let Some(flight) = self.flights.get(slot) {
                    flight.reads_until(next);
                }
                self.watch(slot);
            }
        }
    }

    fn watch(&mut self, slot: u16) {
        if let Err(cause) = self.flights.watch(slot) {
            self.land(slot, Some(cause));
        }
    }

    fn give_up_late(&mut self, now: u64) {
        let mut from = 0;
        while let Some(slot) = self.flights.late(from, now) {
            let cause = self.flights.get(slot).filter(|flight| flight.next.is_none()).map(|flight| flight.late());
            self.land(slot, cause);
            from = slot.saturating_add(1);
        }
    }

    /// Ends a flight and schedules the probe's next check. `cause`: its result, unless that is known already.
    fn land(&mut self, slot: u16, cause: Option<Cause>) {
        let Some(flight) = self.flights.take(slot) else { return };
        let (number, started, known) = (flight.probe, flight.started, flight.next);
        if let (Some(socket), Some(probe)) = (flight.end(), self.probes.get_mut(usize::from(number))) {
            probe.marked = Some(socket);
        }
        let next = known.unwrap_or_else(|| self.conclude(number, started, cause.unwrap_or(Cause::NotMade)));
        self.add_next(number, next);
    }

    fn add_next(&mut self, number: u16, next: u64) {
        let down = self.probes.get(usize::from(number)).is_some_and(|probe| probe.down);
        self.schedule.add(number, next.max(clock::now()), down);
    }

    /// Judges the result of a check for each of the probe's targets. Returns when the next one is due.
    fn conclude(&mut self, number: u16, started: u64, cause: Cause) -> u64 {
        let now = clock::now();
        let Some(probe) = self.probes.get_mut(usize::from(number)) else { return now };
        let Some(plan) = self.plans.get(usize::from(probe.check)) else { return now };
        let cause = plan.judged(cause);
        let latency = u32::try_from(now.saturating_sub(started).min(plan.timeout())).unwrap_or(u32::MAX);
        // Until results have made them equal, targets may be in different states.
        let mut interval = u64::MAX;
        probe.down = true;
        for place in probe.targets.iter().map(|place| usize::from(*place)) {
            let Some(target) = self.targets.get_mut(place) else { continue };
            (target.cause, target.latency) = (cause, latency);
            let changed = target.health.judge(cause, plan.rise, plan.fall);
            self.reports.result(place, target, changed, now);
            if changed {
                self.writers.owe(place);
            }
            probe.down &= !target.health.up();
            interval = interval.min(plan.interval(target.health.up()));
        }
        now.max(started + schedule::wait(interval, plan.jitter, &mut self.random))
    }
}
