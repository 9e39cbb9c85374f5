//! A link: one end of a Unix `SOCK_SEQPACKET` pair that can send one enum and receive another.
//! The two ends have different types, so no process can send what its peer should.

use crate::message::{MAX_FRAME, MAX_TEXT};
use bincode::{Decode, Encode};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{read, write};
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One end of a link that receives `In` and sends `Out`. `ROOM`: one byte more than a frame may have, since the kernel cuts a
/// longer message and it would look whole.
#[derive(Debug)]
pub struct Link<In, Out, const ROOM: usize = { MAX_FRAME + 1 }> {
    socket: OwnedFd,
    types: PhantomData<fn(Out) -> In>,
}

/// Why a message could not be sent or received. After any of these but `Full` and `Empty` the peer is gone, or out of step
/// and treated as hostile: drop the link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The peer does not read its messages. The supervisor ends such a child.
    #[error("the peer does not read its messages")]
    Full,
    /// Nothing to read now.
    #[error("no message is waiting")]
    Empty,
    /// The peer is gone.
    #[error("the peer closed the link")]
    Closed,
    /// Longer than the link's frames.
    #[error("a message is longer than a frame of this link")]
    TooLong,
    /// Not a message of this direction, or there are bytes after it.
    #[error("a message does not decode: {0}")]
    Malformed(String),
    /// The kernel refused the call.
    #[error("link: {0}")]
    Os(#[from] Errno),
}

impl<In: Decode<()>, Out: Encode, const ROOM: usize> Link<In, Out, ROOM> {
    /// A connected pair, both ends close-on-exec and blocking.
    ///
    /// # Errors
    /// What `socketpair(2)` says.
    pub fn pair() -> Result<(Self, Link<Out, In, ROOM>), LinkError> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self::from_fd(a), Link { socket: b, types: PhantomData }))
    }

    /// Takes over an inherited end.
    #[must_use]
    pub fn from_fd(socket: OwnedFd) -> Self {
        Self { socket, types: PhantomData }
    }

    /// Makes this end (not the peer's) never block.
    ///
    /// # Errors
    /// What `fcntl(2)` says.
    pub fn set_nonblocking(&self) -> Result<(), LinkError> {
        let flags = OFlag::from_bits_retain(fcntl(&self.socket, FcntlArg::F_GETFL)?);
        fcntl(&self.socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// Sends one message. Does not allocate.
    ///
    /// # Errors
    /// [`LinkError::Full`] or [`LinkError::Closed`]; [`LinkError::Malformed`] if it does not fit a frame.
    pub fn send(&self, message: &Out) -> Result<(), LinkError> {
        let mut frame = [0u8; ROOM];
        let length = bincode::encode_into_slice(message, &mut frame[..ROOM - 1], codec::<ROOM>())
            .map_err(|e| LinkError::Malformed(e.to_string()))?;
        loop {
            return match write(&self.socket, &frame[..length]) {
                Ok(_) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => Err(LinkError::Full),
                Err(Errno::EPIPE | Errno::ECONNRESET) => Err(LinkError::Closed),
                Err(e) => Err(LinkError::Os(e)),
            };
        }
    }

    /// Receives one message.
    ///
    /// # Errors
    /// [`LinkError::Empty`] on a non-blocking end with nothing to read; everything else ends the link.
    pub fn receive(&self) -> Result<In, LinkError> {
        let mut frame = [0u8; ROOM];
        let length = loop {
            match read(&self.socket, &mut frame) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(n) => break n,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Err(LinkError::Empty),
                Err(Errno::ECONNRESET) => return Err(LinkError::Closed),
                Err(e) => return Err(LinkError::Os(e)),
            }
        };
        whole::<In, ROOM>(&frame[..length])
    }
}

impl<In, Out, const ROOM: usize> AsFd for Link<In, Out, ROOM> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl<In, Out, const ROOM: usize> From<Link<In, Out, ROOM>> for OwnedFd {
    fn from(link: Link<In, Out, ROOM>) -> Self {
        link.socket
    }
}

