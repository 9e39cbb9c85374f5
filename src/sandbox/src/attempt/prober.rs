//! What a hostile prober would try, and what an honest one must be able to do.
//!
//! The testbed has listeners on `lo` ([`CHECKED_PORT`], [`OTHER_PORT`]) and the descriptors of a prober with two
//! workers; `selftest::ProberTestbed` sets it up.

mod allowed;
mod call;

use super::allowed::EVERYONE;
use super::kind::{Attempt, at, door};
use super::{memory, process};
use crate::policy::Fd;
use call::{
    DGRAM, DONT_WAIT, ERROR_QUEUE, FAST_OPEN, ICMP, ICMPV6, INET, INET6, NETLINK, NO_SIGNAL, NULL, PACKET, QUIET, RAW,
    SO_ERROR, SOL_SOCKET, STREAM, get, last_worker, open, receive, send, sendmsg, set, v4,
};

pub use call::{CHECKED_PORT, OTHER_PORT};

/// Everything a prober must not be able to do; a prober with UDP checks may open UDP sockets.
pub fn forbidden(udp: bool) -> Vec<Attempt> {
    let shared = [
        process::ATTEMPTS,
        memory::ATTEMPTS,
        #[cfg(target_arch = "x86_64")]
        super::x86::ATTEMPTS,
        ATTEMPTS,
    ];
    let mut attempts = shared.concat();
    if !udp {
        attempts.extend(DATAGRAM);
    }
    attempts
}

/// What Landlock refuses, where it knows TCP (ABI 4).
pub fn landlocked() -> Vec<Attempt> {
    allowed::LANDLOCKED.to_vec()
}

/// Uses each rule of the prober's policy; all must succeed.
pub fn allowed(udp: bool) -> Vec<Attempt> {
    let mut attempts = [allowed::ATTEMPTS, EVERYONE].concat();
    if udp {
        attempts.extend_from_slice(allowed::DATAGRAM);
    }
    attempts
}

