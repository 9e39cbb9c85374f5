//! Everything on this host that keeps packets from being balanced: one list, by which a start is refused, an instance finds its
//! verdict, and `loaded doctor` reports.

use crate::fastpath;
use loaded_config::plan::{HostPolicy, Plan};
use loaded_control::{ConditionStatus, Effect};
use loaded_host::{HostReport, Problem, Setting, Severity, check_discovery};
use loaded_sandbox::{CHROOT, check_chroot_dir};
use nix::unistd::{AccessFlags, access};
use std::path::Path;

/// What stands in the way of this plan now, but for firewalls of others (`loaded_firewall`).
#[must_use]
pub fn of_host(plan: &Plan) -> Vec<Problem> {
    let mut problems = match HostReport::of(plan) {
        Ok(report) => report.problems,
        Err(error) => vec![Problem::new("host", Severity::Unknown, format!("this host cannot be looked at: {error}"))],
    };
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

/// Programs at tcx ingress of an interface, each with its name and id; none where this kernel or this process cannot tell.
/// Needs CAP_SYS_ADMIN.
#[must_use]
pub fn tcx_programs(interface: &str) -> Vec<String> {
    loaded_fastpath::load::tcx_programs(interface)
}

/// Whether no instance can start so, whoever serves already.
#[must_use]
pub fn refuses_start(problem: &Problem) -> bool {
    matches!(problem.severity, Severity::Fatal | Severity::NoStart)
}

/// The same for whoever only looks: what a start would mend by itself is no more than a warning.
#[must_use]
pub fn before_a_start(problem: Problem, policy: HostPolicy) -> Problem {
    let can_be_set = |setting: &Setting| access(&setting.path(), AccessFlags::W_OK).is_ok();
    if policy == HostPolicy::Tell || problem.settings.is_empty() || !problem.settings.iter().all(can_be_set) {
        return problem;
    }
    let text = format!("{} (host = \"set\": a start sets what is needed)", problem.text);
    Problem { severity: problem.severity.max(Severity::Warning), text, ..problem }
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
