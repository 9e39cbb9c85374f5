//! A flow is never seen with the birth of one that was at its place before, by who reads the tag first.

use loaded_table::{Flow, FlowKey, FlowState, FlowTable, Region, TableSpec, Timeouts, shm};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// Two buckets. Flow after flow takes the first place of one of them.
const SPEC: TableSpec = TableSpec::new(1, [7; 16]);
/// Words of the header, of a bucket, of a bucket's header line, and of its births.
const HEADER: usize = 16;
const BUCKET: usize = 40;
const LINE: usize = 8;
const BIRTHS: usize = 4;
const TIMEOUTS: Timeouts =
    Timeouts { half_open: 30, established: 7440, closing: 30, reset: 240, datagram: 180, echo: 60 };
const ENOUGH: u32 = 100_000;
const LONGEST: Duration = Duration::from_secs(5);

/// Flow `n`, which begins at `n`: it is in the first word of its key.
fn flow(n: u32) -> (FlowKey, Flow) {
    let mut client = [0; 16];
    client[..4].copy_from_slice(&n.to_le_bytes());
    let key = FlowKey { protocol: 6, client, client_port: 1, service_port: 80 };
    (key, Flow { vip: 0, vip_port: 80, backend: 0, state: FlowState::HalfOpen })
}

/// What can be seen at any moment is also what a kill at that moment leaves behind.
#[test]
fn no_flow_has_the_birth_of_one_before() {
    let memory = shm::create("births", FlowTable::bytes_for(SPEC.capacity)).expect("create");
    let region = || Region::map(&memory).expect("map");
    FlowTable::format(&region(), SPEC).expect("format");
    let over = AtomicBool::new(false);
    let write = || {
        let mut table = FlowTable::open(region(), SPEC, TIMEOUTS).expect("open");
        for n in 1.. {
            let (key, flow) = flow(n);
            let slot = table.insert(&table.prepare(&key), &key, flow, n).expect("room").slot;
            table.remove(slot);
            if over.load(Relaxed) {
                break;
            }
        }
    };
    let (mut met, mut wrong) = (0, None);
    thread::scope(|scope| {
        scope.spawn(write);
        let (region, end) = (region(), Instant::now() + LONGEST);
        let word = |at: usize| region.words()[at].load(Acquire);
        let low = |word: u64| u32::try_from(word & 0xffff_ffff).expect("32 bits");
        while met < ENOUGH && wrong.is_none() && Instant::now() < end {
            for bucket in 0..2 {
                let (tags, births) = (HEADER + bucket * BUCKET, HEADER + 2 * BUCKET + bucket * BIRTHS);
                let entry = low(word(tags + LINE));
                let (is_there, birth) = (word(tags) & 0xffff != 0, low(word(births)));
                // The next one's birth is stored while this one's entry is still there.
                if is_there && low(word(tags + LINE)) == entry {
                    met += 1;
                    wrong = wrong.or((birth < entry).then_some((entry, birth)));
                }
            }
        }
        over.store(true, Relaxed);
    });
    println!("{met} times a flow was seen while it was written");
    assert_eq!(wrong, None, "a flow, and the birth that it had");
    assert!(met > 0);
}
