//! Which backends may be given new flows, and which keep the flows they have: puts together what the operator says, what
//! the active checks report and what this worker's own packets show. The packet path reads one byte of it. Pure: no I/O,
//! no clock.
//!
//! | backend | new flows | flows it has |
//! |---|---|---|
//! | a candidate of its balancer | yes | kept |
//! | up, but draining, ejected, or a backup that is not needed | no | kept |
//! | down, or disabled | no | as `on_backend_down` says |
//!
//! A candidate keeps its flows even if the checks report it down: its balancer may disbelieve them (panic) or have no other
//! backend (`all_down = last`).
//!
//! - here: all backends, and the two reports from outside, [`BackendStates::set_up`] and [`BackendStates::set_admin`]
//! - `tracked` is the state of one backend; `flags` is what the packet path reads of it
//! - `judge` lets packets and time act on it: failed openings, ejections that end, slow starts
//! - `passive` counts the failed openings of one backend and says when they are too many

mod flags;
mod judge;
mod passive;
mod tracked;

use crate::setup::Setup;
use crate::time::Now;
use crate::wire::Family;
use flags::{BackendFlags, announce, bit};
use loaded_fastpath::{Keep, Keeping};
use loaded_ipc::{Admin, BackendCounter, BackendIndex, MAX_BACKEND_INDEX, VIEWS, View};
use loaded_table::Counters;
use passive::PassiveHealth;
use tracked::{FULL, TrackedBackend};

/// All backends of a configuration, by index.
#[derive(Debug)]
pub(crate) struct BackendStates {
    flags: Box<[BackendFlags]>,
    states: Box<[Option<TrackedBackend>]>,
    /// Time of the next tick, milliseconds.
    next_tick: u64,
    /// Where the kernel path sees whose flows are kept, if there is one.
    keeping: Option<Keeping>,
}

/// A message names a backend that this configuration does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

