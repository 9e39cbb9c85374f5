//! Who of the backends may be given new flows, and whose flows are kept: what the operator wants, what the checks say
//! and what this worker's own packets show, put together. The packet path reads one byte of it.
//!
//! | | new flows | flows it has |
//! |---|---|---|
//! | a candidate of its balancer | yes | kept |
//! | up, but drained, ejected, or a backup that is not needed | no | kept |
//! | down, or disabled | no | as `on_backend_down` says |
//!
//! A candidate's flows are kept even where the checks call it down: its balancer may not believe them (panic), or have
//! no other (`all_down = last`).

mod judge;

use crate::balance::Standing;
use crate::decide::Now;
use crate::passive::Watch;
use crate::setup::Setup;
use crate::wire::Family;
use loaded_ipc::{Admin, BackendCounter, BackendIndex, Passive, View};
use loaded_table::Counters;

/// A slow start's steps, of [`FULL`]; and where it begins, about a tenth.
const STEPS: u64 = 32;
const FULL: u16 = 1024;
const FIRST: u16 = FULL / 10;

/// What the packet path must know of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mark(u8);

/// All backends of a setup.
#[derive(Debug)]
pub(crate) struct Membership {
    marks: Box<[Mark]>,
    members: Box<[Option<Member>]>,
    next: u64,
}

/// A message names a backend that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown;

#[derive(Debug)]
struct Member {
    service: u16,
    family: Family,
    backup: bool,
    admin: Admin,
    up: bool,
    /// When it came up, as long as its slow start lasts.
    ramp: Option<u64>,
    share: u16,
    passive: Option<Passive>,
    /// Milliseconds.
    slow_start: u64,
    watch: Watch,
}

impl Mark {
    const KEPT: u8 = 1;
    const CHOSEN: u8 = 2;
    /// Packets have spoken against it, and its next answer changes that.
    const WATCHED: u8 = 4;
    /// Time changes something about it.
    const TIMED: u8 = 8;

    /// Its flows go on, and new ones may come.
    #[inline]
    pub(crate) fn is_sound(self) -> bool {
        self.0 & (Self::KEPT | Self::CHOSEN) == Self::KEPT | Self::CHOSEN
    }

    /// Its flows go on.
    #[inline]
    pub(crate) fn is_kept(self) -> bool {
        self.0 & Self::KEPT != 0
    }

    /// It may be given new flows.
    #[inline]
    pub(crate) fn is_chosen(self) -> bool {
        self.0 & Self::CHOSEN != 0
    }

    /// Its flows go on, and nothing speaks against it.
    #[inline]
    pub(crate) fn is_quiet(self) -> bool {
        self.0 & (Self::KEPT | Self::WATCHED) == Self::KEPT
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }
}

impl Membership {
    /// Has all its memory; [`Membership::begin`] is to follow.
    pub(crate) fn new(setup: &Setup) -> Self {
        let mut members: Vec<Option<Member>> = Vec::new();
        members.resize_with(setup.backend_slots(), || None);
        for (index, backend) in setup.backends() {
            let policy = setup.service(backend.service).map(|service| service.policy);
            members[usize::from(index)] = Some(Member {
                service: backend.service,
                family: backend.family(),
                backup: backend.backup,
                admin: backend.admin,
                up: backend.up,
                ramp: None,
                share: FULL,
                passive: policy.and_then(|policy| policy.passive),
                slow_start: policy.map_or(0, |policy| u64::from(policy.slow_start) * 1000),
                watch: Watch::default(),
            });
        }
        let marks = vec![Mark::default(); members.len()].into();
        Self { marks, members: members.into(), next: 0 }
    }

    /// The state that the setup begins with. Publishes it.
    pub(crate) fn begin(&mut self, setup: &mut Setup, counters: &Counters, now: Now) {
        for index in 0..self.members.len() {
            let Ok(index) = u16::try_from(index) else { break };
            let age = setup.backend(index).map_or(u32::MAX, |backend| backend.age);
            let Some(member) = self.member_mut(index) else { continue };
            if member.up && age != u32::MAX {
                member.ramp = Some(now.millis.saturating_sub(u64::from(age) * 1000));
                member.climb(setup, index, now.millis);
            }
            member.stand(setup, index);
        }
        for index in 0..self.members.len() {
            // The first of each pool marks the others too.
            let first = |index: u16| {
                let member = self.member(index)?;
                let pool = setup.pool(member.service, member.family)?;
                (pool.backends.first() == Some(&index)).then_some((member.service, member.family))
            };
            if let Some((service, family)) = u16::try_from(index).ok().and_then(first) {
                self.publish(setup, counters, service, family);
            }
        }
    }

