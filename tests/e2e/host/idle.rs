//! What an instance costs while nothing happens.

use crate::rig::lab::setting;
use crate::rig::loaded::Loaded;
use crate::rig::machine::timed;
use crate::rig::net::Family;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// As many as there can be.
const BACKENDS: u16 = 4096;
/// What is done once, after a start, is over.
const SETTLED: Duration = Duration::from_secs(8);
/// Of a core. Looking at each backend twice a second was more.
const MOST_PERCENT: f64 = 1.0;

/// Time that a process has used, by the scheduler's account (/proc/PID/schedstat: nanoseconds on a core, …).
fn used(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[test]
fn four_thousand_backends_of_which_none_changes_cost_next_to_nothing() {
    timed(|lab| {
        lab.sh("lb", &format!("ip route add 198.18.0.0/20 via {}", Family::V4.backend(1)));
        let mut text =
            "cores = \"0-1\"\n[[service]]\nname = \"many\"\nvip = [\"192.0.2.100\"]\nprotocol = \"tcp\"\nports = [80]\n"
                .to_owned();
        for [high, low] in (0..BACKENDS).map(u16::to_be_bytes) {
            let _ = writeln!(text, "[[service.backend]]\naddress = \"198.18.{high}.{low}\"");
        }
        let loaded = Loaded::toml(lab, &text);
        std::thread::sleep(SETTLED);
        let (before, since) = (used(loaded.pid()), Instant::now());
        std::thread::sleep(Duration::from_secs(setting("E2E_IDLE", 6)));
        let percent = (used(loaded.pid()) - before).as_secs_f64() * 100.0 / since.elapsed().as_secs_f64();
        println!("the supervisor uses {percent:.3} % of a core");
        assert!(percent < MOST_PERCENT, "{percent:.3} % of a core");
        loaded.stop();
    });
}
