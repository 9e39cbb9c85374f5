//! Gathers every condition that keeps packets from being balanced, and notes when the verdict changes.

use super::Instance;
use super::survey::standing::{Condition, Stand, family_condition};
use crate::children::notices::Subject;
use crate::children::worker::Worker;
use crate::conditions::of_problem;
use loaded_control::{By, ConditionStatus, Effect, Health, InstanceVerdict, ServiceHealth};
use loaded_ipc::{Outcome, ServiceIndex};
use loaded_queue::{QueueState, queue_owners};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long the first verdict waits for what firewalls of others do. The look has begun before the children started.
const FIRST_WAIT: Duration = Duration::from_millis(500);

impl Instance {
    /// The first verdict, once the rules stand. What firewalls of others do is in it unless they are very many.
    pub(crate) fn judge_first(&mut self) -> InstanceVerdict {
        let now = Instant::now();
        self.firewall.wait(FIRST_WAIT);
        let queues = queue_owners().ok();
        self.firewall.look(now, &self.current.plan, self.current.roster.generation(), queues.as_deref());
        self.judge(now, queues.as_deref());
        self.survey.health.verdict
    }

    /// Looks at everything that the verdict rests on, and notes if it has changed. `queues`: the kernel's list, if it can be
    /// read.
    pub(super) fn judge(&mut self, now: Instant, queues: Option<&[QueueState]>) {
        let generation = self.current.roster.generation();
        self.survey.host.look(now, &self.current.plan, generation, self.watch.hears_host());
        self.settle_host(now);
        self.survey.neighbours.look(&self.current.plan, now);
        let mut conditions = self.conditions_of_host(now);
        let standing = self.survey.standing.follow(&self.current.roster, now);
        conditions.extend(self.survey.neighbours.conditions(&self.current.roster, standing, now));
        conditions.extend(self.conditions_of_workers(now, queues));
        let stands = self.survey.standing.stands().clone();
        conditions.extend(self.conditions_of_services(&stands));
        conditions.extend(self.conditions_of_traffic(&stands, now));
        let health = Health::judged(self.service_healths(&stands), conditions);
        let before = std::mem::replace(&mut self.survey.health, health);
        self.note_verdict(&before);
    }

    fn note_verdict(&mut self, before: &Health) {
        let health = &self.survey.health;
        note_shown(before, health);
        let causes: Vec<_> = health.causes().collect();
        if before.verdict == health.verdict && before.causes().eq(health.causes()) {
            return;
        }
        let (verdict, causes) = (health.verdict, causes.join("; "));
        let state = verdict.label();
        match verdict {
            InstanceVerdict::Serving => {
                log::info!(event = "verdict", state; "verdict: serving again: nothing stands in the way");
            }
            InstanceVerdict::Impaired => {
                log::warn!(event = "verdict", state, cause = causes.as_str(); "verdict: impaired: {causes}");
            }
            InstanceVerdict::NotServing => {
                log::error!(event = "verdict", state, cause = causes.as_str(); "verdict: not serving: {causes}");
            }
        }
        self.notices.add(&self.current.plan, Subject::Verdict, verdict.label(), &causes);
        self.operator.record(format!("verdict {}", verdict.label()), causes, By::Kernel);
        self.recorder.set_outdated();
    }

    fn conditions_of_host(&self, now: Instant) -> Vec<ConditionStatus> {
        let mut all: Vec<_> = self.survey.host.found().iter().chain(self.firewall.found()).map(of_problem).collect();
        if !self.watch.missing.is_empty() {
            let text =
                format!("packets do not reach the workers, rules are missing: {}", self.watch.missing.join(", "));
            all.push(condition("rules_missing", Effect::Stops, text));
        }
        // Anybody can forge such packets, so the verdict does not go by them.
        all.extend(self.replies.recent(now).map(|text| condition("replies_refused", Effect::Note, text)));
        all.extend(self.survey.beside.told().map(|(family, text)| ConditionStatus {
            family: Some(family),
            ..condition("clients_beside", Effect::Note, text)
        }));
        all.extend(self.host.settings.refused().map(|text| condition("host_not_set", Effect::Note, text)));
        all.extend(self.soft_stop.iter().map(|stop| condition(ConditionStatus::ENDING, Effect::Stops, stop.text())));
        all
    }

