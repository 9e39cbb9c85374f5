//! A choice, alone and as a new client costs it: choose, enter into the affinity table, count.
//!
//! `weighted/…` must be flat from 10^3 to 10^6 clients: nothing walks them. `maglev` must be flat in the members.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use loaded_ipc::{BackendIndex, Policy, Strategy};
use loaded_table::{AffinityKey, AffinityTable, Region, TableSpec, shm};
use loaded_worker::balance::{Balancer, MemberSpec, Standing};
use std::hint::black_box;
use std::time::Duration;

const OUT: Standing = Standing { enabled: true, confirmed: true, up: false, ejected: false };

fn balancer(members: u16, strategy: Strategy) -> Balancer {
    let members: Vec<MemberSpec> = (0..members)
        .map(|n| MemberSpec {
            port: None,
            backend: BackendIndex(n),
            address: (0xffff_0a00_0000_u128 + u128::from(n)).to_be_bytes(),
            weight: 1 + n % 3,
            backup: false,
        })
        .collect();
    Balancer::new(&members, strategy, 0, Policy::STANDARD).expect("pool")
}

fn key(n: u32) -> AffinityKey {
    AffinityKey {
        prefix: (0xffff_0000_0000_u128 + u128::from(n.wrapping_mul(2_654_435_761))).to_be_bytes(),
        service: 0,
    }
}

/// Gives client `n` a backend; a client that is evicted for it is counted down.
fn admit(balancer: &mut Balancer, clients: &mut AffinityTable, n: u32) {
    let key = key(n);
    let hashed = clients.prepare(&key);
    let backend = balancer.choose(&key.prefix).expect("candidates");
    let assigned = clients.assign(&hashed, &key, backend.0, n / 1000, |_| 1 << 30).expect("always");
    if let Some(gone) = assigned.removed {
        balancer.client_removed(BackendIndex(gone.backend));
    }
    balancer.client_added(backend);
}

fn weighted(c: &mut Criterion) {
    let mut group = c.benchmark_group("balance/weighted");
    for size in [1_000_u32, 10_000, 100_000, 1_000_000] {
        let capacity = size as usize;
        let region = Region::map(shm::create("bench", AffinityTable::bytes_for(capacity)).expect("create"));
        let region = region.expect("map");
        let spec = TableSpec::new(capacity, *b"0123456789abcdef");
        AffinityTable::format(&region, spec).expect("format");
        let mut clients = AffinityTable::open(region, spec, |_| {}).expect("open");
        let mut balancer = balancer(10, Strategy::Weighted);
        (0..size).for_each(|n| admit(&mut balancer, &mut clients, n));
        group.bench_function(BenchmarkId::new("choose", size), |b| {
            b.iter(|| {
                let backend = balancer.choose(&[]).expect("candidates");
                balancer.client_added(backend);
                balancer.client_removed(BackendIndex(backend.0 ^ 1));
                black_box(backend)
            });
        });
        // One client leaves for each new one, so their number stays.
        let mut n = size;
        group.bench_function(BenchmarkId::new("come and go", size), |b| {
            b.iter(|| {
                let old = key(n - size);
                if let Some((slot, backend)) = clients.find(&clients.prepare(&old), &old, n / 1000, 1 << 30) {
                    clients.remove(slot);
                    balancer.client_removed(BackendIndex(backend));
                }
                admit(&mut balancer, &mut clients, n);
                n += 1;
            });
        });
    }
    group.finish();
}

fn others(c: &mut Criterion) {
    let mut group = c.benchmark_group("balance");
    for members in [3, 10, 100] {
        let mut rr = balancer(members, Strategy::RoundRobin);
        group.bench_function(BenchmarkId::new("rr", members), |b| b.iter(|| black_box(rr.choose(&[]))));
        let mut weighted = balancer(members, Strategy::Weighted);
        group.bench_function(BenchmarkId::new("weighted", members), |b| {
            b.iter(|| {
                let backend = weighted.choose(&[]).expect("candidates");
                weighted.client_added(backend);
            });
        });
        let mut maglev = balancer(members, Strategy::Maglev { seed: 1 });
        let mut client = 0_u128;
        group.bench_function(BenchmarkId::new("maglev", members), |b| {
            b.iter(|| {
                client += 1;
                black_box(maglev.choose(&client.to_be_bytes()))
            });
        });
    }
    // The worst case: so many are down that the lookup table gives no answer, and rendezvous hashing decides.
    for (members, out) in [(100, 1), (100, 50), (100, 95), (1000, 500), (1000, 990)] {
        let mut maglev = balancer(members, Strategy::Maglev { seed: 1 });
        for n in 0..out {
            maglev.set_standing(BackendIndex(n), OUT);
        }
        let mut client = 0_u128;
        group.bench_function(BenchmarkId::new("maglev, some out", format!("{out} of {members}")), |b| {
            b.iter(|| {
                client += 1;
                black_box(maglev.choose(&client.to_be_bytes()))
            });
        });
    }
    for members in [3, 100, 1000] {
        let mut rr = balancer(members, Strategy::RoundRobin);
        let mut up = true;
        group.bench_function(BenchmarkId::new("set standing", members), |b| {
            b.iter(|| {
                up = !up;
                rr.set_standing(BackendIndex(1), Standing { up, ..OUT })
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
        .measurement_time(Duration::from_millis(600));
    targets = weighted, others
}
criterion_main!(benches);
