//! Datagrams: one sent, and answers looked at until one is right.
//!
//! A wrong answer does not end a check, because anybody can send one with the backend's address on it. It says only at
//! the timeout what to think of the backend.

use super::{cause_of, close, give_up, sockaddr, take};
use loaded_ipc::Cause;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, connect, recv, send};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Longest text of a configured datagram, bytes.
pub(super) const MAX_TEXT: usize = 128;
/// Bytes of an answer that are looked at. A DNS answer without EDNS has no more (RFC 1035 §4.2.1).
const MAX_ANSWER: usize = 512;
/// Late answers thrown away before a socket is used again.
const MAX_LATE: usize = 64;
/// Answers looked at before other checks have their turn.
const AT_ONCE: usize = 4;

/// Sends from a connected socket: it takes answers of this backend only, and is told when the port is closed.
pub(super) fn send_to(to: SocketAddr, message: &[u8], marked: &mut Option<OwnedFd>) -> Result<OwnedFd, Cause> {
    let (socket, lent) = take(marked, to, SockType::Datagram)?;
    if lent {
        drain(&socket);
    }
    let sent = connect(socket.as_raw_fd(), &sockaddr(to))
        .and_then(|()| send(socket.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL));
    match sent {
        Ok(_) => Ok(socket),
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

/// What came too late for the check before is no answer to this one.
fn drain(socket: &OwnedFd) {
    let mut bytes = [0; MAX_ANSWER];
    for _ in 0..MAX_LATE {
        if recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) == Err(Errno::EAGAIN) {
            return;
        }
    }
}

/// Takes what has come. `judge` says what an answer means; none: not what it should be.
pub(super) fn receive(socket: &OwnedFd, wrong: &mut bool, judge: impl Fn(&[u8]) -> Option<Cause>) -> Option<Cause> {
    let mut bytes = [0; MAX_ANSWER];
    for _ in 0..AT_ONCE {
        match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
            Ok(length) => match judge(&bytes[..length]) {
                None => *wrong = true,
                result => return result,
            },
            Err(Errno::EAGAIN | Errno::EINTR) => return None,
            Err(errno) => return Some(cause_of(errno)),
        }
    }
    None
}
