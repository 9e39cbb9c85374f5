//! The state of one backend: what the operator, the checks and packets say of it, what its balancer is told, and its slow start.

use super::flags::{BackendFlags, bit};
use super::passive::PassiveHealth;
use crate::balance::Standing;
use crate::setup::Setup;
use crate::wire::Family;
use loaded_ipc::{Admin, BackendIndex, Passive};

/// Steps in which a slow start raises a backend's share, the full share, and the share it begins with, about a tenth.
const STEPS: u64 = 32;
pub(super) const FULL: u16 = 1024;
const FIRST: u16 = FULL / 10;

/// One backend.
#[derive(Debug)]
pub(super) struct TrackedBackend {
    pub(super) service: u16,
    pub(super) family: Family,
    pub(super) backup: bool,
    pub(super) admin: Admin,
    pub(super) up: bool,
    /// The operator has named it, or a check has passed.
    pub(super) confirmed: bool,
    /// When it came up, milliseconds, while its slow start lasts.
    pub(super) slow_since: Option<u64>,
    /// Of its weight: 0..=[`FULL`].
    pub(super) share: u16,
    /// Limits of passive observation; `None`: it is not observed.
    pub(super) passive: Option<Passive>,
    /// How long its slow start lasts, milliseconds.
    pub(super) slow_start: u64,
    pub(super) health: PassiveHealth,
}

impl TrackedBackend {
    /// Tells the balancer its standing.
    pub(super) fn tell_balancer(&self, setup: &mut Setup, backend: u16) {
        let Self { confirmed, up, .. } = *self;
        let (enabled, ejected) = (self.admin == Admin::Enabled, self.health.is_ejected());
        if let Some(pool) = setup.pool(self.service, self.family) {
            pool.balancer.set_standing(BackendIndex(backend), Standing { enabled, confirmed, up, ejected });
        }
    }

    /// Gives it the share that its slow start has reached; returns whether that has changed.
    pub(super) fn progress_slow_start(&mut self, setup: &mut Setup, backend: u16, now: u64) -> bool {
        let share = match self.slow_since.map(|began| now.saturating_sub(began)) {
            Some(age) if age < self.slow_start => {
                let step = u16::try_from(age * STEPS / self.slow_start.max(1)).unwrap_or(u16::MAX);
                step.saturating_mul(FULL / 32).max(FIRST)
            }
            _ => {
                self.slow_since = None;
                FULL
            }
        };
        let changed = std::mem::replace(&mut self.share, share) != share;
        if changed && let Some(pool) = setup.pool(self.service, self.family) {
            pool.balancer.set_share(BackendIndex(backend), share);
        }
        changed
    }

    pub(super) fn bits(&self) -> u8 {
        let timed = self.slow_since.is_some() || self.health.is_ejected();
        bit(BackendFlags::SUSPECTED, self.health.is_pending()) | bit(BackendFlags::TIMED, timed)
    }
}
