//! The flow table alone, at 10^3 to 10^6 flows, keys in random order. One element = one flow.
//!
//! `known/batch` is what the worker does: 32 packets at a time, three stages. `known/single` shows what batching buys.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use loaded_table::{Flow, FlowKey, FlowState, FlowTable, Region, TableSpec, Timeouts, shm};
use std::hint::black_box;
use std::time::{Duration, Instant};

const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };

const BATCH: usize = 32;
const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

fn key(n: usize) -> FlowKey {
    let n = u32::try_from(n).expect("small");
    let mut client = [0; 16];
    client[10..12].copy_from_slice(&[0xff, 0xff]);
    client[12..].copy_from_slice(&(0x0a00_0000 + n / 4).to_be_bytes());
    let client_port = 1024 + u16::try_from(n % 4).expect("small");
    FlowKey { protocol: 6, client, client_port, service_port: 443 }
}

fn flow() -> Flow {
    Flow { vip: 1, vip_port: 443, backend: 2, state: FlowState::Established }
}

fn table(capacity: usize) -> FlowTable {
    let fd = shm::create("bench", FlowTable::bytes_for(capacity)).expect("create");
    let region = Region::map(fd).expect("map");
    let spec = TableSpec::new(capacity, *b"0123456789abcdef");
    FlowTable::format(&region, spec).expect("format");
    FlowTable::open(region, spec, TIMEOUTS).expect("open")
}

fn fill(table: &mut FlowTable, keys: &[FlowKey]) {
    for batch in keys.chunks(BATCH) {
        let hashed: [_; BATCH] = std::array::from_fn(|i| table.prepare(&batch[i % batch.len()]));
        hashed.iter().for_each(|hashed| _ = table.prefetch_entry(hashed));
        for (hashed, key) in hashed.iter().zip(batch) {
            black_box(table.insert(hashed, key, flow(), 1)).expect("room");
        }
    }
}

/// The keys 0..count in an order that no cache can guess.
fn shuffled(count: usize) -> Vec<FlowKey> {
    let mut keys: Vec<FlowKey> = (0..count).map(key).collect();
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    for i in (1..count).rev() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        keys.swap(i, usize::try_from(x >> 16).expect("48 bits") % (i + 1));
    }
    keys
}

fn known(c: &mut Criterion) {
    let mut group = c.benchmark_group("table/known");
    for size in SIZES {
        let mut table = table(size);
        fill(&mut table, &shuffled(size));
        let keys = shuffled(size);
        group.throughput(Throughput::Elements(BATCH as u64));
        let mut batches = keys.chunks_exact(BATCH).cycle();
        group.bench_function(BenchmarkId::new("batch", size), |b| {
            b.iter(|| {
                let batch = batches.next().expect("cycle");
                let hashed: [_; BATCH] = std::array::from_fn(|i| table.prepare(&batch[i]));
                hashed.iter().for_each(|hashed| _ = table.prefetch_entry(hashed));
                let mut sum = 0_u32;
                for (hashed, key) in hashed.iter().zip(batch) {
                    let slot = table.find(hashed, key, 2, |flow| flow.vip == 1).expect("known");
                    table.refresh(slot, 2);
                    sum += u32::from(table.get(slot).expect("known").backend);
                }
                black_box(sum)
            });
        });
        group.throughput(Throughput::Elements(1));
        let mut one = keys.iter().cycle();
        group.bench_function(BenchmarkId::new("single", size), |b| {
            b.iter(|| {
                let key = one.next().expect("cycle");
                let slot = table.find(&table.prepare(key), key, 2, |flow| flow.vip == 1).expect("known");
                black_box(table.get(slot))
            });
        });
    }
    group.finish();
}

/// Inserts into a table that holds half of its capacity at the start, and all of it at the end. Emptying it is not timed.
fn new(c: &mut Criterion) {
    let mut group = c.benchmark_group("table/new");
    group.throughput(Throughput::Elements(1));
    for size in SIZES {
        let keys = shuffled(size);
        let (old, fresh) = keys.split_at(size / 2);
        let mut table = table(size);
        group.bench_function(BenchmarkId::new("insert", size), |b| {
            b.iter_custom(|count| {
                // Always whole fills, scaled to `count`: a few inserts into a cold table say nothing.
                let fills = count.div_ceil(fresh.len() as u64);
                let mut spent = Duration::ZERO;
                for _ in 0..fills {
                    let buckets = table.buckets();
                    table.sweep(100_000, buckets, |_, _| {});
                    fill(&mut table, old);
                    let begin = Instant::now();
                    fill(&mut table, fresh);
                    spent += begin.elapsed();
                }
                let exact = spent.as_nanos() * u128::from(count) / (u128::from(fills) * fresh.len() as u128);
                Duration::from_nanos(u64::try_from(exact).expect("seconds"))
            });
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = known, new
}
criterion_main!(benches);
