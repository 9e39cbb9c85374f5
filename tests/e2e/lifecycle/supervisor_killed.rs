//! The supervisor is killed: its workers go on with their last orders, and the next supervisor takes them over, with all
//! that they and the dead one knew.

use crate::rig::config::{Service, config};
use crate::rig::lab::{Lab, binary, eventually, install_script, setting};
use crate::rig::loaded::{Loaded, lives, signal_to};
use crate::rig::machine::paired;
use crate::rig::net::{Family, backend_of, get};
use crate::rig::packet::Dice;
use crate::rig::ports::named;
use crate::rig::witness::{Datagrams, ECHO, Witness, datagrams, with_echo};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

/// Both families, TCP with checks and the echo of numbered datagrams.
pub(crate) fn services(keys: &str, backends: &[(u16, u16)]) -> String {
    let echo = ECHO.to_string();
    let checked = format!("check = {{ kind = \"tcp\", port = 80, interval = \"300ms\" }}\n{keys}");
    let web = Service { name: "web", protocol: "tcp", ports: "80", keys: &checked, backends, ..Service::default() };
    let udp = Service { name: "echo", protocol: "udp", ports: &echo, keys: "", backends, ..Service::default() };
    config("5s", &[web, udp])
}

pub(crate) const ALL: &[(u16, u16)] = &[(1, 1), (2, 1), (3, 1)];

/// Sends a modest stream of numbered datagrams while `trouble` runs.
pub(crate) fn echoed(lab: &Lab, trouble: impl FnOnce()) -> Datagrams {
    with_echo(lab, || datagrams(lab, 2000, trouble))
}

/// Kills the supervisor and sees that its workers go on.
#[track_caller]
fn kill_supervisor(loaded: &mut Loaded) -> Vec<u32> {
    let workers = loaded.workers();
    assert_eq!(workers.len(), 2);
    let prober = loaded.prober();
    loaded.end(Signal::SIGKILL);
    let gone = || prober.is_none_or(|pid| !lives(pid));
    assert!(eventually(Duration::from_secs(2), gone), "the prober outlives its supervisor");
    assert!(workers.iter().all(|&pid| lives(pid)), "workers die with their supervisor");
    workers
}

/// The backend of each of ten clients.
fn places(lab: &Lab, family: Family) -> BTreeMap<IpAddr, String> {
    let clients = (10..20).map(|n| family.client(n));
    let place = |client| lab.within("client", || backend_of(&get(client, family.vip(), 80).unwrap(), client));
    clients.map(|client| (client, place(client))).collect()
}

fn serves(lab: &Lab) {
    for family in Family::BOTH {
        places(lab, family);
    }
}

#[test]
fn nobody_notices_twenty_supervisors_killed() {
    paired(|lab| {
        let text = services("", ALL);
        let mut loaded = Loaded::toml(lab, &text);
        let mut counted = Datagrams::default();
        let witness = Witness::of(lab, || {
            counted = echoed(lab, || {
                for _ in 0..setting("E2E_DEATHS", 20) {
                    let workers = kill_supervisor(&mut loaded);
                    std::thread::sleep(Duration::from_millis(150));
                    assert!(workers.iter().all(|&pid| lives(pid)));
                    loaded = Loaded::toml(lab, &text);
                    assert!(loaded.log().contains("its workers continue, and are taken over"), "{}", loaded.log());
                    assert!(!workers.iter().any(|&pid| lives(pid)), "two of a kind");
                    std::thread::sleep(Duration::from_millis(150));
                }
            });
        });
        println!("datagrams: {counted:?}");
        witness.has_seen_nothing();
        counted.none_is_lost(lab);
        assert!(eventually(Duration::from_secs(5), || lab.waiting() == 0), "{}", lab.queues());
        loaded.stop();
    });
}

