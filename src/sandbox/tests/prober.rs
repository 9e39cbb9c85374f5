//! The hostile-prober suite against the release sandbox, on the testbed of `--selftest`.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::process::ExitCode;

use loaded_sandbox::attempt::prober::{CHECKED_PORT, OTHER_PORT, allowed, forbidden, landlocked};
use loaded_sandbox::attempt::{Attempt, Expect};
use loaded_sandbox::hostile::Part;
use loaded_sandbox::policy::{Arg, Fd};
use loaded_sandbox::proof::{Expectation, prove_deep};
use loaded_sandbox::selftest::{
    Observed, ProberTestbed, enter_private_namespaces, examine_prober, red, run_attempt, run_inside, table,
};
use loaded_sandbox::{
    Bindings, CHECK_SOCKETS, PingKind, SandboxError, SandboxPolicy, SandboxRequirement, inherited, leave,
};
use nix::unistd::{ForkResult, fork};
use rig::{errno, nobody, raw};

/// SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC
const TCP_KIND: u64 = 0x8_0801;

fn main() -> ExitCode {
    rig::run(&[
        ("every forbidden attempt dies, every allowed one comes out well", whole_suite),
        ("with UDP checks too", whole_suite_udp),
        ("with ping sockets too", whole_suite_ping_sockets),
        ("without the default action, no forbidden attempt dies of another cause", default_weakened),
        ("without each demand on an argument, the suite is red", demands_weakened),
        ("without a rule, its allowed attempt is red", rule_removed),
        ("a port that Landlock is told of can be reached, no other", ports),
        ("past MSG_FASTOPEN there is no Landlock", fast_open),
        ("a sealed prober is proved from outside", proved),
        ("no more sockets than the limit", sockets_limited),
        ("a descriptor above 63 is inherited, once", inherited_high),
    ])
}

#[track_caller]
fn green(kind: PingKind, udp: bool) {
    let testbed = ProberTestbed::set_up(kind).unwrap();
    let results = examine_prober(&testbed, &SandboxPolicy::prober(udp), udp, SandboxRequirement::Required).unwrap();
    println!("{}", table(&results));
    assert!(red(&results).is_empty());
}

fn whole_suite() {
    green(PingKind::Raw, false);
}

fn whole_suite_udp() {
    green(PingKind::Raw, true);
}

/// One testbed inside another, as after another role's self-test.
fn whole_suite_ping_sockets() {
    drop(ProberTestbed::set_up(PingKind::Raw).unwrap());
    green(PingKind::Ping, false);
}

fn run(testbed: &ProberTestbed, policy: &SandboxPolicy, attempt: &Attempt) -> Observed {
    run_with(testbed, policy, &testbed.bindings(&[CHECKED_PORT]), attempt)
}

fn run_with(testbed: &ProberTestbed, policy: &SandboxPolicy, bindings: &Bindings, attempt: &Attempt) -> Observed {
    let enter = || testbed.enter(policy, bindings, SandboxRequirement::Required).map(|()| bindings.clone());
    run_attempt::<SandboxError>(&enter, attempt).unwrap()
}

fn named(name: &str) -> Attempt {
    let all = [forbidden(false), allowed(true), landlocked()].concat();
    all.into_iter().find(|attempt| attempt.name == name).unwrap_or_else(|| panic!("no attempt {name}"))
}

fn default_weakened() {
    let testbed = ProberTestbed::set_up(PingKind::Raw).unwrap();
    for attempt in forbidden(false) {
        let seen = run(&testbed, &SandboxPolicy::prober(false).without(Part::Default), &attempt);
        let of_another_layer = attempt.name.contains("int 0x80");
        let lives = matches!(seen, Observed::Lives(_));
        assert!(lives != of_another_layer, "{attempt:?}: {seen}");
    }
}

