//! Whether an instance serves, in one word, with every cause: what `loaded health` asks, status shows, and log and history
//! note when it changes.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Whether clients are served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceVerdict {
    /// As far as this host can see.
    #[default]
    Serving,
    /// Some clients, or some of their packets, are not.
    Impaired,
    /// None is.
    NotServing,
}

/// What a condition does to packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// It may matter; the verdict does not go by it.
    Note,
    /// Some are lost.
    Impairs,
    /// All of the services and families that it is about are lost.
    Stops,
}

/// Something that keeps packets from being balanced, or may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionStatus {
    /// Its kind: `rules_missing`, `no_worker`, `queue_lost`, `no_backend`, `checks_not_believed`, `host`, `chroot`, `user`, `programs`,
    /// `firewall`, `tables_full`, `queue_dropping`, `replies_refused`, `vip_absent`, `clients`,
    /// `clients_beside`, `neighbour`, `traffic_stopped`, `no_replies`, `orphans`,
    /// `host_not_set`, `ending`.
    pub name: String,
    /// What it does to packets.
    pub effect: Effect,
    /// The service it is about; `None`: every one.
    pub service: Option<String>,
    /// 4 or 6; `None`: both families.
    pub family: Option<u8>,
    /// What is wrong, and what it causes.
    pub text: String,
    /// The command that mends it, where there is one.
    #[serde(default)]
    pub mend: Option<String>,
}

impl fmt::Display for ConditionStatus {
    /// The text and the command.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        self.mend.iter().try_for_each(|mend| write!(f, ": {mend}"))
    }
}

impl ConditionStatus {
    pub(crate) fn is_shown_note(&self) -> bool {
        self.effect == Effect::Note && Self::SHOWN.contains(&self.name.as_str())
    }

    /// The name of the condition of an instance that was told to end and serves on.
    pub const ENDING: &str = "ending";
    /// The verdict does not go by these, and yet the operator must know: where clients may be, a VIP that is elsewhere, what
    /// packets show, which anybody can forge, what was to be set and is not, and programs of others that see packets first.
    const SHOWN: [&str; 8] = [
        "vip_absent",
        "clients",
        "clients_beside",
        "traffic_stopped",
        "no_replies",
        "orphans",
        "host_not_set",
        "hooks",
    ];
}

/// How one service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceHealth {
    /// Its name.
    pub name: String,
    /// The families of its VIPs: 4, 6.
    pub families: Vec<u8>,
    /// Whether its clients are served.
    pub verdict: InstanceVerdict,
    /// Backends that are up and enabled.
    pub up: usize,
}

/// How an instance stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether clients are served.
    pub verdict: InstanceVerdict,
    /// Why not, the worst first; then what may matter.
    pub conditions: Vec<ConditionStatus>,
    /// In no order; services that leave are not asked.
    pub services: Vec<ServiceHealth>,
}

impl Health {
    /// Judges services by conditions; their own verdicts are found here.
    #[must_use]
    pub fn judged(mut services: Vec<ServiceHealth>, mut conditions: Vec<ConditionStatus>) -> Self {
        conditions.sort_by_key(|condition| std::cmp::Reverse(condition.effect));
        for service in &mut services {
            service.verdict = service.judged(&conditions);
        }
        let global =
            |effect| conditions.iter().any(|c| c.effect == effect && c.service.is_none() && c.family.is_none());
        let verdict = match () {
            () if global(Effect::Stops) => InstanceVerdict::NotServing,
            () if !services.is_empty() && services.iter().all(|s| s.verdict == InstanceVerdict::NotServing) => {
                InstanceVerdict::NotServing
            }
            () if global(Effect::Impairs) || services.iter().any(|s| s.verdict != InstanceVerdict::Serving) => {
                InstanceVerdict::Impaired
            }
            () => InstanceVerdict::Serving,
        };
        Self { verdict, conditions, services }
    }

    /// The verdict about one service alone, or about all; with fewer than `min_up` backends up a service counts as not
    /// served. `None`: there is no such service.
    #[must_use]
    pub fn verdict_of(&self, service: Option<&str>, min_up: usize) -> Option<InstanceVerdict> {
        let asked: Vec<_> = self.services.iter().filter(|s| service.is_none_or(|name| s.name == name)).collect();
        if asked.is_empty() && service.is_some() {
            return None;
        }
        let all = || asked.iter().map(|s| if s.up < min_up { InstanceVerdict::NotServing } else { s.verdict });
        let whole = if service.is_none() { self.verdict } else { InstanceVerdict::Serving };
        Some(match (all().min(), all().max()) {
            (Some(InstanceVerdict::NotServing), _) => InstanceVerdict::NotServing,
            (_, Some(worst)) if worst != InstanceVerdict::Serving => whole.max(InstanceVerdict::Impaired),
            _ => whole,
        })
    }

