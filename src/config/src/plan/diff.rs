//! What differs between two plans, for the log of a reload and for `--check --diff`. The order of services, VIPs and
//! backends does not matter.

use super::display::{
    affinity, balances, check, cores, discover, metrics, monitors, notify, own_ports, passive, quota, seconds,
};
use super::{Backend, Plan, Service};
use crate::policy;
use loaded_ipc::Destination;
use std::fmt;
use std::net::IpAddr;

/// One difference; its `Display` is a line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The service it is about, by name; `None`: the plan as a whole.
    pub service: Option<String>,
    /// What it is.
    pub what: What,
}

/// What a change is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A new service. Its VIPs and backends are not listed one by one.
    ServiceAdded {
        /// Its VIPs.
        vips: Vec<IpAddr>,
        /// How many backends.
        backends: usize,
    },
    /// A removed service, with all it had.
    ServiceRemoved {
        /// Seconds its flows may go on.
        drain: u32,
    },
    /// A new VIP of the service.
    VipAdded(IpAddr),
    /// A VIP removed from the service.
    VipRemoved {
        /// The VIP.
        vip: IpAddr,
        /// Seconds its flows may go on.
        drain: u32,
    },
    /// A new backend of the service.
    BackendAdded(Backend),
    /// A backend removed from the service.
    BackendRemoved {
        /// Which one.
        backend: Destination,
        /// Seconds it may keep its flows.
        drain: u32,
    },
    /// A changed weight.
    Weight {
        /// The backend.
        backend: Destination,
        /// The old value.
        from: u16,
        /// The new value.
        to: u16,
    },
    /// A backend became a backup, or ceased to be one.
    Backup {
        /// The backend.
        backend: Destination,
        /// The new value.
        to: bool,
    },
    /// A new name server: its port 53 is no longer balanced.
    NameserverAdded(IpAddr),
    /// A removed name server.
    NameserverRemoved(IpAddr),
    /// Anything with one value.
    Setting {
        /// Its name, as in the configuration where it has one.
        name: &'static str,
        /// What it was, in words.
        from: String,
        /// The new value.
        to: String,
    },
}

/// What a running instance does to get from one plan to another: the plan as a whole, then removed services, then the
/// others in their new order. Empty if and only if nothing changes but the order and what [`immutable_change`] reports.
#[must_use]
pub fn diff(old: &Plan, new: &Plan) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut whole = Changes { service: None, changes: &mut changes };
    whole.setting("drain", seconds(old.drain), seconds(new.drain));
    whole.setting("stop_hold", seconds(old.stop_hold), seconds(new.stop_hold));
    whole.setting("quota", quota(old.quota), quota(new.quota));
    whole.setting("unserved", old.unserved.to_string(), new.unserved.to_string());
    whole.setting("linger", old.linger.to_string(), new.linger.to_string());
    whole.setting("fast", old.fast.to_string(), new.fast.to_string());
    whole.setting("host", old.host.to_string(), new.host.to_string());
    whole.setting("log_level", old.log_level.to_string(), new.log_level.to_string());
    whole.setting("metrics", metrics(old), metrics(new));
    whole.setting("monitor_group", monitors(old), monitors(new));
    whole.setting("notify", notify(old), notify(new));
    let (was, is) = (&old.on_failure, &new.on_failure);
    whole.setting("on_failure.no_worker", was.no_worker.to_string(), is.no_worker.to_string());
    whole.setting("on_failure.parse_error", was.parse_error.to_string(), is.parse_error.to_string());
    let (removed, added) = exchanged(&old.nameservers, &new.nameservers);
    removed.for_each(|server| whole.push(What::NameserverRemoved(server)));
    added.for_each(|server| whole.push(What::NameserverAdded(server)));
    for service in old.services.iter().filter(|service| named(new, &service.name).is_none()) {
        Changes { service: Some(&service.name), changes: &mut changes }.push(What::ServiceRemoved { drain: new.drain });
    }
    for service in &new.services {
        let mut list = Changes { service: Some(&service.name), changes: &mut changes };
        match named(old, &service.name) {
            Some(old) => list.service(old, service, new.drain),
            None => list.push(What::ServiceAdded { vips: service.vips.clone(), backends: service.backends.len() }),
        }
    }
    changes
}

/// What a running instance cannot change, because its processes, queues and tables were made for it; `None` if nothing
/// of that kind differs. The text names the setting, its old and its new value, and what to do.
#[must_use]
pub fn immutable_change(old: &Plan, new: &Plan) -> Option<String> {
    let number = |name: &'static str, old: u32, new: u32| (name, old.to_string(), new.to_string());
    let fixed = [
        ("user", old.user.clone(), new.user.clone()),
        ("cores", cores(old.cores), cores(new.cores)),
        number("queue_base", old.queue_base.into(), new.queue_base.into()),
        number("queue_len", old.queue_len, new.queue_len),
        ("on_failure.queue_full", old.on_failure.queue_full.to_string(), new.on_failure.queue_full.to_string()),
        number("flows", old.flows, new.flows),
        number("clients", old.clients, new.clients),
        // The hook that the kernel would unregister empties every queue (net/netfilter/core.c, nf_queue_nf_hook_drop).
        ("defragment", old.defragment.to_string(), new.defragment.to_string()),
    ];
    let changed = fixed.into_iter().filter(|(_, old, new)| old != new);
    let changed: Vec<String> = changed.map(|(name, old, new)| format!("{name} {old} \u{2192} {new}")).collect();
    match changed.as_slice() {
        [] => None,
        changed => Some(format!("{} cannot change while loaded runs; restart to change it", changed.join(", "))),
    }
}

