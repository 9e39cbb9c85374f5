//! A hostile prober in the real one's sandbox (`prober/src/hostile.rs`): it can take backends out, down to `panic_threshold`, and
//! nothing else.

use crate::rig::lab::{Lab, double};
use crate::rig::loaded::{Loaded, lives};
use crate::rig::net::{Family, get};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn service(act: &str, more: &str) -> String {
    let backends: String = Family::BOTH
        .iter()
        .flat_map(|family| (1..=3).map(|n| format!("[[service.backend]]\naddress = \"{}\"\n", family.backend(n))))
        .collect();
    format!(
        "[[service]]\nname = \"web\"\nvip = [\"{}\", \"{}\"]\nprotocol = \"tcp\"\nports = [80]\naffinity = \"none\"\n{more}\n\
         check = {{ kind = \"http\", path = \"/hostile/{act}\", status = \"200-499\", interval = \"500ms\" }}\n{backends}",
        Family::V4.vip(),
        Family::V6.vip()
    )
}

/// What came of a while with a hostile prober.
struct Outcome {
    served: usize,
    /// How long after the start which request failed, and how.
    failed: Vec<String>,
    refused: u64,
    restarts: u64,
    log: String,
}

fn suffer(act: &str, more: &str, time: Duration) -> Option<Outcome> {
    let binary = double()?;
    let lab = Lab::up()?;
    let config = lab.file("loaded.toml", &service(act, more));
    let loaded = Loaded::spawn_as(&binary, &lab, |command| {
        command.args(["-D", "-c", &config]);
    })
    .until_it_serves();
    let (pid, workers) = (loaded.pid(), loaded.workers());
    let (over, begin) = (AtomicBool::new(false), Instant::now());
    let fetch = |family: Family, n: u16| {
        lab.within("client", || {
            let (mut served, mut failed) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                let asked = begin.elapsed();
                let answer = get(family.client(n), family.vip(), 80);
                let took = begin.elapsed() - asked;
                match answer {
                    Ok(_) => served += 1,
                    Err(error) => failed.push(format!("{family:?} at {asked:?}, after {took:?}: {error}")),
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            (served, failed)
        })
    };
    let (served, failed) = std::thread::scope(|scope| {
        let clients = || Family::BOTH.into_iter().flat_map(|family| (10..14).map(move |n| (family, n)));
        let threads: Vec<_> = clients().map(|(family, n)| scope.spawn(move || fetch(family, n))).collect();
        let mut slowest = Duration::ZERO;
        while begin.elapsed() < time {
            let asked = Instant::now();
            loaded.status();
            slowest = slowest.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
        println!("{act}: slowest status, with its process: {slowest:?}");
        over.store(true, Ordering::Relaxed);
        let (served, failed): (Vec<usize>, Vec<_>) = threads.into_iter().map(|t| t.join().unwrap()).unzip();
        (served.iter().sum::<usize>(), failed.concat())
    });
    assert!(lives(pid), "{act}: the supervisor is dead");
    assert_eq!(loaded.workers(), workers, "{act}: a worker is dead: {}", loaded.log());
    let status = loaded.status();
    let processes = status["processes"].as_array().unwrap();
    assert!(processes.iter().all(|p| p["role"] != "worker" || p["restarts"] == 0));
    let restarts = processes.iter().find(|p| p["role"] == "prober").unwrap()["restarts"].as_u64().unwrap();
    let count = |label: &str| status["packets"][label].as_u64().unwrap();
    let refused = count("refused_reset") + count("dropped_no_backend");
    let log = loaded.log();
    println!(
        "{act} {more:?}: {served} served, {refused} refused, prober started again {restarts} times; failed: {failed:?}"
    );
    if !failed.is_empty() {
        println!(
            "what was noted of backends: {:#?}",
            log.lines().filter(|line| line.contains(" -> ")).collect::<Vec<_>>()
        );
    }
    loaded.stop();
    Some(Outcome { served, failed, refused, restarts, log })
}

#[test]
fn who_speaks_of_what_is_not_there_is_replaced() {
    let Some(outcome) = suffer("unknown", "", Duration::from_secs(4)) else { return };
    assert!(outcome.log.contains("says what cannot be true"), "{}", outcome.log);
    assert!(outcome.restarts >= 2 && outcome.failed.is_empty() && outcome.served > 500);
}

#[test]
fn who_sends_what_is_no_message_is_replaced() {
    let Some(outcome) = suffer("half", "", Duration::from_secs(4)) else { return };
    assert!(outcome.log.contains("killing it") || outcome.log.contains("prober: killed"), "{}", outcome.log);
    assert!(outcome.restarts >= 2 && outcome.failed.is_empty() && outcome.served > 500);
}

#[test]
fn who_says_nothing_is_replaced() {
    let Some(outcome) = suffer("silent", "", Duration::from_secs(8)) else { return };
    assert!(outcome.log.contains("silent for"), "{}", outcome.log);
    assert!(outcome.restarts >= 1 && outcome.failed.is_empty() && outcome.served > 500);
}

/// It makes backends come and go as fast as it can: flows of one that is out just then are reset, and it is never all.
#[test]
fn who_floods_is_replaced_and_empties_nothing() {
    let Some(outcome) = suffer("flood", "panic_threshold = 50", Duration::from_secs(5)) else { return };
    assert!(outcome.log.contains("messages in a second") || outcome.log.contains("cannot be"), "{}", outcome.log);
    assert!(outcome.restarts >= 2 && outcome.refused == 0 && outcome.served > outcome.failed.len());
}

/// To the workers alone: the supervisor does not see it, and the data path must bear it.
#[test]
fn who_drowns_the_workers_does_not_stop_them() {
    let Some(outcome) = suffer("drown", "panic_threshold = 50", Duration::from_secs(5)) else { return };
    assert!(outcome.refused == 0 && outcome.served > 200 && outcome.served > outcome.failed.len());
}

#[test]
fn reporting_every_backend_down_meets_the_panic_threshold() {
    let Some(outcome) = suffer("alldown", "panic_threshold = 50", Duration::from_secs(3)) else { return };
    assert!(outcome.failed.is_empty() && outcome.refused == 0 && outcome.served > 300);
    let Some(outcome) = suffer("alldown", "all_down = \"last\"", Duration::from_secs(3)) else { return };
    assert!(outcome.refused == 0 && outcome.served > 300);
}