    fn conditions_of_workers(&mut self, now: Instant, queues: Option<&[QueueState]>) -> Vec<ConditionStatus> {
        let mut all: Vec<_> = queues.and_then(|queues| lost_queues(&self.fixed.queues, queues)).into_iter().collect();
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
        let ours = queues.unwrap_or_default().iter().filter(|state| self.fixed.queues.contains(&state.queue));
        let dropped = ours.map(|state| u64::from(state.dropped_full) + u64::from(state.dropped_socket)).sum();
        if self.survey.queue_loss.is_recent(dropped, now) {
            let text = "the kernel drops packets before a worker sees them: queue full (loaded status, QUEUES)";
            all.push(condition("queue_dropping", Effect::Impairs, text.to_owned()));
        }
        all
    }

    fn conditions_of_services(&self, stands: &BTreeMap<ServiceIndex, Stand>) -> Vec<ConditionStatus> {
        let mut all = Vec::new();
        let roster = &self.current.roster;
        for (index, entry) in roster.services().filter(|(_, entry)| entry.leaves.is_none()) {
            let [v4, v6] = stands.get(&index).copied().unwrap_or_default();
            for (count, family) in [(v4, 4), (v6, 6)] {
                let found = family_condition(roster, index, count);
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

    fn service_healths(&self, stands: &BTreeMap<ServiceIndex, Stand>) -> Vec<ServiceHealth> {
        let roster = &self.current.roster;
        let staying = roster.services().filter(|(_, entry)| entry.leaves.is_none());
        staying
            .map(|(index, entry)| {
                let has = |v4| entry.service.vips.iter().any(|vip| vip.is_ipv4() == v4);
                let families = [(true, 4), (false, 6)].into_iter().filter(|(v4, _)| has(*v4));
                let [v4, v6] = stands.get(&index).copied().unwrap_or_default();
                ServiceHealth {
                    name: entry.service.name.clone(),
                    families: families.map(|(_, family)| family).collect(),
                    verdict: InstanceVerdict::Serving,
                    up: v4.all_up() + v6.all_up(),
                }
            })
            .collect()
    }
}

/// Logs what may matter and what does so no more, though the verdict does not go by it. The start has warned of its own.
fn note_shown(before: &Health, now: &Health) {
    if before.services.is_empty() {
        return;
    }
    let news = |old: &Health, new: &Health| -> Vec<String> {
        let old: Vec<_> = old.shown_notes().map(ToString::to_string).collect();
        new.shown_notes().map(ToString::to_string).filter(|text| !old.contains(text)).collect()
    };
    news(before, now).iter().for_each(|text| log::warn!("{text}"));
    news(now, before).iter().for_each(|text| log::info!("no longer so: {text}"));
}

/// Queues of ours that nobody holds any more: the kernel drops what the rules send there.
fn lost_queues(ours: &[u16], bound: &[QueueState]) -> Option<ConditionStatus> {
    let lost = ours.iter().filter(|queue| bound.iter().all(|state| state.queue != **queue));
    let lost: Vec<_> = lost.map(ToString::to_string).collect();
    let effect = if lost.len() == ours.len() { Effect::Stops } else { Effect::Impairs };
    let text = format!("nobody holds queue {}, so the kernel drops its packets", lost.join(", "));
    let condition =
        ConditionStatus { mend: Some("systemctl restart loaded".to_owned()), ..condition("queue_lost", effect, text) };
    (!lost.is_empty()).then_some(condition)
}

pub(super) fn condition(name: &str, effect: Effect, text: String) -> ConditionStatus {
    ConditionStatus { name: name.to_owned(), effect, service: None, family: None, text, mend: None }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_nobody_holds_is_named() {
        let bound = |queues: &[u16]| -> Vec<QueueState> {
            let state = |queue: &u16| QueueState {
                queue: *queue,
                portid: 1,
                waiting: 0,
                dropped_full: 0,
                dropped_socket: 0,
                last_id: 0,
            };
            queues.iter().map(state).collect()
        };
        assert_eq!(lost_queues(&[3, 4], &bound(&[4, 3, 9])), None);
        let one = lost_queues(&[3, 4], &bound(&[4])).unwrap();
        assert!(one.effect == Effect::Impairs && one.text.starts_with("nobody holds queue 3,"), "{one}");
        assert_eq!(lost_queues(&[3, 4], &[]).unwrap().effect, Effect::Stops);
    }
}
