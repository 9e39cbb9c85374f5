//! 4096 backends, of which half answer nothing: what that means for the others, and what it costs.

use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::Loaded;
use crate::rig::machine::measured;
use crate::rig::net::Family;
use crate::rig::servers::events;
use std::collections::HashSet;
use std::fmt::Write;
use std::time::{Duration, Instant, SystemTime};

/// 198.18.0.0/20: the first half answers, the second does not.
const HALF: u16 = 2048;
/// Backends that die in the test, from the first on.
const VICTIMS: u16 = 64;
/// `interval` and `fall` of the check, and a second.
const IN_TIME: Duration = Duration::from_secs(2 * 3 + 1);

fn address(n: u16) -> String {
    let [high, low] = n.to_be_bytes();
    format!("198.18.{high}.{low}")
}

/// Jiffies that a process has used, user and system (proc_pid_stat(5)).
fn used(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum()
}

/// Addresses of backends in this state.
fn in_state(loaded: &Loaded, state: &str) -> HashSet<String> {
    let status = loaded.status();
    let backends = status["services"][0]["backends"].as_array().unwrap();
    let found = backends.iter().filter(|backend| backend["state"] == state);
    found.map(|backend| backend["address"].as_str().unwrap().to_owned()).collect()
}

fn answering(lab: &Lab) {
    // One host has all addresses; it drops what goes to the second half.
    lab.sh("b1", "ip route add local 198.18.0.0/20 dev lo");
    lab.sh("b1", "iptables -w -A INPUT -d 198.18.8.0/21 -j DROP");
    lab.sh("lb", &format!("ip route add 198.18.0.0/20 via {}", Family::V4.backend(1)));
}

#[test]
fn a_death_is_found_in_time_beside_two_thousand_dead() {
    measured(|lab| {
        answering(lab);
        let mut text = "cores = \"0-1\"\n[[service]]\nname = \"many\"\nvip = [\"192.0.2.100\"]\nprotocol = \"tcp\"\n\
                        ports = [80]\ncheck = { kind = \"tcp\", interval = \"2s\", timeout = \"1s\", fall = 3 }\n"
            .to_owned();
        for n in 0..2 * HALF {
            let _ = writeln!(text, "[[service.backend]]\naddress = \"{}\"", address(n));
        }
        let loaded = Loaded::toml(lab, &text);
        let half = usize::from(HALF);
        let known = || in_state(&loaded, "up").len() == half && in_state(&loaded, "down").len() == half;
        assert!(eventually(Duration::from_secs(30), known), "{} up", in_state(&loaded, "up").len());

        let prober = loaded.prober().unwrap();
        let before = (used(prober), Instant::now());
        std::thread::sleep(Duration::from_secs(6));
        // A jiffy is 10 ms (USER_HZ is 100).
        let percent = (used(prober) - before.0) as f64 * 1000.0 / before.1.elapsed().as_millis() as f64;
        println!("the prober uses {percent:.1} % of a core");

        let dying: HashSet<_> = (0..VICTIMS).map(address).collect();
        lab.sh("b1", "iptables -w -I INPUT -d 198.18.0.0/26 -j DROP");
        let died = SystemTime::now();
        let found = || in_state(&loaded, "down").is_superset(&dying);
        assert!(eventually(Duration::from_secs(30), found), "{} down", in_state(&loaded, "down").len());
        let took = events(&loaded, "many", died).into_iter().map(|(after, _)| after).max().unwrap();
        println!("the last was found after {took:?}; late: {}", loaded.status()["late_checks"]);
        assert!(took < IN_TIME, "{took:?}");
        assert_eq!(in_state(&loaded, "up").len(), half - dying.len(), "no other went down");
        loaded.stop();
    });
}
