//! The three ways to start: where nothing runs, over the orphans of a killed supervisor, and beside a predecessor. Each
//! has everything before it starts a child, and installs the rules last.

use super::checked::Checked;
use crate::Error;
use crate::children::Children;
use crate::children::exporter::{Bound, Exporter};
use crate::children::memory::random;
use crate::children::prober::Prober;
use crate::children::worker::{Worker, WorkerParts};
use crate::fastpath::{FastPath, Leftovers, Off};
use crate::handover::inheritance::{Inheritance, InheritedWorker, misfit};
use crate::handover::journal::Journal;
use crate::handover::predecessor::Predecessor;
use crate::handover::snapshot::Snapshot;
use crate::handover::{adoption, orphans};
use crate::instance::Instance;
use crate::instance::fixed::{Fixed, StartTime};
use crate::instance::generation::{Generation, rules};
use crate::instance::host::HostState;
use crate::instance::operator::Operator;
use crate::instance::recorder::Recorder;
use crate::options::Options;
use crate::process::daemon;
use crate::process::output;
use crate::process::signals::Signals;
use crate::roster::Roster;
use loaded_config::plan::{Fast, Plan, diff};
use loaded_control::{By, Control, History};
use loaded_host::AuditLog;
use loaded_ipc::OnFailure;
use loaded_netfilter::routes::Routes;
use loaded_netfilter::{HashKeys, Steering, clean_stale, served_by_another};
use loaded_queue::{BATCH, Overflow, Owner, OwnerError, RepeatSupport};
use loaded_queue::{queue_owner, queue_owners};
use loaded_sandbox::policy::print;
use loaded_sandbox::{Role, spare_from_oom, trim_supervisor};
use std::collections::BTreeMap;
use std::time::Instant;

/// Starts an instance without a predecessor: over orphans, if there are any.
///
/// # Errors
/// Whatever keeps it from serving. Of the host only leftovers of dead instances have been removed then.
pub(super) fn alone(checked: Checked) -> Result<Instance, Error> {
    if let Err(why) = adoption::is_possible() {
        log::warn!("{why}: workers die with the supervisor, as with linger = false");
    }
    let signals = Signals::new()?;
    clean_stale_rules(&checked)?;
    match orphans::find(&checked.plan, &checked.workers)? {
        None => fresh(checked, signals),
        Some(inheritance) => over_orphans(checked, signals, inheritance),
    }
}

/// Starts an instance where nothing runs.
fn fresh(checked: Checked, signals: Signals) -> Result<Instance, Error> {
    let mut routes = routes(&checked);
    if let Err(error) = routes.clean_stale() {
        log::warn!("{error}");
    }
    let journal = Journal::create()?;
    let steering = Steering::new(&checked.plan, new_steering_keys()?);
    let (workers, fast) = workers_with_path(&checked, &journal, &steering)?;
    refuse_taken_vips(&checked)?;
    let control = Control::bind(&checked.options.control_path())?;
    let prober = Prober::new()?;
    let exporter = Exporter::new(&checked.plan, None)?;
    let acquired = Acquired { routes, journal, workers, prober, exporter, steering, signals };
    let current = acquired.generation(&checked, &Roster::empty())?;
    let tools = checked.tools.clone();
    let operator = Operator::new(Some(control), History::new());
    let mut instance = assemble(checked, acquired, current, operator, audit_log, false)?;
    instance.host.set_kernel_path(fast);
    instance.start_fresh(&tools).inspect_err(|_| instance.give_up())?;
    Ok(instance)
}

