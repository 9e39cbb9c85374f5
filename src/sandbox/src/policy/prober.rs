//! The prober: it reads what backends, and whoever pretends to be one, answer. Assume that the attacker chooses every
//! instruction it executes.
//!
//! Such a prober can still ping anyone; open TCP connections to the ports of checks, on any host; send datagrams, if a
//! check uses UDP, to anyone (from Landlock ABI 10 on, only to the ports of checks); and tell the supervisor and the
//! workers that backends are up or down. It cannot forge a sender's address: that needs a socket option, and none of
//! its calls sets one. Through a socket that came with a mark (mode "dsr") it reaches that backend under any address,
//! by the same protocols and ports. If it got raw sockets to ping with, it can send any ICMP message
//! ([`open_ping_socket`](crate::open_ping_socket)).

use super::confinement::{Confinement, Limit, LimitValue, Namespace};
use super::rule::{Arg, Fd, SyscallRule};

/// Maximum number of sockets of checks open at one time, besides the descriptors that the prober was started with: one
/// for each backend that there can be, so that none waits for another. Fewer where its hard limit is lower.
pub const CHECK_SOCKETS: i32 = 4096;

pub(super) const CONFINEMENT: Confinement = Confinement {
    caps: &[],
    // No network namespace of its own: it must reach the backends the way packets do.
    namespaces: &[Namespace::IPC, Namespace::UTS, Namespace::MOUNT],
    landlock: "no file, no signal, no abstract socket, no TCP or UDP but to the ports of checks, as far as the ABI goes",
    limits: &[
        Limit::core("a dump would hold answers of backends"),
        Limit::NO_FILE_GROWS,
        Limit::NO_PROCESS,
        Limit::descriptors(
            LimitValue::AndWorkers(FDS.len() as u64 + CHECK_SOCKETS as u64),
            "4096 sockets beside the descriptors, or what the host allows",
        ),
    ],
    fds: FDS,
    fd_per_worker: Some("worker: the socket to one worker; so many of these as there are workers"),
    remains: &[],
    faults: "SIGSEGV and SIGBUS have no handler",
};

const FDS: &[&str] = &[
    "/dev/null",
    "/dev/null",
    "/dev/null",
    "link: the socket to the supervisor",
    "ping4: a socket that pings IPv4, or /dev/null",
    "ping6: a socket that pings IPv6, or /dev/null",
    "epoll: watches the sockets of checks",
];

