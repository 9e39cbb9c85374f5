//! What changes by itself: the health of backends, what the workers' packets have shown, deadlines that pass.

use super::Instance;
use super::reload::{REST, Why};
use crate::children::prober::News;
use crate::children::worker::Worker;
use crate::roster::Roster;
use loaded_control::{By, Event, unix_ms};
use loaded_host::own_addresses;
use loaded_ipc::{Admin, AllDown, BackendCounter, BackendIndex, Cause, ServiceIndex, View};
use loaded_queue::queue_owners;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Between two looks at the routes of mode "dsr", each of which runs a program four times.
const MEND_EVERY: Duration = Duration::from_secs(10);
/// Between two changes for the sake of discovered nodes, however many answer.
const DISCOVERY_EVERY: Duration = Duration::from_secs(5);
/// Most judgements of one worker that one look notes down: a hostile one may change its mind as often as it likes.
const NOTED_AT_ONCE: usize = 10;
/// Most discovered nodes that wait for the next change.
const MOST_FOUND: usize = 1024;

/// What was seen at the last look.
#[derive(Debug)]
pub(super) struct Watch {
    due: Instant,
    mends: Instant,
    ejected: BTreeMap<(u16, BackendIndex), Option<Cause>>,
    states: BTreeMap<ServiceIndex, State>,
    discovered: Option<Instant>,
    /// Until then no change is begun that nobody has asked for.
    rests_until: Instant,
}

/// How a service stands, by what the checks and the operator say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Fine,
    /// Too few are up: the checks are not believed.
    Panic,
    /// Only backup backends are left.
    Backup,
    AllDown(AllDown),
}

impl Watch {
    pub(super) fn new() -> Self {
        Self {
            due: Instant::now(),
            mends: Instant::now() + MEND_EVERY,
            ejected: BTreeMap::new(),
            states: BTreeMap::new(),
            discovered: None,
            rests_until: Instant::now(),
        }
    }

    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn rest(&mut self, time: Duration) {
        self.rests_until = Instant::now() + time;
    }
}

impl Instance {
    /// What the prober has said: the roster knows already.
    pub(super) fn hear(&mut self, news: News) {
        let any = !news.changed.is_empty();
        for index in news.changed {
            let Some(backend) = self.roster.backend(index) else { continue };
            let (service, address, health) = (backend.service, backend.address, backend.health);
            let what = if health.up { "up" } else { "down" };
            self.note(service, Some(address), what.to_owned(), health.cause.to_string(), By::Check);
        }
        let mut own = None;
        for (service, address) in news.seen {
            if self.found.len() < MOST_FOUND
                && !self.found.contains(&(service, address))
                && self.roster.may_join(service, address)
                && !own.get_or_insert_with(own_addresses).contains(&address)
                && self.found.insert((service, address))
            {
                self.note(service, Some(address), "discovered".to_owned(), "answered".to_owned(), By::Discovery);
            }
        }
        if any {
            self.note_states();
        }
    }