/// Starts an instance over the orphans of a killed supervisor.
fn over_orphans(mut checked: Checked, signals: Signals, inheritance: Inheritance) -> Result<Instance, Error> {
    let Inheritance { snapshot, workers, locks } = inheritance;
    let contradiction = checked.amend(&snapshot.amendments).err();
    let routes = routes(&checked);
    let journal = Journal::create()?;
    let workers = inherited_workers(&checked, &journal, &snapshot, workers)?;
    let control = Control::bind(&checked.options.control_path())?;
    let prober = Prober::new()?;
    let exporter = Exporter::beside(&checked.plan, None);
    let rules_before = rules(&snapshot.roster, &snapshot.plan, &checked.queues(), &snapshot.steering);
    log_changes_since(&snapshot, &checked.plan);
    let acquired = Acquired { routes, journal, workers, prober, exporter, steering: snapshot.steering, signals };
    let current = acquired.generation(&checked, &snapshot.roster)?;
    let (tools, clsacts, settings) = (checked.tools.clone(), snapshot.clsacts, snapshot.settings);
    let mut operator = Operator::new(Some(control), snapshot.history.into_owned());
    // There is no instance to stay with, so clients are served by the files alone.
    if let Some(why) = contradiction {
        log::error!("what was changed at run time does not fit the configuration, and is forgotten: {why}");
        let lost = snapshot.amendments.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        operator.record("changes at run time are forgotten".to_owned(), format!("{why}: {lost}"), By::Operator);
    }
    let fast = inherited_path(&checked, &acquired, &current);
    let mut instance = assemble(checked, acquired, current, operator, audit_log, false)?;
    instance.host.set_kernel_path(fast);
    instance.host.take_over(Leftovers::of(&clsacts));
    instance.adopt_orphans(&tools).inspect_err(|_| instance.give_up_adoption(&tools, &rules_before))?;
    instance.host.settings.inherit(&settings);
    // The orphans have ended: nobody else can take them over.
    drop(locks);
    Ok(instance)
}

/// Starts an instance beside a predecessor, which has given way when this returns. Returns the options with absolute paths and
/// the predecessor's process id too.
///
/// # Errors
/// Whatever keeps it from serving. The predecessor goes on then.
pub(super) fn beside(options: &Options, predecessor: &Predecessor) -> Result<(Instance, Options, u32), Error> {
    let mut checked = Checked::check(options, detach_successor)?;
    let signals = Signals::new()?;
    let Inheritance { snapshot, workers, .. } = predecessor.inheritance()?;
    checked.amend(&snapshot.amendments)?;
    adoption::set_known(snapshot.adoptable);
    if let Some(problem) = misfit(&snapshot, &checked.plan, &checked.workers) {
        return Err(Error::Succession(problem));
    }
    let routes = routes(&checked);
    let journal = Journal::create()?;
    let workers = inherited_workers(&checked, &journal, &snapshot, workers)?;
    let prober = Prober::new()?;
    let exporter = Exporter::beside(&checked.plan, handed_socket(&checked, &snapshot));
    let has_filter = snapshot.sandbox == print(Role::Supervisor);
    log_changes_since(&snapshot, &checked.plan);
    let acquired = Acquired { routes, journal, workers, prober, exporter, steering: snapshot.steering, signals };
    let current = acquired.generation(&checked, &snapshot.roster)?;
    let (tools, options) = (checked.tools.clone(), checked.options.clone());
    let fast = handed_path(&checked, &acquired.workers, &snapshot);
    // The predecessor still has the control socket.
    let operator = Operator::new(None, snapshot.history.into_owned());
    let mut instance = assemble(checked, acquired, current, operator, || predecessor.audit(), has_filter)?;
    instance.host.set_kernel_path(fast);
    instance.host.take_over(Leftovers::of(&snapshot.clsacts));
    instance.succeed(&tools, predecessor).inspect_err(|_| instance.give_up_succession())?;
    instance.host.settings.inherit(&snapshot.settings);
    Ok((instance, options, snapshot.pid))
}

/// What a start has acquired: memory, descriptors, routes.
struct Acquired {
    routes: Routes,
    journal: Journal,
    workers: Vec<Worker>,
    prober: Prober,
    exporter: Exporter,
    steering: Steering,
    signals: Signals,
}

impl Acquired {
    /// The first generation of this supervisor, after this roster.
    fn generation(&self, checked: &Checked, roster: &Roster) -> Result<Generation, Error> {
        Generation::after(roster, checked.loaded(), &[], 0, (&checked.queues(), &self.steering))
    }
}

