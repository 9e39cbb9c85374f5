//! Flows: protocol, client, client port, service port → virtual IP, port there, backend, state.
//!
//! One entry serves both directions. A request is found by its key and where at the VIPs it goes, a reply by its key and its
//! backend. Entries with the same key and different VIPs, or ports there, live side by side, and the predicate given to
//! [`FlowTable::find`] tells them apart.

mod insert;
mod record;

use crate::bucket::Way;
use crate::error::{Damage, Error};
use crate::layout::{self, Kind, WAYS};
use crate::map::{self, Hashed, KeyValue, Map, Slot, Stored};
use crate::quota::QuotaTracker;
use crate::shm::Region;
use crate::spec::TableSpec;
use crate::state::FlowState;
use crate::timeouts::{FlowTimeouts, Timeouts};
use record::{backend_of, client_of, is_over_quota, is_protected, is_protected_state, state_of};
use std::ops::Range;

pub use insert::Inserted;
pub use record::{Flow, FlowKey};
pub(crate) use record::{KEY_MASK, OVER_QUOTA, unpack};

/// Protected flows of one key, that is of one port of a client, in one bucket. All flows of a key lie in the same two buckets, so
/// without a limit a client could fill those, and with other ports more of them. Only a NAT that gives one of its ports to
/// several connections at once has more than one.
const KEY_SHARE: usize = 2;

/// The flow table of one worker.
#[derive(Debug)]
pub struct FlowTable {
    map: Map,
    timeouts: FlowTimeouts,
    quota: QuotaTracker,
}

impl FlowTable {
    /// Bytes of a region for `capacity` flows: about 88 a flow.
    pub const fn bytes_for(capacity: usize) -> usize {
        layout::bytes_for(Kind::Flows, capacity)
    }

    /// Writes an empty table into `region`.
    pub fn format(region: &Region, spec: TableSpec) -> Result<(), Error> {
        map::format(region, Kind::Flows, spec)
    }

    /// Opens a region that was formatted with this `spec` and removes every torn entry. Walks the table once. A region whose
    /// header says anything else is formatted anew, see [`FlowTable::damage`]. All flows have these timeouts until
    /// [`FlowTable::set_timeouts`].
    ///
    /// # Errors
    /// If the region is smaller than `spec` needs.
    pub fn open(region: Region, spec: TableSpec, timeouts: Timeouts) -> Result<Self, Error> {
        let map = Map::open(region, (Kind::Flows, KEY_MASK), spec, |stored| {
            state_of(stored.state).is_some() && stored.record.key[2] >> 40 & 0xff == 0
        })?;
        Ok(Self { map, timeouts: FlowTimeouts::new(timeouts, Box::default()), quota: QuotaTracker::default() })
    }

    /// Sets the timeouts of each backend's flows, by its number; those of backends beyond keep those of [`FlowTable::open`].
    /// Allocates nothing.
    pub fn set_timeouts(&mut self, of_backends: Box<[Timeouts]>) {
        self.timeouts = FlowTimeouts::new(self.timeouts.others(), of_backends);
    }

    /// Sets how many protected flows a source prefix may have; without this there is no limit. The next
    /// [`FlowTable::retain`] counts those already there. Allocates nothing.
    pub fn set_quota(&mut self, quota: QuotaTracker) {
        self.quota = quota;
        self.quota.begin(self.map.capacity(), self.map.hash_key());
    }

    /// Flows in the table, including expired ones that no sweep has removed yet.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether the table holds nothing.
    pub fn is_empty(&self) -> bool {
        self.map.len() == 0
    }

    /// What the header said that it should not, and for which [`FlowTable::open`] has emptied the table.
    pub fn damage(&self) -> Option<Damage> {
        self.map.damage()
    }

    /// Flows promised.
    pub fn capacity(&self) -> usize {
        self.map.capacity()
    }

    /// Number of buckets, the unit of [`FlowTable::sweep`]'s budget.
    pub fn buckets(&self) -> usize {
        self.map.buckets()
    }

    /// First stage: hashes the key and prefetches its two header lines.
    #[inline]
    pub fn prepare(&self, key: &FlowKey) -> Hashed {
        self.map.prepare(&key.words())
    }

