//! The machine runs out of memory, disk or descriptors, or its clock jumps. Serving goes on, what must be restarted is
//! restarted as soon as that is possible, and clients do not notice.

mod clock;
mod descriptors;
mod disk;
mod memory;

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::witness::{RATE, Witness, datagrams, with_echo};
use std::time::Duration;

/// Time for a wait of half a second and a start, on a busy machine.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(8);

/// Runs `trouble` under traffic of every kind: no client may notice, and no packet may stay in a queue.
#[track_caller]
pub(crate) fn unnoticed(lab: &Lab, trouble: impl FnOnce() + Send) {
    with_echo(lab, || {
        let mut counted = None;
        let witness = Witness::of(lab, || counted = Some(datagrams(lab, RATE, trouble)));
        witness.has_seen_nothing();
        let counted = counted.unwrap();
        println!("{counted:?}");
        counted.none_is_lost(lab);
    });
    assert!(eventually(Duration::from_secs(2), || lab.waiting() == 0), "left behind:\n{}", lab.queues());
}

/// Waits until there are this many processes and all of them serve.
#[track_caller]
fn comes_back(loaded: &Loaded, processes: usize) {
    let all_serve = || {
        let status = loaded.status();
        let all = status["processes"].as_array().unwrap();
        all.len() == processes && all.iter().all(|process| process["serving"] == true)
    };
    assert!(eventually(RECOVERY_TIMEOUT, all_serve), "{}", loaded.status());
}
