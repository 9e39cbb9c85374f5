//! A worker that a packet has taken over, in a system at work (`worker/src/hostile.rs`): it tries everything, and nothing
//! changes for anybody else. What it can do all the same is the list that `--print-sandbox worker` prints.

mod link;
mod outside;
mod remains;
pub(crate) mod system;

use crate::rig::lab::double;
use crate::rig::net::Family;
use loaded_sandbox::attempt::{Attempt, Expect, allowed, forbidden};
use nix::sched::{CloneFlags, setns};
use outside::View;
use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};
use system::{Aim, Heard, MAGIC, RECOVERY_TIMEOUT, System};

/// So many systems side by side: each attempt that kills costs a worker a life of a second.
const SYSTEMS: usize = 6;

/// The calling thread goes to the clients' network, for good.
fn enter(namespace: &str) {
    setns(File::open(Path::new("/run/netns").join(namespace)).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

/// Whom an attempt is aimed at.
#[derive(Debug, Clone, Copy)]
enum At {
    Supervisor,
    Worker,
    Prober,
}

/// Attempts aimed at a process are tried at all three.
fn trials() -> Vec<(Attempt, At)> {
    let attempts = [forbidden(), allowed()].concat();
    let each = attempts.into_iter().filter(|attempt| !attempt.needs_preparation()).flat_map(|attempt| {
        let others: &[At] = if attempt.name.contains("the supervisor") { &[At::Worker, At::Prober] } else { &[] };
        [&[At::Supervisor], others].concat().into_iter().map(move |at| (attempt, at))
    });
    each.collect()
}

#[test]
fn every_forbidden_act_fails_and_changes_nothing() {
    if double().is_none() {
        return;
    }
    let (trials, begin) = (trials(), Instant::now());
    std::thread::scope(|scope| {
        for share in 0..SYSTEMS {
            let of_share: Vec<_> = trials.iter().enumerate().filter(|(n, _)| n % SYSTEMS == share).collect();
            scope.spawn(move || {
                let Some(mut system) = System::up() else { return };
                let before = View::first(&system.lab);
                system.under_traffic(|system| {
                    for (number, (attempt, at)) in of_share {
                        // Each share has both families.
                        let family = Family::BOTH[number / SYSTEMS % 2];
                        try_one(system, family, (*attempt, *at), &before);
                        system.check(&before, attempt.name);
                        system.settle();
                    }
                });
                let status = system.loaded.status();
                assert!(status["processes"].as_array().unwrap().iter().all(|p| p["serving"] == true), "{status}");
                system.loaded.stop();
            });
        }
    });
    println!("{} attempts in {:?}", trials.len(), begin.elapsed());
    assert!(trials.len() > 170, "only {} attempts", trials.len());
}

#[track_caller]
fn try_one(system: &mut System, family: Family, (attempt, at): (Attempt, At), before: &View) {
    let process = match at {
        At::Supervisor => system.loaded.pid(),
        At::Worker => system.workers[1],
        At::Prober => system.prober,
    };
    let place = system.loaded.log().len();
    let heard = system.order(family, attempt.name, Aim { process, signal: 9 }, RECOVERY_TIMEOUT);
    let deaths = system.deaths_since(place);
    let what = format!("{family:?} {} (at the {at:?}): {heard:?} {deaths:?}", attempt.name);
    let died = |words: &[&str]| {
        let as_expected = |death: &String| words.iter().any(|word| death.contains(word));
        heard == Heard::Nothing && !deaths.is_empty() && deaths.iter().all(as_expected)
    };
    const SANDBOX: &str = "(SIGSYS): SECURITY EVENT";
    const FAULT: &str = "killed by signal 11";
    let good = match (attempt.expect, attempt.name) {
        // What these do is meant for the supervisor: an end, and an empty message.
        (_, "exit_group") => died(&["ended with code 42"]),
        // The supervisor may see it only when the worker has answered already.
        (_, "write on the link") => crate::rig::lab::eventually(RECOVERY_TIMEOUT, || {
            let deaths = system.deaths_since(place);
            !deaths.is_empty() && deaths.iter().all(|death| death.contains("killed by signal 9"))
        }),
        (Expect::Sigsys, _) => died(&[SANDBOX]),
        (Expect::Segv, _) => died(&[FAULT]),
        (Expect::Death, _) => died(&[SANDBOX, FAULT]),
        (Expect::Errno(number), _) => heard == Heard::Answer(-number),
        // Less than any errno: the worker does not know the attempt, or has not answered.
        (Expect::Survives, _) => matches!(heard, Heard::Answer(-4095..)) && deaths.is_empty(),
        (Expect::Succeeds, _) => matches!(heard, Heard::Answer(0..)) && deaths.is_empty(),
    };
    // What it has done to the host is worth more words than that it lives.
    let changes = || View::take(&system.lab).changes(before);
    assert!(good, "{what}, expected: {}, changed outside: {:#?}\n{}", attempt.expect, changes(), system.tail());
}

/// Not only by its Cargo features: the switch is not in the program.
#[test]
fn the_release_has_no_such_switch() {
    let Some(double) = double() else { return };
    let has = |path: &Path| std::fs::read(path).unwrap().windows(MAGIC.len()).any(|bytes| bytes == MAGIC);
    assert!(has(&double), "looked for the wrong thing");
    assert!(!has(&crate::rig::lab::binary()), "the release can be taken over by a packet");
}

/// Waits a little, as long as it is so.
fn stays(time: Duration, is_so: impl Fn() -> bool) -> bool {
    !crate::rig::lab::eventually(time, || !is_so())
}
