//! Finds host settings that make a balancer lose packets silently, and names the exact command that fixes each.

mod arrival;
mod departure;
mod direct;
mod forwarding;
mod passage;
mod report;

pub use report::HostReport;

use crate::connected::ConnectedNetworks;
use crate::links::Links;
use crate::passage::Passage;
use crate::problem::{Problem, Setting, Severity, sysctl_name};
use crate::route::{Route, default_route, lookup};
use loaded_config::network::Network;
use loaded_config::plan::Plan;
use loaded_ipc::{AllDown, Mode, OnBackendDown};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

/// So many backends without a route are named.
const NAMED: usize = 4;

struct Host<'a> {
    routes: Vec<Route>,
    locals: BTreeSet<Ipv4Addr>,
    networks: ConnectedNetworks,
    links: Links,
    own: BTreeSet<IpAddr>,
    /// `None`: this kernel has no such setting. The key is a path: an interface may have dots in its name.
    sysctl: &'a dyn Fn(&str) -> Option<i64>,
    /// Whether a route of any table leads far away, in the family of an address.
    leads_out: &'a dyn Fn(IpAddr) -> bool,
    /// Whether rules and routes of all tables let packets go to an address.
    reaches: &'a dyn Fn(IpAddr) -> bool,
    /// Whether the kernel would pass a packet on.
    passes: &'a dyn Fn(Passage<'_>) -> bool,
    /// The smallest network of this host's addresses that an address lies in.
    network_around: &'a dyn Fn(IpAddr) -> Option<Network>,
    is_bridge_port: &'a dyn Fn(&str) -> bool,
}

