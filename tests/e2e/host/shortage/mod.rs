//! The machine has none left of something: memory, disk, descriptors, the right time. What serves goes on, what must be
//! started again is, as soon as that can be, and clients do not notice.

mod clock;
mod descriptors;
mod disk;
mod memory;

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::witness::{RATE, Witness, datagrams, with_echo};
use std::time::Duration;

/// A wait of half a second, a start, and a machine at work.
const PATIENCE: Duration = Duration::from_secs(8);

/// No client of any kind may notice the trouble, and no packet may be left behind.
#[track_caller]
pub(crate) fn unnoticed(lab: &Lab, trouble: impl FnOnce() + Send) {
    with_echo(lab, || {
        let mut counted = None;
        let witness = Witness::of(lab, || counted = Some(datagrams(lab, RATE, trouble)));
        witness.has_seen_nothing();
        let counted = counted.unwrap();
        println!("{counted:?}");
        assert_eq!(counted.sent, counted.answered, "{} lost\n{}", counted.sent - counted.answered, lab.queues());
    });
    assert!(eventually(Duration::from_secs(2), || lab.waiting() == 0), "left behind:\n{}", lab.queues());
}

/// Waits until both workers and the prober, where there is to be one, serve.
#[track_caller]
fn comes_back(loaded: &Loaded, processes: usize) {
    let all_serve = || {
        let status = loaded.status();
        let all = status["processes"].as_array().unwrap();
        all.len() == processes && all.iter().all(|process| process["serving"] == true)
    };
    assert!(eventually(PATIENCE, all_serve), "{}", loaded.status());
}
