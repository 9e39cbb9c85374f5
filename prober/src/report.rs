//! Reports to the supervisor. They are not queued while its link is full: what it is owed is always the current state
//! of each backend.

use crate::clock::{MILLISECOND, SECOND};
use crate::discovery::Discovery;
use crate::pending::PendingSet;
use crate::target::Target;
use loaded_ipc::{FromProber, LinkError, ProberSupervisorLink};

/// Microseconds between two reported measurements of a backend.
const MEASURED_EVERY: u64 = 5 * SECOND;

/// A check that begins so many microseconds after it was due is late.
const LATE: u64 = 250 * MILLISECOND;

/// What the supervisor is still owed.
#[derive(Debug)]
pub(crate) struct Reports {
    alive: bool,
    /// Checks that began late, and by how many milliseconds the latest did.
    late: (u32, u32),
    changed: PendingSet,
    measured: PendingSet,
    full: bool,
}

impl Reports {
    pub(crate) fn new(targets: usize) -> Self {
        let (changed, measured) = (PendingSet::new(targets), PendingSet::new(targets));
        Self { alive: false, late: (0, 0), changed, measured, full: false }
    }

    /// A sign of life is due; called once a second.
    pub(crate) fn alive(&mut self) {
        self.alive = true;
    }

    /// Notes how long after it was due a check began, microseconds.
    pub(crate) fn began(&mut self, delay: u64) {
        if delay > LATE {
            let (count, longest) = self.late;
            let delay = u32::try_from(delay / MILLISECOND).unwrap_or(u32::MAX);
            self.late = (count.saturating_add(1), longest.max(delay));
        }
    }

    /// Notes the result of a target's check.
    pub(crate) fn result(&mut self, place: usize, target: &Target, changed: bool, now: u64) {
        if changed {
            self.changed.set(place);
            self.measured.clear(place);
        } else if now >= target.measure_from && !self.changed.has(place) {
            self.measured.set(place);
        }
    }

    /// Whether the link is full, so that the loop must wait until it is writable.
    pub(crate) fn full(&self) -> bool {
        self.full
    }

    /// The link is writable again.
    pub(crate) fn writable(&mut self) {
        self.full = false;
    }

    /// Sends what is owed until the link is full, changes before measurements.
    ///
    /// If the link has ended; a full link is no error.
    pub(crate) fn flush(
        &mut self,
        link: &ProberSupervisorLink,
        targets: &mut [Target],
        discovery: &mut Discovery,
        now: u64,
    ) -> Result<(), LinkError> {
        let (late, delay) = self.late;
        if self.alive && self.say(link, &FromProber::Alive { late, delay })? {
            (self.alive, self.late) = (false, (0, 0));
        }
        while let Some(place) = self.changed.next() {
            if let Some(Target { backend, health, cause, latency, reported, .. }) = targets.get_mut(place) {
                let (backend, up, cause, latency) = (*backend, health.up(), *cause, *latency);
                // It may have gone down and come up again, or the reverse, while the link was full.
                let word = match *reported == Some(up) {
                    false => FromProber::Changed { backend, up, cause, latency },
                    true => FromProber::Measured { backend, cause, latency },
                };
                if !self.say(link, &word)? {
                    return Ok(());
                }
                *reported = Some(up);
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

    /// Returns whether it was sent.
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
