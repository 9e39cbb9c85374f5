//! `loaded doctor`: examines this host and names whatever keeps packets from being balanced, each with the command that
//! fixes it. Changes nothing. Checks that need root are reported as "unseen" without it.

mod conntrack;
mod direct;
mod errors;
mod finding;
mod firewall;
mod interfaces;
mod ipsec;
mod offloads;
mod replies;
mod tcx;

pub(crate) use finding::{Finding, Grade};

use finding::{fatal, of_problem, sound, unseen, warning};
use loaded_config as config;
use loaded_config::plan::{Fast, Plan};
use loaded_control::{InstanceVerdict, Reply, Request, ask_within};
use loaded_host::{available_cores, silent_neighbours_now};
use loaded_netfilter::trial::{self, Trial};
use loaded_netfilter::{Tools, unhooked};
use loaded_queue::{RepeatSupport, queue_owners, receive_buffer as buffer};
use loaded_sandbox::{CHROOT, Identity, KernelSupport, Layer};
use loaded_supervisor::conditions;
use loaded_supervisor::run::Options;
use loaded_table::{AffinityTable, FlowTable};
use nix::unistd::geteuid;
use std::fs;
use std::time::Duration;

/// Bytes that a waiting packet of Ethernet size costs: 2 KiB of data and the sk_buff (SKB_TRUESIZE).
const WAITING_PACKET: usize = 2304;

/// How long the running instance may take to answer.
const INSTANCE_WAIT: Duration = Duration::from_secs(1);

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

/// Layers of the sandbox.
fn kernel() -> Vec<Finding> {
    let kernel = KernelSupport::probe();
    let mut findings: Vec<_> = (kernel.absent())
        .map(|layer| warning("kernel", format!("lacks {}: {}", layer.name(), layer.consequence())))
        .collect();
    if findings.is_empty() {
        // Each Landlock ABI adds rights that can be taken away, so its version is shown.
        let names = kernel.findings().iter().map(|finding| match finding.layer {
            Layer::Landlock => format!("Landlock ({})", finding.detail.split(',').next().unwrap_or_default()),
            layer => layer.name().to_owned(),
        });
        let names: Vec<_> = names.collect();
        findings.push(sound("kernel", format!("supports every layer of the sandbox: {}", names.join(", "))));
    }
    findings.push(kernel_queues());
    let sound_chroot = || sound("chroot", format!("{CHROOT} is empty and owned by root"));
    findings.push(conditions::chroot().map_or_else(sound_chroot, |problem| of_problem(&problem)));
    findings
}

/// Whether the kernel has queues: before anybody has asked for one, /proc has no word of them where they are a module.
fn kernel_queues() -> Finding {
    let has = || sound("kernel", "has netfilter queues");
    if !geteuid().is_root() {
        return match fs::exists("/proc/net/netfilter/nfnetlink_queue") {
            Ok(true) => has(),
            _ => unseen(
                "kernel",
                "shows no netfilter queues yet; only root can try whether it has them (module nfnetlink_queue)",
            ),
        };
    }
    trial::has_queues().map_or_else(
        |why| {
            let needs = "modprobe nfnetlink_queue, or a kernel with CONFIG_NETFILTER_NETLINK_QUEUE";
            fatal("kernel", format!("gives no netfilter queue ({why}): {needs}"))
        },
        |()| has(),
    )
}

/// The kernel path, if it is wanted: tried out, as at every start.
fn kernel_path(plan: &Plan) -> Option<Finding> {
    if plan.fast == Fast::Off {
        return None;
    }
    if !geteuid().is_root() {
        return Some(unseen("kernel path", "only root can try whether this kernel takes the program"));
    }
    let refused = |why| {
        let needs = "Linux 5.12 or later with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF, CAP_BPF and CAP_PERFMON";
        warning("kernel path", format!("{why}; all packets would go by the queue. It needs {needs}"))
    };
    Some(conditions::kernel_path().map_or_else(refused, |()| sound("kernel path", "this kernel takes the program")))
}

fn programs() -> Option<Finding> {
    Tools::find().err().map(|error| fatal("programs", error))
}

