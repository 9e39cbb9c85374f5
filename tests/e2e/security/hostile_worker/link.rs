//! What a worker that was taken over says to the supervisor, and what it leaves to its successors: it is replaced, the
//! supervisor is not confused, and answers at once.

use super::outside::View;
use super::system::{Aim, Heard, RECOVERY_TIMEOUT, System, service};
use crate::rig::lab::{double, eventually};
use crate::rig::net::{Family, get};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// An answer of the supervisor takes some milliseconds. One that waited for a worker would take a second.
const AT_ONCE: Duration = Duration::from_millis(700);
const NOW: Duration = Duration::from_millis(500);

/// What it says, and what the supervisor logs as it kills it.
const SAID: [(&str, &str); 13] = [
    ("link: bytes that are no message", "a message does not decode"),
    ("link: an empty message", "killed by signal 9"),
    ("link: half a message", "a message does not decode"),
    ("link: a message and more", "bytes after the message"),
    ("link: a message longer than any", "a message is longer than"),
    ("link: bytes without end", "a message does not decode"),
    ("link: ready once more", "out of turn"),
    ("link: ready in another generation", "out of turn"),
    ("link: prepared once more", "out of turn"),
    ("link: an answer nobody asked for", "out of turn"),
    ("link: flows ended that nobody named", "out of turn"),
    ("link: ended flows told twice", "out of turn"),
    ("link: ended flows of another order", "out of turn"),
];

/// What it writes into its tables before it ends, and whether its successors find out only by trying to open them.
const LEFT: [&str; 11] = [
    "flows: no magic",
    "flows: another version",
    "flows: a vast capacity",
    "flows: no capacity",
    "flows: more buckets than there are",
    "flows: another key",
    "flows: any entries",
    "flows: any bytes",
    "clients: no magic",
    "clients: any entries",
    "clients: any bytes",
];

/// So many systems side by side, half of them for each family.
const SYSTEMS: usize = 4;

/// Shares it out among the systems.
fn shared_out<T: Copy + Send + Sync>(all: &[T], attempt: impl Fn(&mut System, Family, T) + Sync) {
    if double().is_none() {
        return;
    }
    std::thread::scope(|scope| {
        for share in 0..SYSTEMS {
            let (attempt, family) = (&attempt, Family::BOTH[share % 2]);
            let of_share = all.iter().skip(share).step_by(SYSTEMS);
            scope.spawn(move || {
                let Some(mut system) = System::up() else { return };
                let before = View::first(&system.lab);
                system.under_traffic(|system| {
                    for one in of_share {
                        attempt(system, family, *one);
                        answers_at_once(system);
                        system.settle();
                        system.check(&before, "afterwards");
                        serves(system, family);
                    }
                });
                system.loaded.stop();
            });
        }
    });
}

