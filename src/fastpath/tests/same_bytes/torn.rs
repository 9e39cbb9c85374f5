//! A writer that never stops: the program follows whole entries alone.

use crate::is_root;
use crate::packets::{ACK, ends, tcp};
use crate::world::{BACKENDS, CAPACITY, HASH_KEY, REDIRECT, VIPS, World, index_of, now};
use loaded_fastpath::Miss;
use loaded_table::{Flow, FlowKey, FlowState, FlowTable, Region, TableSpec, Timeouts};
use loaded_worker::wire::from_ip;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::thread;

const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };
const TRIES: u32 = 3_000_000;
const ENOUGH: u32 = 1000;
const SPEC: TableSpec = TableSpec::new(CAPACITY, HASH_KEY);
const CLIENT: (&str, u16) = ("10.50.0.1", 40_000);
const VIP: (&str, u16) = (VIPS[0], 443);

fn key(client_port: u16) -> FlowKey {
    FlowKey { protocol: 6, client: from_ip(CLIENT.0.parse().expect("address")), client_port, service_port: VIP.1 }
}

/// The words that a flow changes in an empty table: those of its entry, then times, states, and tags. They are those of way 0.
fn image(memory: &OwnedFd, key: &FlowKey, backend: usize, state: FlowState) -> Vec<(usize, u64)> {
    let map = || Region::map_array(memory, FlowTable::bytes_for(CAPACITY)).expect("map");
    let region = map();
    let words = || region.words().iter().map(|word| word.load(Relaxed)).collect::<Vec<_>>();
    FlowTable::format(&region, SPEC).expect("format");
    let mut table = FlowTable::open(map(), SPEC, TIMEOUTS).expect("open");
    let flow = Flow { vip: 0, backend: index_of(backend), vip_port: VIP.1, state };
    table.insert(&table.prepare(key), key, flow, now().seconds).expect("room");
    let after = words();
    let header = (16..after.len()).step_by(40).find(|&at| after[at] != 0).expect("its tag");
    [8, 9, 10, 11, 2, 6, 7, 0].map(|n| (header + n, after[header + n])).into()
}

/// Writes flows into one way in turn, in the order in which a worker does (`Map::remove`, `Way::fill`).
fn write(memory: &OwnedFd, images: &[Vec<(usize, u64)>], stop: &AtomicBool) {
    let region = Region::map_array(memory, FlowTable::bytes_for(CAPACITY)).expect("map");
    let words = region.words();
    while !stop.load(Relaxed) {
        for image in images {
            let [a, b, c, d, seen, state, check, tag] = image.as_slice() else { return };
            words[tag.0].store(0, Release);
            // Of way 0, whose half comes first. A slow machine would else be left with flows that are stale.
            let seen = &(seen.0, seen.1 & !u64::from(u32::MAX) | u64::from(now().seconds));
            for (at, word) in [a, b, c, d, seen, state, check] {
                words[*at].store(*word, Relaxed);
            }
            words[tag.0].store(tag.1, Release);
        }
    }
}

/// One way holds, in turn, two flows of this key and one of another: each has its backend, and the first two have their states.
#[test]
fn no_half_written_entry_is_followed() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    let memory = world.maps.table.try_clone().expect("dup");
    let mine = key(CLIENT.1);
    let open = image(&memory, &mine, 0, FlowState::Established);
    let half = image(&memory, &mine, 1, FlowState::HalfOpen);
    let others = (0..CLIENT.1).map(|port| image(&memory, &key(port), 2, FlowState::Established));
    let other = others.into_iter().find(|other| other[7].0 == open[7].0).expect("one of the same bucket");
    let images = [open, half, other];
    let stop = AtomicBool::new(false);
    let (mut silent, mut told, mut missed) = (0, 0, 0);
    let wrong = thread::scope(|scope| {
        scope.spawn(|| write(&memory, &images, &stop));
        let packet = tcp(CLIENT, VIP, ACK);
        // How often both meet is for the machine to say.
        let wrong = (0..TRIES).find_map(|n| {
            if silent > ENOUGH && told > ENOUGH && missed > ENOUGH {
                return None;
            }
            let (said, sent) = world.try_packet(&packet, world.outside);
            let reports: Vec<u16> = world.heard().iter().map(|report| report.backend).collect();
            let to = ends(&sent).1;
            match (said, reports.as_slice()) {
                (REDIRECT, []) if to == BACKENDS[0] => silent += 1,
                (REDIRECT, [backend]) if to == BACKENDS[1] && *backend == index_of(1) => told += 1,
                (REDIRECT, _) => return Some((n, reports, to)),
                _ => missed += 1,
            }
            None
        });
        stop.store(true, Relaxed);
        wrong
    });
    println!("silent {silent}, told {told}, missed {missed}, torn {}", world.loaded.program.missed(Miss::Torn));
    assert_eq!(wrong, None);
    assert!(silent > ENOUGH && told > ENOUGH && missed > ENOUGH);
}