fn demands_weakened() {
    let testbed = ProberTestbed::set_up(PingKind::Raw).unwrap();
    let stream = u32::try_from(TCP_KIND).unwrap();
    let no_signal = libc::MSG_NOSIGNAL.cast_unsigned();
    let receive = (libc::MSG_DONTWAIT | libc::MSG_TRUNC).cast_unsigned();
    for (call, arg, name) in [
        ("read", Arg::FdIs(Fd::Link), "read on a worker's link"),
        ("write", Arg::FdIs(Fd::Link), "write on ping4"),
        ("write", Arg::FdIs(Fd::Workers), "write on a check"),
        ("socket", Arg::Is(0, 2), "socket unix, non-blocking"),
        ("socket", Arg::Is(1, stream), "socket TCP that blocks"),
        ("socket", Arg::Is(2, 0), "socket MPTCP"),
        ("connect", Arg::FdIs(Fd::Checks), "connect ping4"),
        ("sendto", Arg::FdIs(Fd::Checks), "sendto on a worker's link"),
        ("sendto", Arg::OnlyBits(3, no_signal), "sendto on a check with MSG_FASTOPEN"),
        ("sendto", Arg::OnlyBits(3, no_signal), "sendto on ping4 with MSG_OOB"),
        ("sendto", Arg::OnlyBits(3, no_signal), "sendto on ping6 with MSG_OOB"),
        ("sendmsg", Arg::FdIs(Fd::Ping6), "sendmsg on ping4"),
        ("sendmsg", Arg::FdIs(Fd::Ping6), "sendmsg on the link, with descriptors"),
        ("sendmsg", Arg::OnlyBits(2, no_signal), "sendmsg on ping6 with MSG_OOB"),
        ("recvfrom", Arg::FdIs(Fd::Checks), "recvfrom on a worker's link"),
        ("recvfrom", Arg::OnlyBits(3, receive), "recvfrom on ping4 with MSG_ERRQUEUE"),
        ("recvfrom", Arg::OnlyBits(3, receive), "recvfrom on a check with MSG_PEEK"),
        ("getsockopt", Arg::FdIs(Fd::Checks), "getsockopt SO_ERROR of a worker's link"),
        ("getsockopt", Arg::Is(1, libc::SOL_SOCKET.cast_unsigned()), "getsockopt TCP_INFO of a check"),
        ("getsockopt", Arg::Is(2, libc::SO_ERROR.cast_unsigned()), "getsockopt SO_TYPE of a check"),
        ("close", Arg::FdIs(Fd::Checks), "close the last worker's link"),
        ("epoll_ctl", Arg::FdIs(Fd::Epoll), "epoll_ctl on the link"),
        ("epoll_pwait", Arg::FdIs(Fd::Epoll), "epoll_pwait on the link"),
    ] {
        let attempt = named(name);
        assert_eq!(attempt.expect, Expect::Sigsys);
        let mut weaker = SandboxPolicy::prober(false).without(Part::Argument(call, arg));
        if call == "getsockopt" && name.contains("TCP_INFO") {
            weaker = weaker.without(Part::Argument(call, Arg::Is(2, libc::SO_ERROR.cast_unsigned())));
        }
        let seen = run(&testbed, &weaker, &attempt);
        println!("without {call} {arg:?}: {name}: {seen}");
        assert!(matches!(seen, Observed::Lives(_)), "{name}: {seen}");
        assert_eq!(run(&testbed, &SandboxPolicy::prober(false), &attempt), Observed::Killed(libc::SIGSYS), "{name}");
    }
}

fn rule_removed() {
    let testbed = ProberTestbed::set_up(PingKind::Raw).unwrap();
    for (call, name) in [
        ("read", "read on the link"),
        ("write", "write on the last worker's link"),
        ("socket", "check a port by TCP, IPv6"),
        ("connect", "check a port by TCP, IPv4"),
        ("sendto", "ping IPv4"),
        ("sendmsg", "ping IPv6 by sendmsg from ::1"),
        ("recvfrom", "ping IPv6"),
        ("getsockopt", "check a port by TCP, IPv4"),
        ("close", "check a port by TCP, IPv4"),
        ("epoll_ctl", "watch the socket of a check"),
        ("epoll_pwait", "watch the socket of a check"),
        ("ppoll", "ppoll"),
        ("clock_gettime", "clock_gettime"),
        ("rt_sigreturn", "rt_sigreturn from a handler"),
        ("restart_syscall", "restart_syscall"),
    ] {
        let seen = run(&testbed, &SandboxPolicy::prober(true).without(Part::Call(call)), &named(name));
        assert_eq!(seen, Observed::Killed(libc::SIGSYS), "{call}: {name}");
    }
    // Rules for datagrams exist only for a prober with a UDP check.
    for name in ["check a port by UDP, IPv4", "check a port by UDP, IPv6"] {
        assert_eq!(
            run(&testbed, &SandboxPolicy::prober(false), &named(name)),
            Observed::Killed(libc::SIGSYS),
            "{name}"
        );
    }
}

fn ports() {
    let testbed = ProberTestbed::set_up(PingKind::Raw).unwrap();
    let policy = SandboxPolicy::prober(false);
    for family in ["IPv4", "IPv6"] {
        let other = named(&format!("connect by TCP to another port, {family}"));
        let checked = named(&format!("check a port by TCP, {family}"));
        let denied = Observed::Lives(errno(libc::EACCES));
        assert_eq!(run_with(&testbed, &policy, &testbed.bindings(&[CHECKED_PORT]), &other), denied);
        assert_eq!(
            run_with(&testbed, &policy, &testbed.bindings(&[CHECKED_PORT, OTHER_PORT]), &other),
            Observed::Lives(0)
        );
        assert_eq!(run_with(&testbed, &policy, &testbed.bindings(&[]), &checked), denied);
        assert_eq!(run_with(&testbed, &policy, &testbed.bindings(&[OTHER_PORT]), &checked), denied);
    }
}

