//! What a packet costs in the program, by the kernel's own count, and what the table's memory costs. Measures, and judges
//! nothing: `cargo test --release -p loaded-fastpath --features load -- --ignored --nocapture cost`.

use crate::generated::Random;
use crate::packets::{ACK, FIN, tcp, udp};
use crate::world::{HASH_KEY, MISS, REDIRECT, VIPS, World, at, decider, now};
use aya::sys::{Stats, enable_stats};
use loaded_fastpath::load::WorkerMaps;
use loaded_fastpath::program::Header;
use loaded_table::{FlowTable, Region, TableSpec, shm};
use loaded_worker::decide::{Decider, PacketBuffer};
use loaded_worker::wire::{PacketFacts, SPARE};
use std::fmt::Display;
use std::time::Instant;

const ROUNDS: usize = 100_000;

fn client(side: usize, n: usize) -> String {
    match side {
        0 => format!("10.{}.{}.{}", 50 + (n >> 16), n >> 8 & 255, n & 255),
        _ => format!("2001:db8:{:x}:{:x}::1", 50 + (n >> 16), n & 0xffff),
    }
}

/// Nanoseconds a run over packets that `next` makes.
fn measure(world: &mut World, what: impl Display, expected: i32, mut next: impl FnMut(&mut World) -> (Vec<u8>, bool)) {
    let before = world.loaded.runs(Header::Ethernet).unwrap();
    for _ in 0..ROUNDS {
        let (packet, reply) = next(world);
        let from = if reply { world.inside } else { world.outside };
        assert_eq!(world.try_packet(&packet, from).0, expected);
        world.heard();
    }
    let after = world.loaded.runs(Header::Ethernet).unwrap();
    println!("{what}: {:.0} ns", (after.1 - before.1).as_nanos() as f64 / (after.0 - before.0) as f64);
}

#[test]
#[ignore = "measures"]
fn cost_of_a_packet() {
    let _stats = enable_stats(Stats::RunTime).expect("root");
    // A table has the size that is configured, however many flows are there; the first is small enough for caches.
    let sizes = [(1000, 1000), (1_000_000, 1000), (1_000_000, 10_000), (1_000_000, 100_000), (1_000_000, 1_000_000)];
    for (promised, flows) in sizes {
        println!("a table for {promised} flows");
        let mut world = World::sized(promised);
        for (side, family) in [(0, "v4"), (1, "v6")] {
            let mut random = Random::Seeded(7);
            let count = flows / 4;
            let vip = (VIPS[side], 443);
            let mut backends = vec![];
            for n in 0..count {
                backends.push(world.open((&client(side, n), 1000), vip, now()).unwrap_or_default());
                world.talk((&client(side, n), 2000), vip, 3, now());
            }
            measure(&mut world, format!("{flows} {family} request, open TCP"), REDIRECT, |_| {
                (tcp((&client(side, random.below(count)), 1000), vip, ACK), false)
            });
            measure(&mut world, format!("{flows} {family} reply, open TCP"), REDIRECT, |_| {
                let n = random.below(count);
                (tcp(at(&backends[n], 443), (&client(side, n), 1000), ACK), true)
            });
            measure(&mut world, format!("{flows} {family} request, open UDP"), REDIRECT, |_| {
                (udp((&client(side, random.below(count)), 2000), vip), false)
            });
            measure(&mut world, format!("{flows} {family} request, one flow"), REDIRECT, |_| {
                (tcp((&client(side, 1), 1000), vip, ACK), false)
            });
            measure(&mut world, format!("{flows} {family} FIN, with a report"), REDIRECT, |_| {
                (tcp((&client(side, random.below(count)), 1000), vip, FIN | ACK), false)
            });
            measure(&mut world, format!("{flows} {family} no flow"), MISS, |_| {
                (tcp((&client(side, random.below(count)), 3000), vip, ACK), false)
            });
            measure(&mut world, format!("{flows} {family} foreign"), MISS, |_| {
                (tcp((&client(side, 1), 3000), (&client(side, 2), 1), ACK), false)
            });
        }
    }
}

/// The worker's decisions over memory of both kinds.
#[test]
#[ignore = "measures"]
fn cost_of_the_memory() {
    for flows in [262_144, 1_000_000] {
        let (bytes, spec) = (FlowTable::bytes_for(flows), TableSpec::new(flows, HASH_KEY));
        let begun = Instant::now();
        let maps = WorkerMaps::new(bytes, 1 << 16).expect("maps");
        let made = begun.elapsed();
        let region = Region::map_array(&maps.table, bytes).expect("map");
        let mapped = begun.elapsed();
        println!("{flows} flows, {} MB, array: made in {made:?}, mapped in {:?}", bytes >> 20, mapped - made);
        FlowTable::format(&region, spec).expect("format");
        println!("formatted in {:?}", begun.elapsed() - mapped);
        run("array", decider(region, spec), flows);
        let begun = Instant::now();
        let fd = shm::create("flows", bytes).expect("create");
        let region = Region::map(&fd).expect("map");
        let mapped = begun.elapsed();
        FlowTable::format(&region, spec).expect("format");
        println!("{flows} flows, memfd: made and mapped in {mapped:?}, formatted in {:?}", begun.elapsed() - mapped);
        run("memfd", decider(region, spec), flows);
    }
}

fn run(what: &str, mut decider: Decider, flows: usize) {
    let mut random = Random::Seeded(7);
    let count = flows / 2;
    let vip = (VIPS[0], 443);
    let decide = |decider: &mut Decider, packets: &mut [Vec<u8>]| {
        let now = now();
        for batch in packets.chunks_mut(32) {
            let lookups: Vec<_> = batch
                .iter()
                .map(|packet| decider.lookup(&packet[..packet.len() - SPARE], PacketFacts::WHOLE))
                .collect();
            lookups.iter().for_each(|lookup| decider.prefetch(lookup));
            for (packet, lookup) in batch.iter_mut().zip(&lookups) {
                let length = packet.len() - SPARE;
                decider.decide(lookup, PacketBuffer { space: packet, length, facts: PacketFacts::WHOLE }, now);
            }
        }
    };
    let packet = |n: usize, flags: u8| [tcp((&client(0, n), 1000), vip, flags), vec![0; SPARE]].concat();
    let mut opening: Vec<_> = (0..count).map(|n| packet(n, crate::packets::SYN)).collect();
    let begun = Instant::now();
    decide(&mut decider, &mut opening);
    println!("  {what}: new {:.0} ns", begun.elapsed().as_nanos() as f64 / count as f64);
    for _ in 0..3 {
        let mut known: Vec<_> = (0..400_000).map(|_| packet(random.below(count), ACK)).collect();
        let begun = Instant::now();
        decide(&mut decider, &mut known);
        println!("  {what}: known {:.1} ns", begun.elapsed().as_nanos() as f64 / known.len() as f64);
    }
}
