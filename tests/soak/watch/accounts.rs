//! Each packet that the kernel handed out has one outcome.

use crate::instance::Instance;
use crate::report::Report;
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Counted;
use std::collections::BTreeMap;
use std::time::Duration;

/// The most packets that a worker holds (src/queue/src/layout.rs); they are handed out again when it dies.
const BATCH: u64 = 32;
/// Longer than the idle times of the configuration.
const FORGET: Duration = Duration::from_secs(90);
const REST: Duration = Duration::from_secs(5);
/// Counters that stay zero, whatever dies.
const NEVER: [&str; 6] = [
    "verdict_refused",
    "verdict_unsent",
    "verdict_unfit",
    "message_strange",
    "membership_strange",
    "dropped_undecided",
];

/// Judges flows, queues and counters once traffic is over; at most `deaths` workers have died.
pub(crate) fn judge(lab: &Lab, instance: &Instance<'_>, deaths: u64, report: &mut Report) {
    println!("packets and flows, when all is quiet");
    report.verdict(instance.control.comes_to(FORGET, |status| status.flows() == 0), "every flow is forgotten");
    report.verdict(eventually(REST, || lab.waiting() == 0), "no packet waits in a queue");
    // Backends still answer checks, and those answers pass the queues too: the kernel is asked before and after the workers.
    let (before, workers, after) = (handed_out(lab), instance.counters(), handed_out(lab));
    report.verdict(workers.len() == 2, &format!("{} of 2 workers tell their counters", workers.len()));
    for worker in &workers {
        let handed = before.get(&worker.queue).copied().zip(after.get(&worker.queue).copied());
        of_worker(worker, handed, deaths, report);
    }
    let dropped = instance.control.status().map(|status| status.dropped());
    let text = "nothing was dropped by a full queue or socket";
    report.expect(dropped == Some(0), text, || format!("{dropped:?} packets"));
}

/// `handed`: what the kernel had handed out before and after the workers told their counters.
fn of_worker(worker: &Counted, handed: Option<(u64, u64)>, deaths: u64, report: &mut Report) {
    let Counted { queue, received, .. } = worker;
    for label in NEVER.into_iter().filter(|label| worker.of(label) > 0) {
        report.verdict(false, &format!("queue {queue}: {label}={}", worker.of(label)));
    }
    let outcomes = worker.outcomes();
    report.verdict(outcomes == *received, &format!("queue {queue}: {received} packets received, {outcomes} outcomes"));
    let Some((before, after)) = handed else {
        return report.verdict(false, &format!("queue {queue} is not the kernel's"));
    };
    // What a dead worker had counted of packets that are handed out again is counted again.
    let is_good = after >= *received && before.saturating_sub(*received) <= deaths * BATCH;
    let again = i128::from(before) - i128::from(*received);
    let text = format!(
        "queue {queue}: the kernel has handed out {before} to {after}, {again} of them again after {deaths} deaths"
    );
    report.verdict(is_good, &text);
}

/// Packets that the kernel has handed out from each queue (columns: see `rig::queues`).
fn handed_out(lab: &Lab) -> BTreeMap<u16, u64> {
    let number = |line: &str, column: usize| line.split_whitespace().nth(column)?.parse::<u64>().ok();
    let entry = |line: &str| Some((u16::try_from(number(line, 0)?).ok()?, number(line, 7)?));
    lab.queues().lines().filter_map(entry).collect()
}
