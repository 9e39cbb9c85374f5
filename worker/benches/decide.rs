//! The whole decision over batches of 32, in the three stages of the worker's loop, for 64-byte TCP packets: read it,
//! look it up, choose, rewrite. Tables are sized for a million flows and clients whatever they hold; every flow has a
//! client of its own; packets come in an order that no cache can guess. One element = one packet.
//!
//! Not timed: what the kernel does, that is putting the packets into the arena. The clock goes on by a second every
//! 500,000 packets, so that a flow's last-seen time and its client's are kept as often as under load.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use loaded_ipc::{
    ALL_COUNTERS, Admin, Affinity, BackendIndex, Idle, Mode, OnFailure, Outcome, Passive, Policy, PortRange, Protocol,
    ServiceIndex, Strategy, ToWorker, Unserved,
};
use loaded_table::{AffinityTable, Counters, FlowTable, Region, TableSpec, shm};
use loaded_worker::decide::{Decider, Lookup, PacketBuffer};
use loaded_worker::setup::{Assembly, flow_timeouts};
use loaded_worker::time::Now;
use loaded_worker::wire::PacketFacts;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

const BATCH: usize = 32;
const CAPACITY: usize = 1_000_000;
const PACKETS_A_SECOND: u64 = 500_000;
/// Bytes between two packets, about as in the worker's arena.
const STRIDE: usize = 65_536 + 256;

const SYN: u8 = 2;
const ACK: u8 = 16;
/// Ports of the service that remembers clients for an hour, and of the one that remembers them for half a minute.
const LONG: u16 = 80;
const SHORT: u16 = 81;
const FIRST: u32 = 100;
/// With everything that a worker may have to do for a backend.
const POLICY: Policy = Policy {
    panic_threshold: 10,
    slow_start: 30,
    // No backend answers here, so half-open flows are to live as long as open ones.
    idle: Idle { half_open: 7440, ..Idle::STANDARD },
    passive: Some(Passive { fails: 255, timeout: 60_000, hold: 10, port: None }),
    ..Policy::STANDARD
};

/// A decider, the memory that packets arrive in, and the time.
struct World {
    decider: Decider,
    arena: Vec<u8>,
    now: u32,
    packets: u64,
    v6: bool,
}

impl World {
    fn new(affinity: bool, v6: bool) -> Self {
        let mut assembly = Assembly::default();
        let mut take = |message| assembly.take(message, 0).expect("in step");
        take(ToWorker::Begin { generation: 1, unserved: Unserved::Pass, malformed: OnFailure::Drop });
        for (index, vip) in (0..).zip(["192.0.2.100", "2001:db8:1::100"]) {
            take(ToWorker::Vip { index, address: vip.parse().expect("address") });
        }
        for (n, (port, timeout)) in (0..).zip([(LONG, 3600), (SHORT, 30)]) {
            let affinity = affinity.then_some(Affinity { prefix4: 32, prefix6: 128, timeout });
            let (index, protocol) = (ServiceIndex(n), Protocol::Tcp);
            let (mode, strategy) = (Mode::Nat, Strategy::RoundRobin);
            let idle = if port == SHORT { Idle::STANDARD } else { POLICY.idle };
            let policy = Policy { idle, ..POLICY };
            take(ToWorker::Service { index, protocol, mode, strategy, affinity, policy });
            (0..2).for_each(|vip| assert!(take(ToWorker::Listen { vip }).is_none()));
            take(ToWorker::Port(PortRange { low: port, high: port }));
            for b in 0..6_u16 {
                let text = [format!("10.0.0.{}", b / 2 + 11), format!("2001:db8:2::{}", b / 2 + 11)];
                let address: IpAddr = text[usize::from(b % 2)].parse().expect("address");
                let (index, admin, age) = (BackendIndex(n * 6 + b), Admin::Enabled, u32::MAX);
                take(ToWorker::Backend {
                    index,
                    address,
                    port: None,
                    weight: 1,
                    backup: false,
                    admin,
                    up: true,
                    age,
                    confirmed: true,
                    link: None,
                });
            }
        }
        let setup = take(ToWorker::Commit).expect("a setup");
        let region = |bytes| Region::map(shm::create("bench", bytes).expect("create")).expect("map");
        let spec = TableSpec::new(CAPACITY, *b"0123456789abcdef");
        let flows = region(FlowTable::bytes_for(CAPACITY));
        FlowTable::format(&flows, spec).expect("format");
        let flows = FlowTable::open(flows, spec, flow_timeouts(&Idle::STANDARD)).expect("open");
        let clients = region(AffinityTable::bytes_for(CAPACITY));
        AffinityTable::format(&clients, spec).expect("format");
        let clients = AffinityTable::open(clients, spec, |_| {}).expect("open");
        let counters = shm::create("bench", Counters::bytes_for(ALL_COUNTERS)).expect("create");
        let counters = Counters::map(counters).expect("map");
        let decider = Decider::new(setup, flows, clients, counters, at(1000));
        Self { decider, arena: vec![0; STRIDE * BATCH], now: 1000, packets: 0, v6 }
    }

