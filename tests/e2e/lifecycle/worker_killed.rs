//! Workers are killed again and again, and no client notices.

use crate::rig::lab::{Lab, eventually, setting};
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::machine::measured;
use crate::rig::packet::Dice;
use crate::rig::witness::{Witness, capacity, datagrams, with_echo};
use nix::sys::signal::Signal;
use std::time::Duration;

/// How many workers each test kills.
fn kills() -> u64 {
    setting("E2E_KILLS", 100)
}

/// Half of what a queue holds. With more than that in the queues, another kill would measure how fast the machine starts
/// processes: a busy one gets the time to catch up, a quiet one does not need it.
const BACKLOG: u32 = 8192;

/// Kills a random worker, some 300 ms after the one before.
fn kill_workers(lab: &Lab, loaded: &Loaded, signal: Signal, times: u64) {
    let mut dice = Dice::new(5);
    for _ in 0..times {
        std::thread::sleep(Duration::from_millis(200 + u64::try_from(dice.below(200)).unwrap()));
        let catches_up = eventually(Duration::from_secs(30), || lab.waiting() < BACKLOG);
        assert!(catches_up, "the workers do not catch up:\n{}", lab.queues());
        let workers = loaded.workers();
        // Both may be dead for a moment.
        if !workers.is_empty() {
            signal_to(dice.one_of(&workers), signal);
        }
    }
    assert!(eventually(Duration::from_secs(5), || loaded.workers().len() == 2), "{:?}", loaded.workers());
}

fn restarts(loaded: &Loaded) -> u64 {
    let processes = loaded.status()["processes"].as_array().unwrap().clone();
    processes.iter().filter_map(|process| process["restarts"].as_u64()).sum()
}

#[test]
fn connections_outlive_a_hundred_workers() {
    measured(|lab| {
        let loaded = Loaded::classic(lab);
        let witness = Witness::of(lab, || kill_workers(lab, &loaded, Signal::SIGKILL, kills()));
        println!("{} restarts", restarts(&loaded));
        witness.has_seen_nothing();
        assert!(restarts(&loaded) >= kills() * 9 / 10, "{} restarts", restarts(&loaded));
        assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "{}", lab.queues());
        for worker in loaded.counters() {
            assert_eq!(worker.outcomes(), worker.received, "{worker:?}");
        }
        loaded.stop();
    });
}

/// At half of the rate that the machine can sustain.
#[test]
fn datagrams_outlive_a_hundred_workers() {
    measured(|lab| {
        let loaded = Loaded::classic(lab);
        with_echo(lab, || {
            let capacity = capacity(lab);
            let undisturbed = datagrams(lab, capacity / 2, || std::thread::sleep(Duration::from_secs(2)));
            println!("capacity {capacity}/s; at half of it, undisturbed: {undisturbed:?}");
            assert_eq!(undisturbed.sent, undisturbed.answered, "half is too much");
            let counted = datagrams(lab, capacity / 2, || kill_workers(lab, &loaded, Signal::SIGKILL, kills()));
            println!("{counted:?}, {} restarts, waiting {}", restarts(&loaded), lab.waiting());
            counted.none_is_lost(lab);
        });
        assert!(restarts(&loaded) >= kills() * 9 / 10, "{} restarts", restarts(&loaded));
        loaded.stop();
    });
}
