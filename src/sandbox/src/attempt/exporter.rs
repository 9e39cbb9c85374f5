//! What a hostile exporter would try, and what an honest one must be able to do.
//!
//! On the testbed (`selftest::ExporterTestbed`) the listener listens on `lo`, and two have connected: one has sent a
//! request, and the other has only come.

use super::allowed::EVERYONE;
use super::kind::{Attempt, Context, at, door};
use super::{memory, process};
use crate::policy::{CONNECTIONS, Fd};

const NULL: u64 = 0;
/// SOCK_NONBLOCK|SOCK_CLOEXEC, as the exporter asks for.
const QUIET: u64 = 0x8_0800;
const DONT_WAIT: u64 = 0x40;
const NO_SIGNAL: u64 = 0x4000;
const FAST_OPEN: u64 = 0x2000_0000;
const ERROR_QUEUE: u64 = 0x2000;
const PEEK: u64 = 2;
const SHUT_WR: u64 = 1;

/// Everything an exporter must not be able to do.
pub fn forbidden() -> Vec<Attempt> {
    [
        process::ATTEMPTS,
        memory::ATTEMPTS,
        #[cfg(target_arch = "x86_64")]
        super::x86::ATTEMPTS,
        ATTEMPTS,
    ]
    .concat()
}

/// Uses each rule of the exporter's policy; all must succeed.
pub fn allowed() -> Vec<Attempt> {
    [ALLOWED, EVERYONE].concat()
}

const ATTEMPTS: &[Attempt] = &[
    // No socket but the listener, and nothing of that but to accept.
    Attempt::deadly("socket TCP, as the prober's", |_| door(libc::SYS_socket, &[2, 1 | QUIET, 0])),
    Attempt::deadly("socket netlink netfilter, non-blocking", |_| door(libc::SYS_socket, &[16, 3 | QUIET, 12])),
    Attempt::deadly("bind the listener", |s| door(libc::SYS_bind, &[s.fd(Fd::Listener), at(&lo(9)), 16])),
    Attempt::deadly("listen on the listener", |s| door(libc::SYS_listen, &[s.fd(Fd::Listener), 1])),
    Attempt::deadly("connect the listener", |s| door(libc::SYS_connect, &[s.fd(Fd::Listener), at(&lo(9)), 16])),
    Attempt::deadly("connect a connection elsewhere", |s| {
        door(libc::SYS_connect, &[s.fd(Fd::Connections), at(&lo(9)), 16])
    }),
    Attempt::deadly("shutdown the listener", |s| door(libc::SYS_shutdown, &[s.fd(Fd::Listener), SHUT_WR])),
    Attempt::deadly("shutdown the reading side", |s| door(libc::SYS_shutdown, &[s.fd(Fd::Connections), 0])),
    Attempt::deadly("close the listener", |s| door(libc::SYS_close, &[s.fd(Fd::Listener)])),
    Attempt::deadly("close the link", |s| door(libc::SYS_close, &[s.fd(Fd::Link)])),
    Attempt::deadly("close descriptor 0", |_| door(libc::SYS_close, &[0])),
    Attempt::deadly("close a number beyond the limit", |s| {
        door(libc::SYS_close, &[s.fd(Fd::Connections) + u64::from(CONNECTIONS.unsigned_abs())])
    }),
    Attempt::deadly("accept4 on the link", |s| accept(s.fd(Fd::Link), NULL, QUIET)),
    Attempt::deadly("accept4 that blocks", |s| accept(s.fd(Fd::Listener), NULL, 0x8_0000)),
    Attempt::deadly("accept4 with the peer's address", |s| accept(s.fd(Fd::Listener), s.page, QUIET)),
    Attempt::deadly("accept4 with room for an address's length", |s| {
        door(libc::SYS_accept4, &[s.fd(Fd::Listener), NULL, s.page, QUIET])
    }),
    #[cfg(target_arch = "x86_64")]
    Attempt::deadly("accept on the listener", |s| door(libc::SYS_accept, &[s.fd(Fd::Listener), NULL, NULL])),
    Attempt::deadly("setsockopt SO_REUSEPORT on the listener", |s| set(s.fd(Fd::Listener), 1, 15)),
    Attempt::deadly("setsockopt IP_TRANSPARENT on a connection", |s| set(s.fd(Fd::Connections), 0, 19)),
    Attempt::deadly("getsockopt SO_PEERCRED of the link", |s| {
        door(libc::SYS_getsockopt, &[s.fd(Fd::Link), 1, 17, s.page, at(&8u32)])
    }),
    Attempt::deadly("getpeername of a connection", |s| {
        door(libc::SYS_getpeername, &[s.fd(Fd::Connections), s.page, at(&16u32)])
    }),
    // How it may read and write.
    Attempt::deadly("read on a connection", |s| door(libc::SYS_read, &[s.fd(Fd::Connections), s.page, 1])),
    Attempt::deadly("write on a connection", |s| door(libc::SYS_write, &[s.fd(Fd::Connections), at(b"w"), 1])),
    Attempt::deadly("write on descriptor 2", |s| door(libc::SYS_write, &[2, s.page, 0])),
    Attempt::deadly("recvfrom on the link", |s| receive(s, s.fd(Fd::Link), DONT_WAIT, NULL, NULL)),
    Attempt::deadly("recvfrom with MSG_PEEK", |s| receive(s, s.fd(Fd::Connections), PEEK, NULL, NULL)),
    Attempt::deadly("recvfrom with MSG_ERRQUEUE", |s| receive(s, s.fd(Fd::Connections), ERROR_QUEUE, NULL, NULL)),
    Attempt::deadly("recvfrom with the sender's address", |s| {
        receive(s, s.fd(Fd::Connections), DONT_WAIT, s.page, NULL)
    }),
    Attempt::deadly("recvfrom with room for an address's length", |s| {
        receive(s, s.fd(Fd::Connections), DONT_WAIT, NULL, at(&16u32))
    }),
    Attempt::deadly("recvmsg on a connection, for descriptors", |s| {
        door(libc::SYS_recvmsg, &[s.fd(Fd::Connections), NULL, DONT_WAIT])
    }),
    Attempt::deadly("recvmsg on the link, for descriptors", |s| {
        door(libc::SYS_recvmsg, &[s.fd(Fd::Link), NULL, DONT_WAIT])
    }),
    Attempt::deadly("sendto on the link", |s| send(s.fd(Fd::Link), NO_SIGNAL, NULL)),
    Attempt::deadly("sendto on the listener", |s| send(s.fd(Fd::Listener), NO_SIGNAL, NULL)),
    Attempt::deadly("sendto with MSG_FASTOPEN", |s| send(s.fd(Fd::Connections), NO_SIGNAL | FAST_OPEN, NULL)),
    Attempt::deadly("sendto with MSG_OOB", |s| send(s.fd(Fd::Connections), NO_SIGNAL | 1, NULL)),
    Attempt::deadly("sendto an address", |s| send(s.fd(Fd::Connections), NO_SIGNAL, at(&lo(9)))),
    Attempt::deadly("sendmsg on a connection, with descriptors", |s| {
        door(libc::SYS_sendmsg, &[s.fd(Fd::Connections), NULL, NO_SIGNAL])
    }),
    Attempt::deadly("sendmsg on the link, with descriptors", |s| {
        door(libc::SYS_sendmsg, &[s.fd(Fd::Link), NULL, NO_SIGNAL])
    }),
    Attempt::deadly("sendfile to a connection", |s| door(libc::SYS_sendfile, &[s.fd(Fd::Connections), 0, NULL, 1])),
    Attempt::deadly("splice", |s| door(libc::SYS_splice, &[s.fd(Fd::Connections), NULL, s.fd(Fd::Link), NULL, 1, 0])),
    // The descriptors must keep their meaning, because the policy refers to them by number.
    Attempt::deadly("dup the listener", |s| door(libc::SYS_dup, &[s.fd(Fd::Listener)])),
    Attempt::deadly("dup3 the link over the listener", |s| {
        door(libc::SYS_dup3, &[s.fd(Fd::Link), s.fd(Fd::Listener), 0])
    }),
    Attempt::deadly("fcntl F_DUPFD the listener", |s| door(libc::SYS_fcntl, &[s.fd(Fd::Listener), 0, 0])),
    Attempt::deadly("fcntl F_SETFL the listener", |s| door(libc::SYS_fcntl, &[s.fd(Fd::Listener), 4, 0])),
    Attempt::deadly("ioctl SIOCGIFCONF on the listener", |s| {
        door(libc::SYS_ioctl, &[s.fd(Fd::Listener), 0x8912, s.page])
    }),
];

