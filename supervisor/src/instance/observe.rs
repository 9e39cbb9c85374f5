//! What changes by itself: the health of backends, what the workers' packets show, deadlines that pass.

use super::Instance;
use super::phase::Trigger;
use super::standing::{Condition, condition, family_condition};
use super::survey::{ROUTES_EVERY, WAYS_EVERY, WAYS_REST};
use super::traffic::{self, Passed};
use crate::Error;
use crate::children::prober::ProberNews;
use crate::children::worker::Worker;
use crate::notices::Subject;
use loaded_config::plan::Service;
use loaded_control::{By, Event, unix_ms};
use loaded_host::own_addresses;
use loaded_ipc::{BackendCounter, BackendIndex, Cause, Destination, Mode, Outcome, ServiceIndex, VIEWS, View};
use loaded_queue::{QueueState, queue_owners};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Time between two changes for the sake of discovered nodes, however many answer.
const DISCOVERY_EVERY: Duration = Duration::from_secs(5);
/// How many of a worker's changes of mind are recorded at a time: a hostile one may change its mind as often as it
/// likes.
const NOTED_AT_ONCE: usize = 10;

impl Instance {
    /// Notes what the prober has said. The roster knows it already.
    pub(super) fn hear_prober(&mut self, news: ProberNews) {
        let any = !news.changed.is_empty();
        for index in news.changed {
            let Some(backend) = self.current.roster.backend(index) else { continue };
            let (service, backend, health) = (backend.service, backend.destination(), backend.health);
            let what = if health.up { "up" } else { "down" };
            self.note(service, Some(backend), what.to_owned(), health.cause.to_string(), By::Check);
        }
        let mut own = None;
        for (service, address) in news.found {
            if self.survey.has_room_for(&(service, address))
                && self.current.roster.may_join(service, address)
                && is_elsewhere(own.get_or_insert_with(own_addresses), address)
                && self.survey.found.insert((service, address))
            {
                let port = self.current.roster.service(service).and_then(|entry| entry.service.port);
                let found = Destination { address, port };
                self.note(service, Some(found), "discovered".to_owned(), "answered".to_owned(), By::Discovery);
            }
        }
        if any {
            self.note_conditions(By::Check);
        }
    }

    /// If a look is due: examines everything whose changes nobody announces, and begins what follows from them.
    pub(super) fn observe(&mut self) {
        let now = Instant::now();
        if now < self.survey.due {
            return;
        }
        self.survey.due = now + EVERY;
        self.note_ejections();
        self.log_late_causes();
        let queues = self.examine_queues(now);
        if self.watch.look_at_tables(now) {
            self.firewall.expect_look(now);
        }
        self.firewall.look(now, &self.current.plan, self.current.roster.generation(), queues.as_deref());
        self.look_at_routes(now);
        self.look_at_replies(now);
        self.look_at_clients(now);
        self.look_at_traffic(now);
        self.look_at_kernel_path(now);
        self.follow_backends(now);
        self.judge(now, queues.as_deref());
        if self.is_changing() || self.survey.rests_until > now {
            return;
        }
        if let Err(error) = self.begin_due_change(now) {
            log::error!("{error}; will try again");
            self.survey.rest();
        }
    }

    /// Does what follows from changes of backends and from deadlines that pass.
    fn follow_backends(&mut self, now: Instant) {
        if self.survey.standing.is_leaving() {
            let children = &self.children;
            self.current.roster.hasten(now, |index| children.count(index, BackendCounter::Flows));
        }
        if self.survey.standing.follow(&self.current.roster, now) != self.survey.noted {
            self.current.roster.forget_lost(now);
            self.note_conditions(By::Check);
        }
        self.tell_wishes(now);
    }

    /// Begins to change the configuration if nodes were discovered or something has drained.
    fn begin_due_change(&mut self, now: Instant) -> Result<(), Error> {
        let plan = || self.current.loaded();
        let may_join = self.survey.discovered.is_none_or(|at| at.elapsed() >= DISCOVERY_EVERY);
        if !self.survey.found.is_empty() && may_join {
            self.survey.discovered = Some(now);
            let joins = self.survey.found.iter().map(|(_, address)| format!("{address} joins")).collect();
            self.begin_reconfiguration(plan(), Trigger::Discovery, joins)
        } else if self.survey.standing.is_leaving() && self.current.roster.is_overdue(now) {
            self.begin_reconfiguration(plan(), Trigger::Departure, Vec::new())
        } else {
            Ok(())
        }
    }

    /// Logs the system calls of children that were killed by their sandbox, if they were not known at once.
    fn log_late_causes(&mut self) {
        for cause in self.children.audit.late() {
            log::error!(event = "security"; "SECURITY EVENT: {cause}");
            self.operator.record_security_event("cause of a kill by the sandbox".to_owned(), cause);
        }
    }

