//! USR1: each worker's counters as one line in the log.

use crate::children::worker::Worker;
use crate::instance::Instance;
use loaded_ipc::{Fault, Outcome, Pressure, RECEIVED};
use loaded_queue::{QueueState, queue_owners};
use std::fmt::Write;

impl Instance {
    /// Logs the counters of each worker.
    pub(in crate::instance) fn report(&self) {
        let queues = queue_owners().unwrap_or_default();
        for worker in &self.children.workers {
            let queue = queues.iter().find(|state| state.queue == worker.owner.queue());
            // Asked for, so it is an event: a notice, which only the levels "error" and "warning" leave out.
            log::info!(event = "instance"; "{}", line(worker, queue));
        }
    }
}

/// `worker[0] core 1 queue 1: received=10 forwarded=6 …`: every outcome, fault and pressure that occurred, and the
/// kernel's own numbers. The outcomes add up to `received`.
fn line(worker: &Worker, queue: Option<&QueueState>) -> String {
    let seen = |index| worker.memory.seen.get(index).unwrap_or(0);
    let mut line =
        format!("{} core {} queue {}: received={}", worker.name(), worker.core, worker.owner.queue(), seen(RECEIVED));
    let outcomes = Outcome::ALL.iter().map(|outcome| (outcome.label(), outcome.index()));
    let faults = Fault::ALL.iter().map(|fault| (fault.label(), fault.index()));
    let pressure = Pressure::ALL.iter().map(|pressure| (pressure.label(), pressure.index()));
    for (label, count) in outcomes.chain(faults).chain(pressure).map(|(label, index)| (label, seen(index))) {
        if count > 0 {
            // Writing to a string does not fail.
            let _ = write!(line, " {label}={count}");
        }
    }
    if let Some(queue) = queue {
        let QueueState { waiting, dropped_full, dropped_socket, .. } = queue;
        let _ = write!(line, "; kernel: waiting={waiting} queue_full={dropped_full} socket_full={dropped_socket}");
    }
    line
}