/// The supervisor answers without waiting for anybody. On a busy machine it and this thread also wait for a core: the
/// kernel counts for how long, and that much later the answer may come.
#[track_caller]
fn answers_at_once(system: &System) {
    let without_core = || run_delay("thread-self") + run_delay(&system.loaded.pid().to_string());
    let (before, begin) = (without_core(), Instant::now());
    let mut socket = UnixStream::connect(system.loaded.control()).unwrap();
    socket.write_all(b"\"status\"\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (time, busy) = (begin.elapsed(), without_core() - before);
    assert!(time < AT_ONCE + busy, "an answer took {time:?}, {busy:?} of it for want of a core");
    let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
    assert!(answer["status"]["processes"].as_array().unwrap().len() == 4, "{answer}");
}

/// How long a task has been ready to run without a core: the second field of its schedstat, nanoseconds
/// (Documentation/scheduler/sched-stats.rst).
fn run_delay(task: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{task}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').nth(1).unwrap().parse().unwrap())
}

/// The client of worker 0 is served.
#[track_caller]
fn serves(system: &System, family: Family) {
    let body = system.lab.within("client", || get(system.victim(family), family.vip(), 80));
    body.unwrap_or_else(|error| panic!("worker 0 does not serve: {error}\n{}", system.tail()));
}

/// The operator ends flows of the client while worker 0 listens for that; whatever it says of them, the operator is answered, and hears
/// at most what it has said first.
#[track_caller]
fn ends_flows_meanwhile<T: Send>(system: &System, family: Family, order: impl FnOnce() -> T + Send) {
    let client = system.victim(family).to_string();
    let ended = std::thread::scope(|scope| {
        scope.spawn(order);
        std::thread::sleep(Duration::from_millis(100));
        system.loaded.json(&["flows", "--end", "--client", &client])
    });
    let unsaid = ended["unsaid"].as_array().unwrap();
    assert!(ended["ended"].as_u64().unwrap() <= 1 && unsaid.iter().all(|worker| worker == 0), "{ended}");
}

#[test]
fn what_is_no_answer_ends_the_worker() {
    shared_out(&SAID, |system, family, (attempt, words)| {
        let place = system.loaded.log().len();
        let generation = system.loaded.status()["generation"].as_u64().unwrap();
        let aim = Aim { process: u32::try_from(generation).unwrap(), signal: 0 };
        match attempt.contains("ended flows") {
            true => ends_flows_meanwhile(system, family, || system.order(family, attempt, aim, NOW)),
            false => drop(system.order(family, attempt, aim, NOW)),
        }
        assert!(
            eventually(RECOVERY_TIMEOUT, || !system.deaths_since(place).is_empty()),
            "{attempt}: it lives\n{}",
            system.tail()
        );
        answers_at_once(system);
        let deaths = system.deaths_since(place);
        assert!(deaths.iter().all(|death| death.contains(words)), "{attempt}: {deaths:?}");
    });
}

#[test]
fn what_it_leaves_in_its_tables_is_judged() {
    shared_out(&LEFT, |system, family, attempt| {
        let (aim, place) = (system.at_supervisor(), system.loaded.log().len());
        assert_eq!(system.order(family, attempt, aim, NOW), Heard::Answer(0), "{attempt}\n{}", system.tail());
        // It goes on with what is in there: wrongly, but it goes on.
        for _ in 0..5 {
            let _ = system.lab.within("client", || get(system.victim(family), family.vip(), 80));
        }
        assert_eq!(system.deaths_since(place), [""; 0], "{attempt}");
        assert_eq!(system.order(family, "time: end as if in order", aim, RECOVERY_TIMEOUT), Heard::Nothing);
        assert!(eventually(RECOVERY_TIMEOUT, || !system.deaths_since(place).is_empty()));
        answers_at_once(system);
    });
}

/// Absurd figures are shown, and decide nothing: they do not keep the flows of a backend that leaves beyond its time.
#[test]
fn absurd_counters_are_numbers() {
    let Some(_) = double() else { return };
    let Some(mut system) = System::up() else { return };
    let before = View::first(&system.lab);
    system.under_traffic(|system| {
        let aim = system.at_supervisor();
        for attempt in ["counters: all as large as can be", "counters: all back to nothing"] {
            assert_eq!(system.order(Family::V4, attempt, aim, NOW), Heard::Answer(0), "{attempt}\n{}", system.tail());
            answers_at_once(system);
            for words in [&["status"][..], &["metrics"], &["history"]] {
                let said = system.loaded.ask(words);
                assert_eq!(said.code, Some(0), "{attempt}: {words:?}: {}", said.err);
            }
            system.loaded.signal(Signal::SIGUSR1);
        }
        system.check(&before, "absurd counters");
        // The third backend leaves, and has three seconds for its flows, however many they say it has.
        system.lab.file("loaded.toml", &service(2));
        system.loaded.signal(Signal::SIGHUP);
        let third = |admin: &str| {
            let status = system.loaded.status();
            let backends = status["services"][0]["backends"].as_array().unwrap().clone();
            backends.iter().filter(|backend| backend["state"] == "leaving" && backend["admin"] == admin).count()
        };
        assert!(eventually(RECOVERY_TIMEOUT, || third("draining") == 2), "{}", system.tail());
        let left = Instant::now();
        let attempt = "counters: all as large as can be";
        assert_eq!(system.order(Family::V6, attempt, aim, NOW), Heard::Answer(0), "{}", system.tail());
        assert!(eventually(RECOVERY_TIMEOUT, || third("disabled") == 2), "{}", system.loaded.status());
        println!("the third backend's flows were ended {:?} after it left", left.elapsed());
    });
    system.loaded.stop();
}
