//! A plan as a TOML file that makes the same plan: everything in force is written, defaults too.

use super::{Backend, Discover, Failures, Plan, Service};
use crate::check_kind::WrittenKind;
use crate::duration::span;
use loaded_ipc::{Affinity, Check, Idle, Mode, Passive, Policy, PortRange, Quota, Strategy};
use serde::Serialize;
use std::net::IpAddr;

/// The text of the file. Empty if the plan cannot be written, which no plan from a file can be.
#[must_use]
pub fn written(plan: &Plan) -> String {
    toml::to_string(&File::from(plan)).unwrap_or_default()
}

// Fields in the order in which they are written; tables come last, as TOML demands.

#[derive(Serialize)]
struct File<'a> {
    user: &'a str,
    cores: Option<String>,
    queue_base: u16,
    queue_len: u32,
    flows: u32,
    clients: u32,
    drain: String,
    stop_hold: String,
    defragment: bool,
    linger: bool,
    fast: String,
    host: String,
    log_level: &'static str,
    metrics: Option<String>,
    monitor_group: Option<&'a str>,
    notify: Option<&'a [String]>,
    notify_user: Option<&'a str>,
    unserved: String,
    nameservers: Option<&'a [IpAddr]>,
    quota: Quota,
    on_failure: FailuresTable,
    service: Vec<ServiceTable<'a>>,
}

#[derive(Serialize)]
struct FailuresTable {
    no_worker: String,
    queue_full: String,
    parse_error: String,
}

