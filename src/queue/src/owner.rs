//! The owner of a queue: binds it, configures it, and keeps it alive while workers come and go.
//!
//! A queue belongs to the netlink *socket* that bound it (net/netfilter/nfnetlink_queue.c, `peer_portid`) and
//! ends with the last file descriptor of that socket. The supervisor keeps one; the worker gets another.
//!
//! The `nfq` crate (0.2.5) cannot take this place: it hands its file descriptor to nobody, and each of its
//! configuration calls after the bind throws away packets that arrive while it waits for the answer. Tests read with it
//! as a second opinion.

use crate::netlink::{self, Incoming, NF_DROP, NF_REPEAT};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send, setsockopt,
    socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// How long a worker's blocking receive waits before the worker sees to its other duties, milliseconds. Bounds how late
/// it sees a message from the supervisor when no packets come.
pub const RECEIVE_TIMEOUT_MS: i64 = 50;

/// Socket buffer for each waiting packet. The kernel charges the whole skb (`truesize`), not the payload; a small
/// packet costs about 1 KiB.
const BUFFER_PER_PACKET: usize = 2048;
/// Room for 256 GSO packets of 64 KiB, whatever the queue length.
const MIN_BUFFER: usize = 32 << 20;
/// Limits the kernel memory that one queue can pin.
const MAX_BUFFER: usize = 256 << 20;
/// Maximum number of kernel answers discarded on the way to the first waiting packet: some 50 ms of work. A hostile
/// worker can fill the buffer with them.
const MAX_ANSWERS: u32 = 1 << 15;
/// A batch of verdicts is at most 66 KiB, charged about twice.
const SEND_BUFFER: usize = 256 << 10;
/// How long the kernel may take to acknowledge the configuration, milliseconds.
const CONFIGURE_TIMEOUT_MS: i64 = 2000;

/// A bound and configured queue.
#[derive(Debug)]
pub struct Owner {
    socket: OwnedFd,
    queue: u16,
}

/// What happens to packets that find `max_len` others waiting or the socket's buffer full: the kernel has one flag for
/// both (`nfqnl_enqueue_packet`, net/netfilter/nfnetlink_queue.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// They are dropped and counted.
    Drop,
    /// They continue as they came, and the kernel counts them nowhere.
    Pass,
}

/// What happens to packets whose worker died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// They pass the hook again and reach the next worker.
    Repeat,
    /// As `Repeat`, but the packet with this id is dropped: it has killed workers. If none has this id, all repeat.
    RepeatWithout(u32),
    /// They are dropped: one of them may be what kills workers.
    Drop,
}

