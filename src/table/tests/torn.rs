//! Memory that a killed or hostile worker leaves behind: written over through the memfd, behind the table's back.

use loaded_table::{
    AffinityKey, AffinityTable, Damage, Error, Flow, FlowKey, FlowState, FlowTable, LAYOUT_VERSION, Region, TableSpec,
    Timeouts, shm,
};
use proptest::prelude::*;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };

const CAPACITY: usize = 100;
const SPEC: TableSpec = TableSpec::new(CAPACITY, [7; 16]);
const BUCKETS: usize = 25;
const MAGIC: u64 = u64::from_le_bytes(*b"loadedTB");
const HEADER: u64 = 128;
const BUCKET: u64 = 320;
/// Bytes of all buckets, and of the births behind them.
const BUCKETS_AND_BIRTHS: usize = BUCKETS * (320 + 32);

struct Memory {
    fd: OwnedFd,
    file: File,
}

impl Memory {
    fn new(bytes: usize) -> Self {
        let fd = shm::create("torn", bytes).expect("create");
        let file = File::from(fd.try_clone().expect("dup"));
        Self { fd, file }
    }

    fn region(&self) -> Region {
        Region::map(&self.fd).expect("map")
    }

    fn flows(&self) -> Result<FlowTable, Error> {
        FlowTable::open(self.region(), SPEC, TIMEOUTS)
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).expect("write");
    }
}

fn formatted() -> Memory {
    let memory = Memory::new(FlowTable::bytes_for(CAPACITY));
    FlowTable::format(&memory.region(), SPEC).expect("format");
    memory
}

fn key(n: u16) -> FlowKey {
    FlowKey { protocol: 6, client: [9; 16], client_port: n, service_port: 443 }
}

fn flow(n: u16) -> Flow {
    Flow { vip: n, vip_port: n ^ 0x00ff, backend: n ^ 0x5555, state: FlowState::Established }
}

fn fill(memory: &Memory) {
    let mut table = memory.flows().expect("open");
    for n in 0..60 {
        table.insert(&table.prepare(&key(n)), &key(n), flow(n), 1).expect("room");
    }
}