    /// Why the verdict is what it is: what stops or impairs, each with the command that mends it.
    pub fn causes(&self) -> impl Iterator<Item = String> {
        let count = |condition: &&ConditionStatus| condition.effect != Effect::Note;
        self.conditions.iter().filter(count).map(ToString::to_string)
    }
}

impl Health {
    /// What may matter, and is shown to the operator though the verdict does not go by it.
    pub fn shown_notes(&self) -> impl Iterator<Item = &ConditionStatus> {
        self.conditions.iter().filter(|condition| condition.is_shown_note())
    }
}

impl ServiceHealth {
    fn judged(&self, conditions: &[ConditionStatus]) -> InstanceVerdict {
        let covers = |c: &&ConditionStatus| c.service.as_ref().is_none_or(|name| *name == self.name);
        let has = |effect, family: u8| {
            let about = |c: &ConditionStatus| c.effect == effect && c.family.is_none_or(|of| of == family);
            conditions.iter().filter(covers).any(about)
        };
        let stopped = self.families.iter().filter(|family| has(Effect::Stops, **family)).count();
        match stopped {
            0 if self.families.iter().any(|family| has(Effect::Impairs, *family)) => InstanceVerdict::Impaired,
            0 => InstanceVerdict::Serving,
            all if all == self.families.len() => InstanceVerdict::NotServing,
            _ => InstanceVerdict::Impaired,
        }
    }
}

impl InstanceVerdict {
    /// All, best first.
    pub const ALL: [Self; 3] = [Self::Serving, Self::Impaired, Self::NotServing];

    /// Its name in JSON and in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Impaired => "impaired",
            Self::NotServing => "not_serving",
        }
    }

    /// The exit code of `loaded health`.
    #[must_use]
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Serving => 0,
            Self::Impaired => 1,
            Self::NotServing => 2,
        }
    }
}

impl fmt::Display for InstanceVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Serving => "serving",
            Self::Impaired => "IMPAIRED",
            Self::NotServing => "NOT SERVING",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(effect: Effect, service: Option<&str>, family: Option<u8>) -> ConditionStatus {
        let (name, service) = ("host".to_owned(), service.map(str::to_owned));
        ConditionStatus { name, effect, service, family, text: format!("{effect:?}"), mend: None }
    }

    fn judged(conditions: &[ConditionStatus]) -> Health {
        let service = |name: &str, families: &[u8]| ServiceHealth {
            name: name.to_owned(),
            families: families.to_vec(),
            verdict: InstanceVerdict::Serving,
            up: 2,
        };
        Health::judged(vec![service("web", &[4, 6]), service("dns", &[4])], conditions.to_vec())
    }

    #[test]
    fn a_verdict_is_of_what_its_conditions_are_about() {
        use Effect::{Impairs, Note, Stops};
        use InstanceVerdict::{Impaired, NotServing, Serving};
        for (conditions, all, web, dns) in [
            (vec![], Serving, Serving, Serving),
            (vec![condition(Note, None, None)], Serving, Serving, Serving),
            (vec![condition(Impairs, None, None)], Impaired, Impaired, Impaired),
            (vec![condition(Stops, None, None)], NotServing, NotServing, NotServing),
            (vec![condition(Stops, None, Some(4))], Impaired, Impaired, NotServing),
            (vec![condition(Stops, None, Some(6))], Impaired, Impaired, Serving),
            (
                vec![condition(Stops, None, Some(4)), condition(Stops, Some("web"), Some(6))],
                NotServing,
                NotServing,
                NotServing,
            ),
            (vec![condition(Stops, Some("dns"), Some(4))], Impaired, Serving, NotServing),
        ] {
            let health = judged(&conditions);
            let of = |service| health.verdict_of(service, 0);
            assert_eq!(
                (of(None), of(Some("web")), of(Some("dns"))),
                (Some(all), Some(web), Some(dns)),
                "{conditions:?}"
            );
            assert_eq!(health.verdict, all, "{conditions:?}");
        }
        assert_eq!(judged(&[]).verdict_of(Some("mail"), 0), None);
        assert_eq!(judged(&[]).verdict_of(Some("web"), 3), Some(NotServing), "too few backends");
        assert_eq!(judged(&[]).verdict_of(None, 3), Some(NotServing));
    }
}
