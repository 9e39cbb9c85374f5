//! The calls of which the attempts are made, and their numbers.

use crate::attempt::kind::{Context, at, door};
use crate::policy::Fd;

/// The port that checks may reach, by TCP and by UDP.
pub const CHECKED_PORT: u16 = 8080;
/// A port that no check may reach, although someone listens there.
pub const OTHER_PORT: u16 = 8081;

pub(super) const NULL: u64 = 0;
pub(super) const DONT_WAIT: u64 = 0x40;
pub(super) const FAST_OPEN: u64 = 0x2000_0000;
pub(super) const ERROR_QUEUE: u64 = 0x2000;
pub(super) const NO_SIGNAL: u64 = 0x4000;
pub(super) const INET: u64 = 2;
pub(super) const INET6: u64 = 10;
pub(super) const NETLINK: u64 = 16;
pub(super) const PACKET: u64 = 17;
pub(super) const STREAM: u64 = 1;
pub(super) const DGRAM: u64 = 2;
pub(super) const RAW: u64 = 3;
/// SOCK_NONBLOCK|SOCK_CLOEXEC, as the prober asks for.
pub(super) const QUIET: u64 = 0x8_0800;
pub(super) const ICMP: u64 = 1;
pub(super) const ICMPV6: u64 = 58;
pub(super) const SOL_SOCKET: u64 = libc::SOL_SOCKET.unsigned_abs() as u64;
pub(super) const SO_ERROR: u64 = libc::SO_ERROR.unsigned_abs() as u64;

pub(super) const fn v4(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: 2,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: 0x7f00_0001u32.to_be() },
        sin_zero: [0; 8],
    }
}

pub(super) const fn v6(port: u16) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: 10,
        sin6_port: port.to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] },
        sin6_scope_id: 0,
    }
}

pub(super) fn open(family: u64, kind: u64, protocol: u64) -> i64 {
    door(libc::SYS_socket, &[family, kind, protocol])
}

pub(super) fn last_worker(s: &Context) -> u64 {
    s.fd(Fd::Checks) - 1
}

/// Names nothing and carries nothing: it must die for its number or its descriptor alone.
pub(super) fn sendmsg(fd: u64, flags: u64) -> i64 {
    door(libc::SYS_sendmsg, &[fd, NULL, flags])
}

pub(super) fn send(fd: u64, flags: u64) -> i64 {
    door(libc::SYS_sendto, &[fd, at(b"x"), 1, flags, NULL, 0])
}

pub(super) fn receive(s: &Context, fd: u64, flags: u64) -> i64 {
    door(libc::SYS_recvfrom, &[fd, s.page, 64, flags, NULL, NULL])
}

pub(super) fn set(fd: u64, level: u64, option: u64) -> i64 {
    door(libc::SYS_setsockopt, &[fd, level, option, at(&1u32), 4])
}

pub(super) fn get(s: &Context, fd: u64, level: u64, option: u64) -> i64 {
    door(libc::SYS_getsockopt, &[fd, level, option, s.page, at(&8u32)])
}