/// Decodes one frame of at most [`MAX_FRAME`] bytes: exactly one message, no byte more.
///
/// # Errors
/// [`LinkError::TooLong`] or [`LinkError::Malformed`].
pub fn decode<In: Decode<()>>(frame: &[u8]) -> Result<In, LinkError> {
    whole::<In, { MAX_FRAME + 1 }>(frame)
}

fn whole<In: Decode<()>, const ROOM: usize>(frame: &[u8]) -> Result<In, LinkError> {
    if frame.len() >= ROOM {
        return Err(LinkError::TooLong);
    }
    let (message, used) =
        bincode::decode_from_slice(frame, codec::<ROOM>()).map_err(|e| LinkError::Malformed(e.to_string()))?;
    if used == frame.len() { Ok(message) } else { Err(LinkError::Malformed("bytes after the message".into())) }
}

/// Shortens a text to what a message can carry, at a character boundary.
#[must_use]
pub fn clip(mut text: String) -> String {
    let end = text.floor_char_boundary(MAX_TEXT);
    text.truncate(end);
    text
}

/// Writes into a string up to its capacity and drops the rest: inside the sandbox there may be no more memory.
#[derive(Debug)]
pub struct Clipped<'s>(pub &'s mut String);

impl fmt::Write for Clipped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.0.capacity() - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Ok(())
    }
}

fn codec<const ROOM: usize>() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<ROOM>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FromProber, FromWorker, Membership, ToExporter, ToProber, ToWorker};
    use proptest::prelude::*;

    #[test]
    fn a_closed_or_silent_peer_is_told_apart() {
        let (supervisor, worker) = Link::<FromWorker, ToWorker>::pair().expect("pair");
        supervisor.set_nonblocking().expect("nonblocking");
        assert!(matches!(supervisor.receive(), Err(LinkError::Empty)));
        for _ in 0..100_000 {
            match supervisor.send(&ToWorker::Commit) {
                Ok(()) => {}
                Err(LinkError::Full) => {
                    drop(worker);
                    assert!(matches!(supervisor.receive(), Err(LinkError::Closed)));
                    return;
                }
                Err(e) => panic!("{e}"),
            }
        }
        panic!("a peer that never reads was never noticed");
    }

    #[test]
    fn an_oversized_frame_is_refused() {
        let (supervisor, worker) = Link::<FromWorker, ToWorker>::pair().expect("pair");
        write(&worker, &[0u8; MAX_FRAME + 100]).expect("write");
        assert!(matches!(supervisor.receive(), Err(LinkError::TooLong)));
        assert!(matches!(worker.send(&FromWorker::Failed("x".repeat(MAX_FRAME))), Err(LinkError::Malformed(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_to_a_message_or_an_error(frame in prop::collection::vec(any::<u8>(), 0..600)) {
            if let Ok(message) = decode::<ToWorker>(&frame) {
                let mut again = [0u8; MAX_FRAME];
                let n = bincode::encode_into_slice(&message, &mut again, codec::<{ MAX_FRAME + 1 }>()).expect("encode");
                prop_assert_eq!(&again[..n], &frame[..]);
            }
            let _ = decode::<FromWorker>(&frame);
            let _ = decode::<FromProber>(&frame);
            let _ = decode::<Membership>(&frame);
            let _ = (decode::<ToExporter>(&frame), decode::<crate::FromExporter>(&frame));
            if let Ok(message) = decode::<ToProber>(&frame) {
                let mut again = [0u8; MAX_FRAME];
                let n = bincode::encode_into_slice(&message, &mut again, codec::<{ MAX_FRAME + 1 }>()).expect("encode");
                prop_assert_eq!(&again[..n], &frame[..]);
            }
        }

        #[test]
        fn a_clipped_text_fits(text in ".{0,700}") {
            let mut frame = [0u8; MAX_FRAME];
            let encoded = bincode::encode_into_slice(FromWorker::Failed(clip(text)), &mut frame, codec::<{ MAX_FRAME + 1 }>());
            prop_assert!(encoded.is_ok());
        }
    }
}
