//! Out of file descriptors: nothing can be opened, started or accepted.

use super::{RECOVERY_TIMEOUT, comes_back, unnoticed};
use crate::rig::lab::eventually;
use crate::rig::loaded::{Loaded, signal_to};
use crate::rig::machine::paired;
use crate::rig::servers::{backends, service};
use crate::rig::witness::{ECHO, REST};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

/// Fewer than it always has open, so that it gets none, whatever is closed. But poll(2) refuses fewer than it waits for.
const NONE: &str = "10";
/// The limit as it was before.
const MANY: &str = "1024";
/// How long the shortage lasts.
const SHORTAGE: Duration = Duration::from_millis(1200);

fn limit(pid: u32, soft: &str) {
    let status = Command::new("prlimit").args(["--pid", &pid.to_string(), &format!("--nofile={soft}:")]).status();
    assert!(status.unwrap().success());
}

/// CPU time of a process so far: ticks of 10 ms (fields 14 and 15 of /proc/PID/stat, 12 and 13 behind the name).
fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    Duration::from_millis(10 * fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>())
}

fn checked() -> String {
    let keys = "check = { kind = \"tcp\", port = 80, interval = \"500ms\" }";
    let backends = backends(&[1, 2, 3], "");
    format!(
        "cores = \"0-1\"\nqueue_len = 16384\n{}{backends}{}{backends}",
        service("web", "tcp", 80, keys),
        service("echo", "udp", ECHO, "")
    )
}

#[test]
fn without_descriptors_the_supervisor_waits_and_tries_again() {
    paired(|lab| {
        let loaded = Loaded::toml(lab, &checked());
        comes_back(&loaded, 4);
        let pid = loaded.pid();
        unnoticed(lab, || {
            // A worker that is killed at work holds packets now and then.
            for _ in 0..4 {
                let (workers, prober) = (loaded.workers(), loaded.prober().unwrap());
                let place = loaded.log().len();
                limit(pid, NONE);
                // The older one: each has its turn.
                signal_to(workers[0], Signal::SIGKILL);
                signal_to(prober, Signal::SIGKILL);
                // It stays in the backlog, and makes the listening socket readable all the time.
                let client = UnixStream::connect(lab.state().join("control.sock")).unwrap();
                let (begin, before) = (Instant::now(), cpu(pid));
                std::thread::sleep(SHORTAGE);
                let (spent, time) = (cpu(pid) - before, begin.elapsed());
                assert_eq!((loaded.workers().len(), loaded.prober()), (1, None), "there was a descriptor");
                limit(pid, MANY);
                drop(client);
                let log = loaded.log()[place..].to_owned();
                println!("{spent:?} of CPU time in {time:?}, {} lines", log.lines().count());
                assert!(spent < time / 5, "the supervisor spins: {spent:?} of {time:?}");
                assert!(log.contains("; will try again") && log.contains("accept on "), "{log}");
                assert!(log.contains("Too many open files"), "{log}");
                assert!(log.lines().count() < 60, "{log}");
                assert!(eventually(RECOVERY_TIMEOUT, || loaded.workers().len() == 2 && loaded.prober().is_some()));
                comes_back(&loaded, 4);
                assert!(workers.contains(&loaded.workers()[0]), "the other worker lives");
                std::thread::sleep(REST);
            }
        });
        assert!((1..=3).all(|n| loaded.backend("web", crate::rig::net::Family::V6.backend(n))["state"] == "up"));
        loaded.stop();
    });
}