/// Every operation on a table with arbitrary contents: none may panic, hang or give a wrong value.
fn use_all(table: &mut FlowTable, now: u32) {
    for n in 0..60 {
        let hashed = table.prepare(&key(n));
        table.prefetch_entry(&hashed);
        if let Some(slot) = table.find(&hashed, &key(n), now, |_| true) {
            assert!(table.age(slot, now) >= table.idle(slot, now));
            table.refresh(slot, now);
            table.set_state(slot, FlowState::Closing, now);
            table.set_proof(slot, n);
        }
        if let Ok(inserted) = table.insert(&hashed, &key(n), flow(n), now) {
            assert_eq!(table.get(inserted.slot), Some(flow(n)));
            assert_eq!(table.age(inserted.slot, now), Some(0));
        }
    }
    table.sweep(now, 1000, |_, _| {});
    table.for_each(|_, _, _| {});
    for n in 0..60 {
        if let Some(slot) = table.find(&table.prepare(&key(n)), &key(n), now, |_| true) {
            table.remove(slot);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Any bytes anywhere in the entries, in an open table and after reopening: the right value or none.
    #[test]
    fn a_garbled_entry_is_right_or_absent(
        hits in prop::collection::vec((0..BUCKETS as u64, 0_u64..8, 0_u64..32, prop::collection::vec(any::<u8>(), 1..40)), 1..20),
        zero in any::<bool>(),
    ) {
        let memory = formatted();
        fill(&memory);
        let live = memory.flows().expect("open");
        for (bucket, way, from, bytes) in &hits {
            let room = usize::try_from(32 - from).expect("small").min(bytes.len());
            let bytes = if zero { vec![0; room] } else { bytes[..room].to_vec() };
            memory.write(HEADER + bucket * BUCKET + 64 + way * 32 + from, &bytes);
        }
        let check = |table: &FlowTable| {
            for n in 0..60 {
                let slot = table.find(&table.prepare(&key(n)), &key(n), 1, |_| true);
                let found = slot.and_then(|slot| table.get(slot));
                assert!(found.is_none_or(|found| found == flow(n)), "{n}: {found:?}");
            }
        };
        check(&live);
        drop(live);
        let mut table = memory.flows().expect("open");
        check(&table);
        let mut walked = 0;
        table.for_each(|_, k, f| { walked += 1; assert_eq!((*k, *f), (key(f.vip), flow(f.vip))); });
        prop_assert_eq!(walked, table.len());
        use_all(&mut table, 2);
    }

    /// Random bytes after a valid header: an empty table, which works.
    #[test]
    fn garbage_behind_a_good_header_is_an_empty_table(seed in any::<u64>(), now in any::<u32>()) {
        let memory = formatted();
        memory.write(HEADER, &noise(seed, BUCKETS_AND_BIRTHS));
        let mut table = memory.flows().expect("open");
        prop_assert_eq!(table.len(), 0);
        use_all(&mut table, now);
    }

    /// The same in a table that is already open, as if an earlier worker still wrote to it.
    #[test]
    fn garbage_under_an_open_table_is_harmless(seed in any::<u64>(), now in any::<u32>()) {
        let memory = formatted();
        fill(&memory);
        let mut table = memory.flows().expect("open");
        memory.write(0, &noise(seed, 128 + BUCKETS_AND_BIRTHS));
        use_all(&mut table, now);
        let affinity = Memory::new(AffinityTable::bytes_for(CAPACITY));
        AffinityTable::format(&affinity.region(), SPEC).expect("format");
        let mut table = AffinityTable::open(affinity.region(), SPEC, |_| {}).expect("open");
        affinity.write(0, &noise(seed, 128 + BUCKETS * 320));
        for n in 0..60 {
            let key = AffinityKey { prefix: [n; 16], service: 0 };
            let hashed = table.prepare(&key);
            prop_assert!(table.find(&hashed, &key, now, u32::MAX).is_none());
            table.assign(&hashed, &key, 3, now, |_| 10).expect("always");
        }
        table.sweep(now, 1000, |_| 5, |_| {});
    }

    /// Exactly the complete and wanted entries are kept, and their number is right.
    #[test]
    fn what_is_kept_of_a_torn_table_is_whole_and_wanted(
        hits in prop::collection::vec((0..BUCKETS as u64, 0_u64..8, 0_u64..32, any::<u8>()), 0..40),
        wanted in prop::collection::vec(any::<bool>(), 60),
    ) {
        let memory = formatted();
        fill(&memory);
        let mut table = memory.flows().expect("open");
        for (bucket, way, at, byte) in &hits {
            memory.write(HEADER + bucket * BUCKET + 64 + way * 32 + at, &[*byte]);
        }
        let mut whole = Vec::new();
        table.for_each(|_, _, flow| whole.push(flow.vip));
        let want = |n: u16| wanted[usize::from(n)];
        let mut asked = Vec::new();
        table.retain(|k, f| { asked.push(f.vip); assert_eq!((*k, *f), (key(f.vip), flow(f.vip))); want(f.vip) });
        prop_assert_eq!(&asked, &whole, "each that is whole is asked about once");
        let mut left = Vec::new();
        table.for_each(|_, _, flow| left.push(flow.vip));
        whole.retain(|n| want(*n));
        prop_assert_eq!(&left, &whole);
        prop_assert_eq!(table.len(), left.len());
        use_all(&mut table, 2);
    }

    /// The same for clients.
    #[test]
    fn what_is_kept_of_torn_clients_is_whole_and_wanted(
        hits in prop::collection::vec((0..BUCKETS as u64, 0_u64..8, 0_u64..32, any::<u8>()), 0..40),
        wanted in prop::collection::vec(any::<bool>(), 60),
    ) {
        let memory = Memory::new(AffinityTable::bytes_for(CAPACITY));
        AffinityTable::format(&memory.region(), SPEC).expect("format");
        let mut table = AffinityTable::open(memory.region(), SPEC, |_| {}).expect("open");
        let key = |n: u16| AffinityKey { prefix: [n.to_le_bytes()[0]; 16], service: n ^ 0x0f0f };
        for n in 0..60 {
            table.assign(&table.prepare(&key(n)), &key(n), n, 1, |_| 10).expect("always");
        }
        for (bucket, way, at, byte) in &hits {
            memory.write(HEADER + bucket * BUCKET + 64 + way * 32 + at, &[*byte]);
        }
        let mut whole = Vec::new();
        table.for_each(|_, _, client| whole.push(client.backend));
        let want = |n: u16| wanted[usize::from(n)];
        table.retain(|k, client| { assert_eq!(*k, key(client.backend)); want(client.backend) });
        let mut left = Vec::new();
        table.for_each(|_, _, client| left.push(client.backend));
        whole.retain(|n| want(*n));
        prop_assert_eq!(&left, &whole);
        prop_assert_eq!(table.len(), left.len());
    }

    /// A random header is damage, whatever it says: the table is empty, works, and is sound for whoever opens it next.
    #[test]
    fn a_random_header_is_damage(seed in any::<u64>(), keep_magic in any::<bool>(), now in any::<u32>()) {
        let memory = formatted();
        fill(&memory);
        memory.write(if keep_magic { 12 } else { 0 }, &noise(seed, 100));
        let mut table = memory.flows().expect("open");
        prop_assert!(table.damage().is_some());
        prop_assert_eq!((table.len(), table.capacity(), table.buckets()), (0, CAPACITY, BUCKETS));
        use_all(&mut table, now);
        prop_assert_eq!(memory.flows().expect("open").damage(), None);
    }
}

/// Killed after any store of an insert: the flow is there completely or not at all, and all others are there.
#[test]
fn a_kill_between_any_two_stores_loses_at_most_one_entry() {
    let memory = formatted();
    fill(&memory);
    let size = usize::try_from(HEADER).expect("small") + BUCKETS_AND_BIRTHS;
    let mut before = vec![0; size];
    memory.file.read_exact_at(&mut before, 0).expect("read");
    let mut table = memory.flows().expect("open");
    table.insert(&table.prepare(&key(999)), &key(999), flow(999), 1).expect("room");
    drop(table);
    let mut after = vec![0; size];
    memory.file.read_exact_at(&mut after, 0).expect("read");
    // A kill can come between any two of the changed words, in whatever order they are stored.
    let changed: Vec<usize> = (0..size).step_by(8).filter(|i| before[*i..i + 8] != after[*i..i + 8]).collect();
    assert!((5..=9).contains(&changed.len()), "{changed:?}");
    for subset in 0..1_u32 << changed.len() {
        let mut mixed = before.clone();
        for (bit, at) in changed.iter().enumerate() {
            if subset >> bit & 1 == 1 {
                mixed[*at..at + 8].copy_from_slice(&after[*at..at + 8]);
            }
        }
        memory.write(0, &mixed);
        let table = memory.flows().expect("open");
        for n in (0..60).chain([999]) {
            let slot = table.find(&table.prepare(&key(n)), &key(n), 1, |_| true);
            let found = slot.and_then(|slot| table.get(slot)).map(|f| Flow { state: FlowState::Established, ..f });
            assert!(found == Some(flow(n)) || n == 999 && found.is_none(), "{n} {subset:b} {found:?}");
        }
    }
}

/// A worker that was taken over has formatted its table anew: for one flow, or with a key that it knows. All of that header
/// fits together, and none of it counts.
#[test]
fn a_header_of_another_making_decides_nothing() {
    for (forged, damage) in [
        (TableSpec::new(1, [7; 16]), Damage::Field { field: "capacity", found: 1, expected: 100 }),
        (TableSpec::new(CAPACITY, [8; 16]), Damage::HashKey),
    ] {
        let memory = formatted();
        fill(&memory);
        FlowTable::format(&memory.region(), forged).expect("format");
        let mut table = memory.flows().expect("open");
        assert_eq!((table.damage(), table.len(), table.buckets()), (Some(damage), 0, BUCKETS));
        use_all(&mut table, 2);
        drop(table);
        fill(&memory);
        let table = memory.flows().expect("open");
        assert_eq!((table.damage(), table.len()), (None, 60));
    }
}

/// A new proof is a single store, so a kill leaves the old one or the new one; and no other byte of the table depends on it.
#[test]
fn a_proof_changes_two_bytes_of_one_word() {
    let memory = formatted();
    fill(&memory);
    let size = usize::try_from(HEADER).expect("small") + BUCKETS_AND_BIRTHS;
    let read = || {
        let mut bytes = vec![0; size];
        memory.file.read_exact_at(&mut bytes, 0).expect("read");
        bytes
    };
    let before = read();
    let table = memory.flows().expect("open");
    let slot = table.find(&table.prepare(&key(30)), &key(30), 1, |_| true).expect("there");
    for proof in [0xabcd, 0xffff, 1, 0, 0x00ff, 0xff00] {
        table.set_proof(slot, proof);
        let after = read();
        let changed: Vec<usize> = (0..size).filter(|i| before[*i] != after[*i]).collect();
        assert!(changed.iter().all(|i| i % 8 >= 6 && i / 8 == changed[0] / 8), "{proof:#x} {changed:?}");
        // And it is there for a successor, with all that there was.
        let next = memory.flows().expect("open");
        assert_eq!(next.len(), 60);
        for n in 0..60 {
            let slot = next.find(&next.prepare(&key(n)), &key(n), 1, |_| true).expect("there");
            assert_eq!((next.get(slot), next.proof(slot)), (Some(flow(n)), if n == 30 { proof } else { 0 }));
        }
    }
}

#[test]
fn open_says_what_is_wrong() {
    let damage = |memory: &Memory| memory.flows().expect("open").damage();
    let field = |damage| match damage {
        Some(Damage::Field { field, found, expected }) => Some((field, found, expected)),
        _ => None,
    };
    let memory = Memory::new(FlowTable::bytes_for(CAPACITY));
    assert_eq!(damage(&memory).expect("damage").to_string(), format!("the header says magic 0, not {MAGIC}"));
    for (capacity, too_many) in [(0, true), (1 << 29, true), (10_000, false)] {
        let spec = TableSpec::new(capacity, [0; 16]);
        for error in [
            FlowTable::format(&memory.region(), spec).expect_err("refused"),
            FlowTable::open(memory.region(), spec, TIMEOUTS).expect_err("refused"),
        ] {
            assert_eq!(matches!(error, Error::Capacity(_)), too_many, "{error}");
            assert_eq!(matches!(error, Error::Size { .. }), !too_many, "{error}");
        }
    }
    let memory = formatted();
    let opened = AffinityTable::open(memory.region(), SPEC, |_| {}).expect("open");
    assert_eq!(field(opened.damage()), Some(("kind", 1, 2)));

    for (at, bytes, expected) in [
        (8, (LAYOUT_VERSION + 1).to_le_bytes().to_vec(), ("layout version", LAYOUT_VERSION + 1, LAYOUT_VERSION)),
        (16, 1_000_000_u64.to_le_bytes().to_vec(), ("capacity", 1_000_000, 100)),
        (24, 2_u64.to_le_bytes().to_vec(), ("number of buckets", 2, 25)),
    ] {
        let memory = formatted();
        memory.write(at, &bytes);
        let (name, found, right) = expected;
        assert_eq!(field(damage(&memory)), Some((name, found.into(), right.into())));
    }
    let memory = formatted();
    memory.write(32, b"another key");
    let text = damage(&memory).expect("damage").to_string();
    assert_eq!(text, "the header has another hash key");
    assert!(!format!("{SPEC:?}").contains('7'), "the key is secret");
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()[3]
    };
    (0..bytes).map(|_| next()).collect()
}
