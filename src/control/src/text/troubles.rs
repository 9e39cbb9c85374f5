//! What the operator must know first.

use crate::figures::elapsed;
use crate::health::{ConditionStatus, Effect};
use crate::status::{BackendState, BackendStatus, LateChecks, Process, ServiceState, ServiceStatus, Status};
use std::collections::BTreeMap;

/// Lines shown about backends in trouble; the tables below list all of them.
const MOST_TROUBLES: usize = 12;
/// Seconds after which late checks are no longer shown; metrics still count them.
const LATE_FOR: u64 = 60;

/// Conditions that have lines of their own, of rules, processes and services.
const BELOW: [&str; 4] = ["rules_missing", "no_worker", "no_backend", "checks_not_believed"];

/// What is wrong, the worst first, a line each.
pub(super) fn troubles(status: &Status) -> Vec<String> {
    let mut lines = security_events(status);
    lines.extend(damaged_tables(status));
    if !status.rules.missing.is_empty() {
        lines.push(format!("rules are missing, so packets bypass the workers: {}", status.rules.missing.join(", ")));
    }
    let told = |condition: &&ConditionStatus| !BELOW.contains(&condition.name.as_str());
    let counts = status.conditions.iter().filter(told).filter(|condition| condition.effect != Effect::Note);
    lines.extend(counts.map(ToString::to_string));
    let refused = status.conditions.iter().filter(|condition| condition.name == "replies_refused");
    lines.extend(refused.map(ToString::to_string));
    lines.extend(status.conditions.iter().filter(|condition| condition.is_shown_note()).map(ToString::to_string));
    lines.extend(late_checks(status));
    let absent = status.processes.iter().filter(|process| !process.serving);
    lines.extend(absent.map(|Process { name, state, .. }| format!("{name}: {state}")));
    for state in [ServiceState::AllDown, ServiceState::Panic, ServiceState::Backup] {
        let services = status.services.iter().filter(|service| service.state == state);
        lines.extend(services.map(service_trouble));
    }
    lines.extend(unrepeated(&status.nf_repeat));
    if let Some(reload) = status.last_reload.as_ref().filter(|reload| !reload.ok) {
        let ago = elapsed(status.now.saturating_sub(reload.at));
        lines.push(format!("reload {ago} ago failed, generation {} stays in use: {}", status.generation, reload.text));
    }
    if let Some(refused) = &status.refused_upgrade {
        let ago = elapsed(status.now.saturating_sub(refused.at));
        lines.push(format!("upgrade {ago} ago refused, pid {} continues: {}", status.pid, refused.text));
    }
    lines.extend(of_backends(status));
    lines
}

/// Why workers have ejected a backend.
pub(super) fn ejections(backend: &BackendStatus) -> String {
    let each = backend.ejected_by.iter().map(|ejection| format!("worker {}: {}", ejection.worker, ejection.cause));
    format!("ejected by passive health ({})", each.collect::<Vec<_>>().join(", "))
}

fn security_events(status: &Status) -> Vec<String> {
    // Of one name there may be two during a change, with the same figures.
    let killed = status.processes.iter().filter(|process| process.sandbox_kills > 0);
    let killed: BTreeMap<_, _> = killed.map(|process| (&process.name, process.sandbox_kills)).collect();
    let line = |(name, count): (&String, u64)| {
        let plural = if count == 1 { "" } else { "S" };
        format!("{name}: {count} SECURITY EVENT{plural}: killed by its own sandbox, see loaded history")
    };
    killed.into_iter().map(line).collect()
}

fn damaged_tables(status: &Status) -> Option<String> {
    let damaged = status.faults.get("table_damaged").copied().filter(|count| *count > 0)?;
    let (table, was) = if damaged == 1 { ("table", "was") } else { ("tables", "were") };
    Some(format!("{damaged} {table} of workers {was} damaged, and emptied: see loaded history"))
}

fn late_checks(status: &Status) -> Option<String> {
    let LateChecks { count, longest_ms, last } = status.late_checks;
    last.filter(|last| last.saturating_add(LATE_FOR) >= status.now)?;
    Some(format!(
        "prober: checks begin late, up to {longest_ms} ms after they are due ({count} since the start): failures are found \
         that much later"
    ))
}

fn service_trouble(service: &ServiceStatus) -> String {
    let (state, down) = (service.state, service.families_down());
    let part = state == ServiceState::AllDown && !down.is_empty() && down.len() < service.families().len();
    let part = if part { format!(" for {}", down.concat()) } else { String::new() };
    format!("service {}: {state}{part}", service.name)
}

/// `found`: what the trial of NF_REPEAT has found.
fn unrepeated(found: &str) -> Option<String> {
    match (found, found.strip_prefix("unknown: ")) {
        // An older instance says nothing.
        ("" | "repeats", _) => None,
        (_, Some(why)) => Some(format!(
            "NF_REPEAT: unknown whether this kernel repeats packets ({why}): those that a killed worker held are dropped"
        )),
        (found, None) => Some(format!(
            "NF_REPEAT: this kernel {found} packets instead of repeating them: those that a killed worker held are dropped"
        )),
    }
}

/// Backends that are down or ejected: [`MOST_TROUBLES`] lines, and how many more there are.
fn of_backends(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    for service in &status.services {
        for backend in &service.backends {
            let (place, name) = (backend.destination(), &service.name);
            if backend.state == BackendState::Down && backend.confirmed {
                let ago = elapsed(status.now.saturating_sub(backend.since));
                lines.push(format!("{place} of {name} has been down for {ago}: {}", backend.cause));
            } else if !backend.ejected_by.is_empty() && backend.state != BackendState::Leaving {
                lines.push(format!("{place} of {name}: {}", ejections(backend)));
            }
        }
    }
    let more = lines.len().saturating_sub(MOST_TROUBLES);
    lines.truncate(MOST_TROUBLES);
    if more > 0 {
        lines.push(format!("and {more} more backends"));
    }
    lines
}
