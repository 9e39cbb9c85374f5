//! A question, and all that answers it.

use crate::{Request, messages, number};
use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType};
use nix::sys::socket::{recv, sendto, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsRawFd, OwnedFd};

/// Most datagrams of one answer: the kernel fills 32 KiB each, some 400 entries.
const MOST: usize = 4096;
/// Room for a datagram, bytes.
const ROOM: usize = 1 << 16;
/// Longest wait for the next datagram, milliseconds. The kernel answers within the call that sends, or that reads on in a list.
const WAIT: i64 = 1000;

/// A socket that asks one thing at a time.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
    /// For answers; kept, since there may be thousands of questions.
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens one, of rtnetlink or netfilter.
    ///
    /// # Errors
    /// If this kernel lacks the family, or no descriptor is left.
    pub fn open(family: SockProtocol) -> Result<Self, Errno> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, family)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(WAIT))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; ROOM] })
    }

    /// Sends a request and hands over type and body of each message that answers it.
    ///
    /// # Errors
    /// What the kernel answers; E2BIG where the answer has no end, EAGAIN where it does not come.
    pub fn ask(&mut self, request: Request, mut each: impl FnMut(u16, &[u8])) -> Result<(), Errno> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request.finish(self.sequence);
        sendto(self.socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        for _ in 0..MOST {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let answers = messages(self.buffer.get(..length).unwrap_or_default());
            // An earlier question's are left over where it was given up.
            for message in answers.filter(|message| message.sequence == self.sequence) {
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => return end(message.body),
                    kind => each(kind, message.body),
                }
            }
        }
        Err(Errno::E2BIG)
    }
}

/// A negative errno, or 0 for done: `struct nlmsgerr`, and what netlink_dump_done (net/netlink/af_netlink.c) says of a list.
fn end(body: &[u8]) -> Result<(), Errno> {
    match number(body, 0).map(u32::cast_signed) {
        Some(0) => Ok(()),
        Some(code) => Err(Errno::from_raw(code.saturating_neg())),
        None => Err(Errno::EPROTO),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    /// RTM_GETLINK, RTM_NEWLINK and bytes of a `struct ifinfomsg` (include/uapi/linux/rtnetlink.h).
    const GET_LINK: u16 = 18;
    const NEW_LINK: u16 = 16;
    const IFINFOMSG: usize = 16;

    #[test]
    fn the_kernel_lists_and_answers_and_refuses() {
        let mut socket = Socket::open(SockProtocol::NetlinkRoute).unwrap();
        let mut listed = 0;
        let list = Request::new(GET_LINK, Request::DUMP).body(&[0; IFINFOMSG]);
        socket.ask(list.clone(), |kind, _| listed += u32::from(kind == NEW_LINK)).unwrap();
        assert!(listed > 0);
        let of = |index: u32| {
            let mut body = [0; IFINFOMSG];
            body[4..8].copy_from_slice(&index.to_ne_bytes());
            Request::new(GET_LINK, 0).body(&body)
        };
        assert_eq!(socket.ask(of(u32::MAX >> 1), |_, _| ()), Err(Errno::ENODEV));
        let mut again = 0;
        socket.ask(list, |_, _| again += 1).unwrap();
        assert_eq!(again, listed, "what the one before has left is no answer");
    }
}
