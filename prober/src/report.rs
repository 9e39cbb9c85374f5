//! What the supervisor is told, and what it is still owed because its link was full: the last word on each backend, never a
//! queue of words.

use crate::clock::SECOND;
use crate::discovery::Discovery;
use crate::marks::Marks;
use crate::prober::Target;
use loaded_ipc::{FromProber, LinkError, ProberSupervisorLink};

/// Microseconds between two measurements of a backend.
const MEASURED_EVERY: u64 = 5 * SECOND;

/// What is owed.
#[derive(Debug)]
pub(crate) struct Reports {
    alive: bool,
    changed: Marks,
    measured: Marks,
    full: bool,
}

impl Reports {
    pub(crate) fn new(targets: usize) -> Self {
        Self { alive: false, changed: Marks::new(targets), measured: Marks::new(targets), full: false }
    }

    /// Once a second.
    pub(crate) fn alive(&mut self) {
        self.alive = true;
    }

    /// A check of a target is done.
    pub(crate) fn result(&mut self, place: usize, target: &Target, changed: bool, now: u64) {
        if changed {
            self.changed.set(place);
            self.measured.clear(place);
        } else if now >= target.measure_from && !self.changed.has(place) {
            self.measured.set(place);
        }
    }

    /// Whether to wait for room on the link.
    pub(crate) fn full(&self) -> bool {
        self.full
    }

    /// There is room again.
    pub(crate) fn writable(&mut self) {
        self.full = false;
    }

    /// Says what is owed as far as there is room, changes before measurements.
    ///
    /// # Errors
    /// What the link says, but not that it is full.
    pub(crate) fn flush(
        &mut self,
        link: &ProberSupervisorLink,
        targets: &mut [Target],
        discovery: &mut Discovery,
        now: u64,
    ) -> Result<(), LinkError> {
        if self.alive && self.say(link, &FromProber::Alive)? {
            self.alive = false;
        }
        while let Some(place) = self.changed.next() {
            if let Some(Target { backend, health, cause, latency, told, .. }) = targets.get_mut(place) {
                let (backend, up, cause, latency) = (*backend, health.up(), *cause, *latency);
                // It may have changed and changed back while the link was full.
                let word = match *told == Some(up) {
                    false => FromProber::Changed { backend, up, cause, latency },
                    true => FromProber::Measured { backend, cause, latency },
                };
                if !self.say(link, &word)? {
                    return Ok(());
                }
                *told = Some(up);
            }
            self.changed.clear(place);
        }
        discovery.tell(|service, address| self.say(link, &FromProber::Seen { service, address }))?;
        while let Some(place) = self.measured.next() {
            if let Some(Target { backend, cause, latency, measure_from, .. }) = targets.get_mut(place) {
                let word = FromProber::Measured { backend: *backend, cause: *cause, latency: *latency };
                if !self.say(link, &word)? {
                    return Ok(());
                }
                *measure_from = now + MEASURED_EVERY;
            }
            self.measured.clear(place);
        }
        Ok(())
    }

    /// Whether it could be said.
    fn say(&mut self, link: &ProberSupervisorLink, message: &FromProber) -> Result<bool, LinkError> {
        if self.full {
            return Ok(false);
        }
        match link.send(message) {
            Ok(()) => Ok(true),
            Err(LinkError::Full) => {
                self.full = true;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