/// What this kernel does with NF_REPEAT: tried out, as at every start.
fn repeat() -> Finding {
    const LOST: &str = "packets that a killed worker holds would be dropped";
    if !geteuid().is_root() {
        return unseen("repeat", "only root can try whether this kernel repeats packets");
    }
    match Trial::begin().result() {
        RepeatSupport::Repeats => sound("repeat", "packets pass through the rules again on NF_REPEAT"),
        RepeatSupport::Accepts => warning(
            "repeat",
            format!(
                "this kernel accepts packets that it is told to repeat (NF_REPEAT): {LOST}, and a firewall that drops \
                 INVALID packets ends all connections; use another kernel (uname -r shows this one)"
            ),
        ),
        RepeatSupport::Unknown(why) => {
            warning("repeat", format!("could not be tried ({why}): {LOST}; try again: loaded doctor"))
        }
    }
}

/// The iptables matches and targets our rules need: each is tried in a separate network namespace.
fn matches() -> Vec<Finding> {
    if !geteuid().is_root() {
        return vec![unseen("matches", "only root can try which matches iptables has")];
    }
    let missing = match trial::missing_parts() {
        Ok(missing) => missing,
        Err(why) => return vec![unseen("matches", format!("could not be tried: {why}"))],
    };
    judge_matches(&missing)
}