/// Makes an instance of what was checked and acquired, and gives up the rights that it does not need any more. `has_filter`:
/// this process has inherited the supervisor's own sandbox from its predecessor.
fn assemble(
    checked: Checked,
    acquired: Acquired,
    current: Generation,
    operator: Operator,
    audit: impl FnOnce() -> AuditLog,
    has_filter: bool,
) -> Result<Instance, Error> {
    let (queues, specs, layers) = (checked.queues(), checked.specs(), checked.layers());
    let Checked { options, invocation, trial, settings, .. } = checked;
    let Acquired { routes, journal, mut workers, prober, exporter, steering, signals } = acquired;
    let repeat = trial.result();
    warn_unless_repeated(&repeat);
    workers.iter_mut().for_each(|worker| worker.repeats = repeat == RepeatSupport::Repeats);
    let audit = audit();
    if let Err(error) = spare_from_oom() {
        log::info!(
            "oom_score_adj: {error}: if memory runs out the kernel may kill the supervisor; CAP_SYS_RESOURCE mends it"
        );
    }
    trim_supervisor(has_filter)?;
    let fixed = Fixed { options, invocation, queues, steering, layers, repeat, started: StartTime::now() };
    let children = Children { workers, prober, exporter, specs, audit };
    let (host, recorder) = (HostState::new(routes, settings), Recorder::new(journal));
    Ok(Instance::new(fixed, current, children, host, recorder, operator, signals))
}

/// The kernel's log. Where it cannot be read, our log does not name the system calls that children are killed for.
fn audit_log() -> AuditLog {
    AuditLog::open().unwrap_or_else(|error| {
        log::info!("/dev/kmsg: {error}: if a child is killed by its sandbox, the log cannot name the system call");
        AuditLog::of(None)
    })
}

/// A daemon's successor has no starter that reads its stderr: it logs to syslog at once.
fn detach_successor(options: &Options) -> Result<(), Error> {
    if options.detached {
        daemon::detach()?;
        output::to_syslog();
    }
    Ok(())
}

/// Removes rules of killed instances. Rules to our own queues stay until ours replace them in one transaction: without rules
/// the local stack would answer clients, with resets.
fn clean_stale_rules(checked: &Checked) -> Result<(), Error> {
    let queues = checked.queues();
    // Queues are read after the rules: an instance binds its queues before it installs rules.
    let is_bound = |queue| queue_owners().map_or(true, |states| states.iter().any(|state| state.queue == queue));
    for note in clean_stale(&checked.tools, |queue| queues.contains(&queue) || is_bound(queue))? {
        log::warn!("{note}");
    }
    Ok(())
}

/// Whichever of two instances has its jump above the other's would get all packets to a VIP that both serve. It is asked for
/// once the queues are ours, for a second instance on the same queues is told of those.
fn refuse_taken_vips(checked: &Checked) -> Result<(), Error> {
    let vips = checked.plan.services.iter().flat_map(|service| service.vips.iter().copied()).collect();
    match served_by_another(&checked.tools, checked.plan.queue_base, &vips)? {
        Some((vip, base)) => Err(Error::VipTaken { vip, base }),
        None => Ok(()),
    }
}

fn routes(checked: &Checked) -> Routes {
    Routes::new(checked.plan.queue_base, checked.tools.clone())
}

/// Fresh workers, and the kernel path beside them, if it is wanted and can be had.
fn workers_with_path(
    checked: &Checked,
    journal: &Journal,
    steering: &Steering,
) -> Result<(Vec<Worker>, Result<FastPath, Off>), Error> {
    let mut why = Off::NotWanted;
    if checked.plan.fast == Fast::Auto {
        let made = fresh_workers(checked, journal, true).and_then(|workers| {
            let roster = Roster::empty().next(&checked.plan, &[], 0, Instant::now())?;
            let fast = FastPath::load(&workers, steering, &roster, checked.plan.queue_base)?;
            Ok((workers, Ok(fast)))
        });
        match made {
            Ok(both) => return Ok(both),
            Err(error) => why = Off::Refused(error.to_string()).told(),
        }
    }
    Ok((fresh_workers(checked, journal, false)?, Err(why)))
}

/// A kernel path over tables that were taken over. It is attached when our workers serve. That it cannot be had is no error
/// here: the queue serves.
fn inherited_path(checked: &Checked, acquired: &Acquired, current: &Generation) -> Result<FastPath, Off> {
    if checked.plan.fast == Fast::Off {
        return Err(Off::NotWanted);
    }
    if acquired.workers.iter().any(|worker| worker.memory.maps().is_none()) {
        return Err(Off::StartedWithout.told());
    }
    let base = checked.plan.queue_base;
    FastPath::load(&acquired.workers, &acquired.steering, &current.roster, base)
        .map_err(|error| Off::Refused(error.to_string()).told())
}

