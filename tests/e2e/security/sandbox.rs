//! What the kernel says about each worker. The forbidden attempts themselves are made by `loaded --selftest`.

use crate::rig::lab::Lab;
use crate::rig::loaded::Loaded;
use crate::rig::net::{Family, get};
use nix::unistd::User;
use std::collections::BTreeMap;
use std::fs;

/// CAP_NET_ADMIN, bit 12, alone.
const NET_ADMIN: &str = "0000000000001000";
const NONE: &str = "0000000000000000";

/// `/proc/PID/status`: name and value, blanks made one.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

fn descriptors(pid: u32) -> BTreeMap<u32, String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
    let target = |path| fs::read_link(path).unwrap().to_str().unwrap().to_owned();
    entries.map(|fd| (fd.file_name().to_str().unwrap().parse().unwrap(), target(fd.path()))).collect()
}

#[track_caller]
fn assert_sandboxed(pid: u32, user: &User) {
    let status = status(pid);
    let (uid, gid) = (user.uid, user.gid);
    for (name, expected) in [
        ("Seccomp", "2".to_owned()),
        ("NoNewPrivs", "1".to_owned()),
        ("CapEff", NET_ADMIN.to_owned()),
        ("CapPrm", NET_ADMIN.to_owned()),
        ("CapInh", NONE.to_owned()),
        ("CapAmb", NONE.to_owned()),
        ("Uid", format!("{uid} {uid} {uid} {uid}")),
        ("Gid", format!("{gid} {gid} {gid} {gid}")),
        ("Groups", String::new()),
        ("Threads", "1".to_owned()),
    ] {
        assert_eq!(status.get(name), Some(&expected), "{name} of worker {pid}");
    }
    assert!([NET_ADMIN, NONE].contains(&status["CapBnd"].as_str()), "CapBnd of worker {pid}: {}", status["CapBnd"]);
    let root = fs::read_link(format!("/proc/{pid}/root")).unwrap();
    assert_eq!(root, fs::canonicalize("/var/run/empty").unwrap(), "root of worker {pid}");
    let descriptors = descriptors(pid);
    assert!(descriptors.keys().copied().eq(0..10), "{descriptors:?}");
    assert!((0..3).all(|fd| descriptors[&fd] == "/dev/null"), "{descriptors:?}");
    assert!((3..6).all(|fd| descriptors[&fd].starts_with("socket:")), "{descriptors:?}");
    // With the kernel path the flow table is a BPF array.
    assert!(["/memfd:loaded-flows (deleted)", "anon_inode:bpf-map"].contains(&&*descriptors[&6]), "{descriptors:?}");
    assert!((7..10).all(|fd| descriptors[&fd].starts_with("/memfd:loaded-")), "{descriptors:?}");
}

#[test]
fn every_worker_is_sandboxed() {
    let Some(lab) = Lab::up() else { return };
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let loaded = Loaded::classic(&lab);
    let workers = loaded.workers();
    assert_eq!(workers.len(), 2, "FIRST_CORE=0, LAST_CORE=1");
    for &pid in &workers {
        assert_sandboxed(pid, &nobody);
    }
    // Nothing comes back with work, and the one that replaces a dead worker is no freer.
    lab.within("client", || (10..30).for_each(|n| drop(get(Family::V4.client(n), Family::V4.vip(), 80).unwrap())));
    assert_eq!(loaded.workers(), workers);
    for &pid in &workers {
        assert_sandboxed(pid, &nobody);
    }
    loaded.stop();
}

/// Each worker stays on its core.
#[test]
fn workers_are_pinned() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    let cores: Vec<_> = loaded.workers().into_iter().map(|pid| status(pid)["Cpus_allowed_list"].clone()).collect();
    assert_eq!(cores, ["0", "1"]);
    loaded.stop();
}

#[test]
fn the_supervisor_keeps_only_what_it_uses() {
    let Some(lab) = Lab::up() else { return };
    let loaded = Loaded::classic(&lab);
    let status = status(loaded.pid());
    // CAP_KILL 5, SETGID 6, SETUID 7, SETPCAP 8, NET_ADMIN 12, NET_RAW 13, SYS_CHROOT 18, SYS_ADMIN 21
    let kept: u64 = [5, 6, 7, 8, 12, 13, 18, 21].iter().map(|bit| 1 << bit).sum();
    for name in ["CapEff", "CapPrm", "CapBnd"] {
        assert_eq!(status[name], format!("{kept:016x}"), "{name}");
    }
    for (name, expected) in [("CapInh", NONE), ("CapAmb", NONE), ("NoNewPrivs", "1"), ("Seccomp", "2")] {
        assert_eq!(status[name], expected, "{name}");
    }
    loaded.stop();
}
