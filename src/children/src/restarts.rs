//! When a child that has died is started again, and how often that was.

use crate::child::{Death, DeathReport};
use std::time::{Duration, Instant};

/// A child that has lived this long is started again at once: at most one restart a second.
const HEALTHY_LIFE: Duration = Duration::from_secs(1);
/// The wait after the first short life, doubled with each further one.
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait, after six doublings: a child that always dies is started about nine times a minute.
const LONGEST_BACKOFF: Duration = Duration::from_millis(6400);
/// The wait after a start that failed because the machine was short of descriptors, processes or memory.
const SHORTAGE_WAIT: Duration = Duration::from_millis(500);

/// When a child that has died is started again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) due: Instant,
    pub(crate) short_lives: u32,
}

/// The lives of a child of which there is one process at a time: prober or exporter.
#[derive(Debug)]
pub struct Lives {
    pub(crate) backoff: Backoff,
    /// Starts after a death.
    pub restarts: u64,
    /// Kills by its own sandbox.
    pub sandbox_kills: u64,
    /// It has died since it was last started.
    died: bool,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { due: Instant::now(), short_lives: 0 }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.due <= Instant::now()
    }

    /// After a life of this length that somebody else has ended, which says nothing about the next one.
    pub(crate) fn after_a_kill(&mut self, lived: Duration) {
        self.due = Instant::now() + if lived < HEALTHY_LIFE { FIRST_BACKOFF } else { Duration::ZERO };
    }

    /// After a start that failed. That says nothing about the child, so it counts as no short life and the wait does not grow:
    /// packets wait as long.
    pub(crate) fn after_failed_start(&mut self) {
        self.due = Instant::now() + SHORTAGE_WAIT;
    }

    /// After a life of this length.
    pub(crate) fn after(&mut self, lived: Duration) {
        self.short_lives = if lived < HEALTHY_LIFE { self.short_lives.saturating_add(1) } else { 0 };
        let wait = match self.short_lives {
            0 => Duration::ZERO,
            n => FIRST_BACKOFF.saturating_mul(1 << (n - 1).min(6)).min(LONGEST_BACKOFF),
        };
        self.due = Instant::now() + wait;
    }
}

impl Lives {
    pub(crate) fn new() -> Self {
        Self { backoff: Backoff::new(), restarts: 0, sandbox_kills: 0, died: false }
    }

    pub(crate) fn note_start(&mut self) {
        self.restarts += u64::from(std::mem::take(&mut self.died));
    }

    /// Its death; none if we have `stopped` it, for then the next one starts at once.
    pub(crate) fn note_death(&mut self, role: &str, death: Death, stopped: bool) -> Option<DeathReport> {
        if stopped && !death.by_sandbox {
            self.backoff = Backoff::new();
            return None;
        }
        self.died = true;
        self.backoff.after(death.lived);
        self.sandbox_kills += u64::from(death.by_sandbox);
        Some(DeathReport::new(role.to_owned(), death))
    }

    /// How long until a dead one is started again.
    pub fn wait(&self) -> Duration {
        self.backoff.due.saturating_duration_since(Instant::now())
    }
}
