//! Who makes room for whom in a flood: how long a new flow stays, and how much one source prefix can keep.

use loaded_table::{
    Flow, FlowKey, FlowState, FlowTable, Hashed, Inserted, QuotaTracker, Region, TableSpec, Timeouts, shm,
};
use proptest::prelude::*;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };

fn spec(capacity: usize) -> TableSpec {
    TableSpec::new(capacity, *b"not random here!")
}

fn memory(capacity: usize) -> OwnedFd {
    let memory = shm::create("quota", FlowTable::bytes_for(capacity)).expect("create");
    FlowTable::format(&Region::map(&memory).expect("map"), spec(capacity)).expect("format");
    memory
}

/// Counts what is in the table, as a worker that takes it over does.
fn open(memory: &OwnedFd, capacity: usize, quota: Option<QuotaTracker>) -> FlowTable {
    let mut table = FlowTable::open(Region::map(memory).expect("map"), spec(capacity), TIMEOUTS).expect("open");
    if let Some(quota) = quota {
        table.set_quota(quota);
        table.retain(|_, _| true);
    }
    table
}

/// Host `host` of an IPv4 /24, or, if the network is odd, of an IPv6 /48.
fn key(network: u16, host: u8, port: u16) -> FlowKey {
    let [a, b] = network.to_be_bytes();
    let client = match network % 2 {
        0 => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, a, b, host],
        _ => [0x20, 1, 0xd, 0xb8, a, b, host, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    };
    FlowKey { protocol: 6, client, client_port: port, service_port: 80 }
}

fn insert(table: &mut FlowTable, key: &FlowKey, state: FlowState, now: u32) -> Option<Inserted> {
    let hashed = table.prepare(key);
    table.insert(&hashed, key, Flow { vip: 0, vip_port: 80, backend: 0, state }, now).ok()
}

/// Opens a connection: half open, then answered, then open. Returns whether it found a slot.
fn connect(table: &mut FlowTable, key: &FlowKey, now: u32) -> bool {
    let Some(inserted) = insert(table, key, FlowState::HalfOpen, now) else { return false };
    table.set_state(inserted.slot, FlowState::Answered, now);
    table.set_state(inserted.slot, FlowState::Established, now);
    true
}

fn find(table: &FlowTable, key: &FlowKey, now: u32) -> Option<(Hashed, loaded_table::Slot)> {
    let hashed = table.prepare(key);
    Some((hashed, table.find(&hashed, key, now, |_| true)?))
}

/// The seconds that new flows stay, sorted, while `flood` spoofed ones come each second, answered or not. The new flows are
/// never answered, which is the worst case.
fn survival(capacity: usize, flood: u32, answered: bool) -> Vec<u32> {
    let mut table = open(&memory(capacity), capacity, None);
    let (mut legitimate, mut ages) = (Vec::new(), Vec::new());
    let (mut number, mut port) = (0_u32, 0);
    for now in 0..9 {
        for n in 0..flood {
            number += 1;
            let [a, b, c, d] = number.to_be_bytes();
            let spoofed = FlowKey { client_port: u16::from_be_bytes([a, b]), ..key(u16::from_be_bytes([b, c]), d, 0) };
            let inserted = insert(&mut table, &spoofed, FlowState::HalfOpen, now).expect("nothing is protected");
            if answered {
                table.set_state(inserted.slot, FlowState::Answered, now);
            }
            if n % (flood / 100) == 0 && (3..8).contains(&now) {
                port += 1;
                let new = key(0x7f00, 9, port);
                insert(&mut table, &new, FlowState::HalfOpen, now).expect("room");
                legitimate.push((new, number));
            }
            if n % 100 == 0 {
                legitimate.retain(|(key, since)| {
                    let alive = find(&table, key, now).is_some();
                    if !alive {
                        ages.push(number - since);
                    }
                    alive
                });
            }
        }
    }
    ages.sort_unstable();
    ages
}

/// A half-open flow stays for a second, also in a flood that gets answers; or, if the flood is faster, until the flood has
/// overwritten about the whole table, and not only a sixteenth of it.
#[test]
fn a_new_flow_stays_while_a_flood_fills_the_table() {
    const SLOTS: f64 = 2048.0;
    for (flood, answered, least) in [(1000, true, 1000.0 / SLOTS), (2000, false, 0.5), (10_000, true, 0.5)] {
        let ages = survival(1024, flood, answered);
        let part = |percent: usize| f64::from(ages[ages.len() * percent / 100]) / SLOTS;
        let parts = [1, 10, 50].map(part);
        println!(
            "{flood} a second, answered {answered}: {} new ones, 1, 10, 50 %: {parts:.2?} of slots/rate",
            ages.len()
        );
        assert!(ages.len() > 250 && parts[2] >= least, "{flood}, {answered}: {parts:?}");
    }
}

#[test]
fn a_prefix_over_its_share_gives_way_to_others() {
    for (network, other) in [(2, 4), (3, 5), (2, 5), (3, 4)] {
        // Each of its hosts has less than a share; without a quota the others find no slot.
        let fill = |quota| {
            let mut table = open(&memory(64), 64, quota);
            (0..4000).for_each(|n: u16| {
                connect(&mut table, &key(network, n.to_be_bytes()[1], n), 1);
            });
            assert_eq!(table.len(), 128);
            let in_vain = (0..32).filter(|port| !connect(&mut table, &key(other, 1, *port), 2)).count();
            (table, in_vain)
        };
        assert_eq!(fill(None).1, 32);
        let (table, in_vain) = fill(Some(QuotaTracker::new(24, 48, 50)));
        assert_eq!(in_vain, 0);
        assert!(
            (0..32).all(|port| find(&table, &key(other, 1, port), 2).is_some_and(|(_, slot)| table.is_protected(slot)))
        );
        assert_eq!((table.protected(&key(network, 7, 7).client), table.protected(&key(other, 7, 7).client)), (32, 32));
    }
}

