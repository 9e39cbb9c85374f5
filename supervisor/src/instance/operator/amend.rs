//! Backends that are added, removed or weighed at run time. It is a reload of files that are not there: what was ordered is laid
//! over the texts that the instance serves by, not over what stands in the files now, and workers of the next generation are
//! prepared for that. The answer comes when they serve.

use crate::Error;
use crate::instance::Instance;
use crate::instance::change::phase::{Phase, Trigger};
use loaded_config::plan::diff;
use loaded_config::{Act, LoadedPlan, Order, amend, saved};
use loaded_control::{AmendAction, Answer, FileChange, Reply};
use loaded_ipc::Destination;
use std::mem;

/// Maximum number of orders that wait for a change under way. Each has a client, who may have gone.
const MAX_WAITING: usize = 64;

impl Instance {
    /// Takes an order, which is carried out when no other change is under way.
    pub(super) fn order(&mut self, service: String, act: AmendAction, backend: Destination) -> Answer {
        if matches!(self.phase, Phase::Upgrading(_)) {
            return Reply::error("an upgrade is under way, and nothing was changed; ask again in a moment").into();
        }
        if self.operator.orders.waiting.len() >= MAX_WAITING {
            return Reply::error(format!("{MAX_WAITING} changes wait already; ask again in a moment")).into();
        }
        let act = match act {
            AmendAction::Add { weight, backup } => Act::Add { weight, backup },
            AmendAction::Remove => Act::Remove,
            AmendAction::Weight(weight) => Act::Weight(weight),
        };
        let number = self.operator.next_number();
        self.operator.orders.waiting.push((number, Order { service, backend, act }));
        Answer::AfterChange(number)
    }

    /// Begins what was ordered, all in one change, unless another change is under way. A wrong order is refused alone.
    pub(in crate::instance) fn begin_ordered(&mut self) {
        if self.operator.orders.waiting.is_empty() || self.is_changing() {
            return;
        }
        let mut next = self.current.loaded();
        for (number, order) in mem::take(&mut self.operator.orders.waiting) {
            let made = amend(&next.sources, &self.fixed.options.overrides, &next.amendments, &order);
            match made {
                Ok(made) => {
                    next = made;
                    self.operator.orders.begun.push(number);
                }
                Err(error) => {
                    let text = format!("refused, nothing has changed: {}", error.reports().join("\n"));
                    self.operator.settle(number, &Reply::error(text));
                }
            }
        }
        if let Err(error) = self.begin_amended(next) {
            self.refuse_ordered(&error.to_string());
        }
    }

    fn begin_amended(&mut self, next: LoadedPlan) -> Result<(), Error> {
        let changes: Vec<_> = diff(&self.current.plan, &next.plan).iter().map(ToString::to_string).collect();
        if changes.is_empty() {
            self.conclude_ordered(&["nothing changes".to_owned()]);
            return Ok(());
        }
        self.check_next(&next.plan)?;
        self.begin_reconfiguration(next, Trigger::Amendment, changes)
    }

    /// What was ordered is in force.
    pub(in crate::instance) fn conclude_ordered(&mut self, changes: &[String]) {
        let reply = Reply::Done { lines: changes.to_vec() };
        for number in mem::take(&mut self.operator.orders.begun) {
            self.operator.settle(number, &reply);
        }
    }

    /// What was ordered cannot be done.
    pub(in crate::instance) fn refuse_ordered(&mut self, why: &str) {
        for number in mem::take(&mut self.operator.orders.begun) {
            self.operator.settle(number, &Reply::error(format!("refused, nothing has changed: {why}")));
        }
    }

    /// What was changed at run time, and the file that has to say so.
    pub(super) fn unsaved(&self) -> Reply {
        let lines = self.current.amendments.iter().map(ToString::to_string).collect();
        match saved(&self.current.sources, &self.fixed.options.overrides, &self.current.amendments) {
            Ok(change) => {
                let file =
                    change.map(|change| FileChange { path: change.path, before: change.before, after: change.after });
                Reply::Unsaved { lines, file }
            }
            Err(error) => Reply::error(format!("nothing was saved: {error}")),
        }
    }

    /// HUP, asked for on the control socket.
    pub(super) fn reload(&mut self) -> Reply {
        self.ask_reload();
        let ended = self.operator.last_reload.as_ref().filter(|_| !self.is_changing());
        match ended {
            Some(last) if !last.ok => Reply::error(format!("reload refused, everything stays as it is: {}", last.text)),
            Some(last) => Reply::Done { lines: vec![format!("reload: {}", last.text)] },
            None => Reply::Done { lines: vec!["reload: under way".to_owned()] },
        }
    }
}
