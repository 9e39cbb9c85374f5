//! The forbidden-attempt suite against the release sandbox, with a stand-in for the queue: a netfilter netlink socket
//! and a sealed table of `msghdr`s. The worker crate makes the same attempts with a real queue and real templates.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Command, ExitCode};

use loaded_sandbox::attempt::{self, Expect};
use loaded_sandbox::hostile::Part;
use loaded_sandbox::policy::{Arg, Fd};
use loaded_sandbox::proof::{Expectation, prove, prove_deep};
use loaded_sandbox::selftest::{Observed, enter_private_namespaces, red, run_all, run_attempt, table};
use loaded_sandbox::{
    Bindings, Role, SandboxPolicy, SandboxRequirement, Survival, drop_rights, keep_only_fds, leave, open_fds, seal,
};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use nix::unistd::{ForkResult, fork};
use rig::{child_passes, errno, nobody, raw, release_sandbox};

fn main() -> ExitCode {
    rig::run(&[
        ("every forbidden attempt dies, every allowed one lives", whole_suite),
        ("without the default action, no forbidden attempt dies of another cause", default_weakened),
        ("without each demand on an argument, the suite is red", demands_weakened),
        ("without a rule, its allowed attempt is red", rule_removed),
        ("receiving into the templates is EFAULT", receive_into_templates),
        ("a hole is seen from outside", hole_seen_from_outside),
        ("a sealed worker is proved from outside", proved),
        ("an unsealed process is not proved", not_proved),
        ("a sandbox that cannot be entered is told as such", not_entered),
        ("only the kept descriptors are open", kept_descriptors),
        ("a worker that is dumpable is not proved", dumpable_not_proved),
        ("small allocations live behind the seal, large ones die", heap),
        ("a panic after the seal ends with our code", panic_inside),
    ])
}

/// The far end of the link, where `set_up` leaves it; 7 is the far end of the membership link.
const FAR_LINK: RawFd = 6;

/// A testbed with lo up, the queue socket (bound to queue `attempt::QUEUE`) as 3, the link as 4, the membership link as
/// 5, and a sealed table.
fn set_up() -> Bindings {
    enter_private_namespaces().unwrap();
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap().success());
    // SAFETY: plain socket calls; the descriptors go to 3, 4 and 5 by hand and are owned by nobody, as after exec.
    unsafe {
        let queue = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER);
        let (mut link, mut membership) = ([0; 2], [0; 2]);
        for pair in [&mut link, &mut membership] {
            assert_eq!(libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, pair.as_mut_ptr()), 0);
        }
        // First move them out of the way of their final numbers.
        let all = [queue, link[0], membership[0], link[1], membership[1]];
        let high: Vec<i32> = all.map(|fd| libc::fcntl(fd, libc::F_DUPFD, 100)).to_vec();
        for (from, to) in high.iter().zip([3, 4, 5, FAR_LINK, 7]) {
            assert_eq!(libc::dup2(*from, to), to);
        }
        let wait = libc::timeval { tv_sec: 0, tv_usec: 50_000 };
        let size = u32::try_from(size_of_val(&wait)).unwrap();
        libc::setsockopt(3, libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const wait).cast(), size);
    }
    // struct nlmsghdr, nfgenmsg, NFQA_CFG_CMD: bind; acknowledged, so that the answer says whether it worked.
    let answer = tell_queue(1);
    assert_eq!(answer, 0, "bind queue {}", attempt::QUEUE);
    let templates = sealed_table();
    Bindings::Worker { queue_fd: 3, link_fd: 4, membership_fd: 5, templates }
}

/// Sends a queue command (1 bind, 2 unbind) on descriptor 3; returns the kernel's acknowledgement.
fn tell_queue(command: u8) -> i32 {
    let [high, low] = attempt::QUEUE.to_be_bytes();
    let mut message = vec![28, 0, 0, 0, 2, 3, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, low];
    message.extend([8, 0, 1, 0, command, 0, 0, 0]);
    let mut answer = [0u8; 64];
    // SAFETY: reads and fills live buffers of the lengths given.
    unsafe {
        assert_eq!(libc::send(3, message.as_ptr().cast(), message.len(), 0), 28);
        assert!(libc::recv(3, answer.as_mut_ptr().cast(), answer.len(), 0) >= 20);
    }
    i32::from_ne_bytes(answer[16..20].try_into().unwrap())
}

