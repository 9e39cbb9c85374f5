//! The worker: it has read a hostile packet, so assume that the attacker chooses every instruction it executes.
//!
//! Such a worker can still read the packets of its own queue, answer them with a prepared verdict, talk to the
//! supervisor on the link, hear the prober, read the time, and end.

use caps::Capability;

use super::confinement::{Confinement, KeptCapability, Limit, LimitValue, Namespace};
use super::rule::{Arg, Fd, SyscallRule};

pub(super) const CONFINEMENT: Confinement = Confinement {
    caps: &[KeptCapability {
        cap: Capability::CAP_NET_ADMIN,
        why: "the kernel asks it of the sender of a verdict (netlink_net_capable in nfnetlink_rcv)",
    }],
    namespaces: &[Namespace::NET, Namespace::IPC, Namespace::UTS, Namespace::MOUNT],
    landlock: "no file, no TCP or UDP, no signal, no abstract socket, as far as the ABI goes; no exception",
    limits: &[
        Limit::core("a dump would hold packets and keys"),
        Limit::NO_FILE_GROWS,
        Limit::NO_PROCESS,
        // Not 0: poll(2) and ppoll(2) answer EINVAL when asked for more descriptors than this. Open ones stay open;
        // every new one would have number 1 or more and fails with EMFILE (tests/facts.rs).
        Limit::descriptors(LimitValue::Fixed(1), "no new descriptor, poll works"),
    ],
    fds: &[
        "/dev/null",
        "/dev/null",
        "/dev/null",
        "queue: the netlink socket that owns the worker's queue",
        "link: the socket to the supervisor",
        "membership: the socket to the prober, read only",
        // No call takes the numbers of these. They are kept so that the successor of a killed supervisor can take them
        // out again (pidfd_getfd(2), which needs CAP_SYS_PTRACE).
        "custody: memory of the flow table",
        "custody: memory of the affinity table",
        "custody: memory of the counters",
        "custody: the supervisor's journal, open for reading alone",
    ],
    fd_per_worker: None,
    remains: &REMAINS,
    faults: "SIGSEGV and SIGBUS have no handler: a store into the templates kills as SIGSEGV",
};

/// tests/e2e/security/hostile_worker/remains.rs proves each of these; the attempts show that there is nothing else.
/// docs/security.md has the same list.
///
/// Not listed: attributes for conntrack. A verdict can carry them, but they need a packet with an entry
/// (nfqnl_ct_parse), and in raw PREROUTING, where packets are queued, none has one yet.
const REMAINS: [&str; 12] = [
    "any verdict on packets of its own queue, or none",
    "sending them on to another queue, where they are packets like any other",
    "other content for them, from anybody and to anybody",
    "their mark, which in mode dsr names a backend, and their priority",
    "any bytes in its own tables and counters: what its successors remember of flows and clients, and what is shown of them",
    "where there is a kernel path, packets of its own clients sent on between configured virtual IPs and backends, past other rules, until 30 s after its end",
    "any bytes on its link to the supervisor; what is no answer to a question ends it",
    "untrue answers to loaded explain, an untrue count to loaded flows --end, and last words in the log",
    "hearing what is for it: its packets, the supervisor, the prober, the time",
    "standing still: it is replaced after 1.5 s, or, where it counts as one that works, its packets wait",
    "using up its core",
    "ending, with any code",
];

