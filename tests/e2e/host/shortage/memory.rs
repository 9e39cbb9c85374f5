//! The kernel's OOM killer, within a memory cgroup of the test's own.

use super::{RECOVERY_TIMEOUT, comes_back, unnoticed};
use crate::rig::lab::{Lab, eventually};
use crate::rig::loaded::{Loaded, children, lives, signal_to};
use crate::rig::machine::measured;
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Less than a worker still needs at its start: its buffers alone take more.
const TIGHT: u64 = 512 << 10;
/// What a score weighs is in proportion to the limit (oom_badness): this makes the largest score outweigh any process here.
const BALLAST: &str = "64M";
/// How many starts of each worker the kernel ends.
const OOM_KILLS: usize = 2;
/// On a busy machine a new worker may have its memory before the test can stop it; no more than this many may.
const LATE: usize = 20;
/// Room for some processes, and not for one that takes what it can get.
const SMALL: u64 = 32 << 20;

/// A memory cgroup that exists as long as this value.
struct Group {
    path: PathBuf,
    is_v2: bool,
}

impl Group {
    /// Of either version, wherever the host has it. `None` where there is none: with LOADED_CI that is a failure, for
    /// nothing else makes the kernel choose a victim among processes of ours alone.
    fn new(lab: &Lab) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let place = |version: &str, holds: &dyn Fn(&Path, &str) -> bool| {
            mounts.lines().find_map(|line| {
                let words: Vec<_> = line.split(' ').collect();
                let (path, kind, options) = (Path::new(words[1]), words[2], words[3]);
                (kind == version && holds(path, options)).then(|| path.to_owned())
            })
        };
        let v1 = place("cgroup", &|_, options| options.split(',').any(|word| word == "memory"));
        let v2 = place("cgroup2", &|path, _| {
            fs::read_to_string(path.join("cgroup.controllers"))
                .is_ok_and(|all| all.split_whitespace().any(|one| one == "memory"))
        });
        let is_v2 = v1.is_none();
        let Some(root) = v1.or(v2) else {
            assert!(std::env::var_os("LOADED_CI").is_none(), "no memory cgroup, of neither version: mount one");
            println!("skipped: there is no memory cgroup");
            return None;
        };
        if is_v2 {
            fs::write(root.join("cgroup.subtree_control"), "+memory").unwrap();
        }
        let path = root.join(lab.namespace("memory"));
        fs::create_dir(&path).unwrap();
        Some(Self { path, is_v2 })
    }

    fn limit(&self, bytes: Option<u64>) {
        let (file, none) = if self.is_v2 { ("memory.max", "max") } else { ("memory.limit_in_bytes", "-1") };
        fs::write(self.path.join(file), bytes.map_or(none.to_owned(), |bytes| bytes.to_string())).unwrap();
    }

    fn usage(&self) -> u64 {
        let file = if self.is_v2 { "memory.current" } else { "memory.usage_in_bytes" };
        fs::read_to_string(self.path.join(file)).unwrap().trim().parse().unwrap()
    }

    /// What a process has already stays where it was charged.
    fn take(&self, pid: u32) {
        fs::write(self.path.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    fn leave(&self, pid: u32) {
        fs::write(self.path.parent().unwrap().join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// Processes that the kernel has killed here.
    fn kills(&self) -> u64 {
        let file = if self.is_v2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.path.join(file)).unwrap();
        text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap().parse().unwrap()
    }

    /// Memory that belongs to no process, and cannot be reclaimed while the file exists.
    fn ballast(&self) -> Ballast {
        let file = Path::new("/dev/shm").join(self.path.file_name().unwrap());
        let script =
            format!("echo $$ >{}/cgroup.procs; head -c {BALLAST} /dev/zero >{}", self.path.display(), file.display());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        Ballast(file)
    }

    /// A process that takes memory until it is killed.
    fn glutton(&self) {
        let script = format!("echo $$ >{}/cgroup.procs; exec tail -n1 /dev/zero", self.path.display());
        let ended = Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).status().unwrap();
        assert!(!ended.success(), "memory was not short");
    }
}

struct Ballast(PathBuf);

impl Drop for Ballast {
    fn drop(&mut self) {
        let gone = fs::remove_file(&self.0);
        assert!(gone.is_ok() || std::thread::panicking(), "{gone:?}");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.limit(None);
        let others = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        for pid in others.lines() {
            // It may have ended just now.
            let _ = fs::write(self.path.parent().unwrap().join("cgroup.procs"), pid);
        }
        let gone = eventually(RECOVERY_TIMEOUT, || fs::remove_dir(&self.path).is_ok());
        assert!(gone || std::thread::panicking(), "{} stays", self.path.display());
    }
}

/// A worker dies while memory is short: the kernel kills each new one, until there is memory again.
#[test]
fn a_worker_that_finds_no_memory_comes_back_when_there_is_some() {
    measured(|lab| {
        let Some(group) = Group::new(lab) else { return };
        let loaded = Loaded::classic(lab);
        let _ballast = group.ballast();
        group.take(loaded.pid());
        let before = loaded.workers();
        let mut late = 0;
        unnoticed(lab, || {
            for victim in &before {
                let mut known = loaded.workers();
                signal_to(*victim, Signal::SIGKILL);
                let mut starved = 0;
                while starved < OOM_KILLS {
                    let new = newcomer(&loaded, &known);
                    known.push(new);
                    if starve(&group, &loaded, new) {
                        starved += 1;
                    } else {
                        println!("worker {new} had all its memory before it could be stopped: the next one");
                        late += 1;
                        assert!(late < LATE, "memory was not short");
                        signal_to(new, Signal::SIGKILL);
                    }
                    assert!(lives(loaded.pid()), "the kernel has chosen the supervisor");
                    assert!(eventually(RECOVERY_TIMEOUT, || !lives(new)));
                }
                comes_back(&loaded, 3);
                // With its tables it would be the larger one.
                loaded.workers().into_iter().for_each(|pid| group.leave(pid));
            }
        });
        assert!(loaded.workers().iter().all(|pid| !before.contains(pid)));
        let kills = loaded.log().matches("killed by signal 9").count();
        assert_eq!(kills, 2 * (1 + OOM_KILLS) + late, "{}", loaded.log());
        loaded.stop();
    });
}

/// Whether the kernel kills this new worker for want of memory: `false` if it had what it needs already, and serves.
#[track_caller]
fn starve(group: &Group, loaded: &Loaded, new: u32) -> bool {
    // Whoever is larger would be the kernel's choice where the supervisor may not spare itself.
    signal_to(new, Signal::SIGSTOP);
    fs::write(format!("/proc/{new}/oom_score_adj"), "1000").unwrap();
    let killed = group.kills();
    let serves = || {
        let status = loaded.status();
        let processes = status["processes"].as_array().unwrap();
        processes.iter().any(|process| process["pid"] == new && process["serving"] == true)
    };
    let end = Instant::now() + RECOVERY_TIMEOUT;
    group.limit(Some(group.usage() + TIGHT));
    signal_to(new, Signal::SIGCONT);
    loop {
        let short = eventually(Duration::from_secs(1), || group.kills() > killed);
        // Without a limit, for to say its status the supervisor needs memory, too.
        group.limit(None);
        if short || serves() {
            return short;
        }
        assert!(Instant::now() < end, "memory was not short");
        group.limit(Some(group.usage() + TIGHT));
    }
}

/// The process that replaces a dead one. Until its exec it shares the supervisor's memory, and its fate.
#[track_caller]
fn newcomer(loaded: &Loaded, known: &[u32]) -> u32 {
    let end = Instant::now() + RECOVERY_TIMEOUT;
    while Instant::now() < end {
        let is_started =
            |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("--role"));
        let new = children(loaded.pid()).into_iter().find(|pid| !known.contains(pid) && is_started(pid));
        if let Some(new) = new {
            return new;
        }
    }
    panic!("nobody starts");
}

