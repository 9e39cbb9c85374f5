//! The plan in words, for `--check` and for what a reload would change: one fact a line.

use super::{Backend, Discover, Failures, Fast, HostPolicy, LogLevel, MetricsAddress, Place, Plan, Service};
use crate::duration::span;
use crate::{check_kind, policy};
use loaded_ipc::{Affinity, Check, Mode, Passive, PortRange, Protocol, Quota, Strategy, Unserved};
use std::fmt;

/// What will be served, for `--check`.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.queue_base;
        writeln!(f, "workers      as {}, on {}", self.user, cores(self.cores))?;
        writeln!(f, "queues       core n answers queue {base} + n; {} packets may wait in each", self.queue_len)?;
        writeln!(f, "tables       {} flows and {} clients a worker", self.flows, self.clients)?;
        writeln!(f, "quota        {}", quota(self.quota))?;
        writeln!(f, "drain        removed and drained backends keep their flows for {}", seconds(self.drain))?;
        if self.stop_hold > 0 {
            let hold = seconds(self.stop_hold);
            writeln!(f, "stop hold    after TERM it serves on until its VIPs have left this host, at most {hold}")?;
        }
        if !self.defragment {
            writeln!(f, "fragments    tracked by the workers, not reassembled by the kernel")?;
        }
        if !self.linger {
            writeln!(f, "linger       no: without a supervisor nothing is balanced")?;
        }
        if self.fast == Fast::Off {
            writeln!(f, "kernel path  off: every packet meets a worker")?;
        }
        if self.host == HostPolicy::Set {
            writeln!(
                f,
                "host         set: settings of its interfaces that stand in the way are written, and put back at the end"
            )?;
        }
        if self.log_level != LogLevel::default() {
            writeln!(f, "log level    {}: what is less grave is not logged", self.log_level)?;
        }
        if self.metrics.is_some() {
            writeln!(f, "metrics      and a status page by HTTP: {}", metrics(self))?;
        }
        if let Some(group) = &self.monitor_group {
            writeln!(f, "monitors     group {group} may ask what changes nothing")?;
        }
        if !self.notify.is_empty() {
            writeln!(f, "notify       of changes: {}", notify(self))?;
        }
        if self.unserved != Unserved::Pass {
            writeln!(f, "unserved     {}: packets to a VIP that no service serves", self.unserved)?;
        }
        if self.on_failure != Failures::CLOSED {
            let Failures { no_worker, queue_full, parse_error } = self.on_failure;
            writeln!(f, "on failure   {no_worker}: no process has bound the queue")?;
            writeln!(f, "             {queue_full}: the queue or its socket's buffer is full")?;
            writeln!(f, "             {parse_error}: a packet is malformed")?;
            writeln!(f, "             pass: the packet goes on without a mark, wherever the routes lead")?;
        }
        for server in &self.nameservers {
            writeln!(f, "name server  {server}, port 53 is not balanced")?;
        }
        self.services.iter().try_for_each(|service| write!(f, "{service}"))
    }
}

/// Who may ask what changes nothing, besides root.
pub(super) fn monitors(plan: &Plan) -> String {
    plan.monitor_group.clone().unwrap_or_else(|| "none".to_owned())
}

/// Who is told of changes.
pub(super) fn notify(plan: &Plan) -> String {
    match plan.notify.as_slice() {
        [] => "nobody".to_owned(),
        words => format!("{words:?} as {}", plan.notify_account()),
    }
}

/// Where metrics are served, and whom a Unix socket lets in.
pub(super) fn metrics(plan: &Plan) -> String {
    match (&plan.metrics, &plan.monitor_group) {
        (None, _) => "none".to_owned(),
        (Some(address @ MetricsAddress::Unix(_)), Some(group)) => format!("{address}, for group {group}"),
        (Some(address), _) => address.to_string(),
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "service {}", self.name)?;
        for vip in &self.vips {
            writeln!(f, "  vip        {vip}")?;
        }
        writeln!(f, "  balances   {}", balances(self))?;
        writeln!(f, "  mode       {}", mode(self.mode))?;
        writeln!(f, "  strategy   {}: {}", self.strategy, chooses(self.strategy))?;
        writeln!(f, "  affinity   {}", affinity(self.affinity))?;
        writeln!(f, "  check      {}{}", check(self.check.as_ref()), own_ports(self))?;
        writeln!(f, "  passive    {}", passive(self.policy.passive))?;
        for key in policy::shown(self.mode) {
            writeln!(f, "  {:<10} {}", key.title, (key.say)(&self.policy))?;
        }
        for place in self.discover.iter().flat_map(|discover| &discover.places) {
            writeln!(f, "  discover   {place}{}", self.discover.as_ref().map(pace).unwrap_or_default())?;
        }
        if let Some(port) = self.port {
            writeln!(f, "  port       {port} of each backend that is discovered")?;
        }
        self.backends.iter().try_for_each(|backend| writeln!(f, "  backend    {backend}"))
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, weight {}{}", self.destination(), self.weight, if self.backup { ", backup" } else { "" })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, asked by {}", self.network, self.to)?;
        self.interface.iter().try_for_each(|interface| write!(f, " on {interface}"))
    }
}