    /// Kills workers that are hung, and logs which packets their queues have lost. Returns the kernel's list
    /// of queues, if it can be read.
    fn examine_queues(&mut self, now: Instant) -> Option<Vec<QueueState>> {
        let states = queue_owners().ok()?;
        for worker in &mut self.children.workers {
            if let Some(state) = states.iter().find(|state| state.queue == worker.owner.queue()) {
                worker.examine(state, now);
            }
        }
        Some(states)
    }

    /// Puts routes back that others have removed, if a look is due. A successor looks after its own.
    fn look_at_routes(&mut self, now: Instant) {
        if !self.host.routes.is_empty() && self.phase.successor().is_none() && now >= self.survey.routes_due {
            self.survey.routes_due = now + ROUTES_EVERY;
            self.host.mend_routes();
        }
    }

    /// Looks at what the rules have refused, if that is due and some service asks where replies come from.
    fn look_at_replies(&mut self, now: Instant) {
        let asks = |service: &Service| service.mode == Mode::Nat && !service.policy.asymmetric;
        if !self.replies.is_due(now) || !self.current.plan.services.iter().any(asks) {
            return;
        }
        let counted = self.host.refused_replies();
        self.replies.rest(now);
        if let Some(text) = counted.and_then(|counted| self.replies.note(counted, now)) {
            log::warn!("replies: {text}");
            self.operator.record("replies refused".to_owned(), text, By::Kernel);
            self.recorder.set_outdated();
        }
    }

    /// Looks whether clients in the backends' network get no answer.
    fn look_at_clients(&mut self, now: Instant) {
        for text in self.survey.beside.look(&self.children, &self.current.roster, now) {
            self.operator.record("clients unanswered".to_owned(), text, By::Packets);
            self.recorder.set_outdated();
        }
    }

    /// Notes what has passed, if that is due.
    fn look_at_traffic(&mut self, now: Instant) {
        if now < self.survey.traffic_due {
            return;
        }
        self.survey.traffic_due = now + traffic::PERIOD;
        self.survey.orphans.note(self.children.sum(Outcome::DroppedOrphan.index()));
        let (roster, mut all) = (&self.current.roster, BTreeMap::new());
        self.survey.backend_courses.retain(|index, _| roster.backend(*index).is_some());
        for (index, backend) in roster.backends() {
            let replies = roster.service(backend.service).is_some_and(|entry| entry.service.mode == Mode::Nat);
            let by_kernel = self.host.fast.as_ref().map_or(0, |fast| fast.totals(index).packets_from);
            let from = self.children.count(index, BackendCounter::PacketsFrom).saturating_add(by_kernel);
            let begun = self.children.count(index, BackendCounter::NewFlows);
            let course = self.survey.backend_courses.entry(index).or_default();
            course.note(Passed { begun, replies: replies.then_some(from) });
            let passed: &mut Passed = all.entry((backend.service, backend.address.is_ipv4())).or_default();
            passed.begun = passed.begun.saturating_add(begun);
            passed.replies = replies.then(|| passed.replies.unwrap_or(0).saturating_add(from));
        }
        self.survey.courses.retain(|key, _| all.contains_key(key));
        for (key, passed) in all {
            self.survey.courses.entry(key).or_default().note(passed);
        }
    }

    /// Lets the kernel path follow interfaces and routes, if a look is due. A successor looks after it itself.
    fn look_at_kernel_path(&mut self, now: Instant) {
        let survey = &mut self.survey;
        let ways_are_due = now >= survey.ways_due;
        if self.phase.successor().is_none()
            && (ways_are_due || now >= survey.kernel_path_due)
            && let Some(fast) = &mut self.host.fast
        {
            survey.kernel_path_due = now + ROUTES_EVERY;
            let (before, begin) = (fast.clsacts(), Instant::now());
            if ways_are_due {
                fast.look(&self.current.roster);
                survey.ways_rest_until = now + begin.elapsed() * WAYS_REST;
                let every = if self.watch.hears_host() { WAYS_EVERY } else { ROUTES_EVERY };
                survey.ways_due = (now + every).max(survey.ways_rest_until);
            } else {
                fast.look_at_interfaces();
            }
            if fast.clsacts() != before {
                self.recorder.set_outdated();
            }
        }
    }

    /// Tells the workers what the operator wants by now: deadlines of drains pass.
    pub(super) fn tell_wishes(&mut self, now: Instant) {
        let number = self.survey.standing.follow(&self.current.roster, now);
        for worker in &mut self.children.workers {
            worker.sync(number, self.current.roster.backends().map(|(index, backend)| (index, backend.admin(now))));
        }
    }

