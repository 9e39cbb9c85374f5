//! Notes changes in log and history, and tells the operator's program: ejections, damaged tables, conditions of services, reloads.

use super::Instance;
use super::change::phase::Trigger;
use super::survey::standing::{Condition, condition, family_condition};
use crate::children::notices::Subject;
use crate::children::worker::Worker;
use loaded_control::{By, Event, unix_ms};
use loaded_ipc::{BackendCounter, BackendIndex, Cause, Destination, ServiceIndex, VIEWS, View};
use std::time::{Instant, SystemTime};

/// How many of a worker's changes of mind are recorded at a time: a hostile one may change its mind as often as it
/// likes.
const NOTED_AT_ONCE: usize = 10;

impl Instance {
    /// Notes which backends the workers have begun or ceased to avoid because of their packets.
    pub(super) fn note_ejections(&mut self) {
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