/// Two pages of msghdrs: all zero is "no name, no iovec", which the kernel takes as an empty message.
fn sealed_table() -> std::ops::Range<u64> {
    const LENGTH: usize = 8192;
    // SAFETY: a new memfd and a new mapping; the mapping stays for the life of the process.
    unsafe {
        let fd = libc::memfd_create(c"table".as_ptr(), libc::MFD_ALLOW_SEALING);
        assert_eq!(libc::ftruncate(fd, 8192), 0);
        let seals = libc::F_SEAL_FUTURE_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
        assert_eq!(libc::fcntl(fd, libc::F_ADD_SEALS, seals), 0);
        let at = libc::mmap(std::ptr::null_mut(), LENGTH, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
        assert_ne!(at, libc::MAP_FAILED);
        libc::close(fd);
        let start = at as u64;
        start..start + LENGTH as u64
    }
}

fn outside() -> (String, String, String, String) {
    let run = |program: &str, args: &[&str]| {
        String::from_utf8(Command::new(program).args(args).output().unwrap().stdout).unwrap()
    };
    (
        run("nft", &["list", "ruleset"]),
        run("ip", &["-o", "link", "show", "lo"]),
        fs::read_to_string("/proc/net/netfilter/nfnetlink_queue").unwrap(),
        run("conntrack", &["-C"]),
    )
}

fn all() -> Vec<attempt::Attempt> {
    [attempt::forbidden(), attempt::allowed()].concat()
}

fn whole_suite() {
    let bindings = set_up();
    let before = outside();
    let results = run_all(&release_sandbox(SandboxPolicy::worker(), bindings), &all()).unwrap();
    println!("{}", table(&results));
    assert!(red(&results).is_empty());
    assert_eq!(before, outside());
    assert!(before.2.contains("    5 "), "the queue is bound: {}", before.2);
}

fn default_weakened() {
    let bindings = set_up();
    let sandbox = release_sandbox(SandboxPolicy::worker().without(Part::Default), bindings);
    for (attempt, seen) in run_all(&sandbox, &attempt::forbidden()).unwrap() {
        // These do not depend on the default: page protection and the architecture check. Any other attempt that does
        // not survive here would prove nothing about the policy.
        let of_another_layer = attempt.expect == Expect::Segv || attempt.name.contains("int 0x80");
        let lives = matches!(seen, Observed::Lives(_));
        assert!(lives != of_another_layer, "{attempt:?}: {seen}");
    }
}

fn demands_weakened() {
    let bindings = set_up();
    let wait_for_one = libc::MSG_WAITFORONE.cast_unsigned();
    for (call, arg, name) in [
        ("sendmsg", Arg::FdIs(Fd::Queue), "sendmsg a template on the link"),
        ("sendmsg", Arg::InTemplates(1), "nft add table by sendmsg with a msghdr of our own"),
        ("sendmsg", Arg::InTemplates(1), "sendmsg past the templates"),
        ("sendmsg", Arg::AlignedTo(1, 64), "sendmsg 8 bytes into a template"),
        ("sendmsg", Arg::Is(2, 0), "sendmsg a template with MSG_DONTWAIT"),
        ("recvmmsg", Arg::FdIs(Fd::Queue), "recvmmsg on the link"),
        ("recvmmsg", Arg::Is(3, wait_for_one), "recvmmsg with MSG_PEEK"),
        ("recvmmsg", Arg::Null(4), "recvmmsg with a timeout"),
        ("read", Arg::FdIs(Fd::Link), "read on the queue"),
        ("read", Arg::FdIs(Fd::Membership), "read on descriptor 0"),
        ("write", Arg::FdIs(Fd::Link), "nft add table by write on the queue"),
        ("write", Arg::FdIs(Fd::Link), "write on the membership link"),
    ] {
        let sandbox = release_sandbox(SandboxPolicy::worker().without(Part::Argument(call, arg)), bindings.clone());
        let attempt = attempt::forbidden().into_iter().find(|a| a.name == name).unwrap();
        // A msghdr on the stack is 16-aligned; whether it is 64-aligned is chance, so that demand is removed as well.
        let seen = match (name, arg) {
            ("nft add table by sendmsg with a msghdr of our own", _) => {
                let weaker = SandboxPolicy::worker()
                    .without(Part::Argument(call, arg))
                    .without(Part::Argument(call, Arg::AlignedTo(1, 64)));
                run_attempt(&release_sandbox(weaker, bindings.clone()), &attempt).unwrap()
            }
            _ => run_attempt(&sandbox, &attempt).unwrap(),
        };
        println!("without {call} {arg:?}: {name}: {seen}");
        assert!(!seen.is(attempt.expect), "{name} still dies");
    }
}

fn rule_removed() {
    let bindings = set_up();
    for call in ["sendmsg", "recvmmsg", "read", "write", "clock_gettime", "rt_sigreturn", "restart_syscall"] {
        let sandbox = release_sandbox(SandboxPolicy::worker().without(Part::Call(call)), bindings.clone());
        let attempt = attempt::allowed().into_iter().find(|a| a.name.starts_with(call)).unwrap();
        let seen = run_attempt(&sandbox, &attempt).unwrap();
        assert_eq!(seen, Observed::Killed(libc::SIGSYS), "{call}");
    }
}

fn receive_into_templates() {
    let bindings = set_up();
    // An acknowledgement must be waiting: bind a second time, and leave the answer unread.
    let message: [u8; 28] = [28, 0, 0, 0, 2, 3, 5, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 8, 0, 1, 0, 1, 0, 0, 0];
    // SAFETY: reads a live buffer of the length given.
    assert_eq!(unsafe { libc::send(3, message.as_ptr().cast(), 28, 0) }, 28);
    let attempt = attempt::receive_into_templates();
    let seen = run_attempt(&release_sandbox(SandboxPolicy::worker(), bindings), &attempt).unwrap();
    assert_eq!(seen, Observed::Lives(errno(libc::EFAULT)));
}

/// The suite's other half: an attempt that gets through changes something visible. A suite of duds would pass forever.
fn hole_seen_from_outside() {
    let bindings = set_up();
    let sandbox = release_sandbox(SandboxPolicy::worker().without(Part::Default), bindings);
    let entry = "-I -p udp -s 192.0.2.1 -d 192.0.2.2 --sport 1 --dport 2 -t 600";
    assert!(Command::new("conntrack").args(entry.split(' ')).output().unwrap().status.success());
    for (name, changed) in [
        ("nft add table by sendto on the queue", 0),
        ("conntrack flush by sendto", 3),
        ("ioctl SIOCSIFFLAGS on the queue: a link down", 1),
        ("bind a foreign queue by sendto", 2),
        ("unbind the own queue by sendto", 2),
    ] {
        let attempt = attempt::forbidden().into_iter().find(|a| a.name == name).unwrap();
        let before = outside();
        let seen = run_attempt(&sandbox, &attempt).unwrap();
        assert!(matches!(seen, Observed::Lives(0..)), "{name}: {seen}");
        let after = outside();
        let differs = [before.0 != after.0, before.1 != after.1, before.2 != after.2, before.3 != after.3];
        println!("{name}: {seen}, rules/link/queue/conntrack changed: {differs:?}");
        assert!(differs[changed], "{name} has no effect");
    }
}

/// A child that seals itself as the worker would and waits for the link to close.
fn sealed_child(bindings: &Bindings) -> (u32, OwnedFd) {
    let supervisor = std::process::id();
    // SAFETY: one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let null = fs::File::options().read(true).write(true).open("/dev/null").unwrap();
            // 0, 1, 2, and what a worker keeps for others.
            for fd in (0..3).chain(6..10) {
                raw(libc::SYS_dup3, [u64::from(null.as_raw_fd().unsigned_abs()), fd, 0, 0, 0, 0]);
            }
            keep_only_fds(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
            drop_rights(Role::Worker, &nobody(), supervisor, Survival::DiesToo).unwrap();
            seal(&SandboxPolicy::worker(), bindings, SandboxRequirement::Required).unwrap();
            raw(libc::SYS_write, [4, b"R".as_ptr() as u64, 1, 0, 0, 0]);
            raw(libc::SYS_read, [4, (&raw mut *Box::new(0u8)) as u64, 1, 0, 0, 0]);
            leave(0);
        }
        ForkResult::Parent { child } => {
            // SAFETY: this is the other end of the link, made by `set_up` and owned by nobody else.
            let link = unsafe { OwnedFd::from_raw_fd(FAR_LINK) };
            let mut ready = [0u8];
            assert_eq!(nix::unistd::read(&link, &mut ready), Ok(1));
            (child.as_raw().unsigned_abs(), link)
        }
    }
}

