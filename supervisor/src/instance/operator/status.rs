//! Gathers everything that `loaded status` shows.

use crate::children::Children;
use crate::children::LateChecks;
use crate::children::Lives;
use crate::children::worker::Worker;
use crate::fastpath::FastPath;
use crate::instance::Instance;
use crate::instance::note::view;
use crate::instance::survey::standing::{Condition, condition};
use crate::roster::{BackendEntry, ServiceEntry};
use loaded_config::plan;
use loaded_control::status::{
    BackendState, BackendStatus, Ejection, KernelPathStatus, Process, Queue, Refused, Reload, Role, RulesStatus,
    ServiceState, ServiceStatus, SettingStatus, Status,
};
use loaded_control::unix_ms;
use loaded_control::{process, status};
use loaded_fastpath::program::Totals;
use loaded_host::WrittenSetting;
use loaded_host::sysctl_name;
use loaded_ipc::{BackendCounter, BackendIndex, Fault, Outcome, Pressure, RECEIVED, ServiceIndex};
use loaded_queue::{QueueState, queue_owners};
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

impl Instance {
    /// The status of now.
    pub(super) fn status(&self) -> Status {
        let queues = queue_owners().unwrap_or_default();
        let counted = |labels: Vec<(&'static str, usize)>| -> BTreeMap<String, u64> {
            labels.into_iter().map(|(label, index)| (label.to_owned(), self.children.sum(index))).collect()
        };
        let mut services: Vec<_> = self.current.roster.services().collect();
        // In the order of the configuration; those that leave come last.
        let place = |entry: &ServiceEntry| {
            let name = |service: &plan::Service| service.name == entry.service.name;
            (entry.leaves.is_some(), self.current.plan.services.iter().position(name))
        };
        services.sort_by_key(|(_, entry)| place(entry));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            now: seconds(SystemTime::now()),
            since: seconds(self.fixed.started.wall()),
            generation: self.current.roster.generation(),
            last_reload: self.operator.last_reload.as_ref().map(|last| Reload {
                at: seconds(last.at),
                ok: last.ok,
                text: last.text.clone(),
            }),
            refused_upgrade: self.operator.refused_upgrade.clone().map(|(at, text)| Refused { at: seconds(at), text }),
            amendments: self.current.amendments.iter().map(ToString::to_string).collect(),
            layers: self.fixed.layers.clone(),
            nf_repeat: self.fixed.repeat.to_string(),
            verdict: Some(self.survey.health.verdict),
            conditions: self.survey.health.conditions.clone(),
            rules: RulesStatus {
                put_back: self.watch.put_back,
                missing: self.watch.missing.clone(),
                refused_replies: self.replies.total(),
            },
            host_set: self.host.settings.written().iter().map(set).collect(),
            late_checks: late(&self.children.prober.late),
            kernel_path: Some(self.kernel_path()),
            processes: self.processes(),
            services: services.into_iter().map(|(index, entry)| self.service(index, entry)).collect(),
            queues: self.children.workers.iter().map(|worker| self.queue(worker, &queues)).collect(),
            packets: self
                .packets(counted(Outcome::ALL.iter().map(|outcome| (outcome.label(), outcome.index())).collect())),
            pressure: counted(Pressure::ALL.iter().map(|one| (one.label(), one.index())).collect()),
            faults: counted(Fault::ALL.iter().map(|fault| (fault.label(), fault.index())).collect()),
        }
    }

    fn kernel_path(&self) -> KernelPathStatus {
        let status = self.host.fast.as_ref().map_or_else(KernelPathStatus::default, FastPath::status);
        let off = self.host.fast_off();
        KernelPathStatus {
            off: off.map(ToString::to_string),
            off_reason: off.map(|off| off.label().to_owned()),
            ..status
        }
    }

    /// The outcomes of packets that workers have received, and of those that the kernel path has sent on.
    fn packets(&self, mut of_workers: BTreeMap<String, u64>) -> BTreeMap<String, u64> {
        let (to, from) = self.host.fast.as_ref().map_or((0, 0), FastPath::sums);
        of_workers.insert("kernel_forwarded".to_owned(), to);
        of_workers.insert("kernel_returned".to_owned(), from);
        of_workers
    }

    fn processes(&self) -> Vec<Process> {
        let own = (std::process::id(), "serving", self.fixed.started.elapsed());
        let mut all = vec![seen(Role::Supervisor, "supervisor".to_owned(), own, EarlierLives::default(), None)];
        for worker in &self.children.workers {
            let lives = EarlierLives { restarts: worker.restarts, sandbox_kills: worker.sandbox_kills };
            for life in worker.processes() {
                all.push(seen(Role::Worker, worker.name(), life, lives, Some(worker.core)));
            }
            if let Some(wait) = worker.wait() {
                all.push(waiting(Role::Worker, worker.name(), wait, lives, Some(worker.core)));
            }
        }
        let Children { prober, exporter, .. } = &self.children;
        all.extend(single((Role::Prober, "prober"), prober.process(), &prober.lives, self.current.roster.is_probed()));
        all.extend(single(
            (Role::Exporter, "exporter"),
            exporter.process(),
            &exporter.lives,
            self.current.plan.metrics.is_some(),
        ));
        all
    }

    fn queue(&self, worker: &Worker, states: &[QueueState]) -> Queue {
        let number = worker.owner.queue();
        let state = states.iter().find(|state| state.queue == number);
        let of = |count: fn(&QueueState) -> u32| state.map_or(0, count);
        let flows = |index| worker.memory.seen.get(BackendCounter::Flows.index(index)).unwrap_or(0);
        Queue {
            queue: number,
            worker: worker.position,
            received: worker.memory.seen.get(RECEIVED).unwrap_or(0),
            waiting: of(|state| state.waiting),
            dropped_full: of(|state| state.dropped_full),
            dropped_socket: of(|state| state.dropped_socket),
            flows: self.current.roster.backends().map(|(index, _)| flows(index)).fold(0, u64::saturating_add),
            flows_most: self.current.plan.flows,
        }
    }

    fn service(&self, index: ServiceIndex, entry: &ServiceEntry) -> ServiceStatus {
        let now = Instant::now();
        let plan::Service { name, vips, protocol, ports, mode, strategy, policy, .. } = &entry.service;
        let mut backends: Vec<_> = self.current.roster.backends().filter(|(_, b)| b.service == index).collect();
        let written = |backend: &BackendEntry| {
            entry.service.backends.iter().position(|b| b.destination() == backend.destination())
        };
        backends.sort_by_key(|(index, b)| (b.leaves.is_some(), written(b).unwrap_or(usize::MAX), *index));
        let stand = self.survey.standing.of(index);
        ServiceStatus {
            name: name.clone(),
            vips: vips.clone(),
            protocol: protocol.to_string(),
            ports: ports.iter().map(ToString::to_string).collect(),
            mode: mode.to_string(),
            strategy: strategy.to_string(),
            choice: self.current.roster.choice(index),
            affinity: entry.service.affinity.map(|affinity| plan::display::affinity(Some(affinity))),
            policy: policy.into(),
            passive: policy.passive.map(|passive| plan::display::passive(Some(passive))),
            check: entry
                .service
                .check
                .as_ref()
                .map(|check| plan::display::check(Some(check)) + plan::display::own_ports(&entry.service)),
            discover: entry.service.discover.as_ref().map(|discover| plan::display::discover(Some(discover))),
            checks: self.children.prober.figures.get(name).cloned(),
            state: match condition(&self.current.roster, index, stand) {
                _ if entry.leaves.is_some() => ServiceState::Leaving,
                Condition::Fine => ServiceState::Ok,
                Condition::Panic => ServiceState::Panic,
                Condition::Backup => ServiceState::Backup,
                Condition::AllDown(_) => ServiceState::AllDown,
            },
            backends: backends.into_iter().map(|(index, b)| self.backend(index, b, policy.slow_start, now)).collect(),
        }
    }

    fn backend(&self, index: BackendIndex, entry: &BackendEntry, slow_start: u32, now: Instant) -> BackendStatus {
        let health = entry.health;
        let count = |counter| self.children.count(index, counter);
        let fast = self.host.fast.as_ref().map_or_else(Totals::default, |fast| fast.totals(index));
        let left = |until: Option<Instant>| until.map(|at| whole_seconds(at.saturating_duration_since(now)));
        let drains = entry.drains_until.filter(|_| entry.wish == loaded_ipc::Admin::Draining);
        BackendStatus {
            address: entry.address,
            port: entry.port,
            index: index.0,
            weight: entry.weight,
            backup: entry.backup,
            discovered: entry.discovered,
            confirmed: entry.confirmed,
            admin: entry.admin(now).into(),
            state: match (entry.leaves, health.up, health.proven) {
                (Some(_), ..) => BackendState::Leaving,
                (None, true, false) => BackendState::Unchecked,
                (None, true, true) => BackendState::Up,
                (None, false, _) => BackendState::Down,
            },
            since: seconds(SystemTime::now() - now.saturating_duration_since(health.since)),
            cause: health.cause.to_string(),
            latency_us: (health.latency > 0).then_some(health.latency),
            drain_left: left([entry.leaves, drains].into_iter().flatten().min()),
            slow_start_left: slow_start.checked_sub(entry.age(now)).filter(|left| *left > 0 && health.up),
            flows: count(BackendCounter::Flows),
            new_flows: count(BackendCounter::NewFlows),
            packets_to: count(BackendCounter::PacketsTo).saturating_add(fast.packets_to),
            bytes_to: count(BackendCounter::BytesTo).saturating_add(fast.bytes_to),
            packets_from: count(BackendCounter::PacketsFrom).saturating_add(fast.packets_from),
            bytes_from: count(BackendCounter::BytesFrom).saturating_add(fast.bytes_from),
            ejected_by: self.children.workers.iter().filter_map(|worker| ejection(worker, index)).collect(),
        }
    }
}

