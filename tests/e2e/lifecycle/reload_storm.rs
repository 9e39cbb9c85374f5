//! Random reloads under load: one service stays and must not notice, the others come and go. At the end the instance is
//! as one that was started with the last file.

use crate::rig::config::{FREE, Service, config};
use crate::rig::lab::{Lab, eventually, more_vips, setting};
use crate::rig::loaded::{Loaded, children, size};
use crate::rig::machine::measured;
use crate::rig::net::{Family, get};
use crate::rig::packet::Dice;
use crate::rig::requests::url;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What a service may balance: protocol and ports. The last takes a whole VIP.
const TRAFFIC: [(&str, &str); 6] = [
    ("tcp", "80"),
    ("tcp", "81, 443"),
    ("tcp", "\"8000-8010\""),
    ("udp", "7007"),
    ("udp", "53, \"500-600\""),
    ("any", ""),
];
const EVERYTHING: usize = TRAFFIC.len() - 1;
const AFFINITIES: [&str; 3] = [
    "affinity = \"none\"",
    "affinity = { by = \"client\", prefix6 = 128 }",
    "affinity = { by = \"client\", prefix4 = 32, prefix6 = 128, timeout = \"5m\" }",
];
const STRATEGIES: [&str; 4] = ["rr", "weighted", "maglev", "maglev\"\nseed = 7 # \""];
/// Each fits every service; to "dns" nothing answers.
const CHECKS: [&str; 7] = [
    "",
    "check = { kind = \"icmp\", interval = \"500ms\" }",
    "check = { kind = \"tcp\", port = 80, interval = \"1s\", rise = 1 }",
    "check = { kind = \"http\", port = 81, interval = \"700ms\", timeout = \"300ms\" }\npassive = false",
    "check = { kind = \"icmp+tcp\", port = 80, fall = 1 }\npassive = { port = 80, fails = 5 }",
    "check = { kind = \"udp\", port = 7007, send = \"x\", expect = \"b\", jitter = 0 }",
    "check = { kind = \"dns\", port = 53, name = \"www.example.com\", interval = \"300ms\", fall = 1 }",
];
const POLICIES: [&str; 4] =
    ["", "on_backend_down = \"rehash\"", "on_backend_down = \"drain\"\nall_down = \"last\"", "panic_threshold = 60"];

/// A valid configuration. The service that stays has two backends that stay.
fn any_config(dice: &mut Dice) -> String {
    let weight = |dice: &mut Dice| u16::try_from(1 + dice.below(5)).unwrap();
    let mut backends = vec![(1, weight(dice)), (2, weight(dice))];
    if dice.below(2) == 0 {
        backends.push((3, weight(dice)));
    }
    let mut services = vec![service(dice, "steady", &[100], 0, &backends)];
    let mut taken = vec![(100, 0)];
    for name in ["s0", "s1", "s2", "s3", "s4"] {
        let traffic = dice.below(TRAFFIC.len());
        let is_free = |vip: u16| {
            let mut there = taken.iter().filter(|(known, _)| *known == vip);
            there.all(|(_, other)| *other != traffic && *other != EVERYTHING && traffic != EVERYTHING)
        };
        let vips: Vec<_> = (100..=103).filter(|vip| dice.below(2) == 0 && is_free(*vip)).collect();
        #[expect(clippy::filter_map_bool_then, reason = "both throw the same dice")]
        let backends: Vec<_> = (1..=3).filter_map(|n| (dice.below(3) > 0).then(|| (n, weight(dice)))).collect();
        if vips.is_empty() || backends.is_empty() || dice.below(3) == 0 {
            continue;
        }
        taken.extend(vips.iter().map(|vip| (*vip, traffic)));
        services.push(service(dice, name, &vips, traffic, &backends));
    }
    services.iter().fold(config("1s", &[]), |text, service| text + service)
}

fn service(dice: &mut Dice, name: &str, vips: &[u16], traffic: usize, backends: &[(u16, u16)]) -> String {
    // What stays is not given a check that fails.
    let checks = if name == "steady" { &CHECKS[..4] } else { &CHECKS };
    let check = dice.one_of(checks);
    // What tells of a backend must be TCP to a port of the service.
    let check = if traffic == 0 { check } else { check.split("\npassive").next().unwrap_or_default() };
    let strategy = format!("strategy = \"{}\"", dice.one_of(&STRATEGIES));
    let keys = [dice.one_of(&AFFINITIES), &strategy, dice.one_of(&POLICIES), check].join("\n");
    let (protocol, ports) = TRAFFIC[traffic];
    Service { name, vips, protocol, ports, keys: &keys, backends }.to_string()
}