const ALLOWED: &[Attempt] = &[
    Attempt::lives("read on the link", |s| door(libc::SYS_read, &[s.fd(Fd::Link), s.page, 0])),
    Attempt::succeeds("write on the link", |s| door(libc::SYS_write, &[s.fd(Fd::Link), at(b"w"), 1])),
    Attempt::succeeds("serve a request", serve),
    Attempt::succeeds("ppoll", |_| door(libc::SYS_ppoll, &[NULL, 0, at(&[0u64; 2]), NULL, 8])),
    #[cfg(target_arch = "x86_64")]
    Attempt::succeeds("poll", |_| door(libc::SYS_poll, &[NULL, 0, 0])),
];

/// Accepts, reads, answers, ends the answer and closes; returns the first error.
fn serve(s: &Context) -> i64 {
    let Ok(fd) = u64::try_from(accept(s.fd(Fd::Listener), NULL, QUIET)) else { return -1 };
    if fd != s.fd(Fd::Connections) {
        return -i64::from(libc::EBADF);
    }
    let steps: [fn(&Context, u64) -> i64; 4] = [
        |s, fd| receive(s, fd, 0, NULL, NULL),
        |_, fd| send(fd, NO_SIGNAL, NULL),
        |_, fd| door(libc::SYS_shutdown, &[fd, SHUT_WR]),
        |_, fd| door(libc::SYS_close, &[fd]),
    ];
    steps.into_iter().map(|step| step(s, fd)).find(|answer| *answer < 0).unwrap_or(0)
}

const fn lo(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: 2,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: 0x7f00_0001u32.to_be() },
        sin_zero: [0; 8],
    }
}

fn accept(fd: u64, address: u64, flags: u64) -> i64 {
    door(libc::SYS_accept4, &[fd, address, NULL, flags])
}

fn receive(s: &Context, fd: u64, flags: u64, address: u64, length: u64) -> i64 {
    door(libc::SYS_recvfrom, &[fd, s.page, 64, flags, address, length])
}

fn send(fd: u64, flags: u64, address: u64) -> i64 {
    door(libc::SYS_sendto, &[fd, at(b"x"), 1, flags, address, 0])
}

fn set(fd: u64, level: u64, option: u64) -> i64 {
    door(libc::SYS_setsockopt, &[fd, level, option, at(&1u32), 4])
}
