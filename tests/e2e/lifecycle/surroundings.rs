//! What a shell, a service manager or a container leaves to a process must not change what it does.

use crate::rig::lab::{Lab, binary, eventually, install_script};
use crate::rig::loaded::{Loaded, children, classic, lives, signal_to};
use crate::rig::net::{Family, get};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[test]
fn what_is_left_to_a_process_changes_nothing() {
    let Some(lab) = Lab::up() else { return };
    signals_umask_limits_and_descriptors(&lab);
    a_service_manager_that_does_not_listen(&lab);
    orphans_of_a_container(&lab);
    a_host_that_is_not_ready(&lab);
}

/// A program that runs `words` before `loaded`, with whatever they leave to it.
fn wrapper(lab: &Lab, name: &str, words: &str) -> PathBuf {
    let script = lab.state().join(name);
    install_script(&format!("#!/bin/sh\n{words} {} \"$@\"\n", binary().display()), &script);
    script
}

fn signals_umask_limits_and_descriptors(lab: &Lab) {
    let left = "umask 777; ulimit -S -f 8; exec 9</etc/hostname; \
                exec env --ignore-signal=CHLD,HUP --block-signal=TERM,HUP,CHLD,USR1";
    let pid_file = lab.state().join("surrounded.pid");
    let mut loaded = Loaded::spawn_as(&wrapper(lab, "left", left), lab, |command| {
        command.args(["-D", "--pid-file"]).arg(&pid_file).args(classic());
    })
    .until_it_serves();
    assert_eq!(fs::metadata(&pid_file).unwrap().mode() & 0o777, 0o644, "of the pid file");
    let proc = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", loaded.pid())).unwrap();
    let limit = proc("limits").lines().find(|line| line.starts_with("Max file size")).unwrap().to_owned();
    assert!(limit.contains("unlimited"), "{limit}");
    let open = fs::read_dir(format!("/proc/{}/fd", loaded.pid())).unwrap();
    let open: Vec<_> = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok()).collect();
    assert!(!open.iter().any(|path| path.ends_with("etc/hostname")), "{open:?}");
    // A worker that dies is waited for, although SIGCHLD was ignored.
    let worker = loaded.workers()[0];
    signal_to(worker, Signal::SIGKILL);
    assert!(eventually(Duration::from_secs(5), || !lives(worker) && loaded.workers().len() == 2), "{}", loaded.log());
    let began = Instant::now();
    assert_eq!(loaded.end(Signal::SIGTERM).code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "TERM was blocked");
}

fn a_service_manager_that_does_not_listen(lab: &Lab) {
    let path = lab.state().join("deaf");
    let _deaf = UnixDatagram::bind(&path).unwrap();
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", &path).is_ok() {}
    let mut loaded = Loaded::spawn_with(lab, |command| {
        command.args(classic()).env("NOTIFY_SOCKET", &path);
    })
    .until_it_serves();
    assert!(eventually(Duration::from_secs(5), || loaded.log().contains("tell the service manager READY=1")));
    assert_eq!(loaded.end(Signal::SIGTERM).code(), Some(0));
}

/// As process 1 it gets the children of whatever ends beside it.
fn orphans_of_a_container(lab: &Lab) {
    // With the rights that docs/install.md gives a container, and no others.
    let rights = "net_admin,+net_raw,+sys_admin,+sys_chroot,+setpcap,+setuid,+setgid,+kill";
    let setpriv = format!("setpriv --no-new-privs --inh-caps -all --bounding-set -all,+{rights}");
    let contained = wrapper(lab, "contained", &format!("exec unshare --pid --fork --mount-proc {setpriv}"));
    // Without -D: with process 1 the container ends, so it must not detach.
    let mut loaded = Loaded::spawn_as(&contained, lab, |command| {
        command.args(classic());
    })
    .until_it_serves();
    let [init] = children(loaded.pid())[..] else { panic!("{:?}", children(loaded.pid())) };
    loaded.is_followed_by(init);
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    assert!(status.contains("CapBnd:\t00000000002431e0\n"), "{status}");
    lab.within("client", || Family::BOTH.map(|family| get(family.client(20), family.vip(), 80).unwrap()));
    let sleeper = "sleep 1000 >/dev/null 2>&1 &";
    lab.sh("lb", &format!("nsenter --pid --target {init} -- sh -c '{sleeper} {sleeper}'"));
    let is_sleeper = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
    let orphans = || children(init).into_iter().filter(is_sleeper).collect::<Vec<_>>();
    assert!(eventually(Duration::from_secs(5), || orphans().len() == 2), "{:?}", children(init));
    let orphans = orphans();
    orphans.iter().for_each(|pid| signal_to(*pid, Signal::SIGKILL));
    let is_reaped = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
    assert!(eventually(Duration::from_secs(5), || orphans.iter().all(is_reaped)), "{orphans:?} stay as zombies");
    // Its end would end the container, so it makes room for nobody.
    signal_to(init, Signal::SIGUSR2);
    let refused = || loaded.log().contains("process 1 cannot be replaced: the container ends with it");
    assert!(eventually(Duration::from_secs(5), refused), "{}", loaded.log());
    assert_eq!(loaded.end(Signal::SIGTERM).code(), Some(0));
}

/// A start that fails without a sysctl waits for it, if it is asked to.
fn a_host_that_is_not_ready(lab: &Lab) {
    lab.sh("lb", "sysctl -qw net.ipv4.ip_forward=0");
    let mut loaded = Loaded::spawn_with(lab, |command| {
        command.args(["-D", "--wait", "1m"]).args(classic());
    });
    let told = "waiting for the host, 60 s at most: IPv4 packets are not forwarded to backends";
    assert!(eventually(Duration::from_secs(20), || loaded.log().contains(told)), "{}", loaded.log());
    assert!(!loaded.log().contains("loaded: serving:"), "{}", loaded.log());
    lab.sh("lb", "sysctl -qw net.ipv4.ip_forward=1");
    loaded = loaded.until_it_serves();
    assert_eq!(loaded.end(Signal::SIGTERM).code(), Some(0));
}
