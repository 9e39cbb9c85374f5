//! What an instance does right now: rates from one status to the next, for `loaded top`. Knows no terminal.

mod screen;

pub use screen::{Sort, View, screen};

use super::health::{ConditionStatus, InstanceVerdict};
use super::status::{AdminState, BackendState, BackendStatus, ServiceState, ServiceStatus, Status};
use super::text::cleaned;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// Samples that a sparkline is made of.
const TRACE: usize = 32;

/// A service, and one of its backends by address and port; `None`: the whole service.
type Key = (String, Option<String>);

/// Keeps of each status what the next one is compared with.
#[derive(Debug, Default)]
pub struct Live {
    last: Option<(Instant, Counts, BTreeMap<Key, Counts>)>,
    traces: BTreeMap<Key, VecDeque<u64>>,
}

/// What has been counted since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    new_flows: u64,
    packets: u64,
    bytes: u64,
    dropped: u64,
}

/// Per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// New flows.
    pub new_flows: u64,
    /// Packets, both ways.
    pub packets: u64,
    /// Bits with IP headers, both ways.
    pub bits: u64,
    /// Packets that were dropped, by workers or because a queue was full. Known of the whole instance alone.
    pub dropped: u64,
}

/// How good it looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// As it should be.
    Good,
    /// Not as usual.
    Unusual,
    /// Clients are not served by it.
    Bad,
}

/// A service or a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The service's name, or the backend's address and port.
    pub name: String,
    /// In one word.
    pub state: String,
    /// What to make of the state.
    pub grade: Grade,
    /// Flows now.
    pub flows: u64,
    /// Since the status before.
    pub rates: Rates,
    /// Microseconds that the last check took.
    pub latency_us: Option<u32>,
    /// Bits per second, the oldest first: [`TRACE`] at most.
    pub trace: Vec<u64>,
}

/// What there is to show of one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Version of the instance.
    pub version: String,
    /// Whether clients are served; `None`: an older instance does not say.
    pub verdict: Option<InstanceVerdict>,
    /// Why not, the worst first.
    pub conditions: Vec<ConditionStatus>,
    /// Number of the configuration.
    pub generation: u64,
    /// Seconds since the start.
    pub up: u64,
    /// Flows of all services.
    pub flows: u64,
    /// Of all services.
    pub rates: Rates,
    /// Packets that wait for a worker, in all queues.
    pub waiting: u64,
    /// Each service with its backends, as configured.
    pub services: Vec<(Row, Vec<Row>)>,
}

impl Live {
    /// Compares a status, taken at `at`, with the one before. The first has rates of 0. Counters that have become smaller,
    /// since the instance was started anew, count as 0 too.
    #[must_use]
    pub fn frame(&mut self, at: Instant, status: &Status) -> Frame {
        let status = &cleaned(status);
        let (whole, counts) = (whole(status), counts(status));
        let rate = |key: &Key| match &self.last {
            Some((since, _, before)) => {
                let known = before.get(key).copied();
                known.map_or_else(Rates::default, |before| rates(before, counts[key], at.duration_since(*since)))
            }
            None => Rates::default(),
        };
        let all: BTreeMap<Key, Rates> = counts.keys().map(|key| (key.clone(), rate(key))).collect();
        let rates = self
            .last
            .as_ref()
            .map_or_else(Rates::default, |(since, before, _)| rates(*before, whole, at.duration_since(*since)));
        self.traces.retain(|key, _| all.contains_key(key));
        for (key, rates) in &all {
            let trace = self.traces.entry(key.clone()).or_default();
            trace.push_back(rates.bits);
            if trace.len() > TRACE {
                trace.pop_front();
            }
        }
        let services = self.rows(status, &all);
        self.last = Some((at, whole, counts));
        Frame {
            version: status.version.clone(),
            verdict: status.verdict,
            conditions: status.conditions.clone(),
            generation: status.generation,
            up: status.now.saturating_sub(status.since),
            flows: services.iter().map(|(row, _)| row.flows).fold(0, u64::saturating_add),
            rates,
            waiting: status.queues.iter().map(|queue| u64::from(queue.waiting)).sum(),
            services,
        }
    }

