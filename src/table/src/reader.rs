//! Reads a flow table while its worker writes it, some buckets at a time.

use crate::error::Error;
use crate::flow::{Flow, FlowKey, FlowTable, KEY_MASK, unpack};
use crate::layout::Kind;
use crate::map::Map;
use crate::shm::Region;
use crate::spec::TableSpec;
use std::os::fd::AsFd;
use std::sync::atomic::{Ordering::Acquire, fence};

/// A flow table of another process, for reading alone.
///
/// Its worker may be hostile: what is read are flows that may be absurd, but no more than the table has places for. An entry that
/// is being written at this moment fails its check, and is left out.
#[derive(Debug)]
pub struct FlowReader {
    map: Map,
    /// The next bucket.
    next: u32,
}

/// How long ago a flow began, and had its last packet, in seconds; the first is no less than the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// Since it was put into the table.
    pub age: u32,
    /// Since its last packet.
    pub idle: u32,
}

impl FlowReader {
    /// Maps the table in `fd`, which was formatted with this `spec`.
    ///
    /// # Errors
    /// If `fd` is smaller than `spec` needs, or can shrink.
    pub fn open(fd: impl AsFd, spec: TableSpec) -> Result<Self, Error> {
        Self::of(Region::map_read_only(fd)?, spec)
    }

    /// The same, of a table in a BPF array: see [`Region::map_array`].
    ///
    /// # Errors
    /// If the array is smaller than `spec` needs.
    pub fn open_array(fd: impl AsFd, spec: TableSpec) -> Result<Self, Error> {
        Self::of(Region::map_array_read_only(fd, FlowTable::bytes_for(spec.capacity))?, spec)
    }

    fn of(region: Region, spec: TableSpec) -> Result<Self, Error> {
        Ok(Self { map: Map::read_only(region, (Kind::Flows, KEY_MASK), spec)?, next: 0 })
    }

    /// Calls `visit` for the flows in the next `budget` buckets, with what has passed at `now`; those that have expired and were
    /// not removed yet are among them. Returns whether there are buckets left.
    pub fn read(&mut self, budget: u32, now: u32, mut visit: impl FnMut(&FlowKey, &Flow, Since)) -> bool {
        let end = self.next.saturating_add(budget);
        self.map.for_each_in(self.next..end, |slot, stored| {
            if let Some((key, flow)) = unpack(stored) {
                // Its birth was stored before its tag, so it is read after it. A place that is filled anew meanwhile can still show one
                // flow with the times of the next.
                fence(Acquire);
                let idle = self.map.idle(slot, now).unwrap_or(0);
                visit(&key, &flow, Since { age: self.map.since_birth(slot, now).max(idle), idle });
            }
        });
        self.next = end;
        (end as usize) < self.map.buckets()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm;
    use crate::state::FlowState;
    use crate::timeouts::Timeouts;
    use std::collections::BTreeSet;
    use std::os::fd::OwnedFd;

    const SPEC: TableSpec = TableSpec::new(4096, [3; 16]);

    fn key(n: u16) -> FlowKey {
        FlowKey { protocol: 6, client: [9; 16], client_port: n, service_port: 80 }
    }

    fn flow(n: u16) -> Flow {
        Flow { vip: 1, vip_port: 80, backend: n % 7, state: FlowState::Established }
    }

    /// A table, and the memory that it is in.
    fn table() -> (OwnedFd, FlowTable) {
        let fd = shm::create("flows", FlowTable::bytes_for(SPEC.capacity)).expect("create");
        let region = Region::map(&fd).expect("map");
        FlowTable::format(&region, SPEC).expect("format");
        (fd, FlowTable::open(region, SPEC, Timeouts::EXAMPLE).expect("open"))
    }

    #[test]
    fn every_flow_is_read_once_in_pieces_while_the_table_is_in_use() {
        let (fd, mut table) = table();
        for n in 0..3000 {
            let slot = table.insert(&table.prepare(&key(n)), &key(n), flow(n), 100).expect("room").slot;
            table.refresh(slot, if n % 2 == 0 { 100 } else { 110 });
        }
        let mut reader = FlowReader::open(&fd, SPEC).expect("open");
        let (mut seen, mut pieces) = (BTreeSet::new(), 0);
        loop {
            let more = reader.read(100, 130, |key, found, since| {
                let idle = if key.client_port % 2 == 0 { 30 } else { 20 };
                assert_eq!((*found, since), (flow(key.client_port), Since { age: 30, idle }));
                assert!(seen.insert(key.client_port), "twice");
            });
            pieces += 1;
            // What is new may be met or not, what was there must be.
            let new = key(5000 + 2 * pieces);
            table.insert(&table.prepare(&new), &new, flow(new.client_port), 100).expect("room");
            if !more {
                break;
            }
        }
        assert!(pieces > 5, "{pieces}");
        assert!((0..3000).all(|n| seen.contains(&n)), "{} of 3000", seen.len());
        assert!(!reader.read(100, 130, |_, _, _| panic!("there is nothing behind the last bucket")));
    }

    /// A hostile worker writes any birth: the flow is then as old as its last packet, or older.
    #[test]
    fn a_birth_that_cannot_be_is_no_age() {
        let (fd, mut table) = table();
        let slot = table.insert(&table.prepare(&key(1)), &key(1), flow(1), 100).expect("room").slot;
        for (birth, age) in [(100, 50), (40, 110), (149, 30), (151, 30), (u32::MAX, 151), (200_000, 30)] {
            table.set_birth(slot, birth);
            table.refresh(slot, 120);
            assert_eq!(table.age(slot, 150), Some(age), "{birth}");
            let mut met = None;
            let mut reader = FlowReader::open(&fd, SPEC).expect("open");
            while reader.read(1000, 150, |_, _, since| met = Some(since)) {}
            assert_eq!(met, Some(Since { age, idle: 30 }), "{birth}");
        }
    }

    #[test]
    fn what_is_torn_or_of_another_key_is_no_flow() {
        let (fd, mut table) = table();
        table.insert(&table.prepare(&key(1)), &key(1), flow(1), 100).expect("room");
        let other = TableSpec::new(SPEC.capacity, [4; 16]);
        let mut reader = FlowReader::open(&fd, other).expect("open");
        while reader.read(1000, 100, |key, _, _| panic!("{key:?}")) {}
        assert!(FlowReader::open(&fd, TableSpec::new(8192, [3; 16])).is_err(), "smaller than it should be");
    }
}
