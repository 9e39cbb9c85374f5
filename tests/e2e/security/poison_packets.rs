//! Packets that crash every worker that reads them, and workers that hang again and again: each costs what is documented
//! (`src/children/src/worker/suspicion.rs`), and nobody else a packet.

use super::hostile_worker::system::{Heard, RECOVERY_TIMEOUT, System};
use crate::rig::lab::eventually;
use crate::rig::loaded::{Loaded, lives, signal_to};
use crate::rig::machine::measured;
use crate::rig::net::Family;
use crate::rig::witness::{RATE, REST, Witness, datagrams, with_echo};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// Deaths further apart than this are unrelated.
const WINDOW: Duration = Duration::from_secs(10);
/// It kills by SIGSEGV, as a bug in the parser would.
const DEADLY: &str = "store into the templates";
const DROPPED: &str = "the packet it had in hand is dropped";
/// The third death in that time without a packet in hand costs all packets that were received and have no verdict.
const BLIND: &str = "the packets it held are dropped";
/// Workers that hang, one after the other.
const HANGS: u32 = 6;

/// The first deadly packet within the window kills twice, later ones once; each costs only itself.
#[test]
fn a_packet_of_death_takes_nobody_with_it() {
    let Some(system) = System::up() else { return };
    // The kernel path does not say whose packets it has sent on.
    let received = || {
        system.loaded.status()["queues"][0]["received"].as_u64().unwrap()
            + system.loaded.packets(&["kernel_forwarded", "kernel_returned"])
    };
    let (before, place) = (received(), system.loaded.log().len());
    let counted = with_echo(&system.lab, || {
        datagrams(&system.lab, RATE, || {
            let mut deaths = 0;
            for (family, costs, wait) in [
                (Family::V4, 2, Duration::ZERO),
                (Family::V6, 1, WINDOW + Duration::from_secs(1)),
                (Family::V6, 2, Duration::ZERO),
                (Family::V4, 1, Duration::ZERO),
            ] {
                let heard = system.order(family, DEADLY, system.at_supervisor(), RECOVERY_TIMEOUT);
                assert_eq!(heard, Heard::Nothing, "{family:?}");
                deaths += costs;
                let over = || system.deaths_since(place).len() == deaths && system.loaded.workers().len() == 2;
                assert!(eventually(RECOVERY_TIMEOUT, over), "{family:?}: {}", system.tail());
                std::thread::sleep(wait.max(Duration::from_millis(1200)));
            }
        })
    });
    let log = system.loaded.log()[place..].to_owned();
    let (deaths, dropped) = (system.deaths_since(place), log.matches(DROPPED).count());
    println!("{counted:?}, {} deaths, {dropped} packets dropped, {} by worker 0", deaths.len(), received() - before);
    assert_eq!((deaths.len(), dropped), (6, 4), "{log}");
    assert!(deaths.iter().all(|death| death.contains("killed by signal 11")), "{deaths:?}");
    counted.none_is_lost(&system.lab);
    // Its clients' datagrams and the answers to them.
    assert!(received() - before > counted.sent / 2, "they went by another worker");
    assert_eq!(system.lab.waiting(), 0);
}

#[test]
fn workers_that_hang_again_and_again_cost_a_packet_each_at_most() {
    measured(|lab| {
        let loaded = Loaded::classic(lab);
        with_echo(lab, || {
            let mut counted = None;
            let witness = Witness::of(lab, || {
                counted = Some(datagrams(lab, RATE, || {
                    for _ in 0..HANGS {
                        // The older one: they take turns, and none hangs three times within ten seconds.
                        let victim = loaded.workers()[0];
                        let begin = Instant::now();
                        signal_to(victim, Signal::SIGSTOP);
                        assert!(eventually(RECOVERY_TIMEOUT, || !lives(victim)), "{victim} is not found");
                        println!("found after {:?}", begin.elapsed());
                        assert!(eventually(RECOVERY_TIMEOUT, || loaded.workers().len() == 2));
                        std::thread::sleep(REST);
                    }
                }));
            });
            let (log, counted) = (loaded.log(), counted.unwrap());
            let (hangs, dropped) = (log.matches("; killing it").count(), log.matches(DROPPED).count());
            let blind = log.matches(BLIND).count();
            println!("{counted:?}, {hangs} hung, {dropped} with a packet in hand that was dropped, {blind} others");
            assert_eq!(hangs, HANGS as usize, "{log}");
            let lost = usize::try_from(counted.sent - counted.answered).unwrap();
            assert_eq!(blind, 0, "{log}");
            assert!(lost <= dropped && dropped < hangs, "{lost} lost, {dropped} dropped\n{log}");
            witness.has_seen_nothing();
        });
        assert!(eventually(Duration::from_secs(2), || lab.waiting() == 0), "{}", lab.queues());
        loaded.stop();
    });
}