/// Why a queue could not be opened or controlled.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The kernel says EPERM: another socket owns the queue, or CAP_NET_ADMIN is missing.
    #[error("queue {0}: the kernel refuses to bind it: another process owns it, or CAP_NET_ADMIN is missing")]
    Refused(u16),
    /// Another step failed.
    #[error("queue {queue}: {act}: {errno}")]
    Os {
        /// The queue.
        queue: u16,
        /// The attempted step.
        act: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Owner {
    /// Opens a netlink socket, binds `queue` and configures it in one message, before any rule feeds it. `max_len`:
    /// packets that may wait, 1..=10_485_760.
    ///
    /// # Errors
    /// [`OwnerError::Refused`] if the queue already has an owner.
    pub fn open(queue: u16, max_len: u32) -> Result<Self, OwnerError> {
        Self::open_for(queue, max_len, Overflow::Drop)
    }

    /// As [`Owner::open`], with a choice of what happens to packets that find the queue full.
    ///
    /// # Errors
    /// As [`Owner::open`].
    pub fn open_for(queue: u16, max_len: u32, overflow: Overflow) -> Result<Self, OwnerError> {
        let fail = |act| move |errno| OwnerError::Os { queue, act, errno };
        let socket =
            socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)
                .map_err(fail("open a netlink socket (kernel without nfnetlink?)"))?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(fail("bind the netlink socket"))?;
        no_enobufs(&socket).map_err(fail("set NETLINK_NO_ENOBUFS"))?;
        setsockopt(&socket, sockopt::RcvBufForce, &receive_buffer(max_len)).map_err(fail("size the receive buffer"))?;
        // A verdict with a payload of 64 KiB must fit; sysctl net.core.wmem_default may be less.
        setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).map_err(fail("size the send buffer"))?;
        let wait = |ms| setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ms));

        wait(CONFIGURE_TIMEOUT_MS).map_err(fail("set a receive timeout"))?;
        send(socket.as_raw_fd(), &netlink::bind_message(queue, max_len, overflow == Overflow::Pass), MsgFlags::empty())
            .map_err(fail("send the configuration (kernel without nfnetlink_queue?)"))?;
        let mut answer = [0; 512];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())
            .map_err(fail("wait for the configuration's answer"))?;
        match netlink::parse(&answer[..length]) {
            Incoming::Answer(0) => {}
            Incoming::Answer(libc::EPERM) => return Err(OwnerError::Refused(queue)),
            Incoming::Answer(e) => return Err(fail("configure")(Errno::from_raw(e))),
            _ => return Err(fail("configure: unexpected answer")(Errno::EPROTO)),
        }
        wait(RECEIVE_TIMEOUT_MS).map_err(fail("set a receive timeout"))?;
        Ok(Self { socket, queue })
    }

    /// Takes over the socket of a queue that another process bound and configured.
    ///
    /// # Errors
    /// If the kernel's list does not name this socket (`portid`, its second column) as the owner of `queue`.
    pub fn adopt(socket: OwnedFd, queue: u16, portid: u32) -> Result<Self, OwnerError> {
        match is_port(socket.as_fd(), portid) {
            true => Ok(Self { socket, queue }),
            false => {
                let act = "take over its socket: another one owns the queue";
                Err(OwnerError::Os { queue, act, errno: Errno::EBADF })
            }
        }
    }

    /// Releases the packets that a dead worker read and did not answer: they would wait in the kernel forever and use
    /// up the queue's length. Call it while nobody reads the queue.
    ///
    /// `last_id` is the queue's id sequence (column 8 of /proc/net/netfilter/nfnetlink_queue), read just before. Ids
    /// rise, so everything older than the first packet still in the socket is an orphan; if the socket holds none,
    /// everything up to `last_id` is.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn release(&self, orphans: Orphans, last_id: u32) -> Result<(), OwnerError> {
        let (verdict, without) = match orphans {
            Orphans::Repeat => (NF_REPEAT, None),
            Orphans::RepeatWithout(id) => (NF_REPEAT, Some(id)),
            Orphans::Drop => (NF_DROP, None),
        };
        self.release_by(verdict, without, last_id)
    }

    /// As [`Owner::release`], with any verdict; the packet with the id `without`, if it is among them, is dropped.
    pub(crate) fn release_by(&self, verdict: u32, without: Option<u32>, last_id: u32) -> Result<(), OwnerError> {
        let fail = |act| move |errno| OwnerError::Os { queue: self.queue, act, errno };
        let mut message = [0; 256];
        let mut answers = 0;
        let last = loop {
            let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
            match recv(self.socket.as_raw_fd(), &mut message, peek) {
                Err(Errno::EAGAIN) => break last_id,
                Err(errno) => return Err(fail("look at the first waiting packet")(errno)),
                Ok(length) => match message.get(..length).and_then(netlink::first_id) {
                    Some(first) => break first.wrapping_sub(1),
                    // More than any honest worker leaves: nothing is known, so nothing is done.
                    None if answers == MAX_ANSWERS => return Ok(()),
                    None => answers += 1,
                },
            }
            // The kernel's answer to a verdict of the dead worker; nobody waits for it any more.
            recv(self.socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT).map_err(fail("discard an answer"))?;
        };
        let tell = |message: &[u8]| {
            send(self.socket.as_raw_fd(), message, MsgFlags::empty()).map_err(fail("release orphans")).map(drop)
        };
        // Ids are compared as the kernel does (nfq_id_after). Newer packets wait unread, so no worker held them.
        if let Some(id) = without.filter(|id| last.wrapping_sub(*id) <= u32::MAX / 2) {
            tell(&netlink::single_message(self.queue, NF_DROP, id))?;
        }
        tell(&netlink::batch_message(self.queue, verdict, last))
    }

    /// The queue's number.
    #[must_use]
    pub fn queue(&self) -> u16 {
        self.queue
    }
}

/// Whether this is the netlink socket with this port: the kernel gives a port to one socket of a protocol at a time.
#[must_use]
pub fn is_port(socket: BorrowedFd<'_>, portid: u32) -> bool {
    getsockname::<NetlinkAddr>(socket.as_raw_fd()).is_ok_and(|address| address.pid() == portid)
}

/// The receive buffer to ask the kernel for, bytes, for a queue of this length. The kernel doubles it (sock_setsockopt,
/// net/core/sock.c).
#[must_use]
pub fn receive_buffer(max_len: u32) -> usize {
    (max_len as usize).saturating_mul(BUFFER_PER_PACKET).clamp(MIN_BUFFER, MAX_BUFFER)
}

impl AsFd for Owner {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A full socket buffer must not make every later receive fail. The kernel counts the lost packets in column 7 of
/// /proc/net/netfilter/nfnetlink_queue, where we read them.
fn no_enobufs(socket: &OwnedFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and the length describe `on`, which outlives the call; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            libc::NETLINK_NO_ENOBUFS,
            (&raw const on).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0),
        )
    };
    Errno::result(result).map(drop)
}
