//! What the kernel announces over netlink. An announcement is an alarm, no account: whoever hears it looks at things as they
//! are, so a lost one costs nothing but another look.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Most datagrams read at once; the descriptor stays readable if there are more.
const MOST: usize = 256;
/// Room for a datagram, bytes. What is longer counts as lost.
const ROOM: usize = 1 << 16;

/// A subscription to groups of announcements in this network namespace.
#[derive(Debug)]
pub struct Subscription {
    socket: OwnedFd,
    /// Kept, for the loop asks at every turn: where nothing was announced that costs one system call and no more.
    buffer: Vec<u8>,
}

impl Subscription {
    /// Subscribes to these groups of a netlink family, by their numbers, 1 to 32.
    ///
    /// # Errors
    /// If this kernel lacks the family, or the process the right to hear it.
    pub fn open(family: SockProtocol, groups: &[u32]) -> Result<Self, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, family)?;
        let groups = groups.iter().fold(0, |groups, group| groups | 1 << (group - 1));
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        Ok(Self { socket, buffer: vec![0; ROOM] })
    }

    /// Hands over each datagram that is there, without waiting; `None` where some were cut off or lost.
    pub fn read(&mut self, mut heard: impl FnMut(Option<&[u8]>)) {
        for _ in 0..MOST {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => heard(self.buffer.get(..length)),
                Err(Errno::EAGAIN) => break,
                // ENOBUFS: more has happened than the socket holds.
                Err(_) => heard(None),
            }
        }
    }
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
