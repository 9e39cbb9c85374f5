//! Operations on a flow table and an affinity table, of any size, against plain maps that are told the same.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use loaded_table::{
    AffinityKey, AffinityTable, Client, Flow, FlowKey, FlowState, FlowTable, Region, TableSpec, Timeouts, shm,
};
use std::collections::HashMap;
use std::os::fd::OwnedFd;

const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };

/// Flows or clients at most, so that tables fill.
const MOST: usize = 64;

#[derive(Debug, Arbitrary)]
struct Input {
    flows: bool,
    capacity: u8,
    start: u32,
    hash_key: [u8; 16],
    acts: Vec<Act>,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Act {
    Insert { key: u8, vip: u8, backend: u8, state: u8, proof: u16 },
    Remove { key: u8, vip: u8 },
    Change { key: u8, vip: u8, state: u8 },
    Prove { key: u8, vip: u8, proof: u16 },
    Refresh { key: u8, vip: u8 },
    Find { key: u8, vip: u8 },
    Wait(u8),
    WaitLong(u16),
    Sweep(u8),
    Retain(u8),
    Reopen,
}

thread_local! {
    static MEMORY: OwnedFd = {
        let bytes = FlowTable::bytes_for(MOST).max(AffinityTable::bytes_for(MOST));
        shm::create("fuzz", bytes).expect("create")
    };
}

fn region() -> Region {
    MEMORY.with(|memory| Region::map(memory).expect("map"))
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

/// Whether a living flow may be given up for another.
fn may_go(state: FlowState) -> bool {
    use FlowState as S;
    !matches!(state, S::Established | S::ClientDone | S::BackendDone | S::LastAck | S::Datagram)
}

fn flow_key(n: u8) -> FlowKey {
    let mut client = [0; 16];
    client[10..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, n / 8]);
    FlowKey {
        protocol: if n.is_multiple_of(2) { 6 } else { 17 },
        client,
        client_port: 1000 + u16::from(n) % 4,
        service_port: if n % 8 < 4 { 80 } else { 81 },
    }
}

/// One of the first, or one with bits everywhere.
fn backend_of(n: u8) -> u16 {
    if n % 8 < 6 { u16::from(n % 8) } else { u16::from(n) << 8 }
}

/// Two VIPs, one of them with two ports.
fn place(n: u8) -> (u16, u16) {
    [(0, 80), (0, 65535), (1, 80)][usize::from(n % 3)]
}

fn flows(input: &Input) {
    let capacity = usize::from(input.capacity) % MOST + 1;
    let spec = TableSpec::new(capacity, input.hash_key);
    FlowTable::format(&region(), spec).expect("format");
    // Backends beyond those have the default.
    let of_backends = [5, 50, 3000].map(|n| Timeouts {
        half_open: n / 2,
        established: n * 9,
        closing: n / 3,
        reset: n * 2,
        datagram: n,
        echo: n + 1,
    });
    let timeout = |flow: &Flow| match of_backends.get(usize::from(flow.backend)) {
        Some(timeouts) => timeouts.of(flow.state),
        None => TIMEOUTS.of(flow.state),
    };
    let open = || {
        let mut table = FlowTable::open(region(), spec, TIMEOUTS).expect("open");
        table.set_timeouts(of_backends.into());
        table
    };
    let mut table = open();
    let mut model: HashMap<(FlowKey, (u16, u16)), (Flow, u32)> = HashMap::new();
    // The proof of each, and when it was put in.
    let mut beside: HashMap<(FlowKey, (u16, u16)), (u16, u32)> = HashMap::new();
    let mut now = input.start;
    for act in &input.acts {
        let alive = |(flow, seen): &(Flow, u32)| now.wrapping_sub(*seen) <= timeout(flow);
        match *act {
            Act::Insert { key, vip, backend, state: s, proof } => {
                let (key, place) = (flow_key(key), place(vip));
                let flow = Flow { vip: place.0, vip_port: place.1, backend: backend_of(backend), state: state(s) };
                let hashed = table.prepare(&key);
                table.prefetch_entry(&hashed);
                match table.insert(&hashed, &key, flow, now) {
                    Ok(inserted) => {
                        if let Some((gone, was)) = inserted.displaced {
                            let entry = model.remove(&(gone, (was.vip, was.vip_port))).expect("it was there");
                            assert_eq!(entry.0, was);
                            // A key protects two in a bucket.
                            let is_third = model.keys().filter(|(key, _)| *key == gone).count() == 2;
                            let same = (gone, (was.vip, was.vip_port)) == (key, place);
                            assert!(same || !alive(&entry) || may_go(was.state) || is_third, "{was:?}");
                        }
                        assert!(model.insert((key, place), (flow, now)).is_none(), "an old one was displaced");
                        assert_eq!(table.proof(inserted.slot), 0);
                        table.set_proof(inserted.slot, proof);
                        beside.insert((key, place), (proof, now));
                        assert_eq!(table.get(inserted.slot), Some(flow));
                    }
                    Err(_) => {
                        assert!(!model.contains_key(&(key, place)), "what is there has a place");
                        let firm = |entry: &&(Flow, u32)| alive(entry) && !may_go(entry.0.state);
                        assert!(model.values().filter(firm).count() >= 16, "two buckets are full");
                    }
                }
            }
            Act::Remove { key, vip }
            | Act::Change { key, vip, .. }
            | Act::Prove { key, vip, .. }
            | Act::Refresh { key, vip }
            | Act::Find { key, vip } => {
                let (key, place) = (flow_key(key), place(vip));
                let hashed = table.prepare(&key);
                let near = table.prefetch_entry(&hashed);
                let slot = table.find(&hashed, &key, now, |flow| (flow.vip, flow.vip_port) == place);
                let expected = model.get(&(key, place)).filter(|entry| alive(entry)).copied();
                assert_eq!(slot.and_then(|slot| table.get(slot)), expected.map(|(flow, _)| flow));
                let (Some(slot), Some((flow, seen))) = (slot, expected) else { continue };
                let (known, born) = beside[&(key, place)];
                assert_eq!((table.proof(slot), table.age(slot, now)), (known, Some(now.wrapping_sub(born))));
                assert!(near, "\"certainly not\" is certain");
                match act {
                    Act::Remove { .. } => {
                        assert_eq!(table.remove(slot), Some(flow));
                        model.remove(&(key, place));
                    }
                    Act::Change { state: s, .. } => {
                        table.set_state(slot, state(*s), now);
                        model.insert((key, place), (Flow { state: state(*s), ..flow }, now));
                    }
                    Act::Prove { proof, .. } => {
                        table.set_proof(slot, *proof);
                        beside.insert((key, place), (*proof, born));
                    }
                    Act::Refresh { .. } => {
                        assert_eq!(table.refresh(slot, now), seen);
                        model.insert((key, place), (flow, now));
                    }
                    _ => {}
                }
            }
            Act::Wait(seconds) => now = now.wrapping_add(seconds.into()),
            // Ages are told up to half of the clock's round.
            Act::WaitLong(seconds) => now = now.wrapping_add(seconds.into()),
            Act::Sweep(budget) => {
                table.sweep(now, budget.into(), |key, flow| {
                    let entry = model.remove(&(*key, (flow.vip, flow.vip_port))).expect("it was there");
                    assert!(entry.0 == *flow && now.wrapping_sub(entry.1) > timeout(flow));
                });
                if usize::from(budget) >= table.buckets() {
                    assert!(model.values().all(|(flow, seen)| now.wrapping_sub(*seen) <= timeout(flow)));
                }
            }
            Act::Retain(n) => {
                let keep = |flow: &Flow| flow.backend % 4 != u16::from(n % 4);
                table.retain(|_, flow| keep(flow));
                model.retain(|_, (flow, _)| keep(flow));
            }
            Act::Reopen => {
                drop(table);
                table = open();
            }
        }
        assert_eq!(table.len(), model.len());
    }
    let mut walked = 0;
    table.for_each(|slot, key, flow| {
        walked += 1;
        assert_eq!(model.get(&(*key, (flow.vip, flow.vip_port))).map(|entry| entry.0), Some(*flow));
        assert_eq!(table.get(slot), Some(*flow));
    });
    assert_eq!(walked, model.len());
}

fn clients(input: &Input) {
    let capacity = usize::from(input.capacity) % MOST + 1;
    let spec = TableSpec::new(capacity, input.hash_key);
    AffinityTable::format(&region(), spec).expect("format");
    let mut table = AffinityTable::open(region(), spec, |_| panic!("a fresh table has clients")).expect("open");
    let timeout_of = |service: u16| 10 + u32::from(service) * 20;
    // Who is there, with which backend, since when.
    let mut model: HashMap<AffinityKey, (u16, u32)> = HashMap::new();
    // The numbers that the answers alone give.
    let mut counts: HashMap<Client, isize> = HashMap::new();
    let mut now = input.start;
    for act in &input.acts {
        match *act {
            Act::Insert { key, vip, backend, .. } => {
                let key = AffinityKey { prefix: flow_key(key).client, service: u16::from(vip % 3) };
                let (hashed, backend) = (table.prepare(&key), u16::from(backend % 8));
                let assigned = table.assign(&hashed, &key, backend, now, timeout_of).expect("always");
                if let Some(gone) = assigned.removed {
                    *counts.entry(gone).or_default() -= 1;
                }
                *counts.entry(Client { service: key.service, backend }).or_default() += 1;
                assert_eq!(table.find(&hashed, &key, now, 0), Some((assigned.slot, backend)));
                if model.insert(key, (backend, now)).is_none() && assigned.removed.is_some() {
                    // Which one had to go is seen in a walk only.
                    let mut there = Vec::new();
                    table.for_each(|_, key, _| there.push(*key));
                    let before = model.len();
                    model.retain(|key, _| there.contains(key));
                    assert_eq!(model.len() + 1, before);
                }
            }
            Act::Remove { key, vip }
            | Act::Change { key, vip, .. }
            | Act::Prove { key, vip, .. }
            | Act::Refresh { key, vip }
            | Act::Find { key, vip } => {
                let key = AffinityKey { prefix: flow_key(key).client, service: u16::from(vip % 3) };
                let hashed = table.prepare(&key);
                table.prefetch_entry(&hashed);
                let found = table.find(&hashed, &key, now, timeout_of(key.service));
                let alive = |(_, seen): &&(u16, u32)| now.wrapping_sub(*seen) <= timeout_of(key.service);
                assert_eq!(found.map(|(_, backend)| backend), model.get(&key).filter(alive).map(|entry| entry.0));
                match (act, found) {
                    (Act::Remove { .. }, Some((slot, backend))) => {
                        let gone = table.remove(slot).expect("found");
                        assert_eq!(gone, Client { service: key.service, backend });
                        *counts.entry(gone).or_default() -= 1;
                        model.remove(&key);
                    }
                    (Act::Refresh { .. }, Some((slot, backend))) => {
                        table.refresh(slot, now);
                        model.insert(key, (backend, now));
                    }
                    _ => {}
                }
            }
            Act::Wait(seconds) => now = now.wrapping_add(seconds.into()),
            Act::WaitLong(seconds) => now = now.wrapping_add(seconds.into()),
            Act::Sweep(budget) => {
                table.sweep(now, budget.into(), timeout_of, |gone| *counts.entry(gone).or_default() -= 1);
                let mut there = Vec::new();
                table.for_each(|_, key, _| there.push(*key));
                let expired = |key: &AffinityKey, seen: u32| now.wrapping_sub(seen) > timeout_of(key.service);
                model.retain(|key, (_, seen)| there.contains(key) || !expired(key, *seen));
            }
            Act::Retain(n) => {
                let keep = |backend: u16| backend % 4 != u16::from(n % 4);
                table.retain(|_, client| keep(client.backend));
                model.retain(|_, (backend, _)| keep(*backend));
                counts.retain(|client, _| keep(client.backend));
            }
            Act::Reopen => {
                drop(table);
                counts.clear();
                table = AffinityTable::open(region(), spec, |client| *counts.entry(client).or_default() += 1)
                    .expect("open");
            }
        }
        assert_eq!(table.len(), model.len());
    }
    let mut walk: HashMap<Client, isize> = HashMap::new();
    table.for_each(|_, key, client| {
        assert_eq!(model.get(key).map(|entry| entry.0), Some(client.backend));
        *walk.entry(client).or_default() += 1;
    });
    counts.retain(|_, count| *count != 0);
    assert_eq!(walk, counts);
}

fuzz_target!(|input: Input| if input.flows { flows(&input) } else { clients(&input) });
