//! What an instance writes down for the supervisor after it.

use super::Instance;
use crate::children::adoption;
use crate::fastpath::FastPath;
use crate::handover::snapshot::{FORMAT, Snapshot};
use crate::roster::monotonic;
use loaded_control::Control;
use loaded_ipc::counter_layout;
use loaded_sandbox::Role;
use loaded_sandbox::policy::print;
use loaded_table::LAYOUT_VERSION;
use std::borrow::Cow;
use std::path::Path;

impl Instance {
    /// Writes a snapshot if something has changed, but not for each of a prober's changes of mind.
    pub(super) fn write_snapshot_if_due(&mut self) {
        if self.recorder.is_due(&self.children.by_queue()) {
            self.write_snapshot();
        }
    }

    /// Writes down everything that another supervisor has to know to go on.
    pub(super) fn write_snapshot(&mut self) {
        let snapshot = Snapshot {
            format: FORMAT,
            tables: LAYOUT_VERSION,
            keys: self.children.workers.iter().map(|worker| (worker.owner.queue(), worker.memory.keys())).collect(),
            counters: counter_layout().into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            at: monotonic::clock(),
            adoptable: adoption::is_possible().is_ok(),
            sandbox: print(Role::Supervisor).into(),
            control: self.operator.control.as_ref().map_or(Path::new(""), Control::path).into(),
            queues: self.children.workers.iter().map(|worker| (worker.core, worker.owner.queue())).collect(),
            workers: self.children.by_queue().into(),
            steering: self.fixed.steering,
            plan: Cow::Borrowed(&self.current.plan),
            roster: Cow::Borrowed(&self.current.roster),
            history: Cow::Borrowed(&self.operator.history),
            kernel_path: self.host.fast.as_ref().map(FastPath::handover),
            maps: self.children.mapped().into(),
            metrics: self.children.exporter.socket().map(|(_, address)| address.clone()),
            clsacts: self.host.clsacts().into(),
            amendments: Cow::Borrowed(&self.current.amendments),
            settings: self.host.settings.written().into(),
        };
        if let Err(error) = self.recorder.write(&snapshot) {
            log::error!("write the journal: {error}; will try again");
        }
    }
}
