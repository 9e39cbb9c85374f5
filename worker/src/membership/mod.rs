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
//! - here: the state of each backend, and the two reports from outside, [`BackendStates::set_up`] and
//!   [`BackendStates::set_admin`]
//! - `judge` lets packets and time act on it: failed openings, ejections that end, slow starts
//! - `passive` counts the failed openings of one backend and says when they are too many

mod judge;
mod passive;

use crate::balance::Standing;
use crate::setup::Setup;
use crate::time::Now;
use crate::wire::Family;
use loaded_fastpath::{Keep, Keeping};
use loaded_ipc::{Admin, BackendCounter, BackendIndex, MAX_BACKEND_INDEX, Passive, VIEWS, View};
use loaded_table::Counters;
use passive::PassiveHealth;

/// Steps in which a slow start raises a backend's share, the full share, and the share it begins with, about a tenth.
const STEPS: u64 = 32;
const FULL: u16 = 1024;
const FIRST: u16 = FULL / 10;

/// What the packet path needs to know of a backend, in one byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BackendFlags(u8);

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

/// One backend.
#[derive(Debug)]
struct TrackedBackend {
    service: u16,
    family: Family,
    backup: bool,
    admin: Admin,
    up: bool,
    /// The operator has named it, or a check has passed.
    confirmed: bool,
    /// When it came up, milliseconds, while its slow start lasts.
    slow_since: Option<u64>,
    /// Of its weight: 0..=[`FULL`].
    share: u16,
    /// Limits of passive observation; `None`: it is not observed.
    passive: Option<Passive>,
    /// How long its slow start lasts, milliseconds.
    slow_start: u64,
    health: PassiveHealth,
}

impl BackendFlags {
    const KEEPS_FLOWS: u8 = 1;
    const TAKES_NEW: u8 = 2;
    /// It has failed openings, which its next answer clears.
    const SUSPECTED: u8 = 4;
    /// A tick may change something about it: it is ejected, or in its slow start.
    const TIMED: u8 = 8;

    /// It keeps its flows and may be given new ones.
    #[inline]
    pub(crate) fn is_serving(self) -> bool {
        self.0 & (Self::KEEPS_FLOWS | Self::TAKES_NEW) == Self::KEEPS_FLOWS | Self::TAKES_NEW
    }

    /// It keeps its flows.
    #[inline]
    pub(crate) fn keeps_flows(self) -> bool {
        self.0 & Self::KEEPS_FLOWS != 0
    }

    /// It may be given new flows.
    #[inline]
    pub(crate) fn takes_new_flows(self) -> bool {
        self.0 & Self::TAKES_NEW != 0
    }

    /// It keeps its flows, and has no failed openings.
    #[inline]
    pub(crate) fn is_unsuspected(self) -> bool {
        self.0 & (Self::KEEPS_FLOWS | Self::SUSPECTED) == Self::KEEPS_FLOWS
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

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

impl TrackedBackend {
    /// Tells the balancer its standing.
    fn tell_balancer(&self, setup: &mut Setup, backend: u16) {
        let Self { confirmed, up, .. } = *self;
        let (enabled, ejected) = (self.admin == Admin::Enabled, self.health.is_ejected());
        if let Some(pool) = setup.pool(self.service, self.family) {
            pool.balancer.set_standing(BackendIndex(backend), Standing { enabled, confirmed, up, ejected });
        }
    }

    /// Gives it the share that its slow start has reached; returns whether that has changed.
    fn progress_slow_start(&mut self, setup: &mut Setup, backend: u16, now: u64) -> bool {
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

    fn bits(&self) -> u8 {
        let timed = self.slow_since.is_some() || self.health.is_ejected();
        bit(BackendFlags::SUSPECTED, self.health.is_pending()) | bit(BackendFlags::TIMED, timed)
    }
}

/// Tells the kernel path of a change: in one store its flows stop there. A backend with failed openings is heard in full, since
/// its next answer clears them.
fn announce(keeping: Option<&Keeping>, backend: u16, flags: BackendFlags) {
    if let Some(keeping) = keeping {
        let keep = match (flags.keeps_flows(), flags.is_unsuspected()) {
            (false, _) => Keep::No,
            (true, true) => Keep::Yes,
            (true, false) => Keep::Heard,
        };
        keeping.set(backend, keep);
    }
}

fn bit(bit: u8, set: bool) -> u8 {
    if set { bit } else { 0 }
}