    /// Writes the packets of one batch, decides about them, and returns how long deciding took.
    fn batch(&mut self, clients: &[u32], port: u16, flags: u8, expected: Outcome) -> Duration {
        for (client, bytes) in clients.iter().zip(self.arena.chunks_exact_mut(STRIDE)) {
            bytes[..64].copy_from_slice(&packet(*client, port, flags, self.v6));
        }
        // When a worker reads a packet, the kernel's stores are long done; so they are here.
        black_box(self.arena.chunks_exact(STRIDE).map(|bytes| u32::from(bytes[0]) + u32::from(bytes[63])).sum::<u32>());
        let begin = Instant::now();
        let mut looks: [Option<Lookup>; BATCH] = [None; BATCH];
        for (look, bytes) in looks.iter_mut().zip(self.arena.chunks_exact(STRIDE)) {
            *look = Some(self.decider.lookup(black_box(&bytes[..64]), PacketFacts::WHOLE));
        }
        for look in looks.iter().flatten() {
            self.decider.prefetch(look);
        }
        let mut as_expected = true;
        for (look, bytes) in looks.iter().flatten().zip(self.arena.chunks_exact_mut(STRIDE)) {
            let buffer = PacketBuffer { space: &mut bytes[..64 + 48], length: 64, facts: PacketFacts::WHOLE };
            as_expected &= self.decider.decide(look, buffer, at(self.now)).outcome == expected;
        }
        let spent = begin.elapsed();
        assert!(as_expected);
        self.packets += BATCH as u64;
        self.now += u32::from(self.packets.is_multiple_of(PACKETS_A_SECOND));
        spent
    }

    /// Makes established flows of these clients.
    fn fill(&mut self, clients: &[u32]) {
        for batch in clients.chunks_exact(BATCH) {
            self.batch(batch, LONG, SYN, Outcome::ForwardedNew);
            self.batch(batch, LONG, ACK, Outcome::Forwarded);
        }
    }

    /// Lets half-open flows and the clients of the short service expire.
    fn forget_new(&mut self) {
        self.now += 31;
        self.decider.sweep(self.now, CAPACITY);
    }
}

fn at(seconds: u32) -> Now {
    Now { seconds, millis: u64::from(seconds) * 1000 }
}

/// 64 bytes: IP, TCP, and data for the rest.
fn packet(client: u32, port: u16, flags: u8, v6: bool) -> [u8; 64] {
    let mut p = [0; 64];
    let transport = if v6 {
        p[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 24, 6, 64]);
        p[8..12].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        p[20..24].copy_from_slice(&client.to_be_bytes());
        p[24..40].copy_from_slice(&[0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        40
    } else {
        p[..12].copy_from_slice(&[0x45, 0, 0, 64, 0, 1, 0x40, 0, 64, 6, 0x12, 0x34]);
        p[12..16].copy_from_slice(&client.to_be_bytes());
        p[16..20].copy_from_slice(&[192, 0, 2, 100]);
        20
    };
    p[transport..transport + 4].copy_from_slice(&[0x80, 0, port.to_be_bytes()[0], port.to_be_bytes()[1]]);
    p[transport + 12] = 5 << 4;
    p[transport + 13] = flags;
    p
}

/// `count` clients (rounded up to whole batches) from `first` on, in an order that no cache can guess.
fn shuffled(first: u32, count: usize) -> Vec<u32> {
    let mut clients: Vec<u32> = (first..).take(count.next_multiple_of(BATCH)).collect();
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    for i in (1..clients.len()).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        clients.swap(i, usize::try_from(x >> 16).expect("48 bits") % (i + 1));
    }
    clients
}

fn known(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, world: &mut World, clients: &[u32], step: u32) {
    let mut batches = clients.chunks_exact(BATCH).cycle();
    group.bench_function(format!("known/{name}"), |b| {
        b.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for _ in 0..count {
                world.now += step;
                let batch = batches.next().expect("cycle");
                spent += world.batch(batch, LONG, ACK, Outcome::Forwarded);
            }
            spent
        });
    });
}

/// New flows of new clients in a table that holds others. They are removed after each round, which is not timed; a round is a
/// sixteenth of what the table holds, and its time is scaled to what criterion asks for.
fn new(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, world: &mut World, held: usize) {
    let fresh = shuffled(FIRST + 2_000_000, (held / 16).clamp(512, 16_384));
    group.bench_function(format!("new/{name}"), |b| {
        b.iter_custom(|count| {
            let mut spent = Duration::ZERO;
            for batch in fresh.chunks_exact(BATCH) {
                spent += world.batch(batch, SHORT, SYN, Outcome::ForwardedNew);
            }
            world.forget_new();
            spent.mul_f64(count as f64 / (fresh.len() / BATCH) as f64)
        });
    });
}

fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    group.throughput(Throughput::Elements(BATCH as u64)).sampling_mode(SamplingMode::Flat);
    for held in [1_000, 10_000, 100_000, 1_000_000] {
        let mut world = World::new(true, false);
        let clients = shuffled(FIRST, held);
        world.fill(&clients);
        known(&mut group, &format!("v4/{held}"), &mut world, &clients, 0);
        if held == 100_000 {
            // The better part of an hour between any two packets of a flow: each keeps its client alive too.
            known(&mut group, &format!("v4-slow/{held}"), &mut world, &clients, 1);
        }
        new(&mut group, &format!("v4/{held}"), &mut world, held);
    }
    for (name, affinity, v6) in [("v6", true, true), ("v4-no-affinity", false, false)] {
        let held = 100_000;
        let mut world = World::new(affinity, v6);
        let clients = shuffled(FIRST, held);
        world.fill(&clients);
        known(&mut group, &format!("{name}/{held}"), &mut world, &clients, 0);
        new(&mut group, &format!("{name}/{held}"), &mut world, held);
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots();
    targets = decide
}
criterion_main!(benches);
