//! A flood of so many packets a second, to measure something else beside it.

use super::Stop;
use super::source::{BATCH, Kind, Source};
use crate::rig::lab::Lab;
use crate::rig::net::Family;
use crate::rig::wire::Sender;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Runs `act` while SYNs and datagrams come to this port at `rate` packets a second, of both families, each from a source that has not
/// sent before. Returns what `act` does, and how many came a second.
pub(crate) fn beside<T>(lab: &Lab, (port, rate): (u16, u64), act: impl FnOnce() -> T) -> (T, u64) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = (rate > 0).then(|| scope.spawn(|| flood(lab, port, rate, &over)));
        let stop = Stop(&over);
        let done = act();
        drop(stop);
        (done, flood.map_or(0, |flood| flood.join().unwrap()))
    })
}

fn flood(lab: &Lab, port: u16, rate: u64, over: &AtomicBool) -> u64 {
    let sender = Sender::to_balancer(lab, "client", "eth0");
    let kinds = [Kind::Syn(port), Kind::Datagram(port)];
    let mut sources = Family::BOTH.map(|family| kinds.map(|kind| Source::new(&sender, family, kind)));
    let (began, mut sent) = (Instant::now(), 0);
    for first in (0..).step_by(BATCH) {
        for source in sources.iter_mut().flatten() {
            sent += u64::from(source.send(&sender, first));
            let due = began + Duration::from_micros(sent * 1_000_000 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        if over.load(Ordering::Relaxed) {
            break;
        }
    }
    sent * 1000 / u64::try_from(began.elapsed().as_millis()).unwrap().max(1)
}