/// The supervisor is killed when it has told both old workers to go, and one of them has not yet: the end of the other one shows
/// that they were told. The successors of both serve all the same. `false`: on a slow machine the change came too late, or the
/// worker that was to be late was told too early, and it has shown nothing.
fn loses_its_supervisor(lab: &Lab, loaded: &mut Loaded, text: &str) -> bool {
    let old = loaded.workers();
    let [slow, quick] = old[..] else { panic!("{old:?}") };
    lab.file("loaded.toml", text);
    loaded.signal(Signal::SIGHUP);
    let successors = || loaded.workers().into_iter().filter(|pid| !old.contains(pid)).collect::<Vec<_>>();
    let begun = eventually(Duration::from_secs(10), || successors().len() == 2);
    assert!(begun, "no change begins: {}", loaded.log());
    // It may have ended by now.
    let send = |signal| _ = kill(Pid::from_raw(i32::try_from(slow).unwrap()), signal);
    // With packets in its queue it is taken for hung after 1.5 s.
    send(Signal::SIGSTOP);
    let told = eventually(Duration::from_secs(1), || !lives(quick)) && lives(slow);
    let new = successors();
    loaded.end(Signal::SIGKILL);
    send(Signal::SIGCONT);
    if told {
        assert_eq!(new.len(), 2, "{new:?}\n{}", loaded.log());
        assert!(eventually(Duration::from_secs(5), || !lives(slow)), "it was not told to go");
        std::thread::sleep(Duration::from_millis(150));
        assert!(new.iter().all(|&pid| lives(pid)), "nobody serves");
    }
    told
}

#[test]
fn a_change_can_lose_its_supervisor_in_the_middle() {
    paired(|lab| {
        let texts = [services("", ALL), services("affinity = \"none\"", ALL)];
        let mut loaded = Loaded::toml(lab, &texts[0]);
        let mut counted = Datagrams::default();
        let witness = Witness::of(lab, || {
            counted = echoed(lab, || {
                let (rounds, mut middle) = (setting("E2E_RUNS", 6), 0);
                for round in 1..=5 * rounds {
                    let text = &texts[usize::try_from(round % 2).unwrap()];
                    middle += u64::from(loses_its_supervisor(lab, &mut loaded, text));
                    loaded = Loaded::toml(lab, text);
                    assert!(loaded.log().contains("its workers continue, and are taken over"), "{}", loaded.log());
                    std::thread::sleep(Duration::from_millis(150));
                    if middle == rounds {
                        break;
                    }
                }
                assert_eq!(middle, rounds, "too few changes had come so far when they lost their supervisor");
            });
        });
        println!("datagrams: {counted:?}");
        witness.has_seen_nothing();
        counted.none_is_lost(lab);
        loaded.stop();
    });
}

/// One is killed when it has ended the first of two workers that it takes over: then each has another supervisor, both dead.
#[test]
fn workers_of_two_dead_supervisors_are_taken_over_together() {
    let Some(lab) = Lab::up() else { return };
    let text = services("", ALL);
    let mut first = Loaded::toml(&lab, &text);
    let old = kill_supervisor(&mut first);
    let traced = lab.state().join("traced");
    let inject = "-e trace=pidfd_send_signal -e inject=pidfd_send_signal:signal=SIGKILL:when=2";
    let script = format!("#!/bin/sh\nexec strace -o /dev/null {inject} {} \"$@\"\n", binary().display());
    install_script(&script, &traced);
    let config = lab.file("loaded.toml", &text);
    let mut second = Loaded::spawn_as(&traced, &lab, |command| {
        command.args(["-D", "-c", &config]);
    });
    second.wait();
    let left = || old.iter().filter(|&&pid| lives(pid)).count();
    // The first has been told to go, and needs a moment; whoever was told besides has a moment, too.
    eventually(Duration::from_secs(2), || left() < 2);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(left(), 1, "it was killed too late or too early: {}", second.log());
    serves(&lab);
    let third = Loaded::toml(&lab, &text);
    assert!(third.log().contains("its workers continue, and are taken over"), "{}", third.log());
    serves(&lab);
    third.stop();
}

