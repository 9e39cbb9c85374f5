//! Uses each rule of the prober's policy: whole checks and pings, as far as they go on the testbed, and what the kernel
//! itself must refuse in the course of one.

use super::call::{
    CHECKED_PORT, DGRAM, INET, INET6, NO_SIGNAL, NULL, OTHER_PORT, QUIET, SO_ERROR, SOL_SOCKET, STREAM, last_worker,
    open, receive, send, v4, v6,
};
use crate::attempt::kind::{Attempt, Context, at, door};
use crate::policy::Fd;

pub(super) const LANDLOCKED: &[Attempt] = &[
    Attempt::refused("connect by TCP to another port, IPv4", libc::EACCES, |s| check_v4(s, OTHER_PORT)),
    Attempt::refused("connect by TCP to another port, IPv6", libc::EACCES, |s| check_v6(s, OTHER_PORT)),
];

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::lives("read on the link", |s| door(libc::SYS_read, &[s.fd(Fd::Link), s.page, 0])),
    Attempt::succeeds("write on the link", |s| door(libc::SYS_write, &[s.fd(Fd::Link), at(b"w"), 1])),
    Attempt::succeeds("write on the first worker's link", |s| door(libc::SYS_write, &[s.fd(Fd::Workers), at(b"w"), 1])),
    Attempt::succeeds("write on the last worker's link", |s| door(libc::SYS_write, &[last_worker(s), at(b"w"), 1])),
    Attempt::succeeds("check a port by TCP, IPv4", |s| check_v4(s, CHECKED_PORT)),
    Attempt::succeeds("check a port by TCP, IPv6", |s| check_v6(s, CHECKED_PORT)),
    Attempt::succeeds("ping IPv4", |s| {
        let asked = door(libc::SYS_sendto, &[s.fd(Fd::Ping4), at(&echo(8)), 12, NO_SIGNAL, at(&v4(0)), 16]);
        if asked < 0 { asked } else { answer(s, s.fd(Fd::Ping4)) }
    }),
    Attempt::succeeds("ping IPv6", |s| {
        let asked = door(libc::SYS_sendto, &[s.fd(Fd::Ping6), at(&echo(128)), 12, 0, at(&v6(0)), 28]);
        if asked < 0 { asked } else { answer(s, s.fd(Fd::Ping6)) }
    }),
    Attempt::succeeds("ping IPv6 by sendmsg from ::1", |s| {
        let asked = ping_from(s, v6(0).sin6_addr);
        if asked < 0 { asked } else { answer(s, s.fd(Fd::Ping6)) }
    }),
    // The sandbox allows it, the kernel refuses it: a sender's address that is not the host's.
    Attempt::refused("ping IPv6 by sendmsg from a forged address", libc::EINVAL, |s| {
        ping_from(s, libc::in6_addr { s6_addr: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 66] })
    }),
    Attempt::succeeds("ppoll", |_| door(libc::SYS_ppoll, &[NULL, 0, at(&[0u64; 2]), NULL, 8])),
    Attempt::succeeds("watch the socket of a check", |s| {
        let Ok(fd) = u64::try_from(open(INET, STREAM | QUIET, 0)) else { return -1 };
        let epoll = s.fd(Fd::Epoll);
        // EPOLL_CTL_ADD for EPOLLIN. A socket that is not connected hangs up at once (tcp_poll, net/ipv4/tcp.c).
        let added = door(libc::SYS_epoll_ctl, &[epoll, 1, fd, at(&[1u64, 0])]);
        if added < 0 { added } else { door(libc::SYS_epoll_pwait, &[epoll, s.page, 1, 0, NULL, 8]) - 1 }
    }),
    #[cfg(target_arch = "x86_64")]
    Attempt::lives("epoll_wait", |s| door(libc::SYS_epoll_wait, &[s.fd(Fd::Epoll), s.page, 1, 0])),
    #[cfg(target_arch = "x86_64")]
    Attempt::succeeds("poll", |_| door(libc::SYS_poll, &[NULL, 0, 0])),
];

pub(super) const DATAGRAM: &[Attempt] = &[
    Attempt::succeeds("check a port by UDP, IPv4", |_| ask(open(INET, DGRAM | QUIET, 0), at(&v4(CHECKED_PORT)), 16)),
    Attempt::succeeds("check a port by UDP, IPv6", |_| ask(open(INET6, DGRAM | QUIET, 0), at(&v6(CHECKED_PORT)), 28)),
];

