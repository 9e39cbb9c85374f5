//! From the command line to a running instance: check everything, have everything, start the children, only then the rules.

use crate::Error;
use crate::children::audit::AuditLog;
use crate::children::prober::{self, Prober};
use crate::children::worker::{self, Worker, WorkerParts};
use crate::handover::journal::Journal;
use crate::handover::orphans::{self, Inheritance, misfit};
use crate::handover::predecessor::Predecessor;
use crate::instance::{Exit, Instance, Invocation, Start, steering_keys};
use crate::preflight::{available_cores, check_discovery, check_host, check_kernel};
use crate::process::daemon::{self, PidFile};
use crate::process::output;
use crate::process::signals::Signals;
use crate::roster::Roster;
use loaded_config::plan::{Plan, diff};
use loaded_config::{self as config, Overrides};
use loaded_control::{Control, History, default_path};
use loaded_ipc::OnFailure;
use loaded_netfilter::routes::Routes;
use loaded_netfilter::trial::Trial;
use loaded_netfilter::{RuleSet, Steering, Tools, clean_stale};
use loaded_queue::{BATCH, Overflow, Owner, OwnerError, Repeat};
use loaded_queue::{queue_owner, queue_owners};
use loaded_sandbox::policy::print;
use loaded_sandbox::proof::Expectation;
use loaded_sandbox::{
    CHROOT, Identity, KernelSupport, Layer, Role, SandboxRequirement, check_chroot_dir, spare_from_oom, trim_supervisor,
};
use nix::unistd::geteuid;
use sd_notify::NotifyState;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf, absolute};
use std::time::Instant;

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration files; empty: where they are usually found.
    pub config: Vec<PathBuf>,
    /// What overrides them.
    pub overrides: Overrides,
    /// This is the daemon that the starter has started.
    pub detached: bool,
    /// This is to follow the supervisor that has started it ([`crate::SUCCESSOR`]).
    pub successor: bool,
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// Where to listen for the operator; `None`: where he looks for it.
    pub control: Option<PathBuf>,
    /// Whether a kernel without a layer of the sandbox is good enough.
    pub floor: SandboxRequirement,
}

/// Loads the configuration, from where it usually is if no file is named.
///
/// # Errors
/// With file, line and column.
pub(crate) fn load(options: &Options) -> Result<config::Loaded, Error> {
    let paths = match options.config.as_slice() {
        [] => vec![config::find()?],
        named => named.to_vec(),
    };
    Ok(config::load(&paths, &options.overrides)?)
}

/// What `--check` does: the configuration, and what it names on this host. Needs no rights and changes nothing.
///
/// # Errors
/// What would keep an instance from serving, as far as it can be seen without being root.
pub fn check(options: &Options) -> Result<config::Loaded, Error> {
    let loaded = load(options)?;
    Identity::lookup(&loaded.plan.user)?;
    loaded.plan.check_cores(&available_cores()?)?;
    Ok(loaded)
}

/// Runs an instance until it is told to end, or another binary has taken its place.
///
/// # Errors
/// Everything that keeps it from serving. Nothing is then changed on the host.
pub fn run(options: &Options) -> Result<(), Error> {
    output::to_stderr();
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let mut predecessor = if options.successor { Some(Predecessor::take()?) } else { None };
    let result = live(options, &mut predecessor);
    if let (Some(predecessor), Err(error)) = (&predecessor, &result) {
        predecessor.refuse(error);
    }
    result
}