#[derive(Serialize)]
struct ServiceTable<'a> {
    name: &'a str,
    vip: &'a [IpAddr],
    protocol: String,
    ports: Option<Ports>,
    port: Option<u16>,
    mode: &'static str,
    strategy: String,
    seed: Option<u64>,
    on_backend_down: String,
    all_down: String,
    panic_threshold: u8,
    slow_start: String,
    asymmetric: bool,
    adopt: bool,
    affinity: AffinityTable,
    idle: IdleTable,
    check: Option<CheckTable<'a>>,
    passive: PassiveTable,
    discover: Option<DiscoverTable<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backend: Vec<BackendTable>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Ports {
    Any(&'static str),
    These(Vec<PortOrRange>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum PortOrRange {
    Port(u16),
    Range(String),
}

#[derive(Serialize)]
#[serde(untagged)]
enum AffinityTable {
    None(&'static str),
    Client { by: &'static str, prefix4: u8, prefix6: u8, timeout: String },
}

#[derive(Serialize)]
struct IdleTable {
    tcp: String,
    half_open: String,
    closing: String,
    udp: String,
    echo: String,
}

#[derive(Serialize)]
struct CheckTable<'a> {
    #[serde(flatten)]
    kind: WrittenKind<'a>,
    interval: String,
    interval_down: String,
    timeout: String,
    jitter: u8,
    rise: u8,
    fall: u8,
}

#[derive(Serialize)]
#[serde(untagged)]
enum PassiveTable {
    Off(bool),
    On { fails: u8, timeout: String, hold: String, port: Option<u16> },
}

#[derive(Serialize)]
struct DiscoverTable<'a> {
    network: Vec<String>,
    interface: Option<&'a str>,
    to4: Option<IpAddr>,
    limit: u16,
    interval: String,
}

#[derive(Serialize)]
struct BackendTable {
    address: IpAddr,
    port: Option<u16>,
    weight: u16,
    backup: bool,
}

fn seconds(seconds: u32) -> String {
    span(u64::from(seconds) * 1000)
}

fn millis(millis: u32) -> String {
    span(millis.into())
}

impl<'a> From<&'a Plan> for File<'a> {
    fn from(plan: &'a Plan) -> Self {
        let Plan { user, cores, queue_base, queue_len, flows, clients, quota, unserved, on_failure, .. } = plan;
        let Plan { nameservers, services, drain, stop_hold, defragment, linger, fast, host, .. } = plan;
        let Plan { log_level, metrics, monitor_group, notify, notify_user, .. } = plan;
        let Failures { no_worker, queue_full, parse_error } = on_failure;
        Self {
            user,
            cores: cores.map(|(low, high)| format!("{low}-{high}")),
            queue_base: *queue_base,
            queue_len: *queue_len,
            flows: *flows,
            clients: *clients,
            drain: seconds(*drain),
            stop_hold: seconds(*stop_hold),
            defragment: *defragment,
            linger: *linger,
            fast: fast.to_string(),
            host: host.to_string(),
            log_level: log_level.name(),
            metrics: metrics.as_ref().map(ToString::to_string),
            monitor_group: monitor_group.as_deref(),
            notify: (!notify.is_empty()).then_some(notify),
            notify_user: notify_user.as_deref(),
            unserved: unserved.to_string(),
            nameservers: (!nameservers.is_empty()).then_some(nameservers),
            quota: *quota,
            on_failure: FailuresTable {
                no_worker: no_worker.to_string(),
                queue_full: queue_full.to_string(),
                parse_error: parse_error.to_string(),
            },
            service: services.iter().map(ServiceTable::from).collect(),
        }
    }
}

impl<'a> From<&'a Service> for ServiceTable<'a> {
    fn from(service: &'a Service) -> Self {
        let Service { name, vips, protocol, ports, port, mode, strategy, affinity, policy, check, .. } = service;
        let Service { checks_own_ports, discover, backends, .. } = service;
        let Policy { on_backend_down, all_down, panic_threshold, slow_start, idle, passive, asymmetric, adopt } =
            policy;
        let (strategy, seed) = match strategy {
            Strategy::Maglev { seed } => ("maglev".to_owned(), Some(*seed)),
            other => (other.to_string(), None),
        };
        Self {
            name,
            vip: vips,
            protocol: protocol.to_string(),
            ports: Some(ports_of(ports)),
            port: *port,
            mode: if *mode == Mode::Dsr { "dsr" } else { "nat" },
            strategy,
            seed,
            on_backend_down: on_backend_down.to_string(),
            all_down: all_down.to_string(),
            panic_threshold: *panic_threshold,
            slow_start: seconds(*slow_start),
            asymmetric: *asymmetric,
            adopt: *adopt,
            affinity: affinity.into(),
            idle: (*idle).into(),
            // Which port each backend is checked at follows from its own, unless one is named.
            check: check.as_ref().map(|check| CheckTable::of(check, !checks_own_ports)),
            passive: passive.into(),
            discover: discover.as_ref().map(DiscoverTable::from),
            backend: backends.iter().map(BackendTable::from).collect(),
        }
    }
}

fn ports_of(ports: &[PortRange]) -> Ports {
    let each = |range: &PortRange| match range.low == range.high {
        true => PortOrRange::Port(range.low),
        false => PortOrRange::Range(range.to_string()),
    };
    if ports.is_empty() { Ports::Any("any") } else { Ports::These(ports.iter().map(each).collect()) }
}

impl From<&Option<Affinity>> for AffinityTable {
    fn from(affinity: &Option<Affinity>) -> Self {
        match affinity {
            None => Self::None("none"),
            Some(Affinity { prefix4, prefix6, timeout }) => {
                Self::Client { by: "client", prefix4: *prefix4, prefix6: *prefix6, timeout: seconds(*timeout) }
            }
        }
    }
}

impl From<Idle> for IdleTable {
    fn from(Idle { tcp, half_open, closing, udp, echo }: Idle) -> Self {
        let [tcp, half_open, closing, udp, echo] = [tcp, half_open, closing, udp, echo].map(seconds);
        Self { tcp, half_open, closing, udp, echo }
    }
}

impl<'a> CheckTable<'a> {
    fn of(check: &'a Check, names_port: bool) -> Self {
        let Check { kind, interval, interval_down, timeout, jitter, rise, fall } = check;
        Self {
            kind: WrittenKind::of(kind, names_port),
            interval: millis(*interval),
            interval_down: millis(*interval_down),
            timeout: millis(*timeout),
            jitter: *jitter,
            rise: *rise,
            fall: *fall,
        }
    }
}

impl From<&Option<Passive>> for PassiveTable {
    fn from(passive: &Option<Passive>) -> Self {
        match passive {
            None => Self::Off(false),
            Some(Passive { fails, timeout, hold, port }) => {
                Self::On { fails: *fails, timeout: millis(*timeout), hold: seconds(*hold), port: *port }
            }
        }
    }
}

impl<'a> From<&'a Discover> for DiscoverTable<'a> {
    fn from(Discover { places, limit, interval }: &'a Discover) -> Self {
        // A file names one interface and one IPv4 address for all networks.
        let four = places.iter().find(|place| place.to.is_ipv4() && place.to != place.network.last());
        Self {
            network: places.iter().map(|place| place.network.to_string()).collect(),
            interface: places.iter().find_map(|place| place.interface.as_deref()),
            to4: four.map(|place| place.to),
            limit: *limit,
            interval: millis(*interval),
        }
    }
}

impl From<&Backend> for BackendTable {
    fn from(Backend { address, port, weight, backup }: &Backend) -> Self {
        Self { address: *address, port: *port, weight: *weight, backup: *backup }
    }
}
