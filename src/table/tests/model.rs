//! The tables against a plain `HashMap` that is told the same things.

use loaded_table::{
    AffinityKey, AffinityTable, Client, Flow, FlowKey, FlowState, FlowTable, Region, TableSpec, Timeouts, shm,
};
use proptest::prelude::*;
use std::collections::HashMap;

const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };

const fn spec(capacity: usize) -> TableSpec {
    TableSpec::new(capacity, *b"not random here!")
}

fn flow_table(capacity: usize) -> FlowTable {
    let region = Region::map(shm::create("flows", FlowTable::bytes_for(capacity)).expect("create")).expect("map");
    FlowTable::format(&region, spec(capacity)).expect("format");
    FlowTable::open(region, spec(capacity), TIMEOUTS).expect("open")
}

fn affinity_table(capacity: usize) -> AffinityTable {
    let region =
        Region::map(shm::create("affinity", AffinityTable::bytes_for(capacity)).expect("create")).expect("map");
    AffinityTable::format(&region, spec(capacity)).expect("format");
    AffinityTable::open(region, spec(capacity), |_| panic!("a fresh table has clients")).expect("open")
}

fn flow_key(n: u16) -> FlowKey {
    let mut client = [0; 16];
    client[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, (n / 4).to_le_bytes()[0]]);
    FlowKey { protocol: if n.is_multiple_of(2) { 6 } else { 17 }, client, client_port: 1000 + n % 4, service_port: 80 }
}

fn state(n: u8) -> FlowState {
    use FlowState as S;
    [
        S::HalfOpen,
        S::Established,
        S::Closing,
        S::Datagram,
        S::Echo,
        S::ClientDone,
        S::BackendDone,
        S::Answered,
        S::Unanswered,
        S::Reset,
        S::Replied,
        S::OneSided,
        S::LastAck,
        S::Ended,
    ][usize::from(n % 14)]
}