fn ejection(worker: &Worker, index: BackendIndex) -> Option<Ejection> {
    let view = view(worker, index).filter(|view| view.ejected)?;
    let cause = view.cause.map_or_else(|| "its packets".to_owned(), |cause| cause.to_string());
    Some(Ejection { worker: worker.position, cause })
}

fn late(late: &LateChecks) -> status::LateChecks {
    status::LateChecks { count: late.count, longest_ms: late.longest, last: late.last.map(seconds) }
}

/// What has become of earlier processes of a child.
#[derive(Debug, Clone, Copy, Default)]
struct EarlierLives {
    restarts: u64,
    sandbox_kills: u64,
}

/// The process of a role that has one, or the wait for the next if it is `wanted`.
fn single(
    (role, name): (Role, &str),
    life: Option<(u32, &str, Duration)>,
    lives: &Lives,
    wanted: bool,
) -> Option<Process> {
    let earlier = EarlierLives { restarts: lives.restarts, sandbox_kills: lives.sandbox_kills };
    match life {
        Some(life) => Some(seen(role, name.to_owned(), life, earlier, None)),
        None => wanted.then(|| waiting(role, name.to_owned(), lives.wait(), earlier, None)),
    }
}

fn seen(
    role: Role,
    name: String,
    (pid, state, age): (u32, &str, Duration),
    EarlierLives { restarts, sandbox_kills }: EarlierLives,
    core: Option<u16>,
) -> Process {
    let look = process::look(pid).ok();
    Process {
        role,
        name,
        pid: Some(pid),
        serving: matches!(state, "serving" | "probing"),
        state: state.to_owned(),
        since: seconds(SystemTime::now() - age),
        core,
        restarts,
        sandbox_kills,
        memory_kb: look.as_ref().and_then(|look| look.memory_kb),
        cpu_ms: process::cpu_ms(pid),
        sandbox: look.map(|look| look.sandbox),
    }
}

fn waiting(
    role: Role,
    name: String,
    wait: Duration,
    EarlierLives { restarts, sandbox_kills }: EarlierLives,
    core: Option<u16>,
) -> Process {
    Process {
        role,
        name,
        pid: None,
        serving: false,
        state: format!("restarts in {:.1} s", wait.as_secs_f32()),
        since: seconds(SystemTime::now()),
        core,
        restarts,
        sandbox_kills,
        memory_kb: None,
        cpu_ms: None,
        sandbox: None,
    }
}

fn seconds(time: SystemTime) -> u64 {
    unix_ms(time) / 1000
}

/// Rounded up: a drain with half a second left has one.
fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
}

fn set(written: &WrittenSetting) -> SettingStatus {
    SettingStatus { name: sysctl_name(&written.key), old: written.old, value: written.value }
}
