//! The sockets of checks: opened, lent and given back, and what their errors say.

use loaded_ipc::Cause;
use loaded_sandbox::disconnect;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, socket};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

/// The probe's own socket, or a new one; also returns which.
pub(super) fn take(marked: &mut Option<OwnedFd>, to: SocketAddr, kind: SockType) -> Result<(OwnedFd, bool), Cause> {
    match marked.take() {
        Some(socket) => Ok((socket, true)),
        None => open(to, kind).map(|socket| (socket, false)),
    }
}

/// Ends a socket's connection so that it can connect again; a TCP server sees a reset. The socket also forgets its own
/// address and port, so it keeps working when the route to the backend changes.
pub(super) fn give_up(socket: &OwnedFd) {
    // An error needs no handling: the next connect meets it again, and that is a result. The abort leaves an error of
    // its own, which the next connect clears (tcp_connect_init, net/ipv4/tcp_output.c).
    let _ = disconnect(socket.as_fd());
}

/// Opens a socket for a check. All flags are given here: the sandbox allows neither fcntl nor setsockopt.
fn open(to: SocketAddr, kind: SockType) -> Result<OwnedFd, Cause> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None).map_err(cause_of)
}

/// Closes by hand: dropping would call fcntl(2) first where the standard library was built with checks.
pub(super) fn close(socket: OwnedFd) {
    // An error needs no handling: the number is free in any case (close(2)).
    let _ = nix::unistd::close(socket);
}

pub(super) fn sockaddr(to: SocketAddr) -> SockaddrStorage {
    SockaddrStorage::from(to)
}

/// What an error of a socket says about the backend.
pub(super) fn cause_of(errno: Errno) -> Cause {
    match errno {
        // Our fault, not the backend's: descriptors, memory, and local ports or addresses (ip(7), connect(2)).
        Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS | Errno::EAGAIN | Errno::EADDRNOTAVAIL => {
            Cause::NotMade
        }
        Errno::ECONNREFUSED => Cause::Refused,
        Errno::ETIMEDOUT => Cause::ConnectTimeout,
        Errno::ECONNRESET | Errno::EPIPE => Cause::Closed,
        // Host and network unreachable, prohibited, no route, no such family.
        _ => Cause::Unreachable,
    }
}