/// From the start to the end. A predecessor that we have followed is there no more.
fn live(options: &Options, predecessor: &mut Option<Predecessor>) -> Result<(), Error> {
    let starter = if options.detached && predecessor.is_none() { Some(daemon::take_starter()?) } else { None };
    // Before the working directory changes: a reload reads the same files, an upgrade starts the same command.
    let invocation = Invocation::of_this()?;
    let options = with_absolute_paths(options)?;
    let loaded = load(&options)?;
    for note in &loaded.notes {
        log::info!("{note}");
    }
    let plan = loaded.plan;
    if options.detached {
        daemon::detach()?;
        if predecessor.is_some() {
            output::to_syslog();
        }
    }

    let identity = Identity::lookup(&plan.user)?;
    check_chroot_dir(Path::new(CHROOT))?;
    let cores = plan.check_cores(&available_cores()?)?;
    let tools = Tools::find()?;
    let level = check_kernel(options.floor)?;
    let trial = Trial::begin();
    check_host(&plan)?;
    check_discovery(&plan)?;

    // A predecessor has those two yet.
    let pid_file = options.pid_file.as_deref().filter(|_| predecessor.is_none());
    let mut pid_file = pid_file.map(|path| PidFile::write(path, None)).transpose()?;
    if predecessor.is_none()
        && let Err(why) = orphans::is_possible()
    {
        log::warn!("{why}: workers die with the supervisor, as with linger = false");
    }
    let signals = Signals::new()?;
    let queues: Vec<u16> = cores.iter().map(|core| plan.queue_base + core).collect();
    let inherited = inherit(predecessor.as_ref(), &plan, &tools, &cores, &queues)?;
    let is_inherited = inherited.is_some();
    let mut routes = Routes::new(plan.queue_base, tools.clone());
    if !is_inherited && let Err(error) = routes.clean_stale() {
        log::warn!("{error}");
    }
    let journal = Journal::create()?;
    let (mut sets, state, locks) = inherited.map_or((BTreeMap::new(), None, Vec::new()), Inheritance::split);
    let mut workers = Vec::with_capacity(cores.len());
    for (place, &queue) in (0..).zip(cores.iter().copied()).zip(&queues) {
        let given = match sets.remove(&queue) {
            Some(set) => set.given(queue, &plan, state.as_ref(), &journal)?,
            None => WorkerParts::anew(open_queue(queue, &plan)?, &plan, &journal)?,
        };
        workers.push(Worker::new(place, given, plan.queue_len)?);
    }
    let path = options.control.clone().unwrap_or_else(default_path);
    let control = if predecessor.is_some() { None } else { Some(Control::bind(&path)?) };
    let prober = Prober::new()?;
    let is_filtered =
        predecessor.is_some() && state.as_ref().is_some_and(|state| state.fence == print(Role::Supervisor));
    let replaced = state.as_ref().map(|state| state.pid);
    let before_rules = state.as_ref().map(|s| RuleSet::new(&s.roster.reach(&s.plan), &queues, &s.steering));
    let (steering, before, history) = match state {
        Some(state) => {
            for change in diff(&state.plan, &plan) {
                log::info!("since then: {change}");
            }
            (state.steering, state.roster.into_owned(), state.history.into_owned())
        }
        None => (Steering::new(&plan, steering_keys()?), Roster::empty(), History::new()),
    };
    let roster = before.next(&plan, &[], 0, Instant::now())?;
    let rules = RuleSet::new(&roster.reach(&plan), &queues, &steering);
    let repeat = trial.result();
    warn_unless_repeated(&repeat);
    workers.iter_mut().for_each(|worker| worker.repeats = repeat == Repeat::Repeats);
    let audit = predecessor.as_ref().map_or_else(AuditLog::open, Predecessor::audit);
    if let Err(error) = spare_from_oom() {
        log::info!(
            "oom_score_adj: {error}: if memory runs out the kernel may kill the supervisor; CAP_SYS_RESOURCE mends it"
        );
    }
    trim_supervisor(is_filtered)?;

    let terms = terms(identity, options.floor, &level, workers.len());
    let layers = Layer::ALL.iter().filter(|layer| level.has(**layer)).map(|layer| layer.name().to_owned()).collect();
    let mut instance = Instance::new(Start {
        options: options.clone(),
        plan,
        roster,
        steering,
        rules,
        queues,
        terms,
        workers,
        prober,
        signals,
        control,
        routes,
        layers,
        history,
        journal,
        invocation,
        audit,
        repeat,
    });
    match is_inherited {
        true => instance.take_over(&tools, predecessor.as_ref()),
        false => instance.start_anew(&tools),
    }
    .inspect_err(|_| instance.give_up(&tools, before_rules.as_ref(), predecessor.as_ref()))?;
    drop(locks);
    if let Some(predecessor) = predecessor.take() {
        // First: who looks for a process by these must find ours before the other one ends.
        daemon::notify(NotifyState::MainPid(std::process::id()));
        let path_of_pid = options.pid_file.as_deref();
        let written = path_of_pid.map(|path| PidFile::write(path, replaced)).transpose();
        pid_file = written.unwrap_or_else(|error| {
            log::error!("{error}");
            None
        });
        instance.follow(predecessor, &path);
    }
    let services = instance.plan.services.len();
    let backends: usize = instance.plan.services.iter().map(|service| service.backends.len()).sum();
    log::info!("serving: {services} service(s), {backends} backend(s), {} worker(s)", instance.workers.len());
    // The rules stand: whatever happens from here on, the way out is through `end`.
    let released = starter.map_or(Ok(()), |starter| {
        output::to_syslog();
        daemon::release(starter)
    });
    daemon::notify(NotifyState::Ready);
    match released.and_then(|()| instance.serve()) {
        Ok(Exit::Followed) => {
            // Rules, routes, control socket and pid file are another one's by now.
            std::mem::forget((instance, pid_file));
            Ok(())
        }
        result => {
            daemon::notify(NotifyState::Stopping);
            let end = instance.end();
            drop(pid_file);
            result.map(drop).and(end)
        }
    }
}