fn check_v4(s: &Context, port: u16) -> i64 {
    check(s, open(INET, STREAM | QUIET, 0), at(&v4(port)), 16)
}

fn check_v6(s: &Context, port: u16) -> i64 {
    check(s, open(INET6, STREAM | QUIET, 0), at(&v6(port)), 28)
}

/// Connects, learns how that ended, sends a question, finds no answer yet, and closes; returns the first error.
fn check(s: &Context, socket: i64, to: u64, length: u64) -> i64 {
    let Ok(fd) = u64::try_from(socket) else { return socket };
    let begun = door(libc::SYS_connect, &[fd, to, length]);
    if begun < 0 && begun != -i64::from(libc::EINPROGRESS) {
        return begun;
    }
    if let no @ ..0 = wait(fd, libc::POLLOUT) {
        return no;
    }
    let (error, size) = (-1i32, 4u32);
    let told = door(libc::SYS_getsockopt, &[fd, SOL_SOCKET, SO_ERROR, at(&error), at(&size)]);
    // SAFETY: a live local that the kernel may have stored to, which the compiler did not see.
    let error = unsafe { std::ptr::from_ref(&error).read_volatile() };
    if told < 0 || error != 0 {
        return told.min(-i64::from(error.unsigned_abs()));
    }
    if let no @ ..0 = send(fd, NO_SIGNAL) {
        return no;
    }
    let answer = receive(s, fd, 0);
    if answer != -i64::from(libc::EAGAIN) {
        return answer.min(-1);
    }
    door(libc::SYS_close, &[fd])
}

/// Connects and sends a datagram, then another one by address.
fn ask(socket: i64, to: u64, length: u64) -> i64 {
    let Ok(fd) = u64::try_from(socket) else { return socket };
    let connected = door(libc::SYS_connect, &[fd, to, length]);
    let sent = send(fd, NO_SIGNAL);
    let again = door(libc::SYS_sendto, &[fd, at(b"x"), 1, 0, to, length]);
    connected.min(sent).min(again)
}

/// Waits at most a second. Returns 0, or the error; no answer is ETIMEDOUT.
fn wait(fd: u64, events: i16) -> i64 {
    let Ok(fd) = i32::try_from(fd) else { return -i64::from(libc::EBADF) };
    let one = libc::pollfd { fd, events, revents: 0 };
    match door(libc::SYS_ppoll, &[at(&one), 1, at(&[1u64, 0]), NULL, 8]) {
        0 => -i64::from(libc::ETIMEDOUT),
        ready => ready.min(0),
    }
}

/// An echo request of this type: id 7, sequence 1, four more bytes. On a raw ICMP socket the checksum (RFC 1071) is
/// ours to compute; a ping socket and ICMPv6 compute it again.
fn echo(kind: u8) -> [u8; 12] {
    let sum = !(u16::from_be_bytes([kind, 0]) + 7 + 1);
    let [high, low] = sum.to_be_bytes();
    [kind, 0, high, low, 0, 7, 0, 1, 0, 0, 0, 0]
}

/// Reads whatever the socket lets in.
fn answer(s: &Context, fd: u64) -> i64 {
    match wait(fd, libc::POLLIN) {
        0 => receive(s, fd, 0),
        no => no,
    }
}

/// struct cmsghdr with struct in6_pktinfo (RFC 3542 §6.1): 36 bytes, and 4 bytes of padding.
#[repr(C)]
struct PacketInfo {
    length: usize,
    level: i32,
    kind: i32,
    address: libc::in6_addr,
    interface: u32,
}

fn ping_from(s: &Context, address: libc::in6_addr) -> i64 {
    let source = PacketInfo { length: 36, level: libc::IPPROTO_IPV6, kind: libc::IPV6_PKTINFO, address, interface: 0 };
    let (to, request) = (v6(0), echo(128));
    let io = libc::iovec { iov_base: at(&request) as *mut _, iov_len: request.len() };
    // SAFETY: all-zero is a valid msghdr.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = at(&to) as *mut _;
    header.msg_namelen = 28;
    header.msg_iov = at(&io) as *mut _;
    header.msg_iovlen = 1;
    header.msg_control = at(&source) as *mut _;
    header.msg_controllen = 40;
    door(libc::SYS_sendmsg, &[s.fd(Fd::Ping6), at(&header), NO_SIGNAL])
}
