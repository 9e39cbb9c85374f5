//! What packets and time do to backends: failed openings, holds that end, slow starts.

use super::{Mark, Member, Membership};
use crate::decide::Now;
use crate::passive::{counts, is_allowed};
use crate::setup::{Pool, Setup};
use loaded_ipc::{Admin, Cause, Passive};
use loaded_table::Counters;

/// Milliseconds between two looks at what time changes.
const TICK: u64 = 20;
/// Changes that one tick makes at most; others wait for the next. Each costs a walk over its pool.
const CHANGES: usize = 32;

impl Membership {
    /// A SYN goes to this port of a backend. That may take it out: too many before were not answered.
    pub(crate) fn opening(&mut self, setup: &mut Setup, counters: &Counters, backend: u16, port: u16, now: Now) {
        if let Some((member, passive)) = self.judged(backend, port) {
            member.watch.opening(&passive, now.millis);
            self.note(backend);
            self.judge(setup, counters, backend, now);
        }
    }

    /// A backend has refused an opening to this port.
    pub(crate) fn refused(
        &mut self,
        setup: &mut Setup,
        counters: &Counters,
        (backend, port, cause): (u16, u16, Cause),
        now: Now,
    ) {
        if let Some((member, passive)) = self.judged(backend, port) {
            let enough = member.watch.refused(&passive, now.millis);
            self.note(backend);
            if enough {
                self.eject(setup, counters, backend, cause, now);
            }
        }
    }

    /// A backend has sent a packet that is no reset.
    pub(crate) fn answered(&mut self, backend: u16) {
        if let Some(member) = self.member_mut(backend) {
            member.watch.forget();
            self.note(backend);
        }
    }

    /// Nobody can tell what backends have answered of late: none has left anything unanswered.
    pub(crate) fn forgive(&mut self) {
        for index in 0..self.marks.len() {
            if let Some(index) = u16::try_from(index).ok().filter(|_| self.marks[index].has(Mark::WATCHED)) {
                self.answered(index);
            }
        }
    }

    /// What time changes: holds that end, slow starts, openings that are left unanswered. Does nothing more often than
    /// every [`TICK`].
    pub(crate) fn tick(&mut self, setup: &mut Setup, counters: &Counters, now: Now) {
        if now.millis < self.next {
            return;
        }
        self.next = now.millis + TICK;
        let mut changes = CHANGES;
        for index in 0..self.marks.len() {
            if !self.marks[index].has(Mark::TIMED | Mark::WATCHED) {
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
        let Some(member) = self.member_mut(backend) else { return false };
        if member.watch.is_served(now.millis) {
            member.watch.readmit();
            self.settle(setup, counters, backend);
            return true;
        }
        if member.climb(setup, backend, now.millis) {
            self.note(backend);
            return true;
        }
        self.judge(setup, counters, backend, now)
    }

    /// Takes a backend out that leaves too many openings unanswered. Returns whether it looked.
    fn judge(&mut self, setup: &mut Setup, counters: &Counters, backend: u16, now: Now) -> bool {
        let overdue = self
            .member(backend)
            .is_some_and(|member| member.passive.is_some_and(|passive| member.watch.is_overdue(&passive, now.millis)));
        if overdue {
            self.eject(setup, counters, backend, Cause::ConnectTimeout, now);
        }
        overdue
    }

    /// Takes a backend out, if the limits allow it. If not, it must fail as often again before they are asked again.
    fn eject(&mut self, setup: &mut Setup, counters: &Counters, backend: u16, cause: Cause, now: Now) {
        let Some(member) = self.member(backend) else { return };
        let Some(pool) = setup.pool(member.service, member.family) else { return };
        let allowed = !member.backup && !pool.balancer.is_panicking() && {
            let (usable, enabled) = pool.balancer.usable();
            is_allowed(usable, enabled, self.ejected(pool))
        };
        let Some(member) = self.member_mut(backend) else { return };
        match member.passive {
            Some(passive) if allowed => {
                member.watch.eject(&passive, cause, now.millis);
                self.settle(setup, counters, backend);
            }
            _ => {
                member.watch.forget();
                self.note(backend);
            }
        }
    }

    /// How many of the enabled primaries are ejected.
    fn ejected(&self, pool: &Pool) -> usize {
        let members = pool.backends.iter().filter_map(|&backend| self.member(backend));
        members.filter(|m| !m.backup && m.admin == Admin::Enabled && m.watch.is_ejected()).count()
    }

    /// The member, if openings to this port of it are judged: one that takes new flows anyway.
    fn judged(&mut self, backend: u16, port: u16) -> Option<(&mut Member, Passive)> {
        let member = self.member_mut(backend)?;
        let passive = member.passive.filter(|passive| counts(passive, port))?;
        let judged = member.admin == Admin::Enabled && member.up && !member.watch.is_ejected();
        judged.then_some((member, passive))
    }
}
