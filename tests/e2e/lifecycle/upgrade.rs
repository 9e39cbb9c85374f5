//! USR2: a new binary takes over from the running one, or refuses and changes nothing.

use super::supervisor_killed::{ALL, echoed, services};
use crate::rig::kept_open::{KeptOpen, go_on};
use crate::rig::lab::{Lab, binary, double, eventually, install, install_script, setting};
use crate::rig::loaded::{Loaded, children, lives, signal_to};
use crate::rig::machine::paired;
use crate::rig::net::{Family, get};
use crate::rig::packet::Dice;
use crate::rig::witness::{Datagrams, Witness};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// An installed binary, which can be replaced.
struct InstalledBinary(PathBuf);

impl InstalledBinary {
    fn of(lab: &Lab) -> Self {
        let this = Self(lab.state().join("installed"));
        this.put(&binary());
        this
    }

    /// Replaces it as a package manager does: by another file under the same name.
    fn put(&self, binary: &Path) {
        let next = self.0.with_extension("next");
        install(binary, &next);
        fs::rename(next, &self.0).unwrap();
    }

    fn put_script(&self, text: &str) {
        let next = self.0.with_extension("next");
        install_script(text, &next);
        fs::rename(next, &self.0).unwrap();
    }

    #[track_caller]
    fn start(&self, lab: &Lab, text: &str) -> Loaded {
        let config = lab.file("loaded.toml", text);
        let pid_file = lab.state().join("upgraded.pid-file");
        Loaded::spawn_as(&self.0, lab, |command| {
            command.args(["-D", "-c", &config, "--pid-file", pid_file.to_str().unwrap()]);
        })
        .until_it_serves()
    }
}

fn serves(lab: &Lab) {
    for family in Family::BOTH {
        for n in 10..14 {
            lab.within("client", || get(family.client(n), family.vip(), 80)).unwrap();
        }
    }
}

/// From the release to a binary with another table layout, and back.
#[test]
fn nobody_notices_twenty_upgrades() {
    let (Some(other), own) = (double(), binary()) else { return };
    paired(|lab| {
        let before = lab.rules();
        let installed = InstalledBinary::of(lab);
        let loaded = installed.start(lab, &services("", ALL));
        let mut kept = KeptOpen::all(lab, 48..49, 80);
        let (began, mut counted) = (Instant::now(), Datagrams::default());
        let witness = Witness::of(lab, || {
            counted = echoed(lab, || {
                for round in 0..setting("E2E_UPGRADES", 20) {
                    installed.put(if round % 2 == 0 { &other } else { &own });
                    let pid = loaded.upgrade().unwrap_or_else(|why| panic!("round {round}: {why}"));
                    let file = fs::read_to_string(lab.state().join("upgraded.pid-file")).unwrap();
                    assert_eq!(file.trim(), pid.to_string(), "the pid file");
                    std::thread::sleep(Duration::from_millis(200));
                    kept.iter_mut().for_each(|kept| drop(kept.ask().unwrap()));
                }
                is_carried_over(&loaded, &kept, began.elapsed());
            });
        });
        println!("datagrams: {counted:?}");
        let carried = loaded.log().matches("clients were carried over into tables of another layout").count();
        println!("{carried} tables were carried over");
        assert!(carried as u64 >= 2 * setting("E2E_UPGRADES", 20), "{}", loaded.log());
        witness.has_seen_nothing();
        counted.none_is_lost(lab);
        let status = loaded.status();
        assert_eq!(status["pid"], loaded.pid(), "its control socket answers");
        loaded.stop();
        assert_eq!(lab.rules(), before);
    });
}

/// The oldest open flow of each of these clients is as old as that. Those that have ended are left out: there can be more than a
/// list shows.
fn is_carried_over(loaded: &Loaded, kept: &[KeptOpen], age: Duration) {
    for kept in kept {
        let list = loaded.json(&["flows", "--client", &kept.client().to_string(), "--state", "established"]);
        let oldest = list["flows"].as_array().unwrap().iter().map(|flow| flow["age"].as_u64().unwrap()).max();
        let (oldest, seconds) = (oldest.unwrap(), age.as_secs());
        assert!((seconds..=seconds + 5).contains(&oldest), "{oldest} s old after {seconds} s: {list}");
    }
}

