//! What changes by itself: the health of backends, what the workers' packets show, deadlines that pass.

use super::Instance;
use super::change::phase::Trigger;
use super::survey::traffic::{self, Passed};
use super::survey::{ROUTES_EVERY, WAYS_EVERY, WAYS_REST};
use crate::Error;
use crate::children::prober::ProberNews;
use loaded_config::plan::Service;
use loaded_control::By;
use loaded_host::own_addresses;
use loaded_ipc::{BackendCounter, Destination, Mode, Outcome};
use loaded_queue::{QueueState, queue_owners};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Time between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Time between two changes for the sake of discovered nodes, however many answer.
const DISCOVERY_EVERY: Duration = Duration::from_secs(5);

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
        self.survey.backend_trends.retain(|index, _| roster.backend(*index).is_some());
        for (index, backend) in roster.backends() {
            let replies = roster.service(backend.service).is_some_and(|entry| entry.service.mode == Mode::Nat);
            let by_kernel = self.host.fast.as_ref().map_or(0, |fast| fast.totals(index).packets_from);
            let from = self.children.count(index, BackendCounter::PacketsFrom).saturating_add(by_kernel);
            let begun = self.children.count(index, BackendCounter::NewFlows);
            let trend = self.survey.backend_trends.entry(index).or_default();
            trend.note(Passed { begun, replies: replies.then_some(from) });
            let passed: &mut Passed = all.entry((backend.service, backend.address.is_ipv4())).or_default();
            passed.begun = passed.begun.saturating_add(begun);
            passed.replies = replies.then(|| passed.replies.unwrap_or(0).saturating_add(from));
        }
        self.survey.trends.retain(|key, _| all.contains_key(key));
        for (key, passed) in all {
            self.survey.trends.entry(key).or_default().note(passed);
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
}

/// Whether an address is one of another host, given those of this one. Without any the kernel has not answered.
fn is_elsewhere(own: &BTreeSet<IpAddr>, address: IpAddr) -> bool {
    !own.is_empty() && !own.contains(&address)
}