/// Replaces the configuration file atomically.
fn put(lab: &Lab, text: &str) {
    let path = lab.file("next.toml", text);
    fs::rename(path, lab.state().join("loaded.toml")).unwrap();
}

/// How the reload has ended that was asked for at this place of the log.
fn ending(loaded: &Loaded, from: usize) -> Option<&'static str> {
    let log = loaded.log();
    ["reload: generation", "reload: the configuration is the same", "reload refused"]
        .into_iter()
        .find(|words| log[from..].contains(words))
}

#[track_caller]
fn hup(loaded: &Loaded, second: impl FnOnce()) -> (&'static str, Duration) {
    let (from, began) = (loaded.log().len(), Instant::now());
    loaded.signal(Signal::SIGHUP);
    second();
    loop {
        if let Some(ending) = ending(loaded, from) {
            return (ending, began.elapsed());
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the reload does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The configuration as the status shows it, and the rules without what differs at each start.
fn face(lab: &Lab, loaded: &Loaded) -> (Value, Vec<String>) {
    let fields = |from: &Value, names: &[&str]| names.iter().map(|name| from[*name].clone()).collect::<Vec<_>>();
    let backend = |b: &Value| fields(b, &["address", "weight", "backup", "discovered", "admin", "state", "drain_left"]);
    let service = |service: &Value| {
        let backends: Vec<_> = service["backends"].as_array().unwrap().iter().map(backend).collect();
        let what = ["name", "vips", "protocol", "ports", "strategy", "affinity", "check", "passive", "state"];
        let policy = ["on_backend_down", "all_down", "panic_threshold", "slow_start", "discover"];
        json!([fields(service, &what), fields(service, &policy), backends])
    };
    let services = loaded.status()["services"].as_array().unwrap().iter().map(service).collect();
    let rules = lab.sh("lb", "iptables-save -t raw; ip6tables-save -t raw");
    let masked = |line: &str| {
        let mut parts = line.splitn(2, "--bytecode \"");
        let before = parts.next().unwrap().split(" [").next().unwrap().to_owned();
        before + parts.next().and_then(|rest| rest.split_once('"')).map_or("", |(_, after)| after)
    };
    (services, rules.lines().filter(|line| line.contains("LOADED-")).map(masked).collect())
}

/// Load on 64 keep-alive connections until it is interrupted.
fn load(lab: &Lab) -> Child {
    let (namespace, url) = (lab.namespace("client"), url(Family::V4.vip(), 80, "small"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace, "wrk", "-t1", "-c64", "-d3600s", &url]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
}

fn end_of(mut load: Child) -> String {
    kill(Pid::from_raw(i32::try_from(load.id()).unwrap()), Signal::SIGINT).unwrap();
    let mut said = String::new();
    load.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    load.wait().unwrap();
    said
}

/// Opens new connections, one after the other, until told to end: their number, and the errors.
fn fetch(lab: &Lab, over: &AtomicBool) -> (u64, Vec<String>) {
    lab.within("client", || {
        let (mut done, mut errors) = (0, Vec::new());
        while !over.load(Ordering::Relaxed) {
            let client = Family::V6.client(10 + u16::try_from(done % 40).unwrap());
            match get(client, Family::V6.vip(), 80) {
                Ok(_) => {}
                Err(error) => errors.push(format!("{client}: {error}")),
            }
            done += 1;
        }
        (done, errors)
    })
}

#[test]
fn random_reloads_under_load_leave_no_trace() {
    measured(|lab| {
        more_vips(lab);
        let (reloads, seed) = (setting("E2E_RELOADS", 30), setting("E2E_SEED", 3));
        let mut dice = Dice::new(seed);
        let mut last = config("1s", &[Service { name: "steady", keys: FREE, ..Service::default() }]);
        let loaded = Loaded::toml(lab, &last);
        let over = AtomicBool::new(false);
        let (mut times, mut endings) = (Vec::new(), std::collections::BTreeMap::<_, u32>::new());
        // The first reload grows what every one needs.
        put(lab, &last.replace("weight = 1", "weight = 2"));
        hup(&loaded, || {});
        let before = size(loaded.pid());
        // Keep-alive connections are opened while only those backends are there that stay.
        let steady = load(lab);
        let flows = |n| loaded.backend("steady", Family::V4.backend(n))["flows"].as_u64().unwrap();
        assert!(eventually(Duration::from_secs(5), || flows(1) + flows(2) >= 64), "no load");
        std::thread::sleep(Duration::from_millis(500));
        let (fetched, errors) = std::thread::scope(|scope| {
            let fetches = scope.spawn(|| fetch(lab, &over));
            let stop = Stop(&over);
            for round in 0..reloads {
                let text = any_config(&mut dice);
                let (ending, time) = match dice.below(10) {
                    0 | 1 => {
                        let cut = text[..dice.below(text.len())].trim_end().to_owned() + "\nx = [";
                        put(lab, &cut);
                        hup(&loaded, || {})
                    }
                    2 | 3 => {
                        put(lab, &text);
                        last = any_config(&mut dice);
                        let wait = Duration::from_millis(u64::try_from(dice.below(80)).unwrap());
                        let second = || {
                            std::thread::sleep(wait);
                            put(lab, &last);
                            loaded.signal(Signal::SIGHUP);
                        };
                        let time = hup(&loaded, second).1;
                        // The second one may still be to come.
                        std::thread::sleep(Duration::from_millis(500));
                        ("two", time)
                    }
                    _ => {
                        put(lab, &text);
                        last = text;
                        let how = hup(&loaded, || {});
                        let why = || loaded.status()["last_reload"]["text"].clone();
                        assert_ne!(how.0, "reload refused", "round {round}: {}\n{last}", why());
                        how
                    }
                };
                *endings.entry(ending).or_default() += 1;
                assert!(loaded.workers().len() >= 2, "round {round}");
                if ending == "reload: generation" {
                    times.push(time);
                }
                std::thread::sleep(Duration::from_millis(u64::try_from(dice.below(200)).unwrap()));
            }
            drop(stop);
            fetches.join().unwrap()
        });
        let said = end_of(steady);
        times.sort_unstable();
        let part = |percent: usize| times[(times.len() - 1) * percent / 100];
        println!("{reloads} reloads of seed {seed}: {endings:?}");
        println!("HUP to done: 0/50/90/99/100 %: {:?}", [0, 50, 90, 99, 100].map(part));
        println!(
            "{fetched} fetches over IPv6, {} errors; {}",
            errors.len(),
            said.lines().nth(6).unwrap_or_default().trim()
        );
        assert!(errors.is_empty(), "{} of {fetched}: {:?}", errors.len(), &errors[..errors.len().min(10)]);
        assert!(
            said.contains(" requests in ") && !said.contains("Socket errors") && !said.contains("Non-2xx"),
            "{said}"
        );

        // The last file may have been one that is no good.
        put(lab, &last);
        hup(&loaded, || {});
        let other = lab.another();
        more_vips(&other);
        let fresh = Loaded::toml(&other, &last);
        let began = Instant::now();
        let equal = eventually(Duration::from_secs(60), || face(lab, &loaded) == face(&other, &fresh));
        if !equal {
            let (is, wanted) = (face(lab, &loaded), face(&other, &fresh));
            assert_eq!(is.0, wanted.0);
            assert_eq!(is.1, wanted.1);
        }
        // The last departure may be under way: for a moment there are twice as many workers.
        let counts = |loaded: &Loaded| (size(loaded.pid()).1, children(loaded.pid()).len());
        let alike = eventually(Duration::from_secs(10), || counts(&loaded) == counts(&fresh));
        let after = size(loaded.pid());
        println!("as a fresh start after {:?}; memory and descriptors {before:?}, then {after:?}", began.elapsed());
        assert!(alike, "descriptors and children: {:?}, of a fresh start {:?}", counts(&loaded), counts(&fresh));
        assert!(after.0 < before.0 + 8192, "kB of the supervisor: {} before, {} after", before.0, after.0);
        fresh.stop();
        loaded.stop();
    });
}

/// Ends the fetches, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
