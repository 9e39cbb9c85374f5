//! The three ways to start: where nothing runs, over the orphans of a killed supervisor, and beside a predecessor. Each
//! has everything before it starts a child, and installs the rules last.

use super::acquired::{Acquired, assemble};
use super::checked::Checked;
use super::workers::{handed_path, inherited_path, inherited_workers, workers_with_path};
use crate::Error;
use crate::children::adoption;
use crate::children::exporter::{Bound, Exporter};
use crate::children::memory::random;
use crate::children::prober::Prober;
use crate::fastpath::Leftovers;
use crate::handover::Error as HandoverError;
use crate::handover::inheritance::{Inheritance, misfit};
use crate::handover::journal::Journal;
use crate::handover::orphans;
use crate::handover::predecessor::Predecessor;
use crate::handover::snapshot::Snapshot;
use crate::instance::Instance;
use crate::instance::generation::rules;
use crate::instance::operator::Operator;
use crate::options::Options;
use crate::process::daemon;
use crate::process::output;
use crate::process::signals::Signals;
use crate::roster::Roster;
use loaded_config::plan::{Plan, diff};
use loaded_control::{By, Control, History};
use loaded_host::AuditLog;
use loaded_netfilter::routes::Routes;
use loaded_netfilter::{HashKeys, Steering, clean_stale, served_by_another};
use loaded_queue::queue_owners;
use loaded_sandbox::Role;
use loaded_sandbox::policy::print;

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
        return Err(HandoverError::Succession(problem).into());
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

/// The socket at which metrics are asked for, from a predecessor that listens where we are to.
fn handed_socket(checked: &Checked, snapshot: &Snapshot<'_>) -> Option<Bound> {
    let address = snapshot.metrics.clone().filter(|address| checked.plan.metrics.as_ref() == Some(address))?;
    let socket = Predecessor::metrics(snapshot.queues.len()).ok()?;
    (snapshot.plan.monitor_group == checked.plan.monitor_group).then(|| Bound::adopt(socket, address))
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
