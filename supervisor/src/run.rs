//! From the command line to a running instance: check everything, have everything, start the children, only then the rules.

use crate::audit::AuditLog;
use crate::config::{self, Overrides};
use crate::control::{Control, default_path};
use crate::daemon::{self, PidFile};
use crate::instance::{Instance, Start, steering_keys};
use crate::memory::Memory;
use crate::plan::Plan;
use crate::preflight::{available_cores, check_discovery, check_host, check_kernel};
use crate::prober::{self, Prober};
use crate::roster::Roster;
use crate::routes::Routes;
use crate::rules::{Installed, RuleSet, Steering, Tools, clean_stale, queue_owner, queue_owners};
use crate::signals::Signals;
use crate::trial::Trial;
use crate::worker::{self, Worker};
use crate::{Error, output};
use loaded_ipc::OnFailure;
use loaded_jail::proof::Expectation;
use loaded_jail::{CHROOT, Floor, Identity, Layer, Level, Role, check_chroot_dir, trim_supervisor};
use loaded_queue::{BATCH, Overflow, Owner, OwnerError, Repeat};
use nix::unistd::geteuid;
use sd_notify::NotifyState;
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
    /// Where to write the process id.
    pub pid_file: Option<PathBuf>,
    /// Where to listen for the operator; `None`: where he looks for it.
    pub control: Option<PathBuf>,
    /// Whether a kernel without a layer of the sandbox is good enough.
    pub floor: Floor,
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

/// Runs an instance until it is told to end.
///
/// # Errors
/// Everything that keeps it from serving. Nothing is then changed on the host.
pub fn run(options: &Options) -> Result<(), Error> {
    output::to_stderr();
    if !geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let starter = if options.detached { Some(daemon::take_starter()?) } else { None };
    // Before the working directory changes: a reload reads the same files.
    let options = with_absolute_paths(options)?;
    let loaded = load(&options)?;
    for note in &loaded.notes {
        log::info!("{note}");
    }
    let plan = loaded.plan;
    if options.detached {
        daemon::detach()?;
    }

    let identity = Identity::lookup(&plan.user)?;
    check_chroot_dir(Path::new(CHROOT))?;
    let cores = plan.check_cores(&available_cores()?)?;
    let tools = Tools::find()?;
    let level = check_kernel(options.floor)?;
    let trial = Trial::begin();
    check_host(&plan)?;
    check_discovery(&plan)?;

    let pid_file = options.pid_file.as_deref().map(PidFile::write).transpose()?;
    let signals = Signals::new()?;
    let queues: Vec<u16> = cores.iter().map(|core| plan.queue_base + core).collect();
    clean_up(&tools, &queues)?;
    let mut routes = Routes::new(plan.queue_base, tools.clone());
    if let Err(error) = routes.clean_stale() {
        log::warn!("{error}");
    }
    let mut workers = Vec::with_capacity(cores.len());
    for ((position, &core), &queue) in (0..).zip(&cores).zip(&queues) {
        workers.push(Worker::new(position, core, open_queue(queue, &plan)?, Memory::new(&plan)?, plan.queue_len)?);
    }
    let control = Control::bind(&options.control.clone().unwrap_or_else(default_path))?;
    let prober = Prober::new()?;
    let steering = Steering::new(&plan, steering_keys()?);
    let roster = Roster::empty().next(&plan, &[], 0, Instant::now())?;
    let rules = RuleSet::new(&roster.reach(&plan), &queues, &steering);
    let repeat = trial.result();
    warn_unless_repeated(&repeat);
    workers.iter_mut().for_each(|worker| worker.repeats = repeat == Repeat::Repeats);
    let audit = AuditLog::open();
    trim_supervisor()?;

    let terms = terms(identity, options.floor, &level, workers.len());
    let options = options.clone();
    let layers = Layer::ALL.iter().filter(|layer| level.has(**layer)).map(|layer| layer.name().to_owned()).collect();
    let start = Start {
        options,
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
        audit,
        repeat,
    };
    let mut instance = Instance::new(start);
    // The prober uses them at once.
    instance.make_routes().and_then(|()| instance.start()).inspect_err(|_| instance.take_routes())?;
    let installed = Installed::install(&instance.rules, &tools).inspect_err(|_| instance.take_routes())?;
    for note in installed.notes() {
        log::warn!("{note}");
    }
    instance.serves_by(installed);
    let services = instance.plan.services.len();
    let backends: usize = instance.plan.services.iter().map(|service| service.backends.len()).sum();
    log::info!("serving: {services} service(s), {backends} backend(s), {} worker(s)", instance.workers.len());
    // The rules stand: whatever happens from here on, the way out is through `end`.
    let released = starter.map_or(Ok(()), |starter| {
        output::to_syslog();
        daemon::release(starter)
    });
    daemon::notify(NotifyState::Ready);
    let result = released.and_then(|()| instance.serve());
    daemon::notify(NotifyState::Stopping);
    let end = instance.end();
    drop(pid_file);
    result.and(end)
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
fn terms(identity: Identity, floor: Floor, level: &Level, workers: usize) -> (worker::Terms, prober::Terms) {
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
