//! `loaded doctor`: examines this host and names whatever keeps packets from being balanced, each with the command that
//! fixes it. Changes nothing. Checks that need root are reported as "unseen" without it.

mod conntrack;
mod direct;
mod errors;
mod finding;
mod firewall;
mod instance;
mod interfaces;
mod ipsec;
mod kernel;
mod memory;
mod offloads;
mod replies;
mod tcx;

pub(crate) use finding::{Finding, Grade};

use finding::{fatal, of_problem, sound, unseen, warning};
use instance::{instance, queues, rules};
use kernel::{kernel, kernel_path, matches, repeat};
use loaded_config as config;
use loaded_config::plan::Plan;
use loaded_host::{available_cores, silent_neighbours_now};
use loaded_netfilter::Tools;
use loaded_sandbox::Identity;
use loaded_supervisor::conditions;
use loaded_supervisor::run::Options;
use memory::{memory, receive_buffer};
use std::fs;

/// Checks everything; without a configuration, whatever can be checked without one.
pub(crate) fn examine(options: &Options) -> Vec<Finding> {
    let mut findings = kernel();
    findings.extend(programs());
    // Trying the matches loads the modules that the trial of NF_REPEAT, which has its time, could otherwise wait for.
    let matches = matches();
    findings.push(repeat());
    findings.extend(matches);
    let mut plan = None;
    match config::load(&options.config, &options.overrides) {
        Ok(loaded) => {
            findings.extend(with_plan(&loaded.plan));
            plan = Some(loaded.plan);
        }
        Err(config::ConfigError::NotFound { .. }) => {
            findings
                .push(unseen("config", "no configuration was found, so what depends on one was not checked (-c FILE)"));
        }
        Err(error) => findings.push(fatal("config", error)),
    }
    findings.extend(firewall::findings(plan.as_ref()));
    findings.extend(instance(options));
    findings.extend(ipsec::findings());
    findings.extend(tcx::findings());
    findings.extend(offloads::findings());
    findings
}

fn with_plan(plan: &Plan) -> Vec<Finding> {
    let mut findings = vec![sound("config", format!("{} service(s)", plan.services.len()))];
    findings.push(match Identity::lookup(&plan.user) {
        Ok(_) => sound("user", format!("{} exists", plan.user)),
        Err(error) => fatal("user", error),
    });
    let cores = available_cores().map_err(|error| format!("read the usable cores: {error}"));
    let cores = cores.and_then(|available| plan.check_cores(&available).map_err(|error| error.to_string()));
    let workers = cores.as_ref().map_or(1, Vec::len);
    findings.push(match &cores {
        Ok(cores) => sound("cores", format!("{} worker(s)", cores.len())),
        Err(error) => fatal("cores", error),
    });
    if let Ok(cores) = cores {
        let queues: Vec<u16> = cores.iter().filter_map(|core| plan.queue_base.checked_add(*core)).collect();
        findings.extend(self::queues(&queues));
        findings.extend(rules(plan, &queues));
    }
    let mut problems = conditions::of_host(plan);
    // It is reported without a plan too.
    problems.retain(|problem| problem.kind != "chroot");
    let problems: Vec<_> = problems.into_iter().map(|one| conditions::before_a_start(one, plan.host)).collect();
    if problems.is_empty() {
        findings.push(sound("host", "forwarding, reverse path filters and routes let balanced packets through"));
    }
    findings.extend(problems.iter().map(of_problem));
    findings.extend(neighbours(plan));
    findings.extend(pings(plan));
    findings.extend(broadcasts(plan));
    findings.push(receive_buffer(plan));
    findings.extend(kernel_path(plan));
    findings.extend(direct::findings(plan));
    findings.extend(replies::findings(plan));
    findings.push(memory(plan, workers, &fs::read_to_string("/proc/meminfo").unwrap_or_default()));
    findings
}

fn programs() -> Option<Finding> {
    Tools::find().err().map(|error| fatal("programs", error))
}

/// Hosts on our links that have not answered, nor answer now.
fn neighbours(plan: &Plan) -> Vec<Finding> {
    match silent_neighbours_now(plan) {
        Ok(silent) => silent.values().map(|one| warning("neighbour", format!("{one}: {}", one.to_see()))).collect(),
        Err(error) => vec![unseen("neighbour", format!("the kernel does not list them: {error}"))],
    }
}

/// Which kind of socket checks ping with.
fn pings(plan: &Plan) -> Option<Finding> {
    use loaded_ipc::CheckKind::{Icmp, IcmpTcp};
    let pings = |service: &loaded_config::plan::Service| {
        let by_check = service.check.as_ref().is_some_and(|check| matches!(check.kind, Icmp | IcmpTcp { .. }));
        by_check || service.discover.is_some()
    };
    if !plan.services.iter().any(pings) {
        return None;
    }
    let range = fs::read_to_string("/proc/sys/net/ipv4/ping_group_range").ok()?;
    let mut words = range.split_whitespace().map(str::parse::<u32>);
    let (Some(Ok(low)), Some(Ok(high))) = (words.next(), words.next()) else { return None };
    // The supervisor opens the sockets, as group 0.
    Some(match low == 0 && high >= low {
        true => sound("pings", "the prober gets ping sockets"),
        false => warning(
            "pings",
            "ping sockets are not allowed for group 0, so the prober gets raw ones, locked to echo replies: \
             sysctl -w 'net.ipv4.ping_group_range=0 0'",
        ),
    })
}

/// Whether this host answers broadcast pings, which discovery sends.
fn broadcasts(plan: &Plan) -> Option<Finding> {
    let places = plan.services.iter().filter_map(|service| service.discover.as_ref()).flat_map(|look| &look.places);
    places.into_iter().find(|place| place.to.is_ipv4())?;
    let ignores = fs::read_to_string("/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts").ok()?;
    Some(match ignores.trim() {
        "0" => warning(
            "broadcasts",
            "this host answers pings to a broadcast address, so another balancer that looks for nodes takes it for one (nodes \
             must answer, with 0): sysctl -w net.ipv4.icmp_echo_ignore_broadcasts=1",
        ),
        _ => sound(
            "broadcasts",
            "are not answered here; each node must answer: sysctl -w net.ipv4.icmp_echo_ignore_broadcasts=0 there",
        ),
    })
}