/// A new binary that cannot serve leaves everything as it is.
#[test]
fn an_upgrade_that_fails_changes_nothing() {
    let Some(lab) = Lab::up() else { return };
    let installed = InstalledBinary::of(&lab);
    let text = services("", ALL);
    let loaded = installed.start(&lab, &text);
    let (pid, workers, rules) = (loaded.pid(), loaded.workers(), lab.rules());
    let stays = |why: &str| {
        assert!(lives(pid) && loaded.workers() == workers, "{why}: {}", loaded.log());
        assert_eq!(lab.rules(), rules, "{why}");
        serves(&lab);
    };
    for (script, expected) in [
        ("#!/bin/sh\nexit 3\n", "it has ended (exit status: 3)"),
        // What is no program is taken for a script (execvp(3)).
        ("no program\n", "it has ended (exit status: 127)"),
        ("#!/bin/sh\nkill -SEGV $$\n", "it has ended (signal: 11"),
    ] {
        installed.put_script(script);
        let why = loaded.upgrade().unwrap_err();
        assert!(why.contains(expected), "{why}");
        stays(script);
    }
    fs::remove_file(&installed.0).unwrap();
    assert!(loaded.upgrade().unwrap_err().contains("No such file"));
    stays("no binary");

    installed.put(&binary());
    for (text, expected) in [
        ("nonsense".to_owned(), "loaded.toml:1:"),
        (format!("flows = 4096\n{text}"), "flows 262144 \u{2192} 4096 cannot change"),
    ] {
        lab.file("loaded.toml", &text);
        let why = loaded.upgrade().unwrap_err();
        assert!(why.contains(expected), "{why}");
        stays(expected);
    }
    lab.file("loaded.toml", &text);
    loaded.upgrade().unwrap();
    serves(&lab);
    loaded.stop();
}

