//! What a start has acquired, and the instance that is made of it.

use super::checked::Checked;
use crate::Error;
use crate::children::Children;
use crate::children::exporter::Exporter;
use crate::children::prober::Prober;
use crate::children::worker::Worker;
use crate::handover::journal::Journal;
use crate::instance::Instance;
use crate::instance::fixed::{Fixed, StartTime};
use crate::instance::generation::Generation;
use crate::instance::host::HostState;
use crate::instance::operator::Operator;
use crate::instance::recorder::Recorder;
use crate::process::signals::Signals;
use crate::roster::Roster;
use loaded_host::AuditLog;
use loaded_netfilter::Steering;
use loaded_netfilter::routes::Routes;
use loaded_queue::{BATCH, RepeatSupport};
use loaded_sandbox::{spare_from_oom, trim_supervisor};

/// What a start has acquired: memory, descriptors, routes.
pub(super) struct Acquired {
    pub(super) routes: Routes,
    pub(super) journal: Journal,
    pub(super) workers: Vec<Worker>,
    pub(super) prober: Prober,
    pub(super) exporter: Exporter,
    pub(super) steering: Steering,
    pub(super) signals: Signals,
}

impl Acquired {
    /// The first generation of this supervisor, after this roster.
    pub(super) fn generation(&self, checked: &Checked, roster: &Roster) -> Result<Generation, Error> {
        Generation::after(roster, checked.loaded(), &[], 0, (&checked.queues(), &self.steering))
    }
}

/// Makes an instance of what was checked and acquired, and gives up the rights that it does not need any more. `has_filter`:
/// this process has inherited the supervisor's own sandbox from its predecessor.
pub(super) fn assemble(
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
