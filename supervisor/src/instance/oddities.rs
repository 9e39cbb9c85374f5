//! What passes oddly though backends are up, as conditions of the instance.

use super::Instance;
use super::health::condition;
use super::survey::standing::Stand;
use super::survey::traffic::{Oddity, Trend};
use loaded_config::plan::Service;
use loaded_control::{ConditionStatus, Effect};
use loaded_ipc::{BackendIndex, Mode, ServiceIndex};
use std::collections::BTreeMap;
use std::time::Instant;

/// So many backends are named.
const NAMED: usize = 4;

impl Instance {
    /// Of services and families, of single backends, and of what belongs to nobody here.
    pub(super) fn conditions_of_traffic(
        &self,
        stands: &BTreeMap<ServiceIndex, Stand>,
        now: Instant,
    ) -> Vec<ConditionStatus> {
        if self.soft_stop.is_some() {
            return Vec::new();
        }
        let mut all = Vec::new();
        for (&(index, is_v4), trend) in &self.survey.trends {
            let Some(entry) = self.current.roster.service(index).filter(|entry| entry.leaves.is_none()) else {
                continue;
            };
            let [v4, v6] = stands.get(&index).copied().unwrap_or_default();
            let (stand, family) = if is_v4 { (v4, 4) } else { (v6, 6) };
            if stand.all_up() == 0 {
                continue;
            }
            let service = &entry.service;
            let told = match trend.oddity() {
                Some(Oddity::Unanswered) => {
                    Some(("no_replies", format!("{}; {}", Oddity::Unanswered, for_several(service))))
                }
                Some(oddity) => Some((oddity.name(), oddity.to_string())),
                None => self
                    .silent_backends(index, is_v4, now)
                    .map(|text| ("no_replies", format!("{text}; {}", for_several(service)))),
            };
            all.extend(told.map(|(name, text)| ConditionStatus {
                service: Some(service.name.clone()),
                family: Some(family),
                ..condition(name, Effect::Note, format!("service {}, IPv{family}: {text}", service.name))
            }));
        }
        all.extend(self.orphans());
        all
    }

    /// Backends of a service and family that get connections, and of which alone nothing comes back.
    fn silent_backends(&self, service: ServiceIndex, is_v4: bool, now: Instant) -> Option<String> {
        let is_silent = |index: &BackendIndex| {
            let trend = self.survey.backend_trends.get(index);
            trend.and_then(Trend::oddity) == Some(Oddity::Unanswered)
        };
        let mut silent = self.current.roster.backends().filter(|(index, backend)| {
            (backend.service, backend.address.is_ipv4()) == (service, is_v4)
                && backend.health.up
                && backend.admin(now) == loaded_ipc::Admin::Enabled
                && is_silent(index)
        });
        let named: Vec<_> = silent.by_ref().take(NAMED).map(|(_, backend)| backend.destination().to_string()).collect();
        let more = match silent.count() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!named.is_empty()).then(|| {
            format!(
                "connections go on to {}{more}, and nothing has come back from there through this host for ten seconds, while others \
                 answer: check whether these route their replies through it",
                named.join(", ")
            )
        })
    }

    /// Replies of connections that are not known here, when many are dropped.
    fn orphans(&self) -> Option<ConditionStatus> {
        if !self.survey.orphans.are_many() {
            return None;
        }
        let translating = self.current.plan.services.iter().filter(|service| service.mode == Mode::Nat);
        let mut lacking = translating.filter(|service| !service.lacks_for_several().is_empty());
        let named: Vec<_> = lacking.by_ref().take(NAMED).collect();
        let each: Vec<_> =
            named.iter().map(|service| format!("; service {}: {}", service.name, for_several(service))).collect();
        let more = match lacking.count() {
            0 => String::new(),
            more => format!("; and {more} more services"),
        };
        let text = format!(
            "backends' packets in the middle of connections that are not known here are dropped, 20 and more in five seconds \
             (dropped_orphan): find out who sends requests to these backends past this host{}{more}",
            each.concat()
        );
        Some(condition("orphans", Effect::Note, text))
    }
}

/// What a service is with several balancers at once, one of them its backends' gateway.
fn for_several(service: &Service) -> String {
    let lacks = service.lacks_for_several();
    match lacks.as_slice() {
        [] => "this is as it should be where several balancers serve at once, and another one is the backends' gateway"
            .to_owned(),
        lacks => format!(
            "if several balancers serve at once, and another one is the backends' gateway, their connections fail unless you write \
             on each {}",
            lacks.join(", ")
        ),
    }
}
