//! A hostile exporter in the real one's sandbox (`exporter/src/hostile.rs`): it can be untrue to those who ask it, and nothing
//! else.

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, double, eventually};
use crate::rig::loaded::{Loaded, lives};
use crate::rig::net::{Family, get};
use std::time::{Duration, Instant};

const ADDRESS: &str = "127.0.0.1:9273";
const WAIT: Duration = Duration::from_secs(20);

#[test]
fn whatever_it_says_it_is_replaced_and_nobody_else_suffers() {
    let Some(binary) = double() else { return };
    let Some(lab) = Lab::up() else { return };
    let service = Service { keys: FREE, backends: &[(1, 1), (2, 1)], ..Service::default() };
    let config = lab.file("loaded.toml", &format!("metrics = {ADDRESS:?}\n{}", config("5s", &[service])));
    let loaded = Loaded::spawn_as(&binary, &lab, |command| {
        command.args(["-D", "-c", &config]);
    })
    .until_it_serves();
    let (pid, workers) = (loaded.pid(), loaded.workers());
    let ask = |path: &str| lab.exec("lb", &["curl", "-sS", "--max-time", "2", &format!("http://{ADDRESS}{path}")]).out;
    let restarts = || {
        let status = loaded.status();
        let exporter = status["processes"].as_array().unwrap().iter().find(|one| one["role"] == "exporter").cloned();
        exporter.unwrap()["restarts"].as_u64().unwrap()
    };
    for (act, told) in [
        ("half", "exporter"),
        ("turn", "out of turn"),
        ("flood", "messages in a second"),
        ("socket", "killed by its own sandbox"),
    ] {
        let before = restarts();
        let written = loaded.log().len();
        // The first request is its order. It may come before the one that replaces the last is there.
        let replaced = eventually(WAIT, || {
            ask(&format!("/hostile/{act}"));
            loaded.log()[written..].contains(told) && restarts() > before
        });
        assert!(replaced, "{act}: {}", &loaded.log()[written..]);
        for family in Family::BOTH {
            lab.within("client", || get(family.client(10), family.vip(), 80)).unwrap();
        }
    }
    // It asks as often as it may. The supervisor makes what it asks for, and is there for everybody else.
    ask("/hostile/greedy");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let asked = Instant::now();
        loaded.status();
        assert!(asked.elapsed() < Duration::from_secs(1), "a status took {:?}", asked.elapsed());
    }
    assert!(lives(pid), "the supervisor is dead");
    assert_eq!(loaded.workers(), workers, "a worker is dead: {}", loaded.log());
    loaded.stop();
}