impl BackendStates {
    /// Allocates all its memory; [`BackendStates::begin`] must follow.
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut states: Vec<Option<TrackedBackend>> = Vec::new();
        states.resize_with(setup.backend_slots(), || None);
        for (index, backend) in setup.backends() {
            let policy = setup.service(backend.service).map(|service| service.policy);
            states[usize::from(index)] = Some(TrackedBackend {
                service: backend.service,
                family: backend.family(),
                backup: backend.backup,
                admin: backend.admin,
                up: backend.up,
                confirmed: backend.confirmed,
                slow_since: None,
                share: FULL,
                passive: policy.and_then(|policy| policy.passive),
                slow_start: policy.map_or(0, |policy| u64::from(policy.slow_start) * 1000),
                health: PassiveHealth::default(),
            });
        }
        let flags = vec![BackendFlags::default(); states.len()].into();
        Self { flags, states: states.into(), next_tick: 0, keeping: None }
    }

    /// Whether a kernel path sends packets of flows on.
    #[inline]
    pub(crate) fn has_kernel_path(&self) -> bool {
        self.keeping.is_some()
    }

    /// Lets the kernel path see whose flows are kept: from [`BackendStates::begin`] on.
    pub(crate) fn set_keeping(&mut self, keeping: Keeping) {
        self.keeping = Some(keeping);
    }

    /// Tells the balancers the standing of each backend when the configuration begins, and publishes it.
    pub(crate) fn begin(&mut self, setup: &mut Setup, counters: &Counters, now: Now) {
        if let Some(keeping) = &self.keeping {
            (0..MAX_BACKEND_INDEX).for_each(|index| keeping.set(index, Keep::No));
        }
        for index in 0..self.states.len() {
            let Ok(index) = u16::try_from(index) else { break };
            let age = setup.backend(index).map_or(u32::MAX, |backend| backend.age);
            let Some(state) = self.state_mut(index) else { continue };
            if state.up && age != u32::MAX {
                state.slow_since = Some(now.millis.saturating_sub(u64::from(age) * 1000));
                state.progress_slow_start(setup, index, now.millis);
            }
            state.tell_balancer(setup, index);
        }
        for index in 0..self.states.len() {
            // The first backend of each pool publishes the whole pool.
            let first = |index: u16| {
                let state = self.state(index)?;
                let pool = setup.pool(state.service, state.family)?;
                (pool.backends.first() == Some(&index)).then_some((state.service, state.family))
            };
            if let Some((service, family)) = u16::try_from(index).ok().and_then(first) {
                self.publish(setup, counters, service, family);
            }
        }
    }

    /// What the packet path needs to know of a backend; one that does not exist has no flag set.
    #[inline]
    pub(crate) fn flags(&self, backend: u16) -> BackendFlags {
        self.flags.get(usize::from(backend)).copied().unwrap_or_default()
    }

    /// Whether the operator has enabled, drained or disabled it.
    pub(crate) fn admin(&self, backend: u16) -> Option<Admin> {
        Some(self.state(backend)?.admin)
    }

    /// The active checks report it up or down.
    pub(crate) fn set_up(
        &mut self,
        setup: &mut Setup,
        counters: &Counters,
        backend: u16,
        up: bool,
        now: Now,
    ) -> Result<(), Unknown> {
        let state = self.state_mut(backend).ok_or(Unknown)?;
        // Only a change counts: it is more recent than the ejection that it ends.
        if std::mem::replace(&mut state.up, up) != up {
            state.health.absolve();
            state.confirmed |= up;
            state.slow_since = up.then_some(now.millis);
            state.progress_slow_start(setup, backend, now.millis);
            self.settle(setup, counters, backend);
        }
        Ok(())
    }

    /// The operator enables, drains or disables it.
    pub(crate) fn set_admin(
        &mut self,
        setup: &mut Setup,
        counters: &Counters,
        backend: u16,
        admin: Admin,
        now: Now,
    ) -> Result<(), Unknown> {
        let state = self.state_mut(backend).ok_or(Unknown)?;
        let before = std::mem::replace(&mut state.admin, admin);
        if before != admin {
            state.health.absolve();
            if before == Admin::Disabled && state.up {
                state.slow_since = Some(now.millis);
                state.progress_slow_start(setup, backend, now.millis);
            }
            self.settle(setup, counters, backend);
        }
        Ok(())
    }

    /// After a change of standing: tells the balancer, and publishes its whole pool, since whether the others are
    /// candidates may depend on it.
    fn settle(&mut self, setup: &mut Setup, counters: &Counters, backend: u16) {
        let Some(state) = self.state(backend) else { return };
        let (service, family) = (state.service, state.family);
        state.tell_balancer(setup, backend);
        self.publish(setup, counters, service, family);
    }

    /// Sets the flags of a pool's backends, and their words in the counters, which the operator sees.
    fn publish(&mut self, setup: &mut Setup, counters: &Counters, service: u16, family: Family) {
        let Some(pool) = setup.pool(service, family) else { return };
        for &backend in &pool.backends {
            let (Some(Some(state)), Some(mark)) =
                (self.states.get(usize::from(backend)), self.flags.get_mut(usize::from(backend)))
            else {
                continue;
            };
            let chosen = pool.balancer.is_candidate(BackendIndex(backend));
            let kept = chosen || state.up && state.admin != Admin::Disabled;
            *mark = BackendFlags(
                bit(BackendFlags::KEEPS_FLOWS, kept) | bit(BackendFlags::TAKES_NEW, chosen) | state.bits(),
            );
            announce(self.keeping.as_ref(), backend, *mark);
            let cause = state.health.cause();
            let view = View { up: state.up, ejected: cause.is_some(), cause, chosen };
            let (place, word) = (BackendCounter::View.index(BackendIndex(backend)), view.to_word());
            if counters.get(place) != Some(word) {
                counters.set(place, word);
                counters.add(VIEWS, 1);
            }
        }
    }

    /// After a change that leaves its standing as it is: updates only its flags.
    fn update_flags(&mut self, backend: u16) {
        let index = usize::from(backend);
        if let (Some(Some(state)), Some(mark)) = (self.states.get(index), self.flags.get_mut(index)) {
            *mark = BackendFlags(mark.0 & (BackendFlags::KEEPS_FLOWS | BackendFlags::TAKES_NEW) | state.bits());
            announce(self.keeping.as_ref(), backend, *mark);
        }
    }

    fn state(&self, backend: u16) -> Option<&TrackedBackend> {
        self.states.get(usize::from(backend))?.as_ref()
    }

    fn state_mut(&mut self, backend: u16) -> Option<&mut TrackedBackend> {
        self.states.get_mut(usize::from(backend))?.as_mut()
    }
}
