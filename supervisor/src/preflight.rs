//! What is checked before anything is changed: cores, kernel, host. Settings of the host that the configuration lets us write
//! count as written already.

use crate::Error;
use crate::conditions;
use loaded_config::plan::{HostPolicy, Plan};
use loaded_control::group_named;
use loaded_host::HostSettings;
use loaded_host::Problem;
use loaded_sandbox::{Identity, KernelSupport, SandboxRequirement};
use std::time::{Duration, Instant};

/// The cores this process may use.
pub(crate) fn available_cores() -> Result<Vec<u16>, Error> {
    loaded_host::available_cores().map_err(|source| Error::Start { act: "read the usable cores", source })
}

/// What this kernel offers the sandbox. Warns of layers it lacks, and refuses where they are required.
pub(crate) fn check_kernel(requirement: SandboxRequirement) -> Result<KernelSupport, Error> {
    let support = KernelSupport::probe();
    for layer in support.absent() {
        log::warn!("this kernel lacks {}: {}", layer.name(), layer.consequence());
    }
    requirement.check(&support)?;
    Ok(support)
}

/// Refuses a group or an account that does not exist.
pub(crate) fn check_accounts(plan: &Plan) -> Result<(), Error> {
    plan.monitor_group.as_deref().map(group_named).transpose().map_err(Error::Monitors)?;
    if !plan.notify.is_empty() {
        Identity::lookup(plan.notify_account())?;
    }
    Ok(())
}

/// Warns of what keeps packets from passing; refuses where none would pass, and names everything that is fatal. Firewalls of
/// others come and go, so they refuse nothing; the verdict tells of them.
pub(crate) fn check_host(plan: &Plan, settings: &mut HostSettings) -> Result<(), Error> {
    judge(lacking(plan, settings))
}

/// The same of a plan that an instance is to change to: what that lets it write is written once it has changed.
pub(crate) fn check_host_for_a_change(plan: &Plan) -> Result<(), Error> {
    let problems = conditions::of_host(plan).into_iter();
    judge(problems.map(|problem| conditions::before_a_start(problem, plan.host)).collect())
}

fn judge(problems: Vec<Problem>) -> Result<(), Error> {
    let (fatal, others): (Vec<_>, Vec<_>) = problems.into_iter().partition(conditions::refuses_start);
    for problem in others {
        log::warn!("{problem}");
    }
    let fatal: Vec<_> = fatal.iter().map(Problem::to_string).collect();
    if fatal.is_empty() { Ok(()) } else { Err(Error::Host(fatal)) }
}

/// What stands in the way of this plan, once those settings are written that the plan lets us write.
fn lacking(plan: &Plan, settings: &mut HostSettings) -> Vec<Problem> {
    let problems = conditions::of_host(plan);
    if plan.host == HostPolicy::Tell {
        return problems;
    }
    let noted = settings.note(&problems, Instant::now());
    if settings.write(&noted).is_empty() { problems } else { conditions::of_host(plan) }
}

/// Time between two looks at a host that is not ready.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Waits until the host lacks nothing that a start fails without, at most this long: at boot interfaces and addresses come one by
/// one.
pub(crate) fn await_host(plan: &Plan, patience: Duration, settings: &mut HostSettings) {
    let deadline = Instant::now() + patience;
    let mut told = Vec::new();
    while Instant::now() < deadline {
        let lacking = lacking(plan, settings).into_iter().filter(conditions::refuses_start);
        let lacking: Vec<_> = lacking.map(|problem| problem.text).collect();
        if lacking.is_empty() {
            break;
        }
        if lacking != told {
            log::warn!("waiting for the host, {} s at most: {}", patience.as_secs(), lacking.join("; "));
            told = lacking;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