/// What there is to go on from: of a predecessor that gives way, or of a supervisor that was killed.
fn inherit(
    predecessor: Option<&Predecessor>,
    plan: &Plan,
    tools: &Tools,
    cores: &[u16],
    queues: &[u16],
) -> Result<Option<Inheritance>, Error> {
    let pairs: Vec<(u16, u16)> = cores.iter().copied().zip(queues.iter().copied()).collect();
    let Some(predecessor) = predecessor else {
        clean_up(tools, queues)?;
        return orphans::find(queues, plan, &pairs);
    };
    let inheritance = predecessor.inheritance()?;
    orphans::is_known(inheritance.state.adoptable);
    match misfit(&inheritance.state, plan, &pairs) {
        Some(problem) => Err(Error::Succession(problem)),
        None => Ok(Some(inheritance)),
    }
}

fn with_absolute_paths(options: &Options) -> Result<Options, Error> {
    let fail = |source| Error::Start { act: "find the directory that a path on the command line begins in", source };
    let config = match options.config.as_slice() {
        [] => vec![config::find()?],
        named => named.to_vec(),
    };
    let config = config.iter().map(absolute).collect::<Result<_, _>>().map_err(fail)?;
    let pid_file = options.pid_file.as_ref().map(absolute).transpose().map_err(fail)?;
    let control = options.control.as_ref().map(absolute).transpose().map_err(fail)?;
    Ok(Options { config, pid_file, control, ..options.clone() })
}

/// What a killed instance with our own queues has left stays until our rules replace it in one transaction: without
/// rules the local stack would answer clients, with resets.
fn clean_up(tools: &Tools, queues: &[u16]) -> Result<(), Error> {
    // Who is alive is asked after the rules are read: an instance binds its queues before it installs rules.
    let bound = |queue| queue_owners().map_or(true, |states| states.iter().any(|state| state.queue == queue));
    for note in clean_stale(tools, |queue| queues.contains(&queue) || bound(queue))? {
        log::warn!("{note}");
    }
    Ok(())
}

/// What children must be.
fn terms(
    identity: Identity,
    floor: SandboxRequirement,
    level: &KernelSupport,
    workers: usize,
) -> (worker::Terms, prober::Terms) {
    let seccomp = level.has(Layer::Seccomp);
    let expected = Expectation { seccomp, ..Expectation::of(Role::Worker, &identity) };
    let probing = Expectation { seccomp, ..Expectation::prober(&identity, workers) };
    let worker = worker::Terms { identity: identity.clone(), floor, expected };
    (worker, prober::Terms { identity, floor, expected: probing })
}

/// What it means that this kernel does not repeat, or may not.
fn warn_unless_repeated(repeat: &Repeat) {
    let dropped = format!(
        "packets that a killed worker holds, at most {BATCH} of each, are dropped instead of going through the rules again \
         to the next worker"
    );
    match repeat {
        Repeat::Repeats => {}
        Repeat::Accepts => log::error!(
            "this kernel accepts what it is told to repeat (NF_REPEAT): {dropped}; and conntrack sees replies of backends \
             as INVALID, so a firewall that drops these ends all connections. Another kernel mends it"
        ),
        Repeat::Unknown(why) => {
            log::error!(
                "whether this kernel repeats what it is told to (NF_REPEAT) could not be tried: {why}. So {dropped}"
            );
        }
    }
}

fn open_queue(queue: u16, plan: &Plan) -> Result<Owner, Error> {
    let overflow = match plan.on_failure.queue_full {
        OnFailure::Drop => Overflow::Drop,
        OnFailure::Pass => Overflow::Pass,
    };
    Owner::open_for(queue, plan.queue_len, overflow).map_err(|error| match error {
        OwnerError::Refused(queue) => match queue_owner(queue) {
            Ok(Some(owner)) => Error::QueueBusy { queue, owner },
            _ => Error::Queue(error),
        },
        other => Error::Queue(other),
    })
}
