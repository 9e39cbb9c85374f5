//! What happens when a worker's process dies: which packets that it held go to the next one, when that starts, and whether it
//! finds the tables as they were.

use super::Worker;
use super::process::{WorkerStage, reason};
use crate::Error;
use crate::child::{Death, DeathReport};
use crate::restarts::Backoff;
use loaded_ipc::{CURRENT_PACKET, decode_packet_id};
use loaded_queue::Orphans;
use loaded_queue::{QueueState, queue_owners};
use std::time::Instant;

/// The tables are emptied once this many processes in a row have died before they served.
const SHORT_LIVES_BEFORE_CLEAR: u32 = 2;

impl Worker {
    /// The processes that have died. Packets that one of them held go to the next process.
    pub fn reap(&mut self) -> Vec<DeathReport> {
        let mut deaths = Vec::new();
        if let Some(death) = self.next.as_mut().and_then(|next| next.child.reap(reason)) {
            self.next = None;
            self.sandbox_kills += u64::from(death.by_sandbox);
            deaths.push(DeathReport::new(format!("next {}", self.name()), death));
        }
        if let Some(process) = &mut self.serving
            && let Some(death) = process.child.reap(reason)
        {
            let stage = process.stage;
            self.serving = None;
            let state = waiting(self.owner.queue());
            if matches!(stage, WorkerStage::Leaving(_)) && death.orderly {
                self.backoff = Backoff::new();
                // A worker that ends in order has answered every packet, and few have arrived since. More than that were
                // held back by it.
                if let Some(state) = state.ok().flatten().filter(|state| state.waiting > self.most_in_a_change) {
                    self.release(Orphans::Repeat, &state);
                }
            } else {
                self.after_death(&death, stage, state);
                self.sandbox_kills += u64::from(death.by_sandbox);
                deaths.push(DeathReport::new(self.name(), death));
            }
            if self.switching {
                self.promote();
            }
        }
        deaths
    }

    /// Releases what the last process held, if that was not possible at its death. Nobody reads the queue now.
    pub(super) fn release_late(&mut self) -> Result<(), Error> {
        let Some(orphans) = self.unreleased else { return Ok(()) };
        if let Some(state) = waiting(self.owner.queue())? {
            self.release(orphans, &state);
        }
        self.unreleased = None;
        Ok(())
    }

    /// Releases the packets that a process has read and not answered. Only while nobody reads the queue.
    pub(crate) fn release(&self, orphans: Orphans, state: &QueueState) {
        // A kernel that does not repeat would let them pass unchanged: to a VIP, and so into this host's own stack.
        let orphans = if self.repeats { orphans } else { Orphans::Drop };
        if let Err(error) = self.owner.release(orphans, state.last_id) {
            log::error!("{}: {error}", self.name());
        }
    }

    /// Decides what becomes of its packets and tables, and when the next process starts.
    fn after_death(&mut self, death: &Death, stage: WorkerStage, state: Result<Option<QueueState>, Error>) {
        // That it did not end in time may be the machine's fault, and says nothing against its packets.
        let orphans = match death.own && !matches!(stage, WorkerStage::Leaving(_)) {
            true => {
                self.suspicion.after(self.memory.seen.get(CURRENT_PACKET).and_then(decode_packet_id), Instant::now())
            }
            false => Orphans::Repeat,
        };
        if !matches!(state, Ok(None)) {
            let what = match orphans {
                Orphans::Repeat => None,
                Orphans::RepeatWithout(_) => {
                    Some("the packet it had in hand is dropped: this is not the first such death lately")
                }
                Orphans::Drop => Some("the packets it held are dropped: one may be the cause"),
            };
            if let Some(what) = what {
                log::error!("{}: {what}", self.name());
            }
        }
        self.unreleased = state.is_err().then_some(orphans);
        match state {
            Ok(Some(state)) => self.release(orphans, &state),
            Ok(None) => {}
            Err(error) => log::error!("{}: {error}; the packets it held are released later", self.name()),
        }
        if death.own {
            self.backoff.after(death.lived);
        } else {
            self.backoff.after_a_kill(death.lived);
        }
        // Empty the tables of a hijacked worker, and tables with which no successor can start. A kill from outside during a
        // start says nothing about the tables.
        let was_ready = matches!(stage, WorkerStage::Serving | WorkerStage::Leaving(_));
        if death.by_sandbox || (!was_ready && death.own && self.backoff.short_lives >= SHORT_LIVES_BEFORE_CLEAR) {
            if let Err(error) = self.memory.clear() {
                log::error!("{}: empty its tables: {error}", self.name());
            }
            // The next worker, already waiting, was told about the old tables.
            if let Some(next) = &mut self.next {
                next.child.tell(self.memory.tables());
            }
        }
        if !matches!(stage, WorkerStage::Leaving(_)) {
            self.died = Some(Instant::now());
        }
    }
}

/// The state of a queue, if packets wait in it.
pub(super) fn waiting(queue: u16) -> Result<Option<QueueState>, Error> {
    Ok(queue_owners()?.into_iter().find(|state| state.queue == queue && state.waiting > 0))
}
