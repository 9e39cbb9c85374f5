//! What is checked before anything is changed: cores, kernel, host.

use crate::Error;
use crate::conditions;
use loaded_config::plan::Plan;
use loaded_host::Problem;
use loaded_sandbox::{KernelSupport, SandboxRequirement};

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

/// Warns of what keeps packets from passing; refuses where none would pass, and names everything that is fatal. Firewalls of
/// others come and go, so they refuse nothing; the verdict tells of them.
pub(crate) fn check_host(plan: &Plan) -> Result<(), Error> {
    let (fatal, others): (Vec<_>, Vec<_>) = conditions::of_host(plan).into_iter().partition(conditions::refuses_start);
    for problem in others {
        log::warn!("{problem}");
    }
    let fatal: Vec<_> = fatal.iter().map(Problem::to_string).collect();
    if fatal.is_empty() { Ok(()) } else { Err(Error::Host(fatal.join("\nloaded: error: "))) }
}
