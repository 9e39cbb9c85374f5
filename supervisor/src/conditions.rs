//! Everything on this host that keeps packets from being balanced: one list, by which a start is refused, an instance finds its
//! verdict, and `loaded doctor` reports.

use crate::fastpath;
use loaded_config::plan::Plan;
use loaded_control::{ConditionStatus, Effect};
use loaded_host::{HostReport, Problem, Severity, check_discovery};
use loaded_sandbox::{CHROOT, check_chroot_dir};
use std::path::Path;

/// What stands in the way of this plan now, but for firewalls of others (`loaded_firewall`).
#[must_use]
pub fn of_host(plan: &Plan) -> Vec<Problem> {
    let mut problems = HostReport::of(plan).problems;
    problems.extend(check_discovery(plan));
    problems.extend(chroot());
    problems
}

/// What is wrong with the directory that children are locked in.
#[must_use]
pub fn chroot() -> Option<Problem> {
    let error = check_chroot_dir(Path::new(CHROOT)).err()?;
    Some(Problem::new("chroot", Severity::NoStart, error.to_string()))
}

/// Why there would be no kernel path here, and all packets would go by the queue: tried as at a start. Needs the rights of one.
///
/// # Errors
/// What the kernel refuses.
pub fn kernel_path() -> Result<(), String> {
    fastpath::trial().map_err(|error| error.to_string())
}

/// Whether no instance can start so, whoever serves already.
#[must_use]
pub fn refuses_start(problem: &Problem) -> bool {
    matches!(problem.severity, Severity::Fatal | Severity::NoStart)
}

/// What a problem does to the packets of an instance that runs.
#[must_use]
pub fn effect(severity: Severity) -> Effect {
    match severity {
        Severity::Fatal => Effect::Stops,
        // It serves, but cannot replace what dies or find what it looks for.
        Severity::NoStart | Severity::Impairing => Effect::Impairs,
        Severity::Warning | Severity::Unknown => Effect::Note,
    }
}

/// A problem as a condition of an instance that runs.
#[must_use]
pub fn of_problem(problem: &Problem) -> ConditionStatus {
    ConditionStatus {
        name: problem.kind.to_owned(),
        effect: effect(problem.severity),
        service: problem.service.clone(),
        family: problem.family,
        text: problem.text.clone(),
        mend: problem.mend.clone(),
    }
}