/// Where it may, the supervisor exempts itself from the OOM killer, but not its children.
#[test]
fn the_kernel_spares_the_supervisor_and_not_its_children() {
    /// CAP_SYS_RESOURCE (capabilities(7)).
    const RESOURCE: u64 = 1 << 24;
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    let score = |pid: u32| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap().trim().to_owned();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let may = u64::from_str_radix(effective.trim(), 16).unwrap() & RESOURCE != 0;
    assert!(loaded.workers().into_iter().all(|pid| score(pid) == score(std::process::id())));
    assert_eq!(score(loaded.pid()) == "-1000", may, "{}", loaded.log());
    assert_eq!(loaded.log().contains("oom_score_adj: "), !may, "{}", loaded.log());
    loaded.stop();
}

/// Another process uses up all memory: the kernel kills a worker first, then that process.
#[test]
fn a_worker_is_the_victim_of_somebody_elses_hunger() {
    measured(|lab| {
        let Some(group) = Group::new(lab) else { return };
        let loaded = Loaded::classic(lab);
        group.limit(Some(SMALL));
        let before = loaded.workers();
        unnoticed(lab, || {
            for victim in &before {
                group.take(*victim);
                // The kernel's choice (oom_badness, mm/oom_kill.c) is this one as long as it is there.
                fs::write(format!("/proc/{victim}/oom_score_adj"), "1000").unwrap();
                let killed = group.kills();
                group.glutton();
                assert_eq!(group.kills(), killed + 2, "worker and glutton");
                assert!(eventually(RECOVERY_TIMEOUT, || !lives(*victim)));
                comes_back(&loaded, 3);
            }
        });
        loaded.stop();
    });
}