    fn rows(&self, status: &Status, rates: &BTreeMap<Key, Rates>) -> Vec<(Row, Vec<Row>)> {
        let measured = |key: &Key| (rates[key], self.traces[key].iter().copied().collect());
        let of = |service: &ServiceStatus| {
            let (whole, trace) = measured(&(service.name.clone(), None));
            let row = Row {
                name: service.name.clone(),
                state: service.state.label().to_owned(),
                grade: match service.state {
                    ServiceState::Ok => Grade::Good,
                    ServiceState::AllDown => Grade::Bad,
                    _ => Grade::Unusual,
                },
                flows: service.backends.iter().map(|backend| backend.flows).fold(0, u64::saturating_add),
                rates: whole,
                latency_us: None,
                trace,
            };
            let backends = service.backends.iter().map(|backend| {
                let (rates, trace) = measured(&(service.name.clone(), Some(backend.destination().to_string())));
                let (state, grade) = state(backend);
                Row {
                    name: backend.destination().to_string(),
                    state,
                    grade,
                    flows: backend.flows,
                    rates,
                    latency_us: backend.latency_us,
                    trace,
                }
            });
            (row, backends.collect())
        };
        status.services.iter().map(of).collect()
    }
}

/// A backend's state in one word: what the operator wants comes first, then what workers and checks say.
fn state(backend: &BackendStatus) -> (String, Grade) {
    match backend.admin {
        AdminState::Disabled => ("disabled".to_owned(), Grade::Unusual),
        AdminState::Draining => ("draining".to_owned(), Grade::Unusual),
        AdminState::Enabled if backend.state == BackendState::Leaving => ("leaving".to_owned(), Grade::Unusual),
        AdminState::Enabled if !backend.counts_as_up() => (backend.state.to_string(), Grade::Bad),
        AdminState::Enabled if !backend.ejected_by.is_empty() => ("ejected".to_owned(), Grade::Bad),
        AdminState::Enabled if backend.slow_start_left.is_some() => ("slow start".to_owned(), Grade::Unusual),
        AdminState::Enabled => (backend.state.to_string(), Grade::Good),
    }
}

fn whole(status: &Status) -> Counts {
    let backends = status.services.iter().flat_map(|service| &service.backends);
    let dropped = status.packets.iter().filter(|(label, _)| label.starts_with("dropped_")).map(|(_, count)| *count);
    let queues = status.queues.iter().map(|queue| u64::from(queue.dropped_full) + u64::from(queue.dropped_socket));
    Counts {
        dropped: dropped.chain(queues).fold(0, u64::saturating_add),
        ..backends.fold(Counts::default(), |sum, backend| sum.plus(backend))
    }
}

/// Of each service and each backend. A backend that is configured twice, which no configuration does, would count once.
fn counts(status: &Status) -> BTreeMap<Key, Counts> {
    let mut all = BTreeMap::new();
    for service in &status.services {
        let sum = service.backends.iter().fold(Counts::default(), |sum, backend| sum.plus(backend));
        all.insert((service.name.clone(), None), sum);
        all.extend(service.backends.iter().map(|backend| {
            ((service.name.clone(), Some(backend.destination().to_string())), Counts::default().plus(backend))
        }));
    }
    all
}

impl Counts {
    fn plus(self, backend: &BackendStatus) -> Self {
        Self {
            new_flows: self.new_flows.saturating_add(backend.new_flows),
            packets: self.packets.saturating_add(backend.packets_to).saturating_add(backend.packets_from),
            bytes: self.bytes.saturating_add(backend.bytes_to).saturating_add(backend.bytes_from),
            dropped: 0,
        }
    }
}

fn rates(before: Counts, now: Counts, time: Duration) -> Rates {
    let ms = time.as_millis().max(1);
    let rate = |before: u64, now: u64, scale: u128| {
        u64::try_from(u128::from(now.saturating_sub(before)) * 1000 * scale / ms).unwrap_or(u64::MAX)
    };
    Rates {
        new_flows: rate(before.new_flows, now.new_flows, 1),
        packets: rate(before.packets, now.packets, 1),
        bits: rate(before.bytes, now.bytes, 8),
        dropped: rate(before.dropped, now.dropped, 1),
    }
}
