//! The exporter: it reads requests of whoever reaches its socket. Assume that the attacker chooses every instruction it
//! executes.
//!
//! Such an exporter can still accept connections on the one socket that it was given, answer them with whatever it likes,
//! and ask the supervisor for documents, which the supervisor sends as seldom as it likes.

use super::confinement::{Confinement, Limit, LimitValue, Namespace};
use super::rule::{Arg, Fd, SyscallRule};

/// Maximum number of connections at one time.
pub const CONNECTIONS: i32 = 64;

pub(super) const CONFINEMENT: Confinement = Confinement {
    caps: &[],
    // The socket that listens belongs to the host's network and stays there; a new one would belong to an empty network.
    namespaces: &[Namespace::NET, Namespace::IPC, Namespace::UTS, Namespace::MOUNT],
    landlock: "no file, no TCP or UDP, no signal, no abstract socket, as far as the ABI goes; no exception",
    limits: &[
        Limit::core("a dump would hold what is shown to those who may see it"),
        Limit::NO_FILE_GROWS,
        Limit::NO_PROCESS,
        Limit::descriptors(
            LimitValue::Fixed(FDS.len() as u64 + CONNECTIONS as u64),
            "64 connections beside the descriptors",
        ),
    ],
    fds: FDS,
    fd_per_worker: None,
    remains: &REMAINS,
    faults: "SIGSEGV and SIGBUS have no handler",
};

const FDS: &[&str] = &[
    "/dev/null",
    "/dev/null",
    "/dev/null",
    "link: the socket to the supervisor",
    "listener: the socket that listens for those who ask",
];

/// tests/e2e/security/hostile_exporter.rs proves what these cost nobody else; docs/security.md has the same list.
const REMAINS: [&str; 5] = [
    "untrue answers to those who ask it, or none",
    "any bytes on its link to the supervisor; what is out of turn or too much ends it",
    "asking for documents without end: the supervisor makes at most four of each a second",
    "using up a core",
    "ending, with any code; last words in the log",
];

const ACCEPTED: u32 = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned();

pub(super) const RULES: &[SyscallRule] = &[
    // read, not recvmsg: a read discards descriptors that a peer attaches (unix(7), SCM_RIGHTS).
    SyscallRule::new("read", libc::SYS_read, &[Arg::FdIs(Fd::Link)], "hear the supervisor: documents, or to stop"),
    // write, not sendmsg: no descriptor can be attached to it.
    SyscallRule::new("write", libc::SYS_write, &[Arg::FdIs(Fd::Link)], "ask the supervisor for a document"),
    // No address of the peer: nothing goes by who asks. A connection gets the lowest free number; only close frees one,
    // never one of the first descriptors, so every connection lies above them.
    SyscallRule::new(
        "accept4",
        libc::SYS_accept4,
        &[Arg::FdIs(Fd::Listener), Arg::Null(1), Arg::Null(2), Arg::Is(3, ACCEPTED)],
        "let somebody ask",
    ),
    // Null addresses, and no flag but these: no MSG_PEEK, MSG_OOB or MSG_ERRQUEUE.
    SyscallRule::new(
        "recvfrom",
        libc::SYS_recvfrom,
        &[Arg::FdIs(Fd::Connections), Arg::OnlyBits(3, libc::MSG_DONTWAIT.cast_unsigned()), Arg::Null(4), Arg::Null(5)],
        "read a request",
    ),
    // Without an address, and without MSG_FASTOPEN, it sends to nobody but whoever has connected.
    SyscallRule::new(
        "sendto",
        libc::SYS_sendto,
        &[Arg::FdIs(Fd::Connections), Arg::OnlyBits(3, libc::MSG_NOSIGNAL.cast_unsigned()), Arg::Null(4)],
        "send an answer",
    ),
    SyscallRule::new(
        "shutdown",
        libc::SYS_shutdown,
        &[Arg::FdIs(Fd::Connections), Arg::Is(1, libc::SHUT_WR.cast_unsigned())],
        "end an answer",
    ),
    SyscallRule::new("close", libc::SYS_close, &[Arg::FdIs(Fd::Connections)], "end a connection"),
    // Any arguments: it waits, and writes revents only where the exporter itself can write.
    SyscallRule::new("ppoll", libc::SYS_ppoll, &[], "wait for requests, or until one is late"),
    // The C library waits with this call on architectures that have it.
    #[cfg(target_arch = "x86_64")]
    SyscallRule::new("poll", libc::SYS_poll, &[], "wait for requests, or until one is late"),
    // The vDSO answers without a system call unless the clock source has none.
    SyscallRule::new("clock_gettime", libc::SYS_clock_gettime, &[], "know when a request is late"),
    SyscallRule::new("rt_sigreturn", libc::SYS_rt_sigreturn, &[], "return from a signal handler"),
    SyscallRule::new("restart_syscall", libc::SYS_restart_syscall, &[], "resume a wait after stop and continue"),
    SyscallRule::new("exit_group", libc::SYS_exit_group, &[], "end, with a code that says why"),
    // Deliberately absent: socket, bind, listen and connect; setsockopt and getsockopt; and, as for the worker, mmap, brk,
    // futex, getrandom.
];
