//! Attempts against other processes, files, networks and the process's own rights.

use super::kind::{Attempt, at, door};
use crate::policy::Fd;

const ROOT: &std::ffi::CStr = c"/";
const NULL: u64 = 0;

fn bit(flag: i32) -> u64 {
    u64::from(flag.unsigned_abs())
}

fn socket(family: i32, kind: i32, protocol: i32) -> i64 {
    door(libc::SYS_socket, &[bit(family), bit(kind), bit(protocol)])
}

/// Ends a child that a hole in the sandbox allowed to be forked: it must not continue as a second suite.
fn born(answer: i64) -> i64 {
    if answer == 0 {
        crate::kernel::leave(0);
    }
    answer
}

pub(super) const OPENAT: Attempt = Attempt::deadly("openat a directory", |_| {
    door(libc::SYS_openat, &[bit(libc::AT_FDCWD) | !0 << 32, at(ROOT), bit(libc::O_RDONLY)])
});

pub(super) const ATTEMPTS: &[Attempt] = &[
    OPENAT,
    Attempt::deadly("openat2", |_| door(libc::SYS_openat2, &[0, at(ROOT), at(&[0u64; 3]), 24])),
    Attempt::deadly("open_by_handle_at", |_| door(libc::SYS_open_by_handle_at, &[0, NULL, 0])),
    Attempt::deadly("unlinkat", |_| door(libc::SYS_unlinkat, &[0, at(ROOT), 0])),
    Attempt::deadly("execve", |_| door(libc::SYS_execve, &[at(ROOT), NULL, NULL])),
    Attempt::deadly("execveat", |_| door(libc::SYS_execveat, &[0, at(ROOT), NULL, NULL, 0])),
    Attempt::deadly("clone a process", |_| born(door(libc::SYS_clone, &[bit(libc::SIGCHLD)]))),
    Attempt::deadly("clone3 a process", |_| {
        let args = [0, 0, 0, 0, bit(libc::SIGCHLD), 0, 0, 0u64];
        born(door(libc::SYS_clone3, &[at(&args), 64]))
    }),
    #[cfg(target_arch = "x86_64")]
    Attempt::deadly("fork", |_| born(door(libc::SYS_fork, &[]))),
    Attempt::deadly("socket unix", |_| socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
    Attempt::deadly("socket IPv4 stream", |_| socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
    Attempt::deadly("socket IPv4 datagram", |_| socket(libc::AF_INET, libc::SOCK_DGRAM, 0)),
    Attempt::deadly("socket IPv4 raw", |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)),
    Attempt::deadly("socket IPv6", |_| socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)),
    Attempt::deadly("socket netlink netfilter", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER)),
    Attempt::deadly("socket netlink route", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)),
    Attempt::deadly("socket packet", |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    Attempt::deadly("socket vsock", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    Attempt::deadly("socket crypto", |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    Attempt::deadly("socketpair", |s| {
        door(libc::SYS_socketpair, &[bit(libc::AF_UNIX), bit(libc::SOCK_STREAM), 0, s.page])
    }),
    Attempt::deadly("pipe2", |s| door(libc::SYS_pipe2, &[s.page, 0])),
    Attempt::deadly("epoll_create1", |_| door(libc::SYS_epoll_create1, &[0])),
    Attempt::deadly("kill the supervisor", |s| door(libc::SYS_kill, &[s.process(), s.signal()])),
    Attempt::deadly("tgkill the supervisor", |s| door(libc::SYS_tgkill, &[s.process(), s.process(), s.signal()])),
    Attempt::deadly("tgkill itself (signal 0)", |s| door(libc::SYS_tgkill, &[s.own, s.own, 0])),
    Attempt::deadly("pidfd_open the supervisor", |s| door(libc::SYS_pidfd_open, &[s.process(), 0])),
    Attempt::deadly("pidfd_getfd", |s| door(libc::SYS_pidfd_getfd, &[s.fd(Fd::Link), 0, 0])),
    Attempt::deadly("pidfd_send_signal", |s| door(libc::SYS_pidfd_send_signal, &[s.fd(Fd::Link), 0, NULL, 0])),
    Attempt::deadly("ptrace seize the supervisor", |s| {
        door(libc::SYS_ptrace, &[u64::from(libc::PTRACE_SEIZE), s.process(), 0, 0])
    }),
    Attempt::deadly("process_vm_readv the supervisor", |s| {
        let io = libc::iovec { iov_base: s.page as *mut _, iov_len: 8 };
        door(libc::SYS_process_vm_readv, &[s.process(), at(&io), 1, at(&io), 1, 0])
    }),
    Attempt::deadly("process_vm_writev the supervisor", |s| {
        let io = libc::iovec { iov_base: s.page as *mut _, iov_len: 8 };
        door(libc::SYS_process_vm_writev, &[s.process(), at(&io), 1, at(&io), 1, 0])
    }),
    Attempt::deadly("sched_setaffinity of the supervisor", |s| {
        door(libc::SYS_sched_setaffinity, &[s.process(), 0, NULL])
    }),
    Attempt::deadly("prlimit of the supervisor", |s| door(libc::SYS_prlimit64, &[s.process(), 0, NULL, NULL])),
    Attempt::deadly("io_uring_setup", |s| door(libc::SYS_io_uring_setup, &[1, s.page])),
    Attempt::deadly("io_uring_enter", |_| door(libc::SYS_io_uring_enter, &[0, 0, 0, 0, NULL, 0])),
    Attempt::deadly("userfaultfd", |_| door(libc::SYS_userfaultfd, &[1])),
    Attempt::deadly("keyctl", |_| door(libc::SYS_keyctl, &[0, !0, 0])),
    Attempt::deadly("add_key", |_| door(libc::SYS_add_key, &[NULL, NULL, NULL, 0, 0])),
    Attempt::deadly("perf_event_open", |s| door(libc::SYS_perf_event_open, &[s.page, 0, !0, !0, 0])),
    Attempt::deadly("unshare a user namespace", |_| door(libc::SYS_unshare, &[bit(libc::CLONE_NEWUSER)])),
    Attempt::deadly("setns", |s| door(libc::SYS_setns, &[s.fd(Fd::Link), 0])),
    Attempt::deadly("mount", |_| door(libc::SYS_mount, &[at(c"none"), at(ROOT), at(c"tmpfs"), libc::MS_RDONLY, NULL])),
    Attempt::deadly("umount2", |_| door(libc::SYS_umount2, &[at(ROOT), bit(libc::MNT_DETACH)])),
    Attempt::deadly("pivot_root", |_| door(libc::SYS_pivot_root, &[at(ROOT), at(ROOT)])),
    Attempt::deadly("chroot", |_| door(libc::SYS_chroot, &[at(ROOT)])),
    Attempt::deadly("chdir", |_| door(libc::SYS_chdir, &[at(c"..")])),
    Attempt::deadly("setuid 0", |_| door(libc::SYS_setuid, &[0])),
    Attempt::deadly("setresuid 0", |_| door(libc::SYS_setresuid, &[0, 0, 0])),
    Attempt::deadly("setgroups", |s| door(libc::SYS_setgroups, &[1, s.page])),
    Attempt::deadly("capset", |s| door(libc::SYS_capset, &[s.page, s.page])),
    Attempt::deadly("setrlimit", |s| door(libc::SYS_setrlimit, &[u64::from(libc::RLIMIT_NOFILE), s.page])),
    Attempt::deadly("prctl: another seccomp filter", |s| {
        door(libc::SYS_prctl, &[bit(libc::PR_SET_SECCOMP), u64::from(libc::SECCOMP_MODE_FILTER), s.page])
    }),
    Attempt::deadly("prctl: dumpable again", |_| door(libc::SYS_prctl, &[bit(libc::PR_SET_DUMPABLE), 1])),
    Attempt::deadly("prctl: no parent-death signal", |_| door(libc::SYS_prctl, &[bit(libc::PR_SET_PDEATHSIG), 0])),
    Attempt::deadly("seccomp: another filter", |s| {
        door(libc::SYS_seccomp, &[u64::from(libc::SECCOMP_SET_MODE_FILTER), 0, s.page])
    }),
    Attempt::deadly("reboot", |_| door(libc::SYS_reboot, &[0, 0, 0, NULL])),
    // Harmless calls that are not in the table: whatever is not listed is forbidden, evil or not.
    Attempt::deadly("getpid", |_| door(libc::SYS_getpid, &[])),
    Attempt::deadly("getrandom", |s| door(libc::SYS_getrandom, &[s.page, 8, 0])),
    Attempt::deadly("futex", |s| door(libc::SYS_futex, &[s.page, 1, 1])),
    Attempt::deadly("nanosleep", |s| door(libc::SYS_nanosleep, &[s.page, NULL])),
    Attempt::deadly("rt_sigaction", |s| door(libc::SYS_rt_sigaction, &[bit(libc::SIGUSR1), s.page, NULL, 8])),
    Attempt::deadly("a number above the known", |_| door(100_000, &[])),
    Attempt::deadly("number -1", |_| door(-1, &[])),
];
