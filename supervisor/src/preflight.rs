//! What is checked before anything is changed: cores, kernel, host.

use crate::Error;
use loaded_config::plan::Plan;
use loaded_host::{Problem, Severity, check_discovery as discovery_check, host_check};
use loaded_sandbox::{KernelSupport, SandboxRequirement};
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

/// Warns of settings of the host that keep packets from passing; refuses where none would pass.
pub(crate) fn check_host(plan: &Plan) -> Result<(), Error> {
    weigh(host_check(plan))
}

/// Refuses to search for backends in a network that this host is not in.
pub(crate) fn check_discovery(plan: &Plan) -> Result<(), Error> {
    weigh(discovery_check(plan))
}

/// Waits until nothing on the host keeps packets from passing, at most this long: at boot interfaces, addresses and routes come one
/// by one.
pub(crate) fn await_host(plan: &Plan, patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut told = Vec::new();
    while Instant::now() < deadline {
        let problems = host_check(plan).into_iter().chain(discovery_check(plan));
        let lacking: Vec<_> = problems.filter(|p| p.severity != Severity::Warning).map(|p| p.text).collect();
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

/// Time between two looks at a host that is not ready.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Logs warnings; an error names everything that is fatal.
fn weigh(problems: Vec<Problem>) -> Result<(), Error> {
    for problem in problems.iter().filter(|p| p.severity != Severity::Fatal) {
        log::warn!("{problem}");
    }
    let fatal = problems.iter().filter(|p| p.severity == Severity::Fatal);
    let fatal: Vec<_> = fatal.map(ToString::to_string).collect();
    if fatal.is_empty() { Ok(()) } else { Err(Error::Host(fatal.join("\nloaded: error: "))) }
}
