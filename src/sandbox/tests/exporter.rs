//! The hostile-exporter suite against the release sandbox, on the testbed of `--selftest`.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::process::ExitCode;

use loaded_sandbox::attempt::exporter::{allowed, forbidden};
use loaded_sandbox::attempt::{Attempt, Expect};
use loaded_sandbox::hostile::Part;
use loaded_sandbox::policy::{Arg, Fd};
use loaded_sandbox::proof::{Expectation, prove_deep};
use loaded_sandbox::selftest::{ExporterTestbed, Observed, examine_exporter, red, run_attempt, run_inside, table};
use loaded_sandbox::{CONNECTIONS, Role, SandboxError, SandboxPolicy, SandboxRequirement, leave};
use nix::unistd::{ForkResult, fork};
use rig::{nobody, raw};

fn main() -> ExitCode {
    rig::run(&[
        ("every forbidden attempt dies, every allowed one comes out well", whole_suite),
        ("without the default action, no forbidden attempt dies of another cause", default_weakened),
        ("without each demand on an argument, the suite is red", demands_weakened),
        ("without a rule, its allowed attempt is red", rule_removed),
        ("a sealed exporter is proved from outside", proved),
        ("no more connections than the limit", connections_limited),
    ])
}

fn whole_suite() {
    let testbed = ExporterTestbed::set_up().unwrap();
    let results = examine_exporter(&testbed, &SandboxPolicy::exporter(), SandboxRequirement::Required).unwrap();
    println!("{}", table(&results));
    assert!(red(&results).is_empty());
}

fn run(testbed: &ExporterTestbed, policy: &SandboxPolicy, attempt: &Attempt) -> Observed {
    let enter = || testbed.enter(policy, 1, SandboxRequirement::Required).map(|()| ExporterTestbed::bindings());
    run_attempt::<SandboxError>(&enter, attempt).unwrap()
}

fn named(name: &str) -> Attempt {
    let all = [forbidden(), allowed()].concat();
    all.into_iter().find(|attempt| attempt.name == name).unwrap_or_else(|| panic!("no attempt {name}"))
}

fn default_weakened() {
    let testbed = ExporterTestbed::set_up().unwrap();
    for attempt in forbidden() {
        let seen = run(&testbed, &SandboxPolicy::exporter().without(Part::Default), &attempt);
        let of_another_layer = attempt.name.contains("int 0x80");
        let lives = matches!(seen, Observed::Lives(_));
        assert!(lives != of_another_layer, "{attempt:?}: {seen}");
    }
}

fn demands_weakened() {
    let testbed = ExporterTestbed::set_up().unwrap();
    let dont_wait = Arg::OnlyBits(3, libc::MSG_DONTWAIT.cast_unsigned());
    let no_signal = Arg::OnlyBits(3, libc::MSG_NOSIGNAL.cast_unsigned());
    let accepted = Arg::Is(3, (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned());
    for (call, arg, name) in [
        ("write", Arg::FdIs(Fd::Link), "write on a connection"),
        ("read", Arg::FdIs(Fd::Link), "read on a connection"),
        ("accept4", Arg::FdIs(Fd::Listener), "accept4 on the link"),
        ("accept4", Arg::Null(1), "accept4 with the peer's address"),
        ("accept4", Arg::Null(2), "accept4 with room for an address's length"),
        ("accept4", accepted, "accept4 that blocks"),
        ("recvfrom", Arg::FdIs(Fd::Connections), "recvfrom on the link"),
        ("recvfrom", dont_wait, "recvfrom with MSG_PEEK"),
        ("recvfrom", dont_wait, "recvfrom with MSG_ERRQUEUE"),
        ("recvfrom", Arg::Null(4), "recvfrom with the sender's address"),
        ("recvfrom", Arg::Null(5), "recvfrom with room for an address's length"),
        ("sendto", Arg::FdIs(Fd::Connections), "sendto on the link"),
        ("sendto", no_signal, "sendto with MSG_FASTOPEN"),
        ("sendto", no_signal, "sendto with MSG_OOB"),
        ("sendto", Arg::Null(4), "sendto an address"),
        ("shutdown", Arg::FdIs(Fd::Connections), "shutdown the listener"),
        ("shutdown", Arg::Is(1, libc::SHUT_WR.cast_unsigned()), "shutdown the reading side"),
        ("close", Arg::FdIs(Fd::Connections), "close the listener"),
    ] {
        let attempt = named(name);
        assert_eq!(attempt.expect, Expect::Sigsys);
        let seen = run(&testbed, &SandboxPolicy::exporter().without(Part::Argument(call, arg)), &attempt);
        println!("without {call} {arg:?}: {name}: {seen}");
        assert!(matches!(seen, Observed::Lives(_)), "{name}: {seen}");
        assert_eq!(run(&testbed, &SandboxPolicy::exporter(), &attempt), Observed::Killed(libc::SIGSYS), "{name}");
    }
}

fn rule_removed() {
    let testbed = ExporterTestbed::set_up().unwrap();
    for (call, name) in [
        ("read", "read on the link"),
        ("write", "write on the link"),
        ("accept4", "serve a request"),
        ("recvfrom", "serve a request"),
        ("sendto", "serve a request"),
        ("shutdown", "serve a request"),
        ("close", "serve a request"),
        ("ppoll", "ppoll"),
        ("clock_gettime", "clock_gettime"),
        ("rt_sigreturn", "rt_sigreturn from a handler"),
        ("restart_syscall", "restart_syscall"),
    ] {
        let seen = run(&testbed, &SandboxPolicy::exporter().without(Part::Call(call)), &named(name));
        assert_eq!(seen, Observed::Killed(libc::SIGSYS), "{call}: {name}");
    }
}

fn proved() {
    let testbed = ExporterTestbed::set_up().unwrap();
    // SAFETY: one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            testbed.enter(&SandboxPolicy::exporter(), 1, SandboxRequirement::Required).unwrap();
            raw(libc::SYS_ppoll, [0; 6]);
            leave(0);
        }
        ForkResult::Parent { child } => {
            let pid = child.as_raw().unsigned_abs();
            let prove = || prove_deep(pid, &Expectation::of(Role::Exporter, &nobody()));
            let sealed = (0..500).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                prove().is_ok()
            });
            assert!(sealed, "{:?}", prove());
            let proof = prove().unwrap();
            println!("{proof:?}");
            assert_eq!(proof.status["CapEff"], "0000000000000000");
            assert_eq!(proof.fds.unwrap().len(), 5);
            assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "loaded-exporter\n");
            let own = |kind: &str| {
                let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
                of("self") != of(&pid.to_string())
            };
            assert_eq!(["net", "ipc", "uts", "mnt"].map(own), [true; 4]);
            nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
    }
}

/// More have connected than it may have at a time.
fn connections_limited() {
    let testbed = ExporterTestbed::set_up().unwrap();
    let most = usize::try_from(CONNECTIONS).unwrap();
    let enter = || testbed.enter(&SandboxPolicy::exporter(), most + 9, SandboxRequirement::Required);
    let count = |_: &mut ()| {
        let mut accepted = 0;
        while raw(libc::SYS_accept4, [4, 0, 0, 0x8_0800, 0, 0]) >= 0 {
            accepted += 1;
        }
        accepted
    };
    assert_eq!(run_inside(&enter, &count).unwrap(), Observed::Lives(i64::from(CONNECTIONS)));
}