    /// Looks at everything that nobody tells us of.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        if now < self.watch.due {
            return;
        }
        self.watch.due = now + EVERY;
        self.sample();
        self.tell_late_causes();
        self.examine_queues(now);
        if !self.routes.is_empty() && self.upgrade.is_none() && now >= self.watch.mends {
            self.watch.mends = now + MEND_EVERY;
            self.routes.mend();
        }
        let workers = &self.workers;
        self.roster.hasten(now, |index| counted(workers, index, BackendCounter::Flows));
        self.roster.forget_lost(now);
        self.tell_wishes(now);
        self.note_states();
        if self.is_changing() || self.watch.rests_until > now {
            return;
        }
        let plan = || self.plan.clone();
        let waited = self.watch.discovered.is_none_or(|at| at.elapsed() >= DISCOVERY_EVERY);
        let begun = if !self.found.is_empty() && waited {
            self.watch.discovered = Some(now);
            let joins = self.found.iter().map(|(_, address)| format!("{address} joins")).collect();
            self.begin(plan(), Why::Discovery, joins)
        } else if self.roster.is_overdue(now) {
            self.begin(plan(), Why::Departure, Vec::new())
        } else {
            Ok(())
        };
        if let Err(error) = begun {
            log::error!("{error}; to be tried again");
            self.watch.rest(REST);
        }
    }

    /// System calls of children that were killed by their fence, which were not known at once.
    fn tell_late_causes(&mut self) {
        for cause in self.audit.late() {
            log::error!("SECURITY EVENT: {cause}");
            self.note_fenced("cause of a death by the fence".to_owned(), cause);
        }
    }

    fn examine_queues(&mut self, now: Instant) {
        let Ok(states) = queue_owners() else { return };
        for worker in &mut self.workers {
            if let Some(state) = states.iter().find(|state| state.queue == worker.owner.queue()) {
                worker.examine(state, now);
            }
        }
    }

    /// Tells the workers what the operator wants by now: deadlines pass.
    pub(super) fn tell_wishes(&mut self, now: Instant) {
        for worker in &mut self.workers {
            worker.sync(self.roster.backends().map(|(index, backend)| (index, backend.admin(now))));
        }
    }

    /// What the workers have made of their packets.
    fn sample(&mut self) {
        let mut news = Vec::new();
        for worker in &self.workers {
            let mut noted = 0;
            for (index, backend) in self.roster.backends() {
                let ejected = view(worker, index).filter(|view| view.ejected);
                let cause = ejected.map(|view| view.cause.unwrap_or(Cause::Refused));
                let known = self.watch.ejected.get(&(worker.position, index)).copied().flatten();
                if known.is_some() != cause.is_some() && noted < NOTED_AT_ONCE {
                    noted += 1;
                    self.watch.ejected.insert((worker.position, index), cause);
                    // That it may be tried again is no news while the checks say no.
                    if cause.is_some() || backend.health.up {
                        news.push((backend.service, backend.address, worker.name(), cause));
                    }
                }
            }
        }
        for (service, address, worker, cause) in news {
            let (what, why) = match cause {
                Some(cause) => (format!("avoided by {worker}"), cause.to_string()),
                None => (format!("tried again by {worker}"), "its time is over, or a check passed".to_owned()),
            };
            self.note(service, Some(address), what, why, By::Packets);
        }
    }

    /// Says once that a service has come into another state.
    pub(super) fn note_states(&mut self) {
        let now = Instant::now();
        let states: Vec<_> = self.roster.services().filter(|(_, entry)| entry.leaves.is_none()).collect();
        let states: Vec<_> = states.into_iter().map(|(index, _)| (index, state(&self.roster, index, now))).collect();
        self.watch.states.retain(|index, _| states.iter().any(|(known, _)| known == index));
        for (index, state) in states {
            let before = self.watch.states.insert(index, state);
            if before.unwrap_or(State::Fine) != state {
                self.note(index, None, state.to_string(), "backends went up or down".to_owned(), By::Check);
            }
        }
    }

    /// Notes the changes of a reload.
    pub(super) fn record_changes(&mut self, why: Why, changes: &[String]) {
        let by = if why == Why::Operator { By::Reload } else { By::Discovery };
        for change in changes {
            let (at, what) = (unix_ms(SystemTime::now()), change.clone());
            self.history.push(Event { at, service: None, address: None, what, cause: why.to_string(), by });
        }
    }

    /// One line for the log and one for the history.
    pub(super) fn note(&mut self, service: ServiceIndex, address: Option<IpAddr>, what: String, cause: String, by: By) {
        let service = self.roster.service(service).map(|entry| entry.service.name.clone());
        let name = service.as_deref().unwrap_or("?");
        match address {
            Some(address) => log::info!("service {name}: backend {address} {what}: {cause}"),
            None if what == State::Fine.to_string() => log::info!("service {name}: {what}"),
            None => log::warn!("service {name}: {what}"),
        }
        self.history.push(Event { at: unix_ms(SystemTime::now()), service, address, what, cause, by });
        self.unwritten = true;
    }
}

/// How a service stands. The rule is the workers' balancer's, without what each worker's own packets show.
pub(super) fn state(roster: &Roster, index: ServiceIndex, now: Instant) -> State {
    let Some(entry) = roster.service(index) else { return State::Fine };
    let policy = entry.service.policy;
    let of_service = || roster.backends().filter(move |(_, backend)| backend.service == index);
    let enabled = || of_service().filter(|(_, backend)| backend.admin(now) == Admin::Enabled);
    let mut worst = State::Fine;
    for v4 in [true, false] {
        let count = |backup: bool, up: bool| {
            let of_kind = enabled().filter(|(_, b)| b.address.is_ipv4() == v4 && b.backup == backup);
            of_kind.filter(|(_, b)| b.health.up || !up).count()
        };
        let (all, up, backups) = (count(false, false), count(false, true), count(true, true));
        let state = match () {
            () if of_service().all(|(_, b)| b.address.is_ipv4() != v4) => State::Fine,
            () if backups == 0 && up * 100 < usize::from(policy.panic_threshold) * all => State::Panic,
            () if up > 0 => State::Fine,
            () if backups > 0 => State::Backup,
            () => State::AllDown(policy.all_down),
        };
        if state != State::Fine {
            worst = state;
        }
    }
    worst
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fine => f.write_str("ok"),
            Self::Panic => f.write_str("panic: too few backends are up, so the checks are not believed"),
            Self::Backup => f.write_str("on backup: no other backend is up"),
            Self::AllDown(AllDown::Reject) => f.write_str("all backends are down: new connections are rejected"),
            Self::AllDown(AllDown::Drop) => f.write_str("all backends are down: new connections are dropped"),
            Self::AllDown(AllDown::Last) => f.write_str("all backends are down: the last one to go down is used"),
        }
    }
}

/// How a worker sees a backend.
pub(super) fn view(worker: &Worker, index: BackendIndex) -> Option<View> {
    View::from_word(worker.memory.seen.get(BackendCounter::View.index(index))?)
}

/// The sum over the workers. They may be hostile: a number, no more.
pub(super) fn counted(workers: &[Worker], index: BackendIndex, counter: BackendCounter) -> u64 {
    let each = workers.iter().filter_map(|worker| worker.memory.seen.get(counter.index(index)));
    each.fold(0, u64::saturating_add)
}