/// The supervisor is killed at any moment of a takeover or of a reload.
#[test]
fn nobody_notices_supervisors_killed_at_work() {
    paired(|lab| {
        let texts = [services("", ALL), services("affinity = \"none\"", ALL)];
        let mut loaded = Loaded::toml(lab, &texts[0]);
        let mut dice = Dice::new(17);
        let moment = |dice: &mut Dice, most| Duration::from_millis(u64::try_from(dice.below(most)).unwrap());
        let mut early = 0;
        let witness = Witness::of(lab, || {
            for round in 0..setting("E2E_RUNS", 12) {
                let text = &texts[usize::try_from(round % 2).unwrap()];
                let config = ["-c".to_owned(), lab.file("loaded.toml", text)];
                match round % 3 {
                    0 => loaded.signal(Signal::SIGHUP),
                    _ => {
                        loaded.end(Signal::SIGKILL);
                        loaded = Loaded::spawn(lab, &config);
                    }
                }
                std::thread::sleep(moment(&mut dice, 150));
                early += u32::from(!loaded.log().contains("loaded: serving:"));
                loaded.end(Signal::SIGKILL);
                std::thread::sleep(moment(&mut dice, 100));
                loaded = Loaded::start(lab, &config);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        println!("{early} were killed before they served");
        witness.has_seen_nothing();
        assert!(early > 0);
        loaded.stop();
    });
}

/// The next supervisor knows the backends' states, the operator's commands, the flows and the counters.
#[test]
fn what_was_known_is_known_to_the_next_one() {
    let Some(lab) = Lab::up() else { return };
    let before = lab.rules();
    let text = services("strategy = \"rr\"\naffinity = { by = \"client\", prefix6 = 128 }", ALL);
    let mut loaded = Loaded::toml(&lab, &text);
    for family in Family::BOTH {
        let said = loaded.ask(&["backend", "disable", &family.backend(1).to_string()]);
        assert_eq!(said.code, Some(0), "{}", said.err);
    }
    lab.kill_web("b2");
    let is_down = |loaded: &Loaded, family: Family| loaded.backend("web", family.backend(2))["state"] == "down";
    let down = |loaded: &Loaded| Family::BOTH.iter().all(|family| is_down(loaded, *family));
    assert!(eventually(Duration::from_secs(5), || down(&loaded)), "{}", loaded.status());
    // An idle worker hears of it a little later.
    std::thread::sleep(Duration::from_millis(200));
    let with = Family::BOTH.map(|family| places(&lab, family));
    assert!(with.iter().flat_map(BTreeMap::values).all(|name| name == "b3"), "{with:?}");
    let (history, received) = (loaded.json(&["history"]), loaded.counters().iter().map(|c| c.received).sum::<u64>());

    // Nobody looks after the backends any more, and what was believed holds.
    let workers = kill_supervisor(&mut loaded);
    assert_eq!(Family::BOTH.map(|family| places(&lab, family)), with, "without a supervisor");
    let next = Loaded::toml(&lab, &text);
    assert_eq!(Family::BOTH.map(|family| places(&lab, family)), with);
    assert!(down(&next), "{}", next.status());
    assert_eq!(next.backend("web", Family::V4.backend(1))["admin"], "disabled");
    let events = next.json(&["history"]);
    let (old, all) = (history.as_array().unwrap(), events.as_array().unwrap());
    assert!(old.len() > 2 && all.starts_with(old), "{events}");
    assert!(next.counters().iter().map(|c| c.received).sum::<u64>() > received, "counted on");
    assert!(!workers.iter().any(|&pid| lives(pid)));
    next.stop();
    assert_eq!(lab.rules(), before);
}

/// A configuration that was changed meanwhile is reloaded; a change that needs a restart begins anew.
#[test]
fn the_next_one_may_have_another_configuration() {
    let Some(lab) = Lab::up() else { return };
    let mut loaded = Loaded::toml(&lab, &services("", &ALL[..2]));
    let workers = kill_supervisor(&mut loaded);
    let next = services("", &ALL[1..]);
    let mut loaded = Loaded::toml(&lab, &next);
    let log = loaded.log();
    let added = format!("backend {} is added", named(Family::V4.backend(3)));
    let removed = format!("backend {} is removed: drains for 5s", named(Family::V6.backend(1)));
    for change in [added, removed] {
        assert!(log.contains(&format!("since then: service web: {change}")), "{log}");
    }
    for family in Family::BOTH {
        assert!(places(&lab, family).values().all(|name| name != "b1"));
        assert!(loaded.backend("web", family.backend(1))["admin"] == "draining", "{}", loaded.status());
    }
    assert!(!workers.iter().any(|&pid| lives(pid)));

    let workers = kill_supervisor(&mut loaded);
    let loaded = Loaded::toml(&lab, &format!("flows = 4096\n{next}"));
    assert!(loaded.log().contains("flows 262144 \u{2192} 4096 cannot change"), "{}", loaded.log());
    assert!(loaded.log().contains("their flows are lost"), "{}", loaded.log());
    assert!(!workers.iter().any(|&pid| lives(pid)));
    serves(&lab);
    loaded.stop();
}

/// Of two concurrent starts one takes over; from a living supervisor nobody does.
#[test]
fn only_one_takes_over() {
    let Some(lab) = Lab::up() else { return };
    let config = ["-c".to_owned(), lab.file("loaded.toml", &services("", ALL))];
    let mut first = Loaded::start(&lab, &config);
    let mut second = Loaded::spawn(&lab, &config);
    assert_eq!(second.wait().code(), Some(1));
    assert!(second.log().contains("queue 0 belongs to pid "), "{}", second.log());
    serves(&lab);

    kill_supervisor(&mut first);
    let both = [(), ()].map(|()| Loaded::spawn(&lab, &config));
    let is_up = |loaded: &Loaded| loaded.log().contains("loaded: serving:");
    let is_over = || both.iter().filter(|one| is_up(one)).count() == 1 && both.iter().any(|one| !lives(one.pid()));
    assert!(eventually(Duration::from_secs(10), is_over), "{}\n{}", both[0].log(), both[1].log());
    std::thread::sleep(Duration::from_millis(500));
    assert!(is_over(), "both serve");
    serves(&lab);
    for one in both {
        if is_up(&one) {
            one.stop();
        }
    }
}

/// A worker that dies without a supervisor takes its queue along; the other is taken over all the same.
#[test]
fn a_worker_that_died_too_is_started_anew() {
    let Some(lab) = Lab::up() else { return };
    let text = services("", ALL);
    let mut loaded = Loaded::toml(&lab, &text);
    let workers = kill_supervisor(&mut loaded);
    signal_to(workers[0], Signal::SIGKILL);
    assert!(eventually(Duration::from_secs(2), || !lives(workers[0])));
    let loaded = Loaded::toml(&lab, &text);
    assert!(loaded.log().contains("are taken over"), "{}", loaded.log());
    serves(&lab);
    loaded.stop();
}

/// When a supervisor dies, the kernel would send SIGHUP to a stopped worker of the same session.
#[test]
fn a_stopped_worker_outlives_its_supervisor_too() {
    let Some(lab) = Lab::up() else { return };
    let text = services("", ALL);
    let mut loaded = Loaded::toml(&lab, &text);
    let workers = loaded.workers();
    signal_to(workers[0], Signal::SIGSTOP);
    loaded.end(Signal::SIGKILL);
    std::thread::sleep(Duration::from_millis(200));
    assert!(workers.iter().all(|&pid| lives(pid)), "it died with its supervisor");
    let next = Loaded::toml(&lab, &text);
    assert!(next.log().contains("are taken over"), "{}", next.log());
    serves(&lab);
    next.stop();
}

/// With `linger = false` nothing is balanced without a supervisor, and nothing leaks past it.
#[test]
fn without_linger_workers_die_with_their_supervisor() {
    let Some(lab) = Lab::up() else { return };
    let text = format!("linger = false\n{}", services("", ALL));
    let mut loaded = Loaded::toml(&lab, &text);
    let workers = loaded.workers();
    loaded.end(Signal::SIGKILL);
    assert!(eventually(Duration::from_secs(2), || !workers.iter().any(|&pid| lives(pid))), "they live on");
    for family in Family::BOTH {
        let answer = lab.within("client", || get(family.client(10), family.vip(), 80));
        let kind = answer.unwrap_err().kind();
        assert!(kind != std::io::ErrorKind::ConnectionRefused && kind != std::io::ErrorKind::ConnectionReset, "{kind}");
    }
    let next = Loaded::toml(&lab, &text);
    serves(&lab);
    next.stop();
}
