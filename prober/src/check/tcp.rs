//! Connections: started, examined when ready, never waited for.

use super::socket::{cause_of, close, give_up, sockaddr, take};
use loaded_ipc::Cause;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, connect, getsockopt, send as send_bytes, sockopt};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Starts a connection. One established at once is still confirmed by [`connected`].
pub(super) fn connect_to(to: SocketAddr, marked: &mut Option<OwnedFd>) -> Result<OwnedFd, Cause> {
    let (socket, lent) = take(marked, to, SockType::Stream)?;
    match connect(socket.as_raw_fd(), &sockaddr(to)) {
        // An interrupted connect goes on in the background (connect(2)).
        Ok(()) | Err(Errno::EINPROGRESS | Errno::EINTR) => Ok(socket),
        Err(errno) => {
            match lent {
                true => {
                    give_up(&socket);
                    *marked = Some(socket);
                }
                false => close(socket),
            }
            Err(cause_of(errno))
        }
    }
}

/// The outcome of a connection whose socket is ready.
pub(super) fn connected(socket: &OwnedFd) -> Result<(), Cause> {
    match getsockopt(socket, sockopt::SocketError) {
        Ok(0) => Ok(()),
        Ok(error) => Err(cause_of(Errno::from_raw(error))),
        Err(errno) => Err(cause_of(errno)),
    }
}

/// Why a connection is missing when its time is over. An ICMP error that arrives while connect(2) still holds the
/// socket, as on a short link, does not end the connection; the kernel keeps it (`sk_err_soft` in tcp_v6_err,
/// net/ipv6/tcp_ipv6.c) for whoever asks (sock_getsockopt, net/core/sock.c).
pub(super) fn not_connected(socket: &OwnedFd) -> Cause {
    connected(socket).err().unwrap_or(Cause::ConnectTimeout)
}

/// Sends a whole request on a connection that has sent nothing yet.
pub(super) fn send(socket: &OwnedFd, request: &[u8]) -> Result<(), Cause> {
    match send_bytes(socket.as_raw_fd(), request, MsgFlags::MSG_NOSIGNAL) {
        Ok(sent) if sent == request.len() => Ok(()),
        // A few hundred bytes that do not fit an empty buffer mean the kernel is out of memory.
        Ok(_) => Err(Cause::NotMade),
        Err(errno) => Err(cause_of(errno)),
    }
}
