//! What is looked at before anything is changed: cores, kernel, host.

use crate::Error;
use loaded_config::plan::Plan;
use loaded_host::{Problem, Severity, check_discovery as discovery_check, host_check};
use loaded_sandbox::{KernelSupport, SandboxRequirement};

/// The cores this process may use.
pub(crate) fn available_cores() -> Result<Vec<u16>, Error> {
    loaded_host::available_cores().map_err(|source| Error::Start { act: "read the usable cores", source })
}

/// What this kernel offers the sandbox. Names the layers it lacks; refuses below the floor.
pub(crate) fn check_kernel(floor: SandboxRequirement) -> Result<KernelSupport, Error> {
    let level = KernelSupport::probe();
    for layer in level.absent() {
        log::warn!("this kernel lacks {}: {}", layer.name(), layer.consequence());
    }
    floor.check(&level)?;
    Ok(level)
}

/// Names what of the host's set-up keeps packets from passing; refuses where none would.
pub(crate) fn check_host(plan: &Plan) -> Result<(), Error> {
    weigh(host_check(plan))
}

/// Refuses to look for backends where this host is not.
pub(crate) fn check_discovery(plan: &Plan) -> Result<(), Error> {
    weigh(discovery_check(plan))
}

fn weigh(problems: Vec<Problem>) -> Result<(), Error> {
    for problem in problems.iter().filter(|p| p.severity == Severity::Warning) {
        log::warn!("{}", problem.text);
    }
    let fatal: Vec<_> = problems.into_iter().filter(|p| p.severity == Severity::Fatal).map(|p| p.text).collect();
    if fatal.is_empty() { Ok(()) } else { Err(Error::Host(fatal.join("\nloaded: error: "))) }
}