/// The new supervisor is killed at any moment of the upgrade; if it already serves, the next start takes over.
#[test]
fn a_new_one_that_is_killed_is_no_loss() {
    paired(|lab| {
        let installed = InstalledBinary::of(lab);
        let text = services("", ALL);
        let mut loaded = installed.start(lab, &text);
        let mut dice = Dice::new(11);
        let (mut refused, mut late) = (0, 0);
        let witness = Witness::of(lab, || {
            for round in 0..setting("E2E_RUNS", 12) {
                let (old, before) = (loaded.pid(), loaded.log().len());
                let log = || loaded.log()[before..].to_owned();
                let new = loaded.begin_upgrade();
                std::thread::sleep(Duration::from_millis(u64::try_from(dice.below(250)).unwrap()));
                // It has ended only if it was refused.
                signal_to(new, Signal::SIGKILL);
                let over = || log().contains("upgrade refused") || !lives(old);
                assert!(eventually(Duration::from_secs(10), over), "round {round}: {}", loaded.log());
                if lives(old) {
                    refused += 1;
                    let two = || loaded.workers().len() == 2 && children(old).len() == 3;
                    let whole = eventually(Duration::from_secs(5), two);
                    assert!(whole, "round {round}: {:?}\n{}", children(old), loaded.log());
                } else {
                    late += 1;
                    loaded = installed.start(lab, &text);
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        println!("{refused} upgrades killed before they served, {late} after");
        witness.has_seen_nothing();
        assert!(refused > 2, "{}", loaded.log());
        loaded.stop();
    });
}

/// The old supervisor is killed at any moment of the upgrade: either its workers go on, or the new ones do.
#[test]
fn an_old_one_that_is_killed_is_no_loss() {
    paired(|lab| {
        let installed = InstalledBinary::of(lab);
        let text = services("", ALL);
        let mut loaded = installed.start(lab, &text);
        let mut dice = Dice::new(13);
        let (mut followed, mut adopted) = (0, 0);
        let witness = Witness::of(lab, || {
            for round in 0..setting("E2E_RUNS", 12) {
                let (old, before) = (loaded.pid(), loaded.log().len());
                let log = || loaded.log()[before..].to_owned();
                let new = loaded.begin_upgrade();
                std::thread::sleep(Duration::from_millis(u64::try_from(dice.below(350)).unwrap()));
                if lives(old) {
                    signal_to(old, Signal::SIGKILL);
                }
                let decided = || !lives(new) || log().contains("loaded: serving:");
                assert!(eventually(Duration::from_secs(10), decided), "round {round}: {}", loaded.log());
                match lives(new) {
                    true => {
                        followed += 1;
                        loaded.is_followed_by(new);
                    }
                    false => {
                        adopted += 1;
                        loaded = installed.start(lab, &text);
                    }
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        println!("followed {followed} times, taken over {adopted} times");
        witness.has_seen_nothing();
        // The last one may be no child of ours.
        loaded.signal(Signal::SIGTERM);
        assert!(eventually(Duration::from_secs(5), || !lives(loaded.pid())), "it does not end: {}", loaded.log());
        assert!(!lab.rules().contains("LOADED"), "rules stay");
    });
}

/// The old supervisor is killed while it hands over, then a worker of the new one: the new one has to go on alone.
#[test]
fn who_is_left_alone_does_not_give_up() {
    let Some(lab) = Lab::up() else { return };
    let installed = InstalledBinary::of(&lab);
    let loaded = installed.start(&lab, &services("", ALL));
    let (predecessor, old) = (loaded.pid(), loaded.workers());
    signal_to(old[0], Signal::SIGSTOP);
    let new = loaded.begin_upgrade();
    assert!(eventually(Duration::from_secs(5), || !lives(old[1])), "it does not give way: {}", loaded.log());
    loaded.is_followed_by(new);
    let theirs = loaded.workers();
    signal_to(theirs[1], Signal::SIGSTOP);
    signal_to(predecessor, Signal::SIGKILL);
    let alone = || loaded.log().contains("was killed while it gave way; its workers are taken over");
    assert!(eventually(Duration::from_secs(5), alone), "{}", loaded.log());
    // It waits for that one.
    std::thread::sleep(Duration::from_millis(100));
    signal_to(theirs[1], Signal::SIGKILL);
    let whole = || lives(new) && loaded.workers().len() == 2 && !loaded.workers().contains(&theirs[1]);
    assert!(eventually(Duration::from_secs(5), whole), "{}", loaded.log());
    serves(&lab);
    loaded.signal(Signal::SIGTERM);
    assert!(eventually(Duration::from_secs(5), || !lives(new)), "it does not end: {}", loaded.log());
    assert!(!lab.rules().contains("LOADED"), "rules stay");
}

/// As a daemon, with the control socket at its default path and the log in syslog.
#[test]
fn a_daemon_is_upgraded_too() {
    let Some(lab) = Lab::up() else { return };
    let installed = InstalledBinary::of(&lab);
    let (config, pid_file) = (lab.file("loaded.toml", &services("", ALL)), lab.state().join("d.pid-file"));
    let words =
        [installed.0.to_str().unwrap(), "-U", "nobody", "-c", &config, "--pid-file", pid_file.to_str().unwrap()];
    let said = lab.exec("lb", &words);
    assert_eq!(said.code, Some(0), "{}", said.err);
    let pid = || fs::read_to_string(&pid_file).unwrap_or_default().trim().parse::<u32>().unwrap_or(0);
    let old = pid();
    for round in 0..3 {
        let before = pid();
        signal_to(before, Signal::SIGUSR2);
        assert!(
            eventually(Duration::from_secs(20), || pid() != before && pid() != 0 && !lives(before)),
            "round {round}"
        );
        serves(&lab);
        let socket = format!("/run/loaded/control-{}.sock", pid());
        let said = lab.exec("lb", &[installed.0.to_str().unwrap(), "status", "--json", "--control", &socket]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(!Path::new(&format!("/run/loaded/control-{before}.sock")).exists(), "the old name stays");
    }
    assert_ne!(pid(), old);
    let last = pid();
    signal_to(last, Signal::SIGTERM);
    assert!(eventually(Duration::from_secs(5), || !lives(last)), "it does not end");
    assert!(!pid_file.exists() && !Path::new(&format!("/run/loaded/control-{last}.sock")).exists());
    assert!(!lab.rules().contains("LOADED"), "rules stay");
}

/// From one build to the same: the program stays attached and goes on, and the last one to end takes all of it away. To a binary with
/// other tables and back: it is detached, and what it has added to the interfaces is removed at the end all the same.
#[test]
fn the_kernel_path_goes_along_where_it_can() {
    let (Some(other), own) = (double(), binary()) else { return };
    paired(|lab| {
        let qdiscs = || lab.sh("lb", "tc qdisc show; tc filter show dev eth0 ingress; tc filter show dev eth1 ingress");
        let before = qdiscs();
        for (next, stays) in [(&own, true), (&other, false)] {
            let installed = InstalledBinary::of(lab);
            let text = format!("fast = \"auto\"\n{}", services("", ALL));
            let loaded = installed.start(lab, &text);
            let counted = echoed(lab, || {
                for binary in [next, &own, next] {
                    installed.put(binary);
                    loaded.upgrade().unwrap();
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
            println!("datagrams: {counted:?}");
            counted.none_is_lost(lab);
            let path = &loaded.status()["kernel_path"];
            assert_eq!(path["off"].is_null(), stays, "{path}");
            assert_eq!(loaded.packets(&["kernel_forwarded"]) > 1000, stays, "{path}");
            loaded.stop();
            assert_eq!(qdiscs(), before, "after {next:?}");
        }
    });
}

/// Its tables stay those of a kernel path, whose maps nobody can make beside a predecessor: they go along each time, and a supervisor
/// that finds the workers without one has them too.
#[test]
fn upgrades_go_on_after_the_kernel_path_was_turned_off() {
    let Some(lab) = Lab::up() else { return };
    let text = |fast: &str| format!("fast = {fast:?}\n{}", services("", ALL));
    let installed = InstalledBinary::of(&lab);
    let mut loaded = installed.start(&lab, &text("auto"));
    let mut kept = KeptOpen::some(&lab);
    lab.file("loaded.toml", &text("off"));
    assert!(loaded.reload().0, "{}", loaded.log());
    for round in 0..3 {
        installed.put(&binary());
        loaded.upgrade().unwrap_or_else(|why| panic!("round {round}: {why}"));
        go_on(&lab, &mut kept);
    }
    // An upgrade that finds it wanted again cannot have it, and says so.
    lab.file("loaded.toml", &text("auto"));
    loaded.upgrade().unwrap();
    let path = &loaded.status()["kernel_path"];
    assert_eq!(path["off_reason"], "started_without", "{path}");
    // A start can.
    loaded.end(Signal::SIGKILL);
    let next = installed.start(&lab, &text("auto"));
    go_on(&lab, &mut kept);
    assert!(next.status()["kernel_path"]["off"].is_null(), "{}", next.log());
    next.stop();
}