    /// Second stage, once the header lines have had time to arrive: asks for the line of the entry, or of the place it would get.
    /// Returns `false` if there is certainly no such flow.
    #[inline]
    pub fn prefetch_entry(&self, hashed: &Hashed) -> bool {
        self.map.prefetch_entry(hashed)
    }

    /// Third stage: the living flow with this key for which `accept` holds (its VIP, or its backend).
    #[inline]
    pub fn find(&self, hashed: &Hashed, key: &FlowKey, now: u32, accept: impl Fn(&Flow) -> bool) -> Option<Slot> {
        self.find_flow(hashed, key, now, accept).map(|(slot, _)| slot)
    }

    /// The same, with what [`FlowTable::get`] says about it.
    #[inline]
    pub fn find_flow(
        &self,
        hashed: &Hashed,
        key: &FlowKey,
        now: u32,
        accept: impl Fn(&Flow) -> bool,
    ) -> Option<(Slot, Flow)> {
        let mut found = None;
        let slot = self.map.find(hashed, &key.words(), |way, record| {
            let Some(state) = state_of(way.state()) else { return false };
            let flow = Flow::from_key_value(record, state);
            found = Some(flow);
            map::age(now, way.seen()) <= self.timeouts.of(flow.backend, state) && accept(&flow)
        })?;
        Some((slot, found?))
    }

    /// The flow at `slot`, if there is one.
    #[inline]
    pub fn get(&self, slot: Slot) -> Option<Flow> {
        unpack(&self.map.read(slot)?).map(|(_, flow)| flow)
    }

    /// A packet of the flow was seen: its idle time starts again. Returns when the one before was seen, seconds.
    #[inline]
    pub fn refresh(&self, slot: Slot, now: u32) -> u32 {
        self.map.touch(slot, now)
    }

    /// When a packet of the flow was last seen, as [`FlowTable::refresh`] was told.
    #[inline]
    pub fn seen(&self, slot: Slot, now: u32) -> u32 {
        now.wrapping_sub(self.map.idle(slot, now).unwrap_or(0))
    }

    /// Changes the state; the idle time starts again. Returns `false` if the flow should be protected but is not, because its
    /// client's prefix, or its key, already had its share.
    #[inline]
    pub fn set_state(&mut self, slot: Slot, state: FlowState, now: u32) -> bool {
        self.map.touch(slot, now);
        let Some(stored) = self.map.read(slot) else { return true };
        let over_quota = match (is_protected(&stored), state.is_kept()) {
            (true, false) => {
                self.quota.release(&client_of(&stored.record));
                false
            }
            // A flow over quota stays so until it is evicted or ends.
            (false, true) if is_over_quota(&stored) => true,
            (false, true) => !self.may_protect(slot, &stored.record),
            _ => false,
        };
        self.map.set_state(slot, state as u8 | if over_quota { OVER_QUOTA } else { 0 });
        !over_quota
    }

    /// Whether the flow at `slot` may be protected; if so, counts it.
    fn may_protect(&mut self, slot: Slot, record: &KeyValue) -> bool {
        let is_protected = |way: &Way| is_protected_state(way.state());
        self.map.twins(slot, &record.key, is_protected) < KEY_SHARE && self.quota.take(&client_of(record))
    }

    /// The 16 bits of a sequence number that the other side must know to be believed; 0 until [`FlowTable::set_proof`]. What they
    /// are in which state is for the caller to say.
    #[inline]
    pub fn proof(&self, slot: Slot) -> u16 {
        self.map.extra(slot)
    }

    /// Keeps 16 bits of proof.
    #[inline]
    pub fn set_proof(&self, slot: Slot, proof: u16) {
        self.map.set_extra(slot, proof);
    }

    /// Seconds since a packet of the flow at `slot` was last seen.
    pub fn idle(&self, slot: Slot, now: u32) -> Option<u32> {
        self.map.idle(slot, now)
    }

    /// Seconds since the flow at `slot` was put in. At least those since its last packet: a hostile worker can write any birth.
    pub fn age(&self, slot: Slot, now: u32) -> Option<u32> {
        Some(self.map.since_birth(slot, now).max(self.idle(slot, now)?))
    }