const ATTEMPTS: &[Attempt] = &[
    // A kind of socket that differs in one detail.
    Attempt::deadly("socket TCP that blocks", |_| open(INET, STREAM, 0)),
    Attempt::deadly("socket TCP that an exec would keep", |_| open(INET, STREAM | 0x800, 0)),
    Attempt::deadly("socket MPTCP", |_| open(INET, STREAM | QUIET, 262)),
    Attempt::deadly("socket SCTP", |_| open(INET, STREAM | QUIET, 132)),
    Attempt::deadly("socket ping IPv4", |_| open(INET, DGRAM | QUIET, ICMP)),
    Attempt::deadly("socket ping IPv6", |_| open(INET6, DGRAM | QUIET, ICMPV6)),
    Attempt::deadly("socket raw ICMP", |_| open(INET, RAW | QUIET, ICMP)),
    Attempt::deadly("socket raw IPv6", |_| open(INET6, RAW | QUIET, 255)),
    Attempt::deadly("socket netlink route, non-blocking", |_| open(NETLINK, RAW | QUIET, 0)),
    Attempt::deadly("socket unix, non-blocking", |_| open(1, STREAM | QUIET, 0)),
    Attempt::deadly("socket packet, non-blocking", |_| open(PACKET, RAW | QUIET, 0)),
    // No option of any socket.
    Attempt::deadly("setsockopt IP_HDRINCL on ping4", |s| set(s.fd(Fd::Ping4), 0, 3)),
    Attempt::deadly("setsockopt IPV6_HDRINCL on ping6", |s| set(s.fd(Fd::Ping6), 41, 36)),
    Attempt::deadly("setsockopt SO_DETACH_FILTER on ping4", |s| set(s.fd(Fd::Ping4), SOL_SOCKET, 27)),
    Attempt::deadly("setsockopt IP_TRANSPARENT on a check", |s| set(s.fd(Fd::Checks), 0, 19)),
    Attempt::deadly("setsockopt TCP_FASTOPEN_CONNECT on a check", |s| set(s.fd(Fd::Checks), 6, 30)),
    Attempt::deadly("getsockopt SO_PEERCRED of the link", |s| get(s, s.fd(Fd::Link), SOL_SOCKET, 17)),
    Attempt::deadly("getsockopt SO_ERROR of a worker's link", |s| get(s, s.fd(Fd::Workers), SOL_SOCKET, SO_ERROR)),
    Attempt::deadly("getsockopt SO_TYPE of a check", |s| get(s, s.fd(Fd::Checks), SOL_SOCKET, 3)),
    Attempt::deadly("getsockopt TCP_INFO of a check", |s| get(s, s.fd(Fd::Checks), 6, 11)),
    // The prober asks; it does not serve.
    Attempt::deadly("bind a check", |s| door(libc::SYS_bind, &[s.fd(Fd::Checks), at(&v4(9)), 16])),
    Attempt::deadly("bind ping4", |s| door(libc::SYS_bind, &[s.fd(Fd::Ping4), at(&v4(0)), 16])),
    Attempt::deadly("listen on a check", |s| door(libc::SYS_listen, &[s.fd(Fd::Checks), 1])),
    Attempt::deadly("accept4 on a check", |s| door(libc::SYS_accept4, &[s.fd(Fd::Checks), NULL, NULL, QUIET])),
    Attempt::deadly("connect ping4", |s| door(libc::SYS_connect, &[s.fd(Fd::Ping4), at(&v4(0)), 16])),
    Attempt::deadly("connect the link", |s| door(libc::SYS_connect, &[s.fd(Fd::Link), at(&v4(0)), 16])),
    // Workers are told things but not heard; nobody gets a descriptor.
    Attempt::deadly("read on a worker's link", |s| door(libc::SYS_read, &[s.fd(Fd::Workers), s.page, 0])),
    Attempt::deadly("recvfrom on a worker's link", |s| receive(s, s.fd(Fd::Workers), DONT_WAIT)),
    Attempt::deadly("recvfrom on the link", |s| receive(s, s.fd(Fd::Link), DONT_WAIT)),
    Attempt::deadly("recvmsg on the link, for descriptors", |s| {
        door(libc::SYS_recvmsg, &[s.fd(Fd::Link), NULL, DONT_WAIT])
    }),
    Attempt::deadly("sendmsg on the link, with descriptors", |s| sendmsg(s.fd(Fd::Link), NO_SIGNAL)),
    Attempt::deadly("sendmsg on a worker's link", |s| sendmsg(s.fd(Fd::Workers), NO_SIGNAL)),
    Attempt::deadly("sendto on the link", |s| send(s.fd(Fd::Link), DONT_WAIT | NO_SIGNAL)),
    Attempt::deadly("sendto on a worker's link", |s| send(s.fd(Fd::Workers), NO_SIGNAL)),
    Attempt::deadly("shutdown a worker's link", |s| door(libc::SYS_shutdown, &[s.fd(Fd::Workers), 2])),
    // Where and how it may send.
    Attempt::deadly("sendmsg on ping4", |s| sendmsg(s.fd(Fd::Ping4), 0)),
    Attempt::deadly("sendmsg on a check", |s| sendmsg(s.fd(Fd::Checks), 0)),
    Attempt::deadly("sendmsg on ping6 with MSG_OOB", |s| sendmsg(s.fd(Fd::Ping6), 1)),
    Attempt::deadly("sendmmsg on ping6", |s| door(libc::SYS_sendmmsg, &[s.fd(Fd::Ping6), NULL, 0, 0])),
    Attempt::deadly("sendto on a check with MSG_FASTOPEN", |s| {
        let to = v4(OTHER_PORT);
        door(libc::SYS_sendto, &[s.fd(Fd::Checks), at(b"x"), 1, FAST_OPEN | NO_SIGNAL, at(&to), 16])
    }),
    Attempt::deadly("sendto on ping4 with MSG_OOB", |s| send(s.fd(Fd::Ping4), 1)),
    Attempt::deadly("sendto on ping6 with MSG_OOB", |s| send(s.fd(Fd::Ping6), 1)),
    Attempt::deadly("recvfrom on ping4 with MSG_ERRQUEUE", |s| receive(s, s.fd(Fd::Ping4), ERROR_QUEUE)),
    Attempt::deadly("recvfrom on ping6 with MSG_ERRQUEUE", |s| receive(s, s.fd(Fd::Ping6), ERROR_QUEUE)),
    Attempt::deadly("recvfrom on a check with MSG_PEEK", |s| receive(s, s.fd(Fd::Checks), 2 | DONT_WAIT)),
    Attempt::deadly("recvfrom on descriptor 0", |s| receive(s, 0, DONT_WAIT)),
    Attempt::deadly("write on ping4", |s| door(libc::SYS_write, &[s.fd(Fd::Ping4), s.page, 0])),
    Attempt::deadly("write on a check", |s| door(libc::SYS_write, &[s.fd(Fd::Checks), s.page, 0])),
    Attempt::deadly("write on descriptor 2", |s| door(libc::SYS_write, &[2, s.page, 0])),
    Attempt::deadly("writev on a worker's link", |s| door(libc::SYS_writev, &[s.fd(Fd::Workers), NULL, 0])),
    Attempt::deadly("read on a check", |s| door(libc::SYS_read, &[s.fd(Fd::Checks), s.page, 0])),
    Attempt::deadly("read on descriptor 0", |s| door(libc::SYS_read, &[0, s.page, 0])),
    Attempt::deadly("epoll_ctl on the link", |s| door(libc::SYS_epoll_ctl, &[s.fd(Fd::Link), 1, 0, s.page])),
    Attempt::deadly("epoll_pwait on the link", |s| {
        door(libc::SYS_epoll_pwait, &[s.fd(Fd::Link), s.page, 1, 0, NULL, 8])
    }),
    Attempt::deadly("epoll_create1", |_| door(libc::SYS_epoll_create1, &[0])),
    // The descriptors must keep their meaning, because the policy refers to them by number.
    Attempt::deadly("close descriptor 0", |_| door(libc::SYS_close, &[0])),
    Attempt::deadly("close the link", |s| door(libc::SYS_close, &[s.fd(Fd::Link)])),
    Attempt::deadly("close ping4", |s| door(libc::SYS_close, &[s.fd(Fd::Ping4)])),
    Attempt::deadly("close the last worker's link", |s| door(libc::SYS_close, &[last_worker(s)])),
    Attempt::deadly("close a number beyond the limit", |s| door(libc::SYS_close, &[s.fd(Fd::Checks) + 4096])),
    Attempt::deadly("close_range", |s| door(libc::SYS_close_range, &[s.fd(Fd::Checks), s.fd(Fd::Checks), 0])),
    Attempt::deadly("dup ping4", |s| door(libc::SYS_dup, &[s.fd(Fd::Ping4)])),
    #[cfg(target_arch = "x86_64")]
    Attempt::deadly("dup2 a worker's link over ping6", |s| door(libc::SYS_dup2, &[s.fd(Fd::Workers), s.fd(Fd::Ping6)])),
    Attempt::deadly("dup3 the link over ping6", |s| door(libc::SYS_dup3, &[s.fd(Fd::Link), s.fd(Fd::Ping6), 0])),
    Attempt::deadly("fcntl F_DUPFD the link", |s| door(libc::SYS_fcntl, &[s.fd(Fd::Link), 0, 0])),
    Attempt::deadly("fcntl F_GETFL the link", |s| door(libc::SYS_fcntl, &[s.fd(Fd::Link), 3, 0])),
    Attempt::deadly("ioctl SIOCGIFCONF on ping4", |s| door(libc::SYS_ioctl, &[s.fd(Fd::Ping4), 0x8912, s.page])),
    Attempt::deadly("ioctl FIONREAD on the link", |s| door(libc::SYS_ioctl, &[s.fd(Fd::Link), libc::FIONREAD, s.page])),
];

const DATAGRAM: [Attempt; 2] = [
    Attempt::deadly("socket UDP IPv4", |_| open(INET, DGRAM | QUIET, 0)),
    Attempt::deadly("socket UDP IPv6", |_| open(INET6, DGRAM | QUIET, 0)),
];