    /// Notes which backends the workers have begun or ceased to avoid because of their packets.
    fn note_ejections(&mut self) {
        let mut news = Vec::new();
        for worker in &self.children.workers {
            let views = self.survey.views.entry(worker.position).or_default();
            if !views.rings(worker.memory.seen.get(VIEWS).unwrap_or(0)) {
                continue;
            }
            let mut noted = 0;
            for (index, backend) in self.current.roster.backends() {
                let ejected = view(worker, index).filter(|view| view.ejected);
                let cause = ejected.map(|view| view.cause.unwrap_or(Cause::Refused));
                let known = self.survey.ejected.get(&(worker.position, index)).copied().flatten();
                if known.is_some() != cause.is_some() && noted < NOTED_AT_ONCE {
                    noted += 1;
                    self.survey.ejected.insert((worker.position, index), cause);
                    // That it may be used again is no news while the checks say that it is down.
                    if cause.is_some() || backend.health.up {
                        news.push((backend.service, backend.destination(), worker.name(), cause));
                    }
                }
            }
            if noted == NOTED_AT_ONCE {
                views.ring_again();
            }
        }
        for (service, backend, worker, cause) in news {
            let (what, why) = match cause {
                Some(cause) => (format!("ejected by {worker}"), cause.to_string()),
                None => (format!("readmitted by {worker}"), "the hold is over, or a check passed".to_owned()),
            };
            self.note(service, Some(backend), what, why, By::Packets);
        }
    }

    /// Notes which tables the workers have found damaged: a worker before them was taken over, or has a bug.
    pub(super) fn note_damages(&mut self) {
        for worker in &mut self.children.workers {
            for damage in worker.damages() {
                let what = format!("{} found a damaged table and emptied it", worker.name());
                log::error!("{what}: {damage}");
                self.operator.record(what, damage, By::Packets);
                self.recorder.set_outdated();
            }
        }
    }

    /// Records when the condition of a service has changed, and in which family.
    pub(super) fn note_conditions(&mut self, by: By) {
        let roster = &self.current.roster;
        self.survey.noted = self.survey.standing.follow(roster, Instant::now());
        let staying = roster.services().filter(|(_, entry)| entry.leaves.is_none());
        let of = |index| (index, self.survey.standing.of(index));
        let stands: Vec<_> = staying.map(|(index, _)| of(index)).collect();
        let before = std::mem::take(&mut self.survey.conditions);
        for (index, stand) in stands {
            let condition = condition(&self.current.roster, index, stand);
            self.survey.conditions.insert(index, condition);
            if before.get(&index).copied().unwrap_or(Condition::Fine) != condition {
                let [v4, v6] = stand;
                let is_so = |count| family_condition(&self.current.roster, index, count) == condition;
                let families = [(v4, "IPv4"), (v6, "IPv6")].into_iter().filter(|(count, _)| is_so(*count));
                let families: Vec<_> = families.map(|(_, name)| name).collect();
                self.note(index, None, condition.to_string(), format!("backends of {}", families.join(" and ")), by);
            }
        }
    }

    /// Notes the changes of a finished reconfiguration in the history.
    pub(super) fn record_changes(&mut self, trigger: Trigger, changes: &[String]) {
        let by = match trigger {
            Trigger::Operator => By::Reload,
            Trigger::Amendment => By::Operator,
            Trigger::Discovery | Trigger::Departure => By::Discovery,
        };
        for change in changes {
            self.operator.record(change.clone(), trigger.to_string(), by);
        }
        if !changes.is_empty() {
            let state = format!("generation {}", self.current.roster.generation());
            self.notices.add(&self.current.plan, Subject::Configuration, &state, &changes.join("; "));
        }
    }

    /// Notes an event of a service, or of one of its backends, in log and history.
    pub(super) fn note(
        &mut self,
        service: ServiceIndex,
        backend: Option<Destination>,
        what: String,
        cause: String,
        by: By,
    ) {
        let service = self.current.roster.service(service).map(|entry| entry.service.name.clone());
        let name = service.as_deref().unwrap_or("?");
        match backend {
            Some(backend) => log::info!(
                event = "backend", service = name, backend:% = backend, state = what.as_str(), cause = cause.as_str();
                "service {name}: backend {backend} {what}: {cause}"
            ),
            None if what == Condition::Fine.to_string() => {
                log::info!(event = "service", service = name, state = what.as_str(), cause = cause.as_str(); "service {name}: {what}");
            }
            None => {
                log::warn!(event = "service", service = name, state = what.as_str(), cause = cause.as_str(); "service {name}: {what}");
            }
        }
        let subject = match backend {
            Some(backend) => Subject::Backend(name.to_owned(), backend),
            None => Subject::Service(name.to_owned()),
        };
        self.notices.add(&self.current.plan, subject, &what, &cause);
        let (address, port) = (backend.map(|backend| backend.address), backend.and_then(|backend| backend.port));
        self.operator.history.push(Event { at: unix_ms(SystemTime::now()), service, address, port, what, cause, by });
        self.recorder.set_outdated();
    }
}

/// How a worker sees a backend.
pub(super) fn view(worker: &Worker, index: BackendIndex) -> Option<View> {
    View::from_word(worker.memory.seen.get(BackendCounter::View.index(index))?)
}

/// Whether an address is one of another host, given those of this one. Without any the kernel has not answered.
fn is_elsewhere(own: &BTreeSet<IpAddr>, address: IpAddr) -> bool {
    !own.is_empty() && !own.contains(&address)
}
