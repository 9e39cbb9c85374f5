//! Flows and packets of them, by the kernel's program and by the worker's decision on one table: what the program sends on the
//! worker would have sent on, to the byte, and a report leads where the packet would have. The kernel runs the program
//! (`BPF_PROG_TEST_RUN`), so this needs root; nothing is attached.
#![no_main]

#[path = "../../../src/fastpath/tests/same_bytes/generated.rs"]
mod generated;
#[path = "../../../src/fastpath/tests/same_bytes/judge.rs"]
mod judge;
#[path = "../../../src/fastpath/tests/same_bytes/life.rs"]
mod life;
#[allow(dead_code, reason = "the program's own tests use the rest")]
#[path = "../../../src/fastpath/tests/same_bytes/network.rs"]
mod network;
#[allow(dead_code, reason = "the worker's own tests use the rest")]
#[path = "../../../worker/tests/decide/packets.rs"]
mod packets;
#[allow(dead_code, reason = "the program's own tests use the rest")]
#[path = "../../../src/fastpath/tests/same_bytes/world.rs"]
mod world;

use generated::Random;
use libfuzzer_sys::fuzz_target;
use life::Life;
use std::cell::RefCell;
use world::World;

/// Flows at the beginning, and packets of a life at most.
const FLOWS: usize = 12;
const MOST: usize = 64;

thread_local! {
    /// Loading the program takes longer than many lives.
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

fuzz_target!(|bytes: &[u8]| {
    let mut world = WORLD.take().unwrap_or_else(World::new);
    world.begin_anew();
    let given: Vec<u8> = bytes.into();
    let mut random = Random::Given(given.into_iter());
    let mut life = Life::begin(world, FLOWS, &mut random);
    for n in 0..MOST {
        if random.is_over() {
            break;
        }
        life.step(&mut random, &format!("packet {n}"));
    }
    WORLD.set(Some(life.world));
});