/// Collects the changes of one service, or of the plan as a whole.
struct Changes<'a> {
    service: Option<&'a str>,
    changes: &'a mut Vec<Change>,
}

impl Changes<'_> {
    fn push(&mut self, what: What) {
        self.changes.push(Change { service: self.service.map(str::to_owned), what });
    }

    fn setting(&mut self, name: &'static str, from: String, to: String) {
        if from != to {
            self.push(What::Setting { name, from, to });
        }
    }

    fn service(&mut self, old: &Service, new: &Service, drain: u32) {
        let (removed, added) = exchanged(&old.vips, &new.vips);
        removed.for_each(|vip| self.push(What::VipRemoved { vip, drain }));
        added.for_each(|vip| self.push(What::VipAdded(vip)));
        self.setting("ports", balances(old), balances(new));
        self.setting("mode", old.mode.to_string(), new.mode.to_string());
        self.setting("strategy", old.strategy.to_string(), new.strategy.to_string());
        self.setting("affinity", affinity(old.affinity), affinity(new.affinity));
        let says = |service: &Service| check(service.check.as_ref()) + own_ports(service);
        self.setting("check", says(old), says(new));
        let (was, is) = (&old.policy, &new.policy);
        self.setting("passive", passive(was.passive), passive(is.passive));
        for key in &policy::KEYS {
            self.setting(key.name, (key.say)(was), (key.say)(is));
        }
        let port = |service: &Service| service.port.map_or_else(|| "as it was".to_owned(), |port| port.to_string());
        self.setting("port of discovered backends", port(old), port(new));
        self.setting("discover", discover(old.discover.as_ref()), discover(new.discover.as_ref()));
        self.backends(&old.backends, &new.backends, drain);
    }

    fn backends(&mut self, old: &[Backend], new: &[Backend], drain: u32) {
        let at = |list: &[Backend], destination: Destination| {
            list.iter().find(|backend| backend.destination() == destination).copied()
        };
        let before = old.iter().map(Backend::destination);
        for backend in before.filter(|destination| at(new, *destination).is_none()) {
            self.push(What::BackendRemoved { backend, drain });
        }
        for &new in new {
            let backend = new.destination();
            let Some(was) = at(old, backend) else {
                self.push(What::BackendAdded(new));
                continue;
            };
            if was.weight != new.weight {
                self.push(What::Weight { backend, from: was.weight, to: new.weight });
            }
            if was.backup != new.backup {
                self.push(What::Backup { backend, to: new.backup });
            }
        }
    }
}

/// What only the old and what only the new list has.
fn exchanged<'a>(
    old: &'a [IpAddr],
    new: &'a [IpAddr],
) -> (impl Iterator<Item = IpAddr> + 'a, impl Iterator<Item = IpAddr> + 'a) {
    let only = |these: &'a [IpAddr], those: &'a [IpAddr]| these.iter().filter(|ip| !those.contains(ip)).copied();
    (only(old, new), only(new, old))
}

fn named<'p>(plan: &'p Plan, name: &str) -> Option<&'p Service> {
    plan.services.iter().find(|service| service.name == name)
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(service) = &self.service {
            write!(f, "service {service}: ")?;
        }
        write!(f, "{}", self.what)
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAdded { vips, backends } => {
                let vips: Vec<String> = vips.iter().map(ToString::to_string).collect();
                let ending = if *backends == 1 { "" } else { "s" };
                write!(f, "added on {} with {backends} backend{ending}", vips.join(", "))
            }
            Self::ServiceRemoved { drain } => write!(f, "removed: its flows may continue for {}", seconds(*drain)),
            Self::VipAdded(vip) => write!(f, "VIP {vip} is added"),
            Self::VipRemoved { vip, drain } => {
                write!(f, "VIP {vip} is removed: its flows may continue for {}", seconds(*drain))
            }
            Self::BackendAdded(backend) => {
                let (weight, backup) = (backend.weight, if backend.backup { ", backup" } else { "" });
                write!(f, "backend {} is added (weight {weight}{backup})", backend.destination())
            }
            Self::BackendRemoved { backend, drain } => {
                write!(f, "backend {backend} is removed: drains for {}", seconds(*drain))
            }
            Self::Weight { backend, from, to } => write!(f, "backend {backend}: weight {from} \u{2192} {to}"),
            Self::Backup { backend, to: true } => write!(f, "backend {backend} becomes a backup"),
            Self::Backup { backend, to: false } => write!(f, "backend {backend} is no longer a backup"),
            Self::NameserverAdded(server) => write!(f, "name server {server} is added"),
            Self::NameserverRemoved(server) => write!(f, "name server {server} is removed"),
            Self::Setting { name, from, to } => write!(f, "{name} {from} \u{2192} {to}"),
        }
    }
}
