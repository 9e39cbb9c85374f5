//! Datagram checks: one is sent, and answers are examined until one is right.
//!
//! A wrong answer does not end a check, because anybody can send one with the backend's address on it. It only decides
//! what the timeout says of the backend.

use super::socket::{cause_of, close, give_up, sockaddr, take};
use loaded_ipc::Cause;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockType, connect, recv, send};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

/// Longest text of a configured datagram, bytes.
pub(super) const MAX_TEXT: usize = 128;
/// Bytes of an answer that are examined. A DNS answer without EDNS has no more (RFC 1035 §4.2.1).
const MAX_ANSWER: usize = 512;
/// Maximum number of late answers discarded before a socket is used again.
const MAX_LATE: usize = 64;
/// Answers examined before other checks get their turn.
const AT_ONCE: usize = 4;

/// Sends from a connected socket: it accepts answers from this backend only and learns when the port is closed.
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

/// Discards answers that came too late for the previous check.
fn drain(socket: &OwnedFd) {
    let mut bytes = [0; MAX_ANSWER];
    for _ in 0..MAX_LATE {
        if recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()) == Err(Errno::EAGAIN) {
            return;
        }
    }
}

/// Reads what has arrived. `judge` says what an answer means; `None`: it is wrong.
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