impl Host<'_> {
    fn problems(&self, plan: &Plan) -> Vec<Problem> {
        let vips: BTreeSet<_> = plan.services.iter().flat_map(|service| &service.vips).copied().collect();
        let mut problems = Vec::new();
        let backends: BTreeSet<_> = plan.services.iter().flat_map(|s| s.backends.iter().map(|b| b.address)).collect();
        problems.extend(self.forwarding4(&vips, &backends));
        problems.extend(self.forwarding6(&vips, &backends));
        // In mode "dsr" replies bypass this host.
        let translated = || plan.services.iter().filter(|service| service.mode == Mode::Nat);
        let replying: BTreeSet<_> = translated().flat_map(|s| s.backends.iter().map(|b| b.address)).collect();
        let replied: BTreeSet<_> = translated().flat_map(|service| &service.vips).copied().collect();
        let towards: BTreeSet<_> = v4(replying.iter())
            .filter_map(|backend| lookup(&self.routes, backend))
            .map(|r| r.interface.as_str())
            .collect();
        for vip in v4(replied.iter()) {
            for interface in &towards {
                problems.extend(self.reverse_path(vip, interface));
            }
        }
        problems.extend(self.own_answers(plan));
        problems.extend(self.direct(plan));
        problems.extend(self.one_armed(&replied, &towards));
        let unreachable = backends.iter().copied().filter(|backend| match backend {
            IpAddr::V4(v4) => lookup(&self.routes, *v4).is_none(),
            IpAddr::V6(_) => !self.networks.has_route(*backend),
        });
        let (refused, absent): (Vec<_>, Vec<_>) = unreachable.partition(|backend| self.networks.refuses(*backend));
        problems.extend(no_routes(absent.into_iter()));
        problems.extend(refused_routes(&refused));
        // Two VIPs behind one interface need the same setting: report it once.
        problems.iter().enumerate().filter(|(at, p)| !problems[..*at].contains(p)).map(|(_, p)| p.clone()).collect()
    }

    /// A reply gets the VIP as its source in raw PREROUTING, before routing. fib_validate_source
    /// (net/ipv4/fib_frontend.c) then refuses a source that is one of our own addresses unless accept_local is set, and
    /// with rp_filter=1 any source whose own route does not lead back to the interface.
    fn reverse_path(&self, vip: Ipv4Addr, interface: &str) -> Vec<Problem> {
        let local = self.locals.contains(&vip);
        let mut problems = Vec::new();
        if local && !self.accepts_local(interface) {
            let text = format!("replies from backends on {interface} would be dropped as coming from our own address");
            problems.push(fatal(text).of_family(4).mended_by_setting([set(interface, "accept_local", 1)]));
        }
        if self.is_strict(interface) {
            let back = lookup(&self.routes, vip);
            if back.is_some_and(|route| route.interface == interface) {
                return problems;
            }
            // A local VIP is in the local table, and /proc/net/route does not show that table's interfaces. Only a
            // connected network that contains it tells where it is.
            let sure = !local || back.is_some_and(|route| route.length > 0);
            let text = format!(
                "strict reverse path filtering drops replies that come in on {interface} with the VIP as their source"
            );
            let problem = host(if sure { Severity::Fatal } else { Severity::Warning }, text);
            problems.push(problem.of_family(4).mended_by_setting([set(interface, "rp_filter", 2)]));
        }
        problems
    }

    /// A reset or rejection is the client's own packet, turned around in raw PREROUTING: it arrives on the clients'
    /// interface with the VIP as its source, and is forwarded only if it passes the same two checks. Tested for a VIP that
    /// is one of our addresses: accept_local=0 drops it whatever rp_filter says; rp_filter=1 also drops it when the address
    /// is on another interface. IPv6 has neither check. Which interfaces clients use is not known: it may be any that has a
    /// route, but for those that lead to backends.
    fn own_answers(&self, plan: &Plan) -> Vec<Problem> {
        let answers = plan.services.iter().filter(|service| {
            let policy = service.policy;
            policy.on_backend_down == OnBackendDown::Reset || policy.all_down == AllDown::Reject
        });
        let vips: BTreeSet<_> = v4(answers.flat_map(|service| &service.vips)).collect();
        let default = default_route(&self.routes);
        let mut problems = Vec::new();
        let backends = plan.services.iter().flat_map(|service| service.backends.iter().map(|b| b.address));
        let behind: BTreeSet<_> = backends.filter_map(|backend| self.networks.towards(backend)).collect();
        let others: BTreeSet<_> = self.networks.interfaces(true).into_iter().filter(|i| !behind.contains(i)).collect();
        for vip in vips.into_iter().filter(|vip| self.locals.contains(vip)) {
            let network = lookup(&self.routes, vip);
            let likely: BTreeSet<_> = network.into_iter().chain(default).map(|r| r.interface.as_str()).collect();
            for interface in &likely {
                problems.extend(self.own_answer(interface, network));
            }
            problems.extend(self.own_answers_elsewhere(&others.difference(&likely).copied().collect()));
        }
        problems
    }

    /// Other interfaces that clients may come by, together: most hosts have some that no client uses.
    fn own_answers_elsewhere(&self, others: &BTreeSet<&str>) -> Option<Problem> {
        let martian: Vec<_> = others.iter().filter(|name| !self.accepts_local(name)).copied().collect();
        let keys: Vec<_> = martian.iter().map(|name| format!("{}=1", key_of(name, "accept_local"))).collect();
        let text = format!(
            "if clients come in by {}, resets and rejections to them are dropped by this kernel as martian",
            martian.join(", ")
        );
        let problem = || Problem::new("clients", Severity::Warning, text).of_family(4);
        (!martian.is_empty()).then(|| problem().mended_by(format!("sysctl -w {}", keys.join(" "))))
    }

    /// Clients and backends on one interface: the kernel sends backends a redirect to the shorter path to the client, and
    /// replies then bypass us (ip_rt_send_redirect, net/ipv4/route.c). IN_DEV_TX_REDIRECTS is "all or this one".
    fn one_armed(&self, vips: &BTreeSet<IpAddr>, towards: &BTreeSet<&str>) -> Vec<Problem> {
        let default = default_route(&self.routes);
        let to_vips = v4(vips.iter()).filter_map(|vip| lookup(&self.routes, vip));
        let clients: BTreeSet<_> = to_vips.chain(default).map(|route| route.interface.as_str()).collect();
        let tells = |interface: &&&str| {
            self.setting("all", "send_redirects").max(self.setting(interface, "send_redirects")) != 0
        };
        let problem = |interface: &&str| {
            let text = format!(
                "clients and backends are both on {interface}, and redirects may tell backends to answer past this host"
            );
            warning(text).of_family(4).mended_by(no_redirects(interface)).settable(self.redirecting(interface))
        };
        towards.intersection(&clients).filter(tells).map(problem).collect()
    }

    fn own_answer(&self, interface: &str, network: Option<&Route>) -> Option<Problem> {
        let lost = "resets and rejections to clients that come in by";
        let problem = if !self.accepts_local(interface) {
            let text = format!("{lost} {interface} are dropped by this kernel as martian");
            warning(text).mended_by_setting([set(interface, "accept_local", 1)])
        } else if self.is_strict(interface)
            && network.is_none_or(|route| route.interface != interface || route.length == 0)
        {
            let text = format!("{lost} {interface} are dropped by strict reverse path filtering");
            warning(text).mended_by_setting([set(interface, "rp_filter", 2)])
        } else {
            return None;
        };
        Some(problem.of_family(4))
    }

    /// IN_DEV_ACCEPT_LOCAL is "all or this one" (include/linux/inetdevice.h).
    fn accepts_local(&self, interface: &str) -> bool {
        self.setting("all", "accept_local").max(self.setting(interface, "accept_local")) != 0
    }

    /// IN_DEV_RPFILTER is the greater of both (include/linux/inetdevice.h).
    fn is_strict(&self, interface: &str) -> bool {
        self.setting("all", "rp_filter").max(self.setting(interface, "rp_filter")) == 1
    }

    /// What makes the kernel send redirects on an interface: either switch does.
    fn redirecting(&self, interface: &str) -> Vec<Setting> {
        let on = ["all", interface].into_iter().filter(|name| self.setting(name, "send_redirects") != 0);
        on.map(|name| set(name, "send_redirects", 0)).collect()
    }

    fn setting(&self, interface: &str, key: &str) -> i64 {
        (self.sysctl)(&format!("ipv4/conf/{interface}/{key}")).unwrap_or(0)
    }

    fn off(&self, key: &str) -> bool {
        (self.sysctl)(key) == Some(0)
    }
}