pub(super) const RULES: [SyscallRule; 10] = [
    // The only way to write to the queue socket, which also carries nftables, conntrack and queue configuration. The
    // pointer must be the start of a row of the msghdr table; that table, its iovecs and all netlink headers are in
    // sealed memory that nobody can change or map over. So whatever the caller wants, the kernel reads our message: a
    // verdict for our queue, with an id and a payload that the caller chooses (tests/worker.rs).
    // Alignment matters: a pointer 8 bytes into a row would read msg_iov from another field.
    // flags 0: no MSG_OOB, no MSG_DONTROUTE, nothing that a protocol may one day give a meaning.
    SyscallRule::new(
        "sendmsg",
        libc::SYS_sendmsg,
        &[Arg::FdIs(Fd::Queue), Arg::InTemplates(1), Arg::AlignedTo(1, 64), Arg::Is(2, 0)],
        "send prepared verdicts, and nothing else, to the kernel",
    ),
    // Its pointers are free: seccomp cannot look behind them, and the arena may be anywhere. What can they do?
    //  - The kernel stores through them as the worker itself would (copy_to_user), so page protection holds: into the
    //    read-only templates it is EFAULT (tests/worker.rs), into code pages too. Elsewhere the worker can
    //    write anyway.
    //  - msg_control receives no descriptors: netlink carries credentials only (netlink_recvmsg in af_netlink.c).
    //  - timeout is written back by the kernel and would allow a wait of any length; it must be null.
    //  - vlen is cut to UIO_MAXIOV by the kernel (net/socket.c).
    // flags exactly MSG_WAITFORONE: wait for the first packet up to the SO_RCVTIMEO that the supervisor set, then take
    // what is there. So no poll is needed. MSG_ERRQUEUE, MSG_PEEK and the rest are out.
    SyscallRule::new(
        "recvmmsg",
        libc::SYS_recvmmsg,
        &[Arg::FdIs(Fd::Queue), Arg::Is(3, libc::MSG_WAITFORONE.cast_unsigned()), Arg::Null(4)],
        "receive packets in batches",
    ),
    // read, not recvmsg: a read discards descriptors that a peer attaches (unix(7), SCM_RIGHTS).
    SyscallRule::new(
        "read",
        libc::SYS_read,
        &[Arg::FdIs(Fd::Link)],
        "hear the supervisor: the end of the link means stop",
    ),
    // Read only: a worker has nothing to say to the prober, so none can talk it into anything.
    SyscallRule::new("read", libc::SYS_read, &[Arg::FdIs(Fd::Membership)], "hear the prober: which backends are up"),
    // A worker waits inside the sandbox for the order to start, on a blocking link, and must never block on it once it
    // serves. Of all flags this sets one and clears those that the link does not have; it can reveal or move nothing
    // (setfl in fs/fcntl.c).
    SyscallRule::new(
        "fcntl",
        libc::SYS_fcntl,
        &[Arg::FdIs(Fd::Link), Arg::Is(1, libc::F_SETFL.cast_unsigned()), Arg::Is(2, libc::O_NONBLOCK.cast_unsigned())],
        "after the order to begin, wait for no other",
    ),
    // write, not sendmsg: no descriptor can be attached to it.
    SyscallRule::new("write", libc::SYS_write, &[Arg::FdIs(Fd::Link)], "tell the supervisor: ready, or why it failed"),
    // The vDSO answers without a system call unless the clock source has none. Any clock id: a negative one means a
    // clock behind a descriptor, and none of ours is one (EINVAL, get_clock_desc in posix-clock.c).
    SyscallRule::new("clock_gettime", libc::SYS_clock_gettime, &[], "age flows and affinities"),
    // Called when a handler returns, never by us. It can set any registers, which we grant the attacker anyway.
    SyscallRule::new("rt_sigreturn", libc::SYS_rt_sigreturn, &[], "return from a signal handler"),
    // Called by the kernel after SIGSTOP and SIGCONT inside a wait; without it, a debugger's stop would be fatal.
    SyscallRule::new("restart_syscall", libc::SYS_restart_syscall, &[], "resume a wait after stop and continue"),
    SyscallRule::new("exit_group", libc::SYS_exit_group, &[], "end, with a code that says why"),
    // Deliberately absent: mmap, munmap, brk, madvise, futex, getrandom. Everything is allocated before the seal, so an
    // allocation that needs the kernel is a bug or an attack, and both end the same way.
];