    /// What the packet path must know of a backend; nothing good of one that is not there.
    #[inline]
    pub(crate) fn mark(&self, backend: u16) -> Mark {
        self.marks.get(usize::from(backend)).copied().unwrap_or_default()
    }

    /// What the operator wants of it.
    pub(crate) fn admin(&self, backend: u16) -> Option<Admin> {
        Some(self.member(backend)?.admin)
    }

    /// The checks say whether it is up.
    pub(crate) fn told(
        &mut self,
        setup: &mut Setup,
        counters: &Counters,
        backend: u16,
        up: bool,
        now: Now,
    ) -> Result<(), Unknown> {
        let member = self.member_mut(backend).ok_or(Unknown)?;
        // Saying the same twice changes nothing; so what ends an ejection is a change, which is younger than it.
        if std::mem::replace(&mut member.up, up) != up {
            member.watch.absolve();
            member.ramp = up.then_some(now.millis);
            member.climb(setup, backend, now.millis);
            self.settle(setup, counters, backend);
        }
        Ok(())
    }

    /// The operator wants this of it.
    pub(crate) fn set_admin(
        &mut self,
        setup: &mut Setup,
        counters: &Counters,
        backend: u16,
        admin: Admin,
        now: Now,
    ) -> Result<(), Unknown> {
        let member = self.member_mut(backend).ok_or(Unknown)?;
        let before = std::mem::replace(&mut member.admin, admin);
        if before != admin {
            member.watch.absolve();
            if before == Admin::Disabled && member.up {
                member.ramp = Some(now.millis);
                member.climb(setup, backend, now.millis);
            }
            self.settle(setup, counters, backend);
        }
        Ok(())
    }

    /// After a change of how a backend stands: its balancer, and the marks of all beside it, for whether they are
    /// candidates may depend on it.
    fn settle(&mut self, setup: &mut Setup, counters: &Counters, backend: u16) {
        let Some(member) = self.member(backend) else { return };
        let (service, family) = (member.service, member.family);
        member.stand(setup, backend);
        self.publish(setup, counters, service, family);
    }

    fn publish(&mut self, setup: &mut Setup, counters: &Counters, service: u16, family: Family) {
        let Some(pool) = setup.pool(service, family) else { return };
        for &backend in &pool.backends {
            let (Some(Some(member)), Some(mark)) =
                (self.members.get(usize::from(backend)), self.marks.get_mut(usize::from(backend)))
            else {
                continue;
            };
            let chosen = pool.balancer.is_candidate(BackendIndex(backend));
            let kept = chosen || member.up && member.admin != Admin::Disabled;
            *mark = Mark(bit(Mark::KEPT, kept) | bit(Mark::CHOSEN, chosen) | member.bits());
            let cause = member.watch.cause();
            let view = View { up: member.up, ejected: cause.is_some(), cause, chosen };
            counters.set(BackendCounter::View.index(BackendIndex(backend)), view.to_word());
        }
    }

    /// After a change that does not touch how a backend stands.
    fn note(&mut self, backend: u16) {
        let index = usize::from(backend);
        if let (Some(Some(member)), Some(mark)) = (self.members.get(index), self.marks.get_mut(index)) {
            *mark = Mark(mark.0 & (Mark::KEPT | Mark::CHOSEN) | member.bits());
        }
    }

    fn member(&self, backend: u16) -> Option<&Member> {
        self.members.get(usize::from(backend))?.as_ref()
    }

    fn member_mut(&mut self, backend: u16) -> Option<&mut Member> {
        self.members.get_mut(usize::from(backend))?.as_mut()
    }
}

impl Member {
    /// Tells the balancer how it stands.
    fn stand(&self, setup: &mut Setup, backend: u16) {
        let (enabled, ejected) = (self.admin == Admin::Enabled, self.watch.is_ejected());
        if let Some(pool) = setup.pool(self.service, self.family) {
            pool.balancer.set_standing(BackendIndex(backend), Standing { enabled, up: self.up, ejected });
        }
    }

    /// Gives it the share that its slow start has come to; returns whether that is another than before.
    fn climb(&mut self, setup: &mut Setup, backend: u16, now: u64) -> bool {
        let share = match self.ramp.map(|began| now.saturating_sub(began)) {
            Some(age) if age < self.slow_start => {
                let step = u16::try_from(age * STEPS / self.slow_start.max(1)).unwrap_or(u16::MAX);
                step.saturating_mul(FULL / 32).max(FIRST)
            }
            _ => {
                self.ramp = None;
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
        let timed = self.ramp.is_some() || self.watch.is_ejected();
        bit(Mark::WATCHED, self.watch.is_pending()) | bit(Mark::TIMED, timed)
    }
}

fn bit(bit: u8, set: bool) -> u8 {
    if set { bit } else { 0 }
}
