//! A hung worker is found, killed and replaced, and its successor answers what waited in the queue.

use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::machine::timed;
use crate::rig::net::Family;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Its heartbeat, read every 500 ms, shows it within 2 s; a start takes some 50 ms; the rest is for a busy machine.
const IN_TIME: Duration = Duration::from_secs(4);
/// What waits comes at once: more than the receive buffers of client and backend take (some 90 datagrams) would be lost there.
const EVERY: Duration = Duration::from_millis(25);

#[test]
fn a_worker_that_hangs_is_replaced_and_loses_nothing() {
    timed(|lab| {
        // With the kernel path a flow that is open waits for nobody.
        let loaded = Loaded::classic_with(lab, &["--fast", "off"]);
        for family in Family::BOTH {
            let before = loaded.workers();
            let (sent, answered, slowest) = lab.within("client", || {
                let socket = UdpSocket::bind((family.client(31), 0)).unwrap();
                socket.connect(SocketAddr::new(family.vip(), 7007)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                let (began, mut sent, mut answered) = (Instant::now(), Vec::new(), BTreeSet::new());
                let (mut stopped, mut slowest) = (false, Duration::ZERO);
                let mut text = [0; 200];
                while began.elapsed() < Duration::from_secs(6) {
                    // The second half only listens.
                    if began.elapsed() < Duration::from_secs(3) {
                        socket.send(format!("{} ", sent.len()).as_bytes()).unwrap();
                        sent.push(Instant::now());
                    }
                    if !stopped && began.elapsed() > Duration::from_millis(500) {
                        before.iter().for_each(|pid| signal_to(*pid, Signal::SIGSTOP));
                        stopped = true;
                    }
                    while let Ok(length) = socket.recv(&mut text) {
                        // "NAME CLIENT NUMBER".
                        let words = String::from_utf8_lossy(&text[..length]).into_owned();
                        let number: usize = words.split_whitespace().nth(2).unwrap().parse().unwrap();
                        if answered.insert(number) {
                            slowest = slowest.max(sent[number].elapsed());
                        }
                    }
                    std::thread::sleep(EVERY);
                }
                (sent.len(), answered.len(), slowest)
            });
            println!("{family:?}: {answered} of {sent} datagrams answered, the slowest after {slowest:?}");
            assert_eq!(answered, sent, "{}", loaded.log());
            assert!(slowest > Duration::from_secs(1), "nobody was hung: {slowest:?}");
            assert!(slowest < IN_TIME, "{slowest:?}");
            assert!(loaded.log().contains("hung: "), "{}", loaded.log());
            // Only the one that packets waited for is known to hang; the other goes on when it is woken.
            let after = loaded.workers();
            assert!(before.iter().any(|pid| !after.contains(pid)));
            before.iter().filter(|pid| after.contains(pid)).for_each(|pid| signal_to(*pid, Signal::SIGCONT));
            if family == Family::V4 {
                // Two deaths within ten seconds would make packets suspect.
                std::thread::sleep(Duration::from_secs(11));
            }
        }
        loaded.stop();
    });
}