const STREAM: u32 = (libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned();
const DATAGRAM: u32 = (libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC).cast_unsigned();

/// A socket of exactly this kind. Protocol 0 is TCP or UDP; another number could name MPTCP, whose connections Landlock
/// does not see, or the ping protocol.
const fn socket(args: &'static [Arg; 3], why: &'static str) -> SyscallRule {
    SyscallRule::new("socket", libc::SYS_socket, args, why)
}

const fn kind(family: i32, kind: u32) -> [Arg; 3] {
    [Arg::Is(0, family.cast_unsigned()), Arg::Is(1, kind), Arg::Is(2, 0)]
}

const TCP4: [Arg; 3] = kind(libc::AF_INET, STREAM);
const TCP6: [Arg; 3] = kind(libc::AF_INET6, STREAM);
const UDP4: [Arg; 3] = kind(libc::AF_INET, DATAGRAM);
const UDP6: [Arg; 3] = kind(libc::AF_INET6, DATAGRAM);

const DATAGRAMS: &[SyscallRule] = &[
    socket(&UDP4, "UDP and DNS checks; only if the configuration has one"),
    socket(&UDP6, "UDP and DNS checks; only if the configuration has one"),
];

/// MSG_NOSIGNAL or nothing. This rules out MSG_FASTOPEN, which connects past Landlock (tcp_sendmsg_fastopen in
/// net/ipv4/tcp.c calls no security hook), and MSG_OOB.
const SEND: u32 = libc::MSG_NOSIGNAL.cast_unsigned();
/// Rules out MSG_ERRQUEUE, MSG_OOB and MSG_PEEK.
const RECEIVE: u32 = (libc::MSG_DONTWAIT | libc::MSG_TRUNC).cast_unsigned();

pub(super) fn rules(udp: bool) -> Vec<SyscallRule> {
    [LINKS_AND_STREAMS, if udp { DATAGRAMS } else { &[] }, REST].concat()
}

const LINKS_AND_STREAMS: &[SyscallRule] = &[
    // read, not recvmsg: a read discards descriptors that a peer attaches (unix(7), SCM_RIGHTS). Not the links to the
    // workers: they say nothing, and a hostile one must not be heard.
    SyscallRule::new(
        "read",
        libc::SYS_read,
        &[Arg::FdIs(Fd::Link)],
        "hear the supervisor: the end of the link means stop",
    ),
    // write, not sendmsg: no descriptor can be attached to it.
    SyscallRule::new(
        "write",
        libc::SYS_write,
        &[Arg::FdIs(Fd::Link)],
        "tell the supervisor: prepared, or what changed",
    ),
    SyscallRule::new("write", libc::SYS_write, &[Arg::FdIs(Fd::Workers)], "tell a worker which backends are up"),
    socket(&TCP4, "TCP and HTTP checks"),
    socket(&TCP6, "TCP and HTTP checks"),
];

const REST: &[SyscallRule] = &[
    // The destination is behind a pointer, which Landlock can read: the ports of checks. Never one of the first
    // descriptors, so these keep their peers and their numbers: a new socket gets the lowest free number, and only
    // close frees one, never one of theirs. So every socket of a check lies above them.
    SyscallRule::new(
        "connect",
        libc::SYS_connect,
        &[Arg::FdIs(Fd::Checks)],
        "TCP checks, and UDP ones to see a refusal",
    ),
    SyscallRule::new(
        "sendto",
        libc::SYS_sendto,
        &[Arg::FdIs(Fd::Checks), Arg::OnlyBits(3, SEND)],
        "send the question of a check",
    ),
    SyscallRule::new("sendto", libc::SYS_sendto, &[Arg::FdIs(Fd::Ping4), Arg::OnlyBits(3, SEND)], "ping"),
    SyscallRule::new("sendto", libc::SYS_sendto, &[Arg::FdIs(Fd::Ping6), Arg::OnlyBits(3, SEND)], "ping"),
    // Its control data can name the interface and the sender's address, which must be one of the host's own
    // (ip6_datagram_send_ctl in net/ipv6/datagram.c; tests/prober.rs). Extension headers that matter need CAP_NET_RAW
    // there. Not on ping4: nothing needs it.
    SyscallRule::new(
        "sendmsg",
        libc::SYS_sendmsg,
        &[Arg::FdIs(Fd::Ping6), Arg::OnlyBits(2, SEND)],
        "ask all nodes of a link, from an address of ours",
    ),
    SyscallRule::new(
        "recvfrom",
        libc::SYS_recvfrom,
        &[Arg::FdIs(Fd::Checks), Arg::OnlyBits(3, RECEIVE)],
        "read the answer of a check",
    ),
    SyscallRule::new(
        "recvfrom",
        libc::SYS_recvfrom,
        &[Arg::FdIs(Fd::Ping4), Arg::OnlyBits(3, RECEIVE)],
        "read an echo",
    ),
    SyscallRule::new(
        "recvfrom",
        libc::SYS_recvfrom,
        &[Arg::FdIs(Fd::Ping6), Arg::OnlyBits(3, RECEIVE)],
        "read an echo",
    ),
    SyscallRule::new(
        "getsockopt",
        libc::SYS_getsockopt,
        &[
            Arg::FdIs(Fd::Checks),
            Arg::Is(1, libc::SOL_SOCKET.cast_unsigned()),
            Arg::Is(2, libc::SO_ERROR.cast_unsigned()),
        ],
        "learn how a connect ended",
    ),
    SyscallRule::new("close", libc::SYS_close, &[Arg::FdIs(Fd::Checks)], "end a check"),
    // Any descriptor: an event tells of it only that it is ready, as ppoll does.
    SyscallRule::new("epoll_ctl", libc::SYS_epoll_ctl, &[Arg::FdIs(Fd::Epoll)], "watch the socket of a check"),
    SyscallRule::new(
        "epoll_pwait",
        libc::SYS_epoll_pwait,
        &[Arg::FdIs(Fd::Epoll)],
        "learn which checks have an answer",
    ),
    // The C library asks with this call on architectures that have it.
    #[cfg(target_arch = "x86_64")]
    SyscallRule::new("epoll_wait", libc::SYS_epoll_wait, &[Arg::FdIs(Fd::Epoll)], "learn which checks have an answer"),
    // Any arguments: it waits, and writes revents only where the prober itself can write.
    SyscallRule::new("ppoll", libc::SYS_ppoll, &[], "wait for answers, or until the next check is due"),
    // The C library waits with this call on architectures that have it.
    #[cfg(target_arch = "x86_64")]
    SyscallRule::new("poll", libc::SYS_poll, &[], "wait for answers, or until the next check is due"),
    // The vDSO answers without a system call unless the clock source has none.
    SyscallRule::new("clock_gettime", libc::SYS_clock_gettime, &[], "know when a check is due"),
    SyscallRule::new("rt_sigreturn", libc::SYS_rt_sigreturn, &[], "return from a signal handler"),
    SyscallRule::new("restart_syscall", libc::SYS_restart_syscall, &[], "resume a wait after stop and continue"),
    SyscallRule::new("exit_group", libc::SYS_exit_group, &[], "end, with a code that says why"),
    // Deliberately absent: setsockopt, which would let a raw socket forge senders (IP_HDRINCL) and drop its filter;
    // bind and listen, which would let it serve; and, as for the worker, mmap, brk, futex, getrandom.
];
