//! Packets of every shape through the live queue: each gets exactly one verdict, for one reason.

use crate::generate::{Cast, Generator};
use crate::rig::lab::eventually;
use crate::rig::loaded::{Counted, Loaded};
use crate::rig::machine::paired;
use crate::rig::net::Family;
use crate::rig::queues::{Kernel, kernel};
use crate::rig::requests::places;
use crate::rig::wire::Sender;
use std::collections::BTreeMap;
use std::time::Duration;

/// This many must reach a worker.
const PACKETS: u64 = 100_000;
/// At most this many are sent for that: the kernel drops what is not valid IP, and packets to other addresses reach no
/// worker.
const SENT: usize = 250_000;
/// Packets in flight at a time: far fewer than a queue holds, even if each has the maximum length.
const BURST: usize = 250;
/// Fragments that may wait for their first one while other packets go on.
const PIECES: u32 = 500;
const SEED: u64 = 20_261_125;

/// Fragments reach the workers undefragmented; the kernel drops only what is not valid IP.
const TEXT: &str = r#"
cores = "0-1"
defragment = false
[[service]]
name = "all"
vip = ["192.0.2.100", "2001:db8:1::100"]
protocol = "any"
[[service.backend]]
address = "198.51.100.11"
[[service.backend]]
address = "198.51.100.12"
[[service.backend]]
address = "2001:db8:2::11"
[[service.backend]]
address = "2001:db8:2::12"
"#;

fn received(counters: &[Counted]) -> u64 {
    counters.iter().map(|worker| worker.received).sum()
}

#[test]
fn packets_of_every_shape_get_one_verdict_each() {
    paired(|lab| {
        // So that packets longer than usual arrive; the way on stays as narrow as it is.
        for who in ["client", "lb"] {
            lab.sh(who, "ip link set eth0 mtu 65535");
        }
        let loaded = Loaded::toml(lab, TEXT);
        let workers = loaded.workers();
        let sender = Sender::to_balancer(lab, "client", "eth0");
        let mut generator = Generator::new(SEED, Cast::of_the_lab());
        // Pieces may wait a second for the first of theirs.
        let at_most = |left| eventually(Duration::from_secs(5), || lab.waiting() <= left);
        let mut sent = 0;
        while kernel(lab).sequence < PACKETS && sent < SENT {
            generator.by_ref().take(BURST).for_each(|packet| sender.send(&packet));
            sent += BURST;
            assert!(at_most(PIECES), "packets wait for ever:\n{}", lab.queues());
        }
        // It serves as before.
        for family in Family::BOTH {
            assert_eq!(places(lab, family, 1).len(), 30, "{family:?}");
        }
        assert!(at_most(0), "{}", lab.queues());
        assert_eq!(loaded.workers(), workers, "a worker has died");

        // The two are not asked at the same moment, and hosts talk of themselves now and then.
        let ask = || (loaded.counters(), kernel(lab));
        let agree = |(counters, kernel): &(Vec<Counted>, Kernel)| received(counters) == kernel.sequence;
        let (counters, kernel) = (0..5).map(|_| ask()).find(agree).unwrap_or_else(ask);
        let mut reasons = BTreeMap::<&str, u64>::new();
        for worker in &counters {
            assert_eq!(worker.outcomes(), worker.received, "{worker:?}");
            for (label, count) in &worker.counts {
                *reasons.entry(label).or_default() += count;
            }
        }
        let received = received(&counters);
        println!("seed {SEED}: {sent} packets sent, {received} met a worker: {reasons:?}; {kernel:?}");
        assert_eq!(kernel, Kernel { waiting: 0, dropped: 0, sequence: received });
        // The same sums for whoever asks: without what went wrong between a worker and the kernel, which is nothing.
        let status = loaded.status();
        let sum =
            |key: &str| status[key].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>();
        assert!(sum("packets") >= received, "{status}");
        assert_eq!((sum("faults"), status["packets"]["dropped_undecided"].as_u64()), (0, Some(0)), "{status}");
        assert!(received >= PACKETS, "{received} of {sent} packets have met a worker");
        // A generator that gets nowhere would prove nothing.
        for needed in [
            "forwarded",
            "forwarded_new",
            "returned",
            "error_forwarded",
            "error_returned",
            "passed_foreign",
            "dropped_malformed",
            "dropped_fragment",
            "dropped_stray_error",
        ] {
            assert!(reasons.contains_key(needed), "no {needed}: {reasons:?}");
        }
        loaded.stop();
    });
}