#[derive(Debug, Clone)]
enum Op {
    Insert { key: u16, vip: u16, backend: u16, state: u8 },
    Remove { key: u16, vip: u16 },
    SetState { key: u16, vip: u16, state: u8 },
    SetProof { key: u16, vip: u16, proof: u16 },
    Refresh { key: u16, vip: u16 },
    Wait(u32),
    Sweep(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (key, vip, backend, state) = (0_u16..200, 0_u16..3, 0_u16..5, any::<u8>());
    prop_oneof![
        6 => (key.clone(), vip.clone(), backend, state)
            .prop_map(|(key, vip, backend, state)| Op::Insert { key, vip, backend, state }),
        2 => (key.clone(), vip.clone()).prop_map(|(key, vip)| Op::Remove { key, vip }),
        2 => (key.clone(), vip.clone(), state).prop_map(|(key, vip, state)| Op::SetState { key, vip, state }),
        2 => (key.clone(), vip.clone(), any::<u16>())
            .prop_map(|(key, vip, proof)| Op::SetProof { key, vip, proof }),
        2 => (key, vip).prop_map(|(key, vip)| Op::Refresh { key, vip }),
        1 => (0_u32..60).prop_map(Op::Wait),
        1 => (0_usize..400).prop_map(Op::Sweep),
    ]
}

/// Two VIPs, one of them with two ports.
fn place(n: u16) -> (u16, u16) {
    [(0, 80), (0, 65535), (1, 80)][usize::from(n % 3)]
}

fn flow(n: u16, backend: u16, state: FlowState) -> Flow {
    let (vip, vip_port) = place(n);
    Flow { vip, vip_port, backend, state }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// With enough free slots the table behaves like a HashMap with expiry, for every operation and after reopening.
    #[test]
    fn flows_follow_the_model(ops in prop::collection::vec(op(), 1..300), start in any::<u32>()) {
        let capacity = 2000;
        let fd = shm::create("flows", FlowTable::bytes_for(capacity)).expect("create");
        FlowTable::format(&Region::map(&fd).expect("map"), spec(capacity)).expect("format");
        // Backends with a higher number have the timeouts given to `open`.
        let of_backends = [3, 40, 100].map(|n| {
            Timeouts { half_open: n / 2, established: n * 9, closing: n / 3, reset: n * 2, datagram: n, echo: n + 1 }
        });
        let open = || {
            let mut table = FlowTable::open(Region::map(&fd).expect("map"), spec(capacity), TIMEOUTS).expect("open");
            table.set_timeouts(of_backends.into());
            table
        };
        let timeout = |flow: &Flow| match of_backends.get(usize::from(flow.backend)) {
            Some(timeouts) => timeouts.of(flow.state),
            None => TIMEOUTS.of(flow.state),
        };
        let mut table = open();
        let mut model: HashMap<(u16, u16), (Flow, u32)> = HashMap::new();
        // The proof of each, and when it was put in.
        let mut beside: HashMap<(u16, u16), (u16, u32)> = HashMap::new();
        let mut now = start;
        for op in ops {
            let alive = |entry: &(Flow, u32)| now.wrapping_sub(entry.1) <= timeout(&entry.0);
            let look = |table: &FlowTable, key: u16, vip: u16| {
                let hashed = table.prepare(&flow_key(key));
                table.prefetch_entry(&hashed);
                table.find(&hashed, &flow_key(key), now, |flow| (flow.vip, flow.vip_port) == place(vip))
            };
            match op {
                Op::Insert { key, vip, backend, state: s } => {
                    let flow = flow(vip, backend, state(s));
                    let hashed = table.prepare(&flow_key(key));
                    let proof = backend * 999 + u16::from(s);
                    let inserted = table.insert(&hashed, &flow_key(key), flow, now).expect("room");
                    prop_assert_eq!(table.proof(inserted.slot), 0);
                    table.set_proof(inserted.slot, proof);
                    beside.insert((key, vip), (proof, now));
                    let old = model.insert((key, vip), (flow, now));
                    if let Some((k, f)) = inserted.displaced {
                        prop_assert_eq!((k, Some(f)), (flow_key(key), old.map(|(flow, _)| flow)));
                    }
                    prop_assert_eq!(table.get(inserted.slot), Some(flow));
                }
                Op::Remove { key, vip } => {
                    let expected = model.get(&(key, vip)).filter(|e| alive(e)).map(|e| e.0);
                    let found = look(&table, key, vip).and_then(|slot| table.remove(slot));
                    prop_assert_eq!(found, expected);
                    if expected.is_some() { model.remove(&(key, vip)); }
                }
                Op::SetState { key, vip, state: s } => {
                    let entry = model.get_mut(&(key, vip)).filter(|e| alive(e));
                    let slot = look(&table, key, vip);
                    prop_assert_eq!(slot.is_some(), entry.is_some());
                    if let (Some(slot), Some(entry)) = (slot, entry) {
                        table.set_state(slot, state(s), now);
                        entry.0.state = state(s);
                        entry.1 = now;
                    }
                }
                Op::SetProof { key, vip, proof } => {
                    let slot = look(&table, key, vip);
                    prop_assert_eq!(slot.is_some(), model.get(&(key, vip)).is_some_and(alive));
                    if let Some(slot) = slot {
                        table.set_proof(slot, proof);
                        beside.entry((key, vip)).and_modify(|(known, _)| *known = proof);
                    }
                }
                Op::Refresh { key, vip } => {
                    let entry = model.get_mut(&(key, vip)).filter(|e| alive(e));
                    let slot = look(&table, key, vip);
                    prop_assert_eq!(slot.is_some(), entry.is_some());
                    if let (Some(slot), Some(entry)) = (slot, entry) {
                        table.refresh(slot, now);
                        entry.1 = now;
                    }
                }
                Op::Wait(seconds) => now = now.wrapping_add(seconds),
                Op::Sweep(budget) => {
                    table.sweep(now, budget, |_, _| {});
                    if budget >= table.buckets() {
                        model.retain(|_, e| alive(e));
                        prop_assert_eq!(table.len(), model.len());
                    }
                }
            }
        }
        let before = table.len();
        drop(table);
        let mut table = open();
        prop_assert_eq!(table.len(), before);
        let mut walked = 0;
        table.for_each(|_, _, _| walked += 1);
        prop_assert_eq!(walked, before);
        for ((key, vip), (flow, seen)) in &model {
            let hashed = table.prepare(&flow_key(*key));
            let alive = now.wrapping_sub(*seen) <= timeout(flow);
            let by_vip = table.find(&hashed, &flow_key(*key), now, |f| (f.vip, f.vip_port) == place(*vip));
            prop_assert_eq!(by_vip.and_then(|slot| table.get(slot)), alive.then_some(*flow));
            if let Some(slot) = by_vip {
                let (proof, born) = beside[&(*key, *vip)];
                prop_assert_eq!((table.proof(slot), table.age(slot, now)), (proof, Some(now.wrapping_sub(born))));
            }
            let by_backend = table.find(&hashed, &flow_key(*key), now, |f| f.backend == flow.backend);
            prop_assert!(by_backend.is_some() || !alive);
        }
        let mut expired = 0;
        let buckets = table.buckets();
        table.sweep(now.wrapping_add(1_000_000), buckets, |_, _| expired += 1);
        prop_assert_eq!((expired, table.len()), (before, 0));
    }

    /// However full the table is, the counts kept by what operations report are those of a walk, and of a reopened table.
    #[test]
    fn affinity_counts_are_exact(
        capacity in 1_usize..200,
        ops in prop::collection::vec((0_u8..8, 0_u16..400, 0_u16..3, 0_u16..4, 0_u32..20), 1..500),
    ) {
        let fd = shm::create("affinity", AffinityTable::bytes_for(capacity)).expect("create");
        AffinityTable::format(&Region::map(&fd).expect("map"), spec(capacity)).expect("format");
        let mut table = AffinityTable::open(Region::map(&fd).expect("map"), spec(capacity), |_| {}).expect("open");
        let mut counts: HashMap<Client, usize> = HashMap::new();
        let mut now = 5_u32;
        let timeout_of = |service: u16| 10 + u32::from(service);
        for (what, n, service, backend, wait) in ops {
            let mut prefix = [0; 16];
            prefix[..2].copy_from_slice(&n.to_le_bytes());
            let key = AffinityKey { prefix, service };
            let hashed = table.prepare(&key);
            match what {
                0 => now += wait,
                1 => table.sweep(now, usize::from(n), timeout_of, |gone| *counts.entry(gone).or_default() -= 1),
                2 => {
                    if let Some((slot, _)) = table.find(&hashed, &key, now, timeout_of(service)) {
                        let gone = table.remove(slot).expect("found");
                        *counts.entry(gone).or_default() -= 1;
                    }
                }
                _ => {
                    let assigned = table.assign(&hashed, &key, backend, now, timeout_of).expect("always");
                    if let Some(gone) = assigned.removed {
                        *counts.entry(gone).or_default() -= 1;
                    }
                    *counts.entry(Client { service, backend }).or_default() += 1;
                    let found = table.find(&hashed, &key, now, timeout_of(service));
                    prop_assert_eq!(found, Some((assigned.slot, backend)));
                }
            }
            prop_assert_eq!(counts.values().sum::<usize>(), table.len());
        }
        counts.retain(|_, count| *count > 0);
        let mut walk: HashMap<Client, usize> = HashMap::new();
        table.for_each(|_, _, client| *walk.entry(client).or_default() += 1);
        prop_assert_eq!(&walk, &counts);
        drop(table);
        let mut rebuilt: HashMap<Client, usize> = HashMap::new();
        AffinityTable::open(Region::map(&fd).expect("map"), spec(capacity), |client| *rebuilt.entry(client).or_default() += 1)
            .expect("open");
        prop_assert_eq!(&rebuilt, &counts);
    }
}

/// Two buckets, sixteen ways: what is evicted, and what is not.
#[test]
fn a_full_table_evicts_the_right_flow() {
    let mut table = flow_table(1);
    let put = |table: &mut FlowTable, n: u16, state: FlowState, now: u32| {
        let key = flow_key(n);
        table.insert(&table.prepare(&key), &key, Flow { vip: 0, vip_port: 80, backend: n, state }, now)
    };
    let gone = |inserted: loaded_table::Inserted| inserted.displaced.map(|(_, flow)| flow.backend);
    for n in 0..16 {
        let state = [FlowState::Established, FlowState::Datagram, FlowState::HalfOpen, FlowState::Echo]
            [usize::from(n / 2).min(3)];
        assert_eq!(gone(put(&mut table, n, state, 100 + u32::from(n)).expect("room")), None);
    }
    assert_eq!(table.len(), 16);
    // Half-open flows go before echo, the older first.
    assert_eq!(gone(put(&mut table, 20, FlowState::Established, 116).expect("room")), Some(4));
    assert_eq!(gone(put(&mut table, 21, FlowState::Established, 116).expect("room")), Some(5));
    assert_eq!(gone(put(&mut table, 22, FlowState::Established, 116).expect("room")), Some(6));
    // Expired flows go before all others.
    assert_eq!(gone(put(&mut table, 23, FlowState::Established, 400).expect("room")), Some(2));
    for n in 24..40 {
        let _ = put(&mut table, n, FlowState::Established, 400);
    }
    // Every flow is open now: none is evicted.
    assert_eq!(put(&mut table, 50, FlowState::Established, 400), Err(loaded_table::TableFull));
    assert_eq!(put(&mut table, 51, FlowState::HalfOpen, 400), Err(loaded_table::TableFull));
    assert_eq!(table.len(), 16);
    // But a flow can always be replaced by itself.
    assert_eq!(gone(put(&mut table, 20, FlowState::Closing, 400).expect("same")), Some(20));
    assert_eq!(gone(put(&mut table, 51, FlowState::HalfOpen, 400).expect("closing goes")), Some(20));
}

#[test]
fn a_full_affinity_table_evicts_the_client_unseen_for_longest() {
    let mut table = affinity_table(1);
    let key = |n: u8| AffinityKey { prefix: [n; 16], service: u16::from(n % 2) };
    let put = |table: &mut AffinityTable, n: u8, now: u32| {
        let hashed = table.prepare(&key(n));
        table.assign(&hashed, &key(n), u16::from(n), now, |service| if service == 0 { 1000 } else { 50 })
    };
    for n in 0..16 {
        assert_eq!(put(&mut table, n, u32::from(n)).expect("assign").removed, None);
    }
    let removed = |assigned: Option<loaded_table::Assigned>| assigned.and_then(|a| a.removed).map(|c| c.backend);
    assert_eq!(removed(put(&mut table, 16, 20)), Some(0));
    // Number 1 belongs to the service with the short timeout; number 2 is unseen for about as long, but within its timeout.
    assert_eq!(removed(put(&mut table, 18, 60)), Some(1));
    assert_eq!(removed(put(&mut table, 2, 60)), Some(2));
}

#[test]
fn after_the_clock_went_back_nothing_expires_early_or_stays_for_ever() {
    let mut table = flow_table(10);
    let key = flow_key(1);
    let hashed = table.prepare(&key);
    let flow = Flow { vip: 1, vip_port: 80, backend: 2, state: FlowState::HalfOpen };
    table.insert(&hashed, &key, flow, 1_000_000).expect("room");
    assert!(table.find(&hashed, &key, 10, |_| true).is_some());
    let buckets = table.buckets();
    table.sweep(10, buckets, |_, _| panic!("not yet"));
    assert!(table.find(&hashed, &key, 40, |_| true).is_some());
    assert!(table.find(&hashed, &key, 41, |_| true).is_none());
    let mut gone = 0;
    table.sweep(41, buckets, |k, f| gone += u32::from(*k == key && *f == flow));
    assert_eq!((gone, table.len()), (1, 0));
}