fn proved() {
    let bindings = set_up();
    let (pid, link) = sealed_child(&bindings);
    let expected = Expectation::of(Role::Worker, &nobody());
    let proof = prove_deep(pid, &expected).unwrap();
    println!("{proof:?}");
    assert_eq!(proof.status["CapEff"], "0000000000001000");
    assert_eq!(proof.fds.unwrap().len(), 10);
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(name, "loaded-worker\n");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let values = |name: &str| -> Vec<String> {
        let line = limits.lines().find(|l| l.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect()
    };
    assert_eq!(values("Max open files"), ["1", "1"]);
    for name in ["Max core file size", "Max file size", "Max processes"] {
        assert_eq!(values(name), ["0", "0"], "{name}");
    }
    // Its networks are empty ones, not ours.
    let net = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(net("self"), net(&pid.to_string()));
    drop(link);
}

fn not_proved() {
    let differences = prove(std::process::id(), &Expectation::of(Role::Worker, &nobody())).unwrap_err();
    println!("{differences:#?}");
    for key in ["Seccomp", "NoNewPrivs", "Uid", "Gid", "CapPrm", "CapEff", "CapBnd"] {
        assert!(differences.iter().any(|d| d.contains(key)), "{key}: {differences:?}");
    }
}

fn not_entered() {
    let bindings = set_up();
    let attempt = attempt::allowed().remove(0);
    let sandbox = || drop_rights(Role::Worker, &nobody(), 1, Survival::DiesToo).map(|_| bindings.clone());
    let seen = run_attempt(&sandbox, &attempt).unwrap();
    assert!(matches!(&seen, Observed::NotEntered(why) if why.contains("expected pid 1")), "{seen:?}");
    assert!(!seen.is(attempt.expect));
}

fn kept_descriptors() {
    set_up();
    child_passes(|| {
        keep_only_fds(&[0, 1, 2, 3, 4]).unwrap();
        assert_eq!(open_fds().unwrap(), [0, 1, 2, 3, 4]);
    });
    child_passes(|| assert!(keep_only_fds(&[0, 1, 2, 4]).unwrap_err().to_string().contains("gap")));
    child_passes(|| {
        // SAFETY: 2 is nobody's in this child from here on.
        drop(unsafe { OwnedFd::from_raw_fd(2) });
        let error = keep_only_fds(&[0, 1, 2, 3]).unwrap_err().to_string();
        assert!(error.contains("descriptor 2 is not open"), "{error}");
    });
}

fn panic_inside() {
    let bindings = set_up();
    let supervisor = std::process::id();
    let status = rig::in_child(|| {
        // What the worker's panic hook does: last words on the link, then the one call that ends the process.
        std::panic::set_hook(Box::new(|_| {
            raw(libc::SYS_write, [4, b"panicked".as_ptr() as u64, 8, 0, 0, 0]);
            leave(101);
        }));
        drop_rights(Role::Worker, &nobody(), supervisor, Survival::DiesToo).unwrap();
        seal(&SandboxPolicy::worker(), &bindings, SandboxRequirement::Required).unwrap();
        let none: Option<u8> = std::hint::black_box(None);
        none.unwrap();
    });
    assert!(matches!(status, WaitStatus::Exited(_, 101)), "{status:?}");
    // SAFETY: this is the other end of the link, made by `set_up` and owned by nobody else.
    let link = unsafe { OwnedFd::from_raw_fd(FAR_LINK) };
    let mut words = [0u8; 16];
    assert_eq!(nix::unistd::read(&link, &mut words), Ok(8), "descriptor {}", link.as_raw_fd());
}

/// From outside it shows only in the owner of /proc/PID/status.
fn dumpable_not_proved() {
    let bindings = set_up();
    let supervisor = std::process::id();
    // SAFETY: one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            drop_rights(Role::Worker, &nobody(), supervisor, Survival::DiesToo).unwrap();
            nix::sys::prctl::set_dumpable(true).unwrap();
            seal(&SandboxPolicy::worker(), &bindings, SandboxRequirement::Required).unwrap();
            raw(libc::SYS_write, [4, b"R".as_ptr() as u64, 1, 0, 0, 0]);
            raw(libc::SYS_read, [4, (&raw mut *Box::new(0u8)) as u64, 1, 0, 0, 0]);
            leave(0);
        }
        ForkResult::Parent { child } => {
            // SAFETY: this is the other end of the link, made by `set_up` and owned by nobody else.
            let link = unsafe { OwnedFd::from_raw_fd(FAR_LINK) };
            assert_eq!(nix::unistd::read(&link, &mut [0u8]), Ok(1));
            let pid = child.as_raw().unsigned_abs();
            let differences = prove(pid, &Expectation::of(Role::Worker, &nobody())).unwrap_err();
            assert!(differences.len() == 1 && differences[0].contains("dumpable"), "{differences:?}");
            drop(link);
        }
    }
}

fn heap() {
    let bindings = set_up();
    let supervisor = std::process::id();
    let sealed = |attempt: fn()| {
        rig::in_child(|| {
            drop_rights(Role::Worker, &nobody(), supervisor, Survival::DiesToo).unwrap();
            seal(&SandboxPolicy::worker(), &bindings, SandboxRequirement::Required).unwrap();
            attempt();
        })
    };
    // More than the allocator had at the seal, all freed at once: without `freeze_heap` both would call brk.
    let small = sealed(|| {
        for _ in 0..100 {
            drop(std::hint::black_box((0..12).map(|_| vec![1u8; 65_536]).collect::<Vec<_>>()));
        }
    });
    assert!(matches!(small, WaitStatus::Exited(_, 0)), "{small:?}");
    let large = sealed(|| drop(std::hint::black_box(vec![1u8; 64 << 20])));
    assert!(matches!(large, WaitStatus::Signaled(_, Signal::SIGSYS, _)), "{large:?}");
}
