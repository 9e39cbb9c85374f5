//! Putting a flow in: the place it gets, and which one is evicted for it.

use super::FlowTable;
use super::record::{Flow, FlowKey, OVER_QUOTA, backend_of, client_of, is_protected, state_of, unpack};
use crate::bucket::Way;
use crate::error::TableFull;
use crate::map::{self, Hashed, Map, Slot};
use crate::state::FlowState;
use crate::timeouts::FlowTimeouts;

/// Seconds in which a new flow is not evicted before older ones; an answer takes a fraction of that. Without it a new client's
/// SYN would be evicted first, both in a flood that backends answer and among the connections of one client that uses all its
/// ports.
const GRACE: u32 = 1;

/// Where [`FlowTable::insert`] put a flow, and which one it displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inserted {
    /// Where the new flow is.
    pub slot: Slot,
    /// The entry that was replaced: the same flow's old one, an expired one, or an evicted one.
    pub displaced: Option<(FlowKey, Flow)>,
    /// Whether that was another flow that was still alive.
    pub evicted: bool,
}

impl FlowTable {
    /// Puts a flow in, whose age begins. One with the same key, VIP and port there is replaced. If both buckets are full, a flow of
    /// the first of these kinds that is there is evicted:
    ///
    /// 1. expired;
    /// 2. not answered by its backend, and idle for more than a second;
    /// 3. not open, and idle for more than a second: the client has proven nothing, or both sides have finished;
    /// 4. open but over the quota of its client's prefix, or of its key, and idle for more than a second;
    /// 5. any of these kinds, idle for a second or less;
    /// 6. open by the client's word alone (mode "dsr").
    ///
    /// Within a kind the one that is idle for the longest, and of equals any. `TableFull` if there is none: a protected flow is
    /// never evicted for a new one.
    pub fn insert(&mut self, hashed: &Hashed, key: &FlowKey, flow: Flow, now: u32) -> Result<Inserted, TableFull> {
        let timeouts = &self.timeouts;
        let record = flow.to_key_value(key);
        let placed = self.map.place(
            hashed,
            (record, flow.state as u8, now),
            |record| Flow::place_of(record) == (flow.vip, flow.vip_port),
            |map, way| eviction_score(timeouts, map, way, now),
        )?;
        if let Some(gone) = placed.displaced.as_ref().filter(|stored| is_protected(stored)) {
            self.quota.release(&client_of(&gone.record));
        }
        if flow.state.is_kept() && !self.may_protect(placed.slot, &record) {
            self.map.set_state(placed.slot, flow.state as u8 | OVER_QUOTA);
        }
        let evicted = placed.score.is_some_and(|score| score < EXPIRED << 32);
        Ok(Inserted { slot: placed.slot, displaced: placed.displaced.as_ref().and_then(unpack), evicted })
    }

    /// Whether [`FlowTable::insert`] would find room for a flow with this key to this VIP and port.
    pub fn has_room(&self, hashed: &Hashed, key: &FlowKey, place: (u16, u16), now: u32) -> bool {
        let score = |map: &Map, way: &Way| eviction_score(&self.timeouts, map, way, now);
        self.map.vacancy(hashed, &key.words(), |record| Flow::place_of(record) == place, score).is_some()
    }

    /// The same, without evicting a flow that is alive.
    pub fn has_free_room(&self, hashed: &Hashed, key: &FlowKey, place: (u16, u16), now: u32) -> bool {
        let score = |map: &Map, way: &Way| {
            eviction_score(&self.timeouts, map, way, now).filter(|score| *score >= EXPIRED << 32)
        };
        self.map.vacancy(hashed, &key.words(), |record| Flow::place_of(record) == place, score).is_some()
    }
}

/// The rank in [`eviction_score`] of flows that have expired.
const EXPIRED: u64 = 5;

/// The flow with the highest score is evicted first, in the order that [`FlowTable::insert`] gives: the rank of its kind, then
/// its idle seconds. `None`: it is protected.
fn eviction_score(timeouts: &FlowTimeouts, map: &Map, way: &Way, now: u32) -> Option<u64> {
    let age = map::age(now, way.seen());
    let backend = || map.key_value(way).map(|record| backend_of(&record));
    let rank: u64 = match state_of(way.state()) {
        None => EXPIRED,
        Some(state) if timeouts.is_expired(state, age, backend) => EXPIRED,
        Some(state) if state.is_kept() && way.state() & OVER_QUOTA == 0 => return None,
        Some(FlowState::OneSided) => 0,
        Some(_) if age <= GRACE => 1,
        Some(FlowState::HalfOpen | FlowState::Unanswered) => 4,
        Some(state) if state.is_kept() => 2,
        Some(_) => 3,
    };
    Some(rank << 32 | u64::from(age))
}