/// The first few backends of each family without a route are named, of the others the number.
fn no_routes(backends: impl Iterator<Item = IpAddr>) -> Vec<Problem> {
    let (v4, v6): (Vec<_>, Vec<_>) = backends.partition(IpAddr::is_ipv4);
    let mut problems = Vec::new();
    for (family, backends) in [(4, v4), (6, v6)] {
        let problem = |text| host(Severity::Impairing, text).of_family(family);
        problems.extend(backends.iter().take(NAMED).map(|backend| {
            problem(format!("no route to backend {backend} in the main table"))
                .mended_by(format!("ip route add {backend} via …"))
        }));
        if backends.len() > NAMED {
            let more = backends.len() - NAMED;
            problems.push(problem(format!("no route to {more} more backends of IPv{family} in the main table")));
        }
    }
    problems
}

/// Routes of type blackhole, unreachable or prohibit.
fn refused_routes(backends: &[IpAddr]) -> Vec<Problem> {
    let of = |backend: IpAddr| if backend.is_ipv4() { 4 } else { 6 };
    let mut problems = Vec::new();
    for backend in backends.iter().take(NAMED) {
        let text = format!("the route to backend {backend} throws its packets away; to see it");
        let see = format!("ip route show match {backend}");
        problems.push(host(Severity::Impairing, text).of_family(of(*backend)).mended_by(see));
    }
    if let Some(more) = backends.len().checked_sub(NAMED + 1) {
        let text = format!("the routes to {} more backends throw their packets away", more + 1);
        problems.push(host(Severity::Impairing, text));
    }
    problems
}

fn host(severity: Severity, text: impl Into<String>) -> Problem {
    Problem::new("host", severity, text)
}

fn fatal(text: impl Into<String>) -> Problem {
    host(Severity::Fatal, text)
}

fn warning(text: impl Into<String>) -> Problem {
    host(Severity::Warning, text)
}

/// One interface's switch for IPv4.
fn set(interface: &str, setting: &str, value: i64) -> Setting {
    Setting::of(4, interface, setting, value)
}

fn no_redirects(interface: &str) -> String {
    format!("sysctl -w net.ipv4.conf.all.send_redirects=0 {}=0", key_of(interface, "send_redirects"))
}

/// The key of an interface's switch for IPv4, as sysctl(8) expects it.
fn key_of(interface: &str, setting: &str) -> String {
    sysctl_name(&format!("ipv4/conf/{interface}/{setting}"))
}

fn v4<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> impl Iterator<Item = Ipv4Addr> {
    addresses.filter_map(|address| match address {
        IpAddr::V4(v4) => Some(*v4),
        IpAddr::V6(_) => None,
    })
}

/// Our own addresses: in `/proc/net/fib_trie` a leaf `|-- ADDRESS` is followed by `/32 host LOCAL`.
fn parse_locals(text: &str) -> BTreeSet<Ipv4Addr> {
    let mut leaf: Option<Ipv4Addr> = None;
    let mut locals = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            locals.extend(leaf);
        }
    }
    locals
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