/// What it means that these are missing.
fn judge_matches(missing: &[&str]) -> Vec<Finding> {
    let without = |module: &str| match module {
        "xt_socket" => Some("the kernel does not reassemble fragments, so workers track fragments themselves"),
        "xt_rpfilter" => {
            Some("packets in a backend's name are believed whatever interface they come by, as with asymmetric = true")
        }
        _ => None,
    };
    let needed: Vec<_> = missing.iter().copied().filter(|module| without(module).is_none()).collect();
    let mut findings: Vec<_> = missing
        .iter()
        .filter_map(|module| Some(warning("matches", format!("{}: modprobe {module}, and restart", without(module)?))))
        .collect();
    if !needed.is_empty() {
        let text = format!("rules cannot be installed without these modules: modprobe {}", needed.join(" "));
        findings.push(fatal("matches", text));
    }
    if findings.is_empty() {
        let all = trial::PARTS.map(|part| part.0).join(", ");
        findings.push(sound("matches", format!("iptables has everything our rules need: {all}")));
    }
    findings
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

/// What the running instance says of itself, if one answers.
fn instance(options: &Options) -> Option<Finding> {
    let Ok(Reply::Health(health)) = ask_within(options.control.as_deref(), &Request::Health, INSTANCE_WAIT) else {
        return None;
    };
    let causes = health.causes().collect::<Vec<_>>().join("; ");
    let beside = health.conditions.iter().find(|condition| condition.name == "clients_beside");
    Some(match health.verdict {
        InstanceVerdict::Serving => match beside {
            Some(told) => warning("instance", format!("the one that runs serves, but {told}")),
            None => sound("instance", "the one that runs serves"),
        },
        InstanceVerdict::Impaired => warning("instance", format!("the one that runs is impaired: {causes}")),
        InstanceVerdict::NotServing => fatal("instance", format!("the one that runs does not serve: {causes}")),
    })
}

/// Whether the rules of an instance that serves by this plan are there.
fn rules(plan: &Plan, queues: &[u16]) -> Option<Finding> {
    let owned = queue_owners().ok()?.iter().any(|state| queues.contains(&state.queue));
    if !owned || !geteuid().is_root() {
        return None;
    }
    let vips = plan.services.iter().flat_map(|service| service.vips.iter().copied()).collect();
    Some(match unhooked(&Tools::find().ok()?, plan.queue_base, &vips) {
        Ok(missing) if missing.is_empty() => sound("rules", "bring packets to the queues"),
        Ok(missing) => fatal(
            "rules",
            format!(
                "workers run, but packets do not reach them: rules are missing ({}); a running supervisor puts them back within \
                 two seconds, and if it was killed a start does: systemctl restart loaded",
                missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
            ),
        ),
        Err(error) => unseen("rules", error),
    })
}

/// Whether our queues are free.
fn queues(wanted: &[u16]) -> Option<Finding> {
    if !geteuid().is_root() {
        return Some(unseen("queues", "only root can see who answers them"));
    }
    let states = queue_owners().ok()?;
    let taken: Vec<_> = states.iter().filter(|state| wanted.contains(&state.queue)).collect();
    Some(match taken.first() {
        None => sound("queues", "are free"),
        Some(state) => warning(
            "queues",
            format!(
                "queue {} is in use already: by this service if it is running, or by workers whose supervisor was \
                 killed (start loaded: it takes them over); a second service needs another --queue-base",
                state.queue
            ),
        ),
    })
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

/// A packet that no worker has read yet occupies the socket's receive buffer. The supervisor sets its size with
/// SO_RCVBUFFORCE, so net.core.rmem_max does not limit it; our own limit does.
fn receive_buffer(plan: &Plan) -> Finding {
    let bytes = buffer(plan.queue_len);
    // The kernel doubles the requested size (sock_setsockopt, net/core/sock.c).
    let fits = u32::try_from(bytes * 2 / WAITING_PACKET).unwrap_or(u32::MAX);
    match plan.queue_len > fits {
        true => warning(
            "receive",
            format!(
                "{} packets may wait, but the socket's buffer of {} MiB holds {fits} ordinary ones and the rest is dropped (socket \
                 full): set queue_len = {fits}",
                plan.queue_len,
                bytes >> 20
            ),
        ),
        false => sound("receive", format!("a buffer of {} MiB holds a full queue of ordinary packets", bytes >> 20)),
    }
}

/// Whether memory suffices for the tables, which are allocated at start, and for full queues in the kernel.
fn memory(plan: &Plan, workers: usize, meminfo: &str) -> Finding {
    let kib = |key: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let Some(available) = kib("MemAvailable") else { return unseen("memory", "/proc/meminfo says nothing") };
    let tables = FlowTable::bytes_for(plan.flows as usize) + AffinityTable::bytes_for(plan.clients as usize);
    let tables = (tables as u64 * workers as u64).div_ceil(1 << 20);
    let waiting = (u64::from(plan.queue_len) * workers as u64 * WAITING_PACKET as u64).div_ceil(1 << 20);
    let text = format!(
        "{tables} MiB for tables; full queues would hold {waiting} MiB of ordinary packets; {} MiB are available",
        available / 1024
    );
    match (tables + waiting) * 1024 > available {
        true => warning("memory", format!("{text}: lower queue_len, flows or clients")),
        false => sound("memory", text),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let text = "flows = 1024\nclients = 1024\n[[service]]\nname = \"web\"\nvip = [\"192.0.2.1\"]\nprotocol = \"any\"\n\
                    [[service.backend]]\naddress = \"198.51.100.1\"\n";
        config::parse(&[config::Source::new("a.toml", text)], &config::Overrides::default()).unwrap().plan
    }

    #[test]
    fn a_queue_that_the_socket_cannot_hold_is_named() {
        let mut plan = plan();
        plan.queue_len = 16_384;
        assert_eq!(receive_buffer(&plan).grade, Grade::Sound);
        plan.queue_len = 10 << 20;
        let found = receive_buffer(&plan);
        assert_eq!(found.grade, Grade::Warning);
        assert!(found.text.ends_with("set queue_len = 233016"), "{}", found.text);
        plan.queue_len = 233_016;
        assert_eq!(receive_buffer(&plan).grade, Grade::Sound, "{}", receive_buffer(&plan).text);
    }

    #[test]
    fn rules_can_do_without_some_matches() {
        let grades = |missing| judge_matches(missing).iter().map(|finding| finding.grade).collect::<Vec<_>>();
        assert_eq!(grades(&[]), [Grade::Sound]);
        assert_eq!(grades(&["xt_socket", "xt_rpfilter"]), [Grade::Warning, Grade::Warning]);
        assert_eq!(grades(&["xt_bpf", "xt_rpfilter"]), [Grade::Warning, Grade::Fatal]);
        let found = judge_matches(&["xt_bpf", "xt_CT", "xt_socket"]);
        assert!(found[0].text.contains("modprobe xt_socket"), "{}", found[0].text);
        assert!(found[1].text.ends_with("modprobe xt_bpf xt_CT"), "{}", found[1].text);
    }

    #[test]
    fn what_does_not_fit_into_memory_is_named() {
        let mut plan = plan();
        plan.queue_len = 16384;
        assert_eq!(memory(&plan, 2, "MemAvailable:  1048576 kB\n").grade, Grade::Sound);
        let found = memory(&plan, 2, "MemTotal: 1 kB\nMemAvailable:    65536 kB\n");
        assert_eq!(found.grade, Grade::Warning);
        assert!(found.text.contains("72 MiB of ordinary packets; 64 MiB are available"), "{}", found.text);
        assert_eq!(memory(&plan, 2, "").grade, Grade::Unseen);
    }
}