pub(super) fn quota(Quota { prefix4, prefix6, percent }: Quota) -> String {
    format!("a source /{prefix4} (IPv4) or /{prefix6} (IPv6) keeps {percent} % of the flows once half of them are open")
}

fn pace(discover: &Discover) -> String {
    format!(", every {}, at most {} backends", span(discover.interval.into()), discover.limit)
}

/// Where nodes are looked for.
#[must_use]
pub fn discover(discover: Option<&Discover>) -> String {
    match discover {
        None => "none".to_owned(),
        Some(discover) => {
            let places: Vec<String> = discover.places.iter().map(ToString::to_string).collect();
            format!("{}{}", places.join(", "), pace(discover))
        }
    }
}

pub(super) fn cores(cores: Option<(u16, u16)>) -> String {
    match cores {
        Some((low, high)) if low == high => format!("core {low}"),
        Some((low, high)) => format!("cores {low}-{high}"),
        None => "every core".to_owned(),
    }
}

pub(super) fn balances(service: &Service) -> String {
    let ports = service.ports.iter().map(PortRange::to_string).collect::<Vec<_>>().join(", ");
    match service.protocol {
        Protocol::Any => "every IP protocol (TCP, UDP, SCTP, ESP, GRE …) on every port, and ICMP echo".to_owned(),
        protocol if ports.is_empty() => format!("{protocol} on every port"),
        protocol => format!("{protocol} on port {ports}"),
    }
}

pub(super) fn mode(mode: Mode) -> String {
    match mode {
        Mode::Nat => "nat: packets get the backend's address".to_owned(),
        Mode::Dsr => "dsr: packets stay as they are, backends answer clients directly".to_owned(),
    }
}

/// By what it chooses, and what that means where a second balancer takes over.
fn chooses(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::RoundRobin => "in turn; most connections end when another balancer takes over",
        Strategy::Weighted => "who has the fewest clients; most connections end when another balancer takes over",
        Strategy::Maglev { .. } => "by the client, alike on every balancer that has the same backends up",
    }
}

/// How long a client keeps its backend.
#[must_use]
pub fn affinity(affinity: Option<Affinity>) -> String {
    match affinity {
        Some(Affinity { prefix4, prefix6, timeout }) => format!(
            "a client (IPv4 /{prefix4}, IPv6 /{prefix6}) keeps its backend until {} after its last packet",
            seconds(timeout)
        ),
        None => "none: each flow is balanced by itself".to_owned(),
    }
}

/// What a check does, and how often.
#[must_use]
pub fn check(check: Option<&Check>) -> String {
    let Some(Check { kind, interval, interval_down, timeout, jitter, rise, fall }) = check else {
        return "none: every backend counts as up".to_owned();
    };
    let down = match interval == interval_down {
        true => String::new(),
        false => format!(" ({} while it is down)", span((*interval_down).into())),
    };
    let sooner = if *jitter == 0 { String::new() } else { format!(" or up to {jitter} % sooner") };
    format!(
        "{} every {}{down}{sooner}, failed after {}; down after {fall} failures, up after {rise} successes",
        check_kind::say(kind),
        span((*interval).into()),
        span((*timeout).into()),
    )
}

/// What to add to the words of a check that differs by backend.
#[must_use]
pub fn own_ports(service: &Service) -> &'static str {
    if service.checks_own_ports { "; each backend at its own port" } else { "" }
}

/// When a backend is ejected by what packets show.
#[must_use]
pub fn passive(passive: Option<Passive>) -> String {
    let Some(Passive { fails, timeout, hold, port }) = passive else {
        return "none: workers do not judge backends by their packets".to_owned();
    };
    let port = port.map_or_else(String::new, |port| format!(" to port {port}"));
    format!(
        "{fails} connection attempts{port} refused, or unanswered for {}: no new flows for {}",
        span(timeout.into()),
        seconds(hold)
    )
}

/// Seconds as the configuration writes them.
pub(super) fn seconds(seconds: u32) -> String {
    span(u64::from(seconds) * 1000)
}