/// Slots beyond the shares are open to all: the flow that is idle for longest is evicted.
#[test]
fn a_prefix_over_its_share_evicts_only_its_own_flows() {
    let mut table = open(&memory(64), 64, Some(QuotaTracker::new(24, 48, 10)));
    (0..128).for_each(|n| assert!(connect(&mut table, &key(2, 1, n), u32::from(n))));
    for n in 128..512 {
        assert!(connect(&mut table, &key(2, 1, n), u32::from(n)), "{n}");
    }
    let protected =
        (0..512).filter(|n| find(&table, &key(2, 1, *n), 512).is_some_and(|(_, slot)| table.is_protected(slot)));
    let protected: Vec<_> = protected.collect();
    assert_eq!(protected, (0..32).collect::<Vec<_>>(), "the first ones, until it mattered");
}

/// All flows of a key lie in two buckets: there they leave room for others, however often they end and begin again.
#[test]
fn one_key_protects_four_flows() {
    let mut table = open(&memory(1000), 1000, Some(QuotaTracker::new(24, 48, 50)));
    let (key, other) = (key(2, 1, 4001), key(4, 1, 4001));
    let hashed = table.prepare(&key);
    let mut slots = Vec::new();
    for vip_port in 1..=16 {
        let flow = Flow { vip: 0, vip_port, backend: 0, state: FlowState::HalfOpen };
        slots.push(table.insert(&hashed, &key, flow, 1).expect("room").slot);
    }
    let protected = |table: &FlowTable| slots.iter().filter(|slot| table.is_protected(**slot)).count();
    for states in [&[FlowState::Answered, FlowState::Established][..], &[FlowState::Reset, FlowState::Established]] {
        let within = |slot: &&loaded_table::Slot| {
            states.iter().map(|state| table.set_state(**slot, *state, 1)).filter(|within| !within).count() == 0
        };
        assert_eq!(slots.iter().filter(within).count(), 4);
        assert_eq!(protected(&table), 4);
    }
    assert_eq!(table.protected(&key.client), 4);
    // The others make room, for the same key and for another one in the same buckets.
    let flow = Flow { vip: 0, vip_port: 17, backend: 0, state: FlowState::HalfOpen };
    assert!(table.insert(&hashed, &key, flow, 3).is_ok_and(|inserted| inserted.evicted));
    assert!(connect(&mut table, &other, 3));
    assert!(find(&table, &other, 3).is_some_and(|(_, slot)| table.is_protected(slot)));
}

#[derive(Debug, Clone)]
enum Op {
    Open { network: u16, port: u16 },
    State { network: u16, port: u16, state: u8 },
    Remove { network: u16, port: u16 },
    Wait(u32),
    Sweep(usize),
    Retain(u16),
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let (network, port) = (0..6_u16, 0..40_u16);
    prop_oneof![
        6 => (network.clone(), port.clone()).prop_map(|(network, port)| Op::Open { network, port }),
        6 => (network.clone(), port.clone(), 1..=12_u8).prop_map(|(network, port, state)| Op::State { network, port, state }),
        2 => (network, port).prop_map(|(network, port)| Op::Remove { network, port }),
        1 => (0..200_u32).prop_map(Op::Wait),
        1 => (0..40_usize).prop_map(Op::Sweep),
        1 => (0..40_u16).prop_map(Op::Retain),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// After any operations the count of a prefix is that of a walk, and it alone decides which flows are protected.
    #[test]
    fn counts_are_those_of_a_walk(ops in prop::collection::vec(op(), 1..400)) {
        let memory = memory(40);
        let quota = || Some(QuotaTracker::new(24, 48, 10));
        let mut table = open(&memory, 40, quota());
        let mut now = 1000;
        for op in ops {
            match op {
                Op::Open { network, port } => { connect(&mut table, &key(network, 1, port), now); }
                Op::State { network, port, state } => {
                    let key = key(network, 1, port);
                    if let Some((_, slot)) = find(&table, &key, now) {
                        let state = FlowState::from_u8(state).expect("a state");
                        let before = table.get(slot).expect("found").state;
                        let (own, all) = (table.protected(&key.client), (0..6).map(|n| table.protected(&self::key(n, 1, 0).client)).sum::<u32>());
                        let within = table.set_state(slot, state, now);
                        prop_assert_eq!(table.get(slot).map(|flow| flow.state), Some(state));
                        prop_assert_eq!(table.is_protected(slot), within && state.is_kept());
                        if state.is_kept() && !before.is_kept() {
                            prop_assert_eq!(within, all < 20 || own < 4);
                        }
                    }
                }
                Op::Remove { network, port } => {
                    if let Some((_, slot)) = find(&table, &key(network, 1, port), now) {
                        table.remove(slot);
                    }
                }
                Op::Wait(seconds) => now += seconds * 40,
                Op::Sweep(budget) => table.sweep(now, budget, |_, _| {}),
                Op::Retain(port) => table.retain(|key, _| key.client_port != port),
                Op::Reopen => {
                    drop(table);
                    table = open(&memory, 40, quota());
                }
            }
            let mut walk: HashMap<[u8; 16], u32> = HashMap::new();
            table.for_each(|slot, key, _| *walk.entry(key.client).or_default() += u32::from(table.is_protected(slot)));
            for network in 0..6 {
                let client = key(network, 1, 0).client;
                prop_assert_eq!(table.protected(&client), walk.get(&client).copied().unwrap_or(0));
            }
        }
    }
}