/// The reason why the policy checks the flags of sendto: with this flag, the other port is connected afterwards.
fn fast_open() {
    let testbed = ProberTestbed::set_up(PingKind::Raw).unwrap();
    let bindings = testbed.bindings(&[CHECKED_PORT]);
    let connections = || {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let local = format!("0100007F:{OTHER_PORT:04X}");
        // 0A is TCP_LISTEN.
        let of_the_port = |l: &&str| l.split_whitespace().nth(1) == Some(&local) && !l.contains(" 00000000:0000 0A ");
        table.lines().filter(of_the_port).count()
    };
    let open_fast = |policy: &SandboxPolicy| {
        let enter = || testbed.enter(policy, &bindings, SandboxRequirement::Required);
        let attempt = |_: &mut ()| {
            let fd = raw(libc::SYS_socket, [2, TCP_KIND, 0, 0, 0, 0]).unsigned_abs();
            let [high, low] = OTHER_PORT.to_be_bytes();
            let to = [2, 0, high, low, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0u8].as_ptr() as u64;
            let flags = u64::from((libc::MSG_FASTOPEN | libc::MSG_NOSIGNAL).unsigned_abs());
            let sent = raw(libc::SYS_sendto, [fd, b"x".as_ptr() as u64, 1, flags, to, 16]);
            // Time for the handshake.
            raw(libc::SYS_ppoll, [0, 0, [0u64, 50_000_000].as_ptr() as u64, 0, 8, 0]);
            sent
        };
        run_inside(&enter, &attempt).unwrap()
    };
    let release = SandboxPolicy::prober(false);
    assert_eq!(open_fast(&release), Observed::Killed(libc::SIGSYS));
    assert_eq!(connections(), 0);
    let no_signal = libc::MSG_NOSIGNAL.cast_unsigned();
    let seen = open_fast(&release.without(Part::Argument("sendto", Arg::OnlyBits(3, no_signal))));
    println!("with the flag: {seen}, connections {}", connections());
    // A kernel where Landlock checks this as well is welcome.
    assert!(connections() == 1 || seen == Observed::Lives(errno(libc::EACCES)), "{seen}");
}

fn proved() {
    let testbed = ProberTestbed::set_up(PingKind::Raw).unwrap();
    let bindings = testbed.bindings(&[CHECKED_PORT]);
    // SAFETY: one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            testbed.enter(&SandboxPolicy::prober(false), &bindings, SandboxRequirement::Required).unwrap();
            raw(libc::SYS_ppoll, [0; 6]);
            leave(0);
        }
        ForkResult::Parent { child } => {
            let pid = child.as_raw().unsigned_abs();
            let prove = || prove_deep(pid, &Expectation::prober(&nobody(), 2));
            let sealed = (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                prove().is_ok()
            });
            assert!(sealed, "{:?}", prove());
            let proof = prove().unwrap();
            println!("{proof:?}");
            assert_eq!(proof.status["CapEff"], "0000000000000000");
            assert_eq!(proof.fds.unwrap().len(), 9);
            for workers in [1, 3] {
                let differences = prove_deep(pid, &Expectation::prober(&nobody(), workers)).unwrap_err();
                assert!(differences.len() == 1 && differences[0].contains("descriptors"), "{differences:?}");
            }
            assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "loaded-prober\n");
            let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
            for (name, value) in [
                ("Max open files", "4105"),
                ("Max core file size", "0"),
                ("Max file size", "0"),
                ("Max processes", "0"),
            ] {
                let line = limits.lines().find(|l| l.starts_with(name)).unwrap();
                let values: Vec<&str> = line[name.len()..].split_whitespace().take(2).collect();
                assert_eq!(values, [value, value], "{name}");
            }
            // It must reach the backends the way packets do; everything else is its own.
            let own = |kind: &str| {
                let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
                of("self") != of(&pid.to_string())
            };
            assert_eq!(["net", "ipc", "uts", "mnt"].map(own), [false, true, true, true]);
            nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

fn sockets_limited() {
    let testbed = ProberTestbed::set_up(PingKind::Raw).unwrap();
    let bindings = testbed.bindings(&[CHECKED_PORT]);
    let enter = || testbed.enter(&SandboxPolicy::prober(false), &bindings, SandboxRequirement::Required);
    let count = |_: &mut ()| {
        let mut opened = 0;
        while raw(libc::SYS_socket, [2, TCP_KIND, 0, 0, 0, 0]) >= 0 {
            opened += 1;
        }
        // The last of them is within what close may name.
        raw(libc::SYS_close, [4104, 0, 0, 0, 0, 0]).min(opened).max(opened)
    };
    let seen = run_inside(&enter, &count).unwrap();
    assert_eq!(seen, Observed::Lives(i64::from(CHECK_SOCKETS)));
}

fn inherited_high() {
    enter_private_namespaces().unwrap();
    assert_eq!(raw(libc::SYS_dup3, [0, 200, 0, 0, 0, 0]), 200);
    let fd = inherited(200).unwrap();
    let again = inherited(200).unwrap_err().to_string();
    assert!(again.contains("taken already"), "{again}");
    std::mem::forget(fd);
    for number in [-1, 1024] {
        let error = inherited(number).unwrap_err().to_string();
        assert!(error.contains("out of range"), "{error}");
    }
}
