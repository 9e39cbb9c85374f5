//! Lets packets and time act on backends: failed openings, ejections that end, slow starts.

use super::BackendStates;
use super::flags::BackendFlags;
use super::passive::{counts, is_allowed};
use super::tracked::TrackedBackend;
use crate::setup::{ServicePool, Setup};
use crate::time::Now;
use loaded_ipc::{Admin, Cause, Passive};
use loaded_table::Counters;

/// Milliseconds between two ticks.
const TICK_MS: u64 = 20;
/// Maximum number of backends that one tick changes; the others wait for the next. Each costs a walk over its pool.
const MAX_CHANGES: usize = 32;

impl BackendStates {
    /// A SYN goes to this port of a backend. This may eject it, if too many SYNs before were not answered.
    pub(crate) fn opening(&mut self, setup: &mut Setup, counters: &Counters, backend: u16, port: u16, now: Now) {
        if let Some((state, passive)) = self.judged(backend, port) {
            state.health.opening(&passive, now.millis);
            self.update_flags(backend);
            self.judge(setup, counters, backend, now);
        }
    }

    /// A backend has refused a connection to this port.
    pub(crate) fn refused(
        &mut self,
        setup: &mut Setup,
        counters: &Counters,
        (backend, port, cause): (u16, u16, Cause),
        now: Now,
    ) {
        if let Some((state, passive)) = self.judged(backend, port) {
            let enough = state.health.refused(&passive, now.millis);
            self.update_flags(backend);
            if enough {
                self.eject(setup, counters, backend, cause, now);
            }
        }
    }

    /// A backend has sent a packet that is not a reset.
    pub(crate) fn answered(&mut self, backend: u16) {
        if let Some(state) = self.state_mut(backend) {
            state.health.forget();
            self.update_flags(backend);
        }
    }

    /// Forgets what backends have left unanswered: the worker is behind, and their answers may be waiting or lost.
    pub(crate) fn forgive(&mut self) {
        for index in 0..self.flags.len() {
            if let Some(index) = u16::try_from(index).ok().filter(|_| self.flags[index].has(BackendFlags::SUSPECTED)) {
                self.answered(index);
            }
        }
    }

    /// Ends ejections, advances slow starts, and judges openings that stay unanswered. Does nothing if called more often than
    /// every [`TICK_MS`].
    pub(crate) fn tick(&mut self, setup: &mut Setup, counters: &Counters, now: Now) {
        if now.millis < self.next_tick {
            return;
        }
        self.next_tick = now.millis + TICK_MS;
        let mut changes = MAX_CHANGES;
        for index in 0..self.flags.len() {
            if !self.flags[index].has(BackendFlags::TIMED | BackendFlags::SUSPECTED) {
                continue;
            }
            let Ok(index) = u16::try_from(index) else { break };
            changes -= usize::from(self.progress(setup, counters, index, now));
            if changes == 0 {
                break;
            }
        }
    }

    /// Returns whether anything has changed.
    fn progress(&mut self, setup: &mut Setup, counters: &Counters, backend: u16, now: Now) -> bool {
        let Some(state) = self.state_mut(backend) else { return false };
        if state.health.is_hold_over(now.millis) {
            state.health.readmit();
            self.settle(setup, counters, backend);
            return true;
        }
        if state.progress_slow_start(setup, backend, now.millis) {
            self.update_flags(backend);
            return true;
        }
        self.judge(setup, counters, backend, now)
    }

    /// Ejects a backend that leaves too many openings unanswered. Returns whether it has.
    fn judge(&mut self, setup: &mut Setup, counters: &Counters, backend: u16, now: Now) -> bool {
        let overdue = self
            .state(backend)
            .is_some_and(|state| state.passive.is_some_and(|passive| state.health.is_overdue(&passive, now.millis)));
        if overdue {
            self.eject(setup, counters, backend, Cause::ConnectTimeout, now);
        }
        overdue
    }

    /// Ejects a backend, if the limits allow it. If not, it must fail as often again before it can be ejected.
    fn eject(&mut self, setup: &mut Setup, counters: &Counters, backend: u16, cause: Cause, now: Now) {
        let Some(state) = self.state(backend) else { return };
        let Some(pool) = setup.pool(state.service, state.family) else { return };
        let allowed = !state.backup && !pool.balancer.is_panicking() && {
            let (usable, enabled) = pool.balancer.usable();
            is_allowed(usable, enabled, self.ejected(pool))
        };
        let Some(state) = self.state_mut(backend) else { return };
        match state.passive {
            Some(passive) if allowed => {
                state.health.eject(&passive, cause, now.millis);
                self.settle(setup, counters, backend);
            }
            _ => {
                state.health.forget();
                self.update_flags(backend);
            }
        }
    }

    /// How many of the enabled primaries are ejected.
    fn ejected(&self, pool: &ServicePool) -> usize {
        let states = pool.backends.iter().filter_map(|&backend| self.state(backend));
        states.filter(|m| !m.backup && m.admin == Admin::Enabled && m.health.is_ejected()).count()
    }

    /// The backend's state, if openings to this port of it count: it is enabled, up and not ejected.
    fn judged(&mut self, backend: u16, port: u16) -> Option<(&mut TrackedBackend, Passive)> {
        let state = self.state_mut(backend)?;
        let passive = state.passive.filter(|passive| counts(passive, port))?;
        let judged = state.admin == Admin::Enabled && state.up && !state.health.is_ejected();
        judged.then_some((state, passive))
    }
}
