//! A writer that never stops: the program follows whole entries alone.

use crate::is_root;
use crate::packets::{ACK, ends, tcp};
use crate::world::{BACKENDS, CAPACITY, REDIRECT, VIPS, World, index_of, now};
use loaded_table::{Flow, FlowKey, FlowState, FlowTable, Region, Timeouts};
use loaded_worker::wire::from_ip;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };
const CLIENT: (&str, u16) = ("10.50.0.1", 40_000);
const VIP: (&str, u16) = (VIPS[0], 443);

/// One way of the table holds, in turn, two flows of this key and one of another: each key's states and backends go together.
fn write(table: &OwnedFd, stop: &AtomicBool) {
    let region = Region::map_array(table, FlowTable::bytes_for(CAPACITY)).expect("map");
    let mut table = FlowTable::open(region, TIMEOUTS).expect("open");
    let key = FlowKey { protocol: 6, client: from_ip(CLIENT.0.parse().expect("address")), client_port: CLIENT.1, service_port: VIP.1 };
    let other = FlowKey { client_port: 40_001, ..key };
    let flow = |backend, state| Flow { vip: 0, backend: index_of(backend), service: 0, state };
    let turns = [
        (key, flow(0, FlowState::Established)),
        (key, flow(1, FlowState::HalfOpen)),
        (other, flow(2, FlowState::Established)),
    ];
    while !stop.load(Relaxed) {
        for (key, flow) in turns {
            let hashed = table.prepare(&key);
            let inserted = table.insert(&hashed, &key, flow, now().seconds).expect("room");
            if key == other || flow.state == FlowState::HalfOpen {
                table.remove(inserted.slot);
            }
        }
    }
}

#[test]
fn no_half_written_entry_is_followed() {
    if !is_root() {
        return;
    }
    let mut world = World::new();
    let table = world.maps.table.try_clone().expect("dup");
    let stop = AtomicBool::new(false);
    let (mut silent, mut told, mut missed) = (0, 0, 0);
    let wrong = thread::scope(|scope| {
        scope.spawn(|| write(&table, &stop));
        let packet = tcp(CLIENT, VIP, ACK);
        let wrong = (0..300_000).find_map(|_| {
            let (said, sent) = world.try_packet(&packet, world.outside);
            let reports: Vec<u16> = world.heard().iter().map(|report| report.backend).collect();
            let to = ends(&sent).1;
            match (said, reports.as_slice()) {
                (REDIRECT, []) if to == BACKENDS[0] => silent += 1,
                (REDIRECT, [backend]) if to == BACKENDS[1] && *backend == index_of(1) => told += 1,
                (REDIRECT, _) => return Some((reports, to)),
                _ => missed += 1,
            }
            None
        });
        stop.store(true, Relaxed);
        wrong
    });
    println!("silent {silent}, told {told}, missed {missed}, torn {}", world.program.missed(loaded_fastpath::Miss::Torn));
    assert_eq!(wrong, None);
    assert!(silent > 1000 && told > 1000 && missed > 1000);
}