    /// Says that the flow at `slot` began earlier than it was put in: at `at`, in seconds of the clock.
    pub fn set_birth(&self, slot: Slot, at: u32) {
        self.map.set_birth(slot, at);
    }

    /// Whether the flow at `slot` is never evicted for a new one, as long as it lives.
    pub fn is_protected(&self, slot: Slot) -> bool {
        self.map.read(slot).is_some_and(|stored| is_protected(&stored))
    }

    /// Protected flows of a client's source prefix: never fewer than there are, and seldom more. 0 without a quota.
    pub fn protected(&self, client: &[u8; 16]) -> u32 {
        self.quota.of(client)
    }

    /// Ends the living flows in these buckets that `wanted` wants: they are in state [`FlowState::Ended`] then, and their idle time
    /// starts again. Returns how many. Those that do not exist hold none.
    pub fn end(&mut self, buckets: Range<u32>, now: u32, mut wanted: impl FnMut(&FlowKey, &Flow) -> bool) -> u32 {
        let mut ended = 0;
        for bucket in buckets.start..buckets.end.min(u32::try_from(self.map.buckets()).unwrap_or(u32::MAX)) {
            let mut slots = [None; WAYS];
            let mut next = slots.iter_mut();
            let timeouts = &self.timeouts;
            self.map.for_each_in(bucket..bucket.saturating_add(1), |slot, stored| {
                let Some((key, flow)) = unpack(stored).filter(|(_, flow)| flow.state != FlowState::Ended) else {
                    return;
                };
                let idle = self.map.idle(slot, now).unwrap_or(0);
                if idle <= timeouts.of(flow.backend, flow.state)
                    && wanted(&key, &flow)
                    && let Some(place) = next.next()
                {
                    *place = Some(slot);
                }
            });
            for slot in slots.into_iter().flatten() {
                self.set_state(slot, FlowState::Ended, now);
                ended += 1;
            }
        }
        ended
    }

    /// Removes a flow.
    pub fn remove(&mut self, slot: Slot) -> Option<Flow> {
        let stored = self.map.remove(slot)?;
        if is_protected(&stored) {
            self.quota.release(&client_of(&stored.record));
        }
        unpack(&stored).map(|(_, flow)| flow)
    }

    /// Looks at the next `budget_buckets` buckets (of [`FlowTable::buckets`]), round and round, and removes expired flows. Called
    /// often with a small budget, it spreads the cost evenly.
    pub fn sweep(&mut self, now: u32, budget_buckets: usize, mut on_expired: impl FnMut(&FlowKey, &Flow)) {
        let Self { map, timeouts, quota } = self;
        let expired = |stored: &Stored, age| match state_of(stored.state) {
            Some(state) => age > timeouts.of(backend_of(&stored.record), state),
            None => true,
        };
        map.sweep(now, budget_buckets, expired, |stored| {
            if is_protected(stored) {
                quota.release(&client_of(&stored.record));
            }
            if let Some((key, flow)) = unpack(stored) {
                on_expired(&key, &flow);
            }
        });
    }

    /// Removes every flow that `keep` does not want, and every torn entry. Walks the table once, so `keep` can also count what
    /// stays. Counts the protected flows of each prefix anew.
    pub fn retain(&mut self, mut keep: impl FnMut(&FlowKey, &Flow) -> bool) {
        let Self { map, quota, .. } = self;
        quota.forget();
        map.retain(|stored| {
            let kept = unpack(stored).is_some_and(|(key, flow)| keep(&key, &flow));
            if kept && is_protected(stored) {
                quota.count(&client_of(&stored.record));
            }
            kept
        });
    }

    /// Calls `visit` for every flow, including expired ones that no sweep has removed yet. Walks the table.
    pub fn for_each(&self, mut visit: impl FnMut(Slot, &FlowKey, &Flow)) {
        self.map.for_each(|slot, stored| {
            if let Some((key, flow)) = unpack(stored) {
                visit(slot, &key, &flow);
            }
        });
    }
}