/// The kernel path that a predecessor hands over. It stays attached, and nothing is loaded: the sandbox that this process has
/// inherited forbids that.
fn handed_path(checked: &Checked, workers: &[Worker], snapshot: &Snapshot<'_>) -> Result<FastPath, Off> {
    if checked.plan.fast == Fast::Off {
        return Err(Off::NotWanted);
    }
    let handover = snapshot.kernel_path.ok_or_else(|| Off::StartedWithout.told())?;
    // Tables of another layout were made anew, where no program reads them.
    if workers.iter().any(|worker| worker.memory.maps().is_none()) {
        return Err(Off::OtherProgram.told());
    }
    let path = Predecessor::kernel_path(snapshot.queues.len())
        .and_then(|descriptors| FastPath::inherit(handover, descriptors, checked.plan.queue_base));
    path.map_err(|error| Off::Refused(error.to_string()).told())?.ok_or_else(|| Off::OtherProgram.told())
}

/// The socket at which metrics are asked for, from a predecessor that listens where we are to.
fn handed_socket(checked: &Checked, snapshot: &Snapshot<'_>) -> Option<Bound> {
    let address = snapshot.metrics.clone().filter(|address| checked.plan.metrics.as_ref() == Some(address))?;
    let socket = Predecessor::metrics(snapshot.queues.len()).ok()?;
    (snapshot.plan.monitor_group == checked.plan.monitor_group).then(|| Bound::adopt(socket, address))
}

/// Workers with empty tables, on queues that are opened for them.
fn fresh_workers(checked: &Checked, journal: &Journal, fast: bool) -> Result<Vec<Worker>, Error> {
    let plan = &checked.plan;
    make_workers(checked, |queue| WorkerParts::fresh(open_queue(queue, plan)?, plan, journal, fast))
}

/// Workers with queues and tables of previous ones. Where a previous worker is missing, it is dead: those are fresh.
fn inherited_workers(
    checked: &Checked,
    journal: &Journal,
    snapshot: &Snapshot<'_>,
    mut previous: BTreeMap<u16, InheritedWorker>,
) -> Result<Vec<Worker>, Error> {
    let plan = &checked.plan;
    make_workers(checked, |queue| match previous.remove(&queue) {
        Some(worker) => worker.into_parts(queue, plan, snapshot, journal),
        None => WorkerParts::fresh(open_queue(queue, plan)?, plan, journal, false),
    })
}

fn make_workers(
    checked: &Checked,
    mut parts: impl FnMut(u16) -> Result<WorkerParts, Error>,
) -> Result<Vec<Worker>, Error> {
    let numbered = (0..).zip(&checked.workers);
    let make = |(position, &(core, queue))| Worker::new(position, core, parts(queue)?, checked.plan.queue_len);
    numbered.map(make).collect()
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

/// New at every fresh start: nobody can choose addresses that all go to one worker.
fn new_steering_keys() -> Result<HashKeys, Error> {
    let mut words = [0; 6];
    for word in &mut words {
        *word = u32::from_ne_bytes(random()?);
    }
    Ok(HashKeys::new(words))
}

fn log_changes_since(snapshot: &Snapshot<'_>, plan: &Plan) {
    for change in diff(&snapshot.plan, plan) {
        log::info!("since then: {change}");
    }
}

/// Says what follows if this kernel does not repeat packets, or may not.
fn warn_unless_repeated(repeat: &RepeatSupport) {
    let dropped = format!(
        "packets that a killed worker holds, at most {BATCH} of each, are dropped instead of going through the rules again \
         to the next worker"
    );
    match repeat {
        RepeatSupport::Repeats => {}
        RepeatSupport::Accepts => log::error!(
            "this kernel accepts packets that it is told to repeat (NF_REPEAT): {dropped}; and conntrack sees replies of \
             backends as INVALID, so a firewall that drops these ends all connections. Use another kernel"
        ),
        RepeatSupport::Unknown(why) => {
            log::error!("whether this kernel repeats packets (NF_REPEAT) could not be tried: {why}. So {dropped}");
        }
    }
}
