//! What the supervisor and a worker's processes say to each other: never waiting, and never believing more than was asked.

use super::Worker;
use crate::child::ChildSpec;
use loaded_ipc::{Admin, BackendIndex, Explained, FlowsMeant, Membership, Question, RECEIVED, ToWorker};
use loaded_queue::QueueState;
use std::time::Instant;

/// The process is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

impl Worker {
    /// Tells the worker which backends are up, on behalf of a prober that has died. The link holds some 200 messages; the next
    /// prober sends them all again.
    pub(crate) fn remind(&self, generation: u64, health: impl Iterator<Item = (BackendIndex, bool)>) {
        for (backend, up) in health {
            if self.membership.0.send(&Membership { generation, backend, up }).is_err() {
                return;
            }
        }
    }

    /// Tells the serving process which of the operator's wishes have changed. They are in ascending order of the backends;
    /// `number` is that of this state of them, which it is told once.
    pub fn sync(&mut self, number: u64, wishes: impl Iterator<Item = (BackendIndex, Admin)>) {
        let serving = self.serving.as_mut().filter(|serving| serving.is_serving() && serving.synced != number);
        let Some(serving) = serving else { return };
        serving.synced = number;
        let mut all = serving.told.iter_mut().peekable();
        for (backend, admin) in wishes {
            // It is told only of backends that its own configuration has.
            while all.next_if(|(known, _)| **known < backend).is_some() {}
            let Some((_, told)) = all.next_if(|(known, _)| **known == backend) else { continue };
            if *told != admin {
                *told = admin;
                serving.child.tell(ToWorker::Admin { backend, admin });
            }
        }
    }

    /// Asks the serving process; [`Worker::answers`] has its answer, should it give one.
    ///
    /// # Errors
    /// Why it cannot be asked now, for the operator.
    pub fn ask(&mut self, id: u32, question: Question) -> Result<(), String> {
        let name = self.name();
        let serving = self.serving.as_mut().filter(|serving| serving.is_serving() && !serving.child.has_ended());
        let Some(serving) = serving else { return Err(format!("{name} is not serving now; ask again in a moment")) };
        if !serving.questions.asked(id) {
            return Err(format!("{name} has not answered earlier questions yet; loaded status shows how it is"));
        }
        serving.child.tell(ToWorker::Explain { id, question });
        // What the link does not take now is sent later; an error shows at the next talk.
        let _ = serving.child.flush();
        Ok(())
    }

    /// The answers of the serving process: number of the question, generation of the answer, answer.
    pub fn answers(&mut self) -> Vec<(u32, u64, Explained)> {
        let Some(serving) = &mut self.serving else { return Vec::new() };
        let generation = serving.generation;
        serving.questions.answers().map(|(id, explained)| (id, generation, explained)).collect()
    }

    /// Tells the serving process to end flows; [`Worker::ended`] says how it goes on. `false`: it cannot be told now,
    /// perhaps because it is still at an order before.
    pub fn end_flows(&mut self, id: u32, flows: FlowsMeant) -> bool {
        let serving = self.serving.as_mut().filter(|serving| serving.is_serving() && !serving.child.has_ended());
        let Some(serving) = serving else { return false };
        if !serving.ending.ordered(id) {
            return false;
        }
        serving.child.tell(ToWorker::End { id, flows });
        // What the link does not take now is sent later; an error shows at the next talk.
        let _ = serving.child.flush();
        true
    }

    /// How many flows it has ended by this order; `Ok(None)`: it is not done.
    ///
    /// # Errors
    /// The process that was told is not there any more.
    pub fn ended(&self, id: u32) -> Result<Option<u32>, Gone> {
        self.serving.as_ref().and_then(|serving| serving.ending.of(id, self.memory.flow_places())).ok_or(Gone)
    }

    /// What processes have said of tables that they found damaged, and have emptied.
    pub fn damages(&mut self) -> Vec<String> {
        self.serving.as_mut().map(|serving| std::mem::take(&mut serving.damages)).unwrap_or_default()
    }

    /// Kills the serving process, whose answer cannot be true; its death is then noticed like any other.
    pub fn condemn(&mut self, problem: &str) {
        if let Some(serving) = self.serving.as_mut().filter(|serving| !serving.child.has_ended()) {
            log::error!("worker[{}]: {problem}; killing it", self.position);
            serving.child.condemn(problem.to_owned());
        }
    }

    /// Sends and hears what is possible without waiting. A process that is out of step is killed; its death is then noticed
    /// like any other.
    pub fn talk(&mut self, spec: &ChildSpec) {
        let name = self.name();
        let was_ready = self.is_ready();
        self.release_if_previous_ended();
        for (process, goes_at_once) in [(&mut self.serving, self.previous.have_ended()), (&mut self.next, false)] {
            let Some(process) = process.as_mut().filter(|process| !process.child.has_ended()) else { continue };
            if let Err(problem) = process.talk(spec, goes_at_once) {
                log::error!("{name}: {problem}; killing it");
                process.child.condemn(problem);
            }
        }
        if let Some(serving) = self.serving.as_ref().filter(|serving| serving.is_serving() && !was_ready) {
            self.settled = serving.generation;
            if self.died.is_some() && self.restarts > 0 {
                log::info!("{name}: ready again, as pid {}", serving.child.pid());
            }
        }
    }

    /// Looks whether it answers its queue. A hung process is killed; its death is then noticed like any other.
    pub fn examine(&mut self, state: &QueueState, now: Instant) {
        if let Some(losses) = self.losses.since_last(state, now) {
            log::warn!("{}: {losses}", self.name());
        }
        let received = self.memory.seen.get(RECEIVED).unwrap_or(0);
        let name = self.name();
        let serving = self.serving.as_mut().filter(|serving| serving.is_serving() && !serving.child.has_ended());
        let Some(serving) = serving else { return };
        if let Some(still) = serving.pulse.check(state, received, now) {
            let problem = format!("hung: {} packets wait, none was answered for {still:.1?}", state.waiting);
            log::error!("{name}: {problem}; killing it");
            serving.child.condemn(problem);
        }
    }
}
