//! Gathers every condition that keeps packets from being balanced, and notes when the verdict changes.

use super::Instance;
use super::survey::{Condition, family_condition};
use crate::children::worker::Worker;
use loaded_control::{By, ConditionStatus, Effect, Health, InstanceVerdict, ServiceHealth};
use loaded_host::{Problem, Severity, host_check};
use loaded_ipc::{Admin, Outcome};
use loaded_queue::QueueState;
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Time between two looks at the host where nothing was announced, for most settings announce nothing.
const HOST_EVERY: Duration = Duration::from_secs(2);
/// After a look that takes long, as on a host with very many routes, the next one waits this many times as long: they never
/// take more than a five-hundredth of a core.
const REST: u32 = 500;

impl Instance {
    /// Looks at everything that the verdict rests on, and notes if it has changed. `queues`: the kernel's list.
    pub(super) fn judge(&mut self, now: Instant, queues: &[QueueState]) {
        self.look_at_host(now);
        let mut conditions = self.conditions_of_host(now);
        conditions.extend(self.conditions_of_workers(now, queues));
        conditions.extend(self.conditions_of_services(now));
        let health = Health::judged(self.service_healths(now), conditions);
        let before = std::mem::replace(&mut self.survey.health, health);
        self.note_verdict(&before);
    }

    fn note_verdict(&mut self, before: &Health) {
        let health = &self.survey.health;
        let causes: Vec<_> = health.causes().collect();
        if before.verdict == health.verdict && before.causes().eq(health.causes()) {
            return;
        }
        let (verdict, causes) = (health.verdict, causes.join("; "));
        match verdict {
            InstanceVerdict::Serving => log::info!("verdict: serving again: nothing stands in the way"),
            InstanceVerdict::Impaired => log::warn!("verdict: impaired: {causes}"),
            InstanceVerdict::NotServing => log::error!("verdict: not serving: {causes}"),
        }
        self.operator.record(format!("verdict {}", verdict.label()), causes, By::Kernel);
        self.recorder.set_outdated();
    }

    /// Examines the host if that is due.
    fn look_at_host(&mut self, now: Instant) {
        if now < self.survey.host_due {
            return;
        }
        let before = processor_time();
        self.survey.host = host_check(&self.current.plan);
        let cost = processor_time().saturating_sub(before);
        self.survey.host_due = now + HOST_EVERY.max(cost * REST);
    }

    fn conditions_of_host(&self, now: Instant) -> Vec<ConditionStatus> {
        let mut all: Vec<_> = self.survey.host.iter().chain(self.firewall.found()).map(of_problem).collect();
        if !self.watch.missing.is_empty() {
            let text =
                format!("packets do not reach the workers, rules are missing: {}", self.watch.missing.join(", "));
            all.push(condition("rules_missing", Effect::Stops, text));
        }
        // Anybody can forge such packets, so the verdict does not go by them.
        all.extend(self.replies.recent(now).map(|text| condition("replies_refused", Effect::Note, text)));
        all.extend(self.soft_stop.iter().map(|stop| condition(ConditionStatus::ENDING, Effect::Stops, stop.text())));
        all
    }

    fn conditions_of_workers(&mut self, now: Instant, queues: &[QueueState]) -> Vec<ConditionStatus> {
        let mut all = Vec::new();
        let unready = |worker: &&Worker| !worker.is_ready();
        let names: Vec<_> = self.children.workers.iter().filter(unready).map(Worker::name).collect();
        // A change of the configuration, too, leaves a queue without worker for a moment.
        let lasting: Vec<_> = names.iter().filter(|name| self.survey.unready.contains(name)).cloned().collect();
        self.survey.unready = names;
        if !lasting.is_empty() {
            let whole = lasting.len() == self.children.workers.len();
            let effect = if whole { Effect::Stops } else { Effect::Impairs };
            all.push(condition("no_worker", effect, format!("packets wait: {} does not serve", lasting.join(", "))));
        }
        let full = self.children.sum(Outcome::DroppedTableFull.index());
        if self.survey.table_loss.is_recent(full, now) {
            let text = "flow tables are full of open flows, new connections are dropped: raise `flows`, or see whether it is \
                        a flood (loaded status, dropped_table_full)";
            all.push(condition("tables_full", Effect::Impairs, text.to_owned()));
        }
        let ours = queues.iter().filter(|state| self.fixed.queues.contains(&state.queue));
        let dropped = ours.map(|state| u64::from(state.dropped_full) + u64::from(state.dropped_socket)).sum();
        if self.survey.queue_loss.is_recent(dropped, now) {
            let text = "the kernel drops packets before a worker sees them: queue full (loaded status, QUEUES)";
            all.push(condition("queue_dropping", Effect::Impairs, text.to_owned()));
        }
        all
    }

    fn conditions_of_services(&self, now: Instant) -> Vec<ConditionStatus> {
        let mut all = Vec::new();
        let roster = &self.current.roster;
        for (index, entry) in roster.services().filter(|(_, entry)| entry.leaves.is_none()) {
            for (v4, family) in [(true, 4), (false, 6)] {
                let found = family_condition(roster, index, v4, now);
                let (name, effect) = match found {
                    Condition::AllDown(_) => ("no_backend", Effect::Stops),
                    Condition::Panic => ("checks_not_believed", Effect::Impairs),
                    Condition::Fine | Condition::Backup => continue,
                };
                let service = &entry.service.name;
                let text = format!("service {service}, IPv{family}: {found}");
                all.push(ConditionStatus {
                    service: Some(service.clone()),
                    family: Some(family),
                    ..condition(name, effect, text)
                });
            }
        }
        all
    }

    fn service_healths(&self, now: Instant) -> Vec<ServiceHealth> {
        let roster = &self.current.roster;
        let staying = roster.services().filter(|(_, entry)| entry.leaves.is_none());
        staying
            .map(|(index, entry)| {
                let has = |v4| entry.service.vips.iter().any(|vip| vip.is_ipv4() == v4);
                let families = [(true, 4), (false, 6)].into_iter().filter(|(v4, _)| has(*v4));
                let up = roster.backends().filter(|(_, b)| {
                    b.service == index && b.confirmed && b.health.up && b.admin(now) == Admin::Enabled
                });
                ServiceHealth {
                    name: entry.service.name.clone(),
                    families: families.map(|(_, family)| family).collect(),
                    verdict: InstanceVerdict::Serving,
                    up: up.count(),
                }
            })
            .collect()
    }
}

/// Time that this thread has used, by the kernel's account.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn of_problem(problem: &Problem) -> ConditionStatus {
    let effect = match problem.severity {
        Severity::Fatal => Effect::Stops,
        Severity::Impairing => Effect::Impairs,
        Severity::Warning | Severity::Unknown => Effect::Note,
    };
    ConditionStatus {
        service: problem.service.clone(),
        family: problem.family,
        mend: problem.mend.clone(),
        ..condition(problem.kind, effect, problem.text.clone())
    }
}

fn condition(name: &str, effect: Effect, text: String) -> ConditionStatus {
    ConditionStatus { name: name.to_owned(), effect, service: None, family: None, text, mend: None }
}
