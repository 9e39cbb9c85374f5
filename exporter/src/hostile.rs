//! For tests only (feature `hostile`): a hostile exporter, in the real one's sandbox and with nothing but its link and the
//! listener. The first request says what it does from then on; while nobody orders anything it is honest, after the first
//! request.
//!
//! ```text
//!  /hostile/half      sends what is no message: halves, nothing, too much
//!  /hostile/turn      says what is a message, out of turn
//!  /hostile/flood     asks for every document as often as it can, and reads none
//!  /hostile/greedy    asks for every document as often as it may, and reads them
//!  /hostile/silent    says and hears nothing
//!  /hostile/socket    opens a socket, for which its sandbox kills it
//! ```

use crate::clock::{self, SECOND};
use loaded_ipc::{Document, ExporterSupervisorLink, FromExporter, LinkError, MAX_LARGE_FRAME};
use loaded_sandbox::accept;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, socket};
use nix::unistd::{close, write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// Waits for the first request and does what it orders.
///
/// # Errors
/// The link has ended.
pub(crate) fn play(link: &ExporterSupervisorLink, listener: BorrowedFd<'_>) -> Result<(), LinkError> {
    let mut request = [0; 64];
    let Some(length) = first(link, listener, &mut request)? else { return Ok(()) };
    let path = request[..length].split(|byte| *byte == b' ').nth(1);
    match path.and_then(|path| path.strip_prefix(b"/hostile/")) {
        Some(b"half") => linger(link, || match write(link, &half()[..]) {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }),
        Some(b"turn") => linger(link, || link.send(&FromExporter::Prepared)),
        Some(b"flood") => loop {
            say_all(link)?;
        },
        Some(b"greedy") => loop {
            say_all(link)?;
            while link.receive().is_ok() {}
            wait(link, SECOND / 20)?;
        },
        Some(b"silent") => loop {
            wait(link, SECOND)?;
        },
        Some(b"socket") => {
            let _ = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The first bytes that anybody sends.
fn first(
    link: &ExporterSupervisorLink,
    listener: BorrowedFd<'_>,
    request: &mut [u8],
) -> Result<Option<usize>, LinkError> {
    let polled = |fd| PollFd::new(fd, PollFlags::POLLIN);
    loop {
        let mut both = [polled(link.as_fd()), polled(listener)];
        if ppoll(&mut both, Some(clock::timespec(SECOND)), None) == Ok(0) {
            link.send(&FromExporter::Alive)?;
            continue;
        }
        if both[0].any() == Some(true) {
            return Ok(None);
        }
        let Ok(socket) = accept(listener) else { continue };
        let _ = ppoll(&mut [polled(socket.as_fd())], Some(clock::timespec(SECOND)), None);
        let received = recv(socket.as_raw_fd(), request, MsgFlags::empty());
        // By hand: dropping it would call fcntl(2) first.
        let _ = close(socket);
        return Ok(received.ok());
    }
}

/// No message of this direction, of one of many lengths.
fn half() -> Vec<u8> {
    let lengths = [0, 1, 3, 9, MAX_LARGE_FRAME, 2 * MAX_LARGE_FRAME];
    vec![0xff; lengths[usize::try_from(clock::now() % 6).unwrap_or(0)]]
}

fn say_all(link: &ExporterSupervisorLink) -> Result<(), LinkError> {
    for document in Document::ALL {
        match link.send(&FromExporter::Wanted(document)) {
            Ok(()) | Err(LinkError::Full) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Repeats `say` for as long as it is left alive.
fn linger(link: &ExporterSupervisorLink, say: impl Fn() -> Result<(), LinkError>) -> Result<(), LinkError> {
    loop {
        say()?;
        wait(link, SECOND)?;
    }
}

/// Microseconds; less when the link ends.
fn wait(link: &ExporterSupervisorLink, time: u64) -> Result<(), LinkError> {
    match ppoll(&mut [PollFd::new(link.as_fd(), PollFlags::empty())], Some(clock::timespec(time)), None) {
        Ok(0) | Err(Errno::EINTR) => Ok(()),
        Ok(_) => Err(LinkError::Closed),
        Err(errno) => Err(errno.into()),
    }
}
