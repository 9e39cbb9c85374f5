//! The prober only reports: its death changes no backend's state.

use crate::rig::lab::{Lab, eventually, setting};
use crate::rig::loaded::{Loaded, lives, signal_to};
use crate::rig::net::Family;
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};

const CHECK: &str = "check = { kind = \"tcp\", interval = \"200ms\", timeout = \"200ms\", rise = 2, fall = 2 }";

fn web() -> String {
    let backends: String = Family::BOTH
        .iter()
        .flat_map(|family| (1..=3).map(|n| format!("[[service.backend]]\naddress = \"{}\"\n", family.backend(n))))
        .collect();
    let (v4, v6) = (Family::V4.vip(), Family::V6.vip());
    format!(
        "[[service]]\nname = \"web\"\nvip = [\"{v4}\", \"{v6}\"]\nprotocol = \"tcp\"\nports = [80]\n{CHECK}\n{backends}"
    )
}

/// Whether every backend is up because a check passed.
fn proven(loaded: &Loaded) -> bool {
    let status = loaded.status();
    status["services"][0]["backends"].as_array().unwrap().iter().all(|backend| backend["state"] == "up")
}

#[test]
fn its_deaths_change_nothing() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &web());
    assert!(eventually(Duration::from_secs(5), || proven(&loaded)));
    // On a machine that others load, a first check can be too late: what the history has by then does not matter.
    let before = loaded.json(&["history"]);
    let (kills, begin) = (setting("E2E_KILLS", 6), Instant::now());
    let mut killed = None;
    for _ in 0..kills {
        assert!(eventually(Duration::from_secs(10), || loaded.prober().is_some()), "no prober");
        // Sometimes at work, sometimes before it is ready: that costs it a back-off.
        std::thread::sleep(Duration::from_millis(300));
        if let Some(pid) = loaded.prober() {
            signal_to(pid, Signal::SIGKILL);
            assert!(eventually(Duration::from_secs(2), || !lives(pid)));
            killed = Some(pid);
        }
    }
    println!("{kills} deaths in {:?}", begin.elapsed());
    // The one that was killed last is shown as serving until the supervisor has reaped it.
    assert!(eventually(Duration::from_secs(10), || {
        let status = loaded.status();
        let serves = |p: &serde_json::Value| p["role"] == "prober" && p["serving"] == true;
        status["processes"].as_array().unwrap().iter().any(|p| serves(p) && p["pid"].as_u64() != killed.map(u64::from))
    }));
    assert_eq!(loaded.json(&["history"]), before, "the prober's death changed a backend's state");
    assert!(proven(&loaded));
    // And it does its work.
    lab.kill_web("b1");
    let down = || Family::BOTH.iter().all(|f| loaded.backend("web", f.backend(1))["state"] == "down");
    assert!(eventually(Duration::from_secs(3), down), "{}", loaded.status());
    // What it has found outlives it, too, and a worker that comes later knows it.
    signal_to(loaded.prober().unwrap(), Signal::SIGKILL);
    signal_to(loaded.workers()[0], Signal::SIGKILL);
    std::thread::sleep(Duration::from_secs(1));
    assert!(down());
    let taken = loaded.json(&["status"])["services"][0]["backends"][0]["new_flows"].clone();
    let get = |n: u16| crate::rig::net::get(Family::V4.client(n), Family::V4.vip(), 80).unwrap();
    lab.within("client", || (10..40).for_each(|n| assert!(!get(n).starts_with("b1 "))));
    assert_eq!(loaded.json(&["status"])["services"][0]["backends"][0]["new_flows"], taken);
    loaded.stop();
}

#[test]
fn a_silent_one_is_replaced() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &web());
    assert!(eventually(Duration::from_secs(5), || proven(&loaded)));
    let pid = loaded.prober().unwrap();
    signal_to(pid, Signal::SIGSTOP);
    assert!(eventually(Duration::from_secs(10), || loaded.prober().is_some_and(|new| new != pid)), "{}", loaded.log());
    assert!(loaded.log().contains("silent for"), "{}", loaded.log());
    assert!(proven(&loaded));
    assert_eq!(loaded.json(&["history"]), serde_json::json!([]));
    loaded.stop();
}

#[test]
fn it_is_sandboxed() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::toml(&lab, &web());
    let pid = loaded.prober().unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {name}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join(" ");
    assert_eq!((field("Uid"), field("Gid")), (four(nobody.uid.as_raw()), four(nobody.gid.as_raw())));
    assert_eq!((field("Seccomp"), field("NoNewPrivs"), field("Groups")), ("2".into(), "1".into(), String::new()));
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    let root = fs::read_link(format!("/proc/{pid}/root")).unwrap();
    assert_eq!(root, fs::canonicalize("/var/run/empty").unwrap());
    // 0 to 2, the link, two for pings, one to each worker; checks come and go above.
    let given = 6 + i32::try_from(loaded.workers().len()).unwrap();
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let fds: Vec<i32> = fds.filter_map(|fd| fd.unwrap().file_name().to_str()?.parse().ok()).collect();
    assert!((0..given).all(|fd| fds.contains(&fd)), "{fds:?}");
    assert!(fds.len() < usize::try_from(given).unwrap() + 10, "{fds:?}");
    loaded.stop();
}
