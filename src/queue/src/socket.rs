//! A worker's end of a queue: receives packets in batches and answers each exactly once.

#[cfg(feature = "hostile")]
mod hostile;
mod packet;

use crate::arena::Arena;
use crate::layout::{self, BATCH, Body, HEADROOM, PAYLOAD_AT, VERDICT_ATTR};
use crate::netlink::{self, ATTR, Arrived, HEADERS, Incoming, NF_DROP, NF_REPEAT, NFQA_FILLER, NFQA_VERDICT_HDR};
use crate::template::Templates;
use nix::errno::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

/// [`VERDICT_ATTR`] as a length field.
const VERDICT_ATTR_LENGTH: u16 = 12;

/// Receives the packets of one queue and answers them through pinned templates. Allocates nothing after [`QueueSocket::open`].
#[derive(Debug)]
pub struct QueueSocket {
    fd: OwnedFd,
    templates: Templates,
    arena: Arena,
    batch: Batch,
    faults: Faults,
}

/// The received packets whose verdicts have not been sent.
#[derive(Debug)]
struct Batch {
    arrived: [Option<Arrived>; BATCH],
    bodies: [Body; BATCH],
    received: usize,
    next: usize,
}

/// Counts of errors that did not harm the queue; they only rise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// The kernel no longer knew a packet's id (ENOENT): its queue had been flushed.
    pub unknown_id: u64,
    /// The kernel refused a verdict for another reason.
    pub refused: u64,
    /// A send failed twice; its packets wait until the queue's owner releases them.
    pub unsent: u64,
    /// Messages that are neither packets nor answers.
    pub strange: u64,
    /// Tokens dropped without a verdict, each of which dropped its packet.
    pub defaulted: u64,
    /// New lengths that a packet cannot have or that exceed its room; its packet was dropped.
    pub unfit: u64,
}

/// What the kernel says about a packet besides its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The packet was longer than 65,531 bytes and was cut. Its content must never be sent back.
    pub cut: bool,
    /// The transport checksum covers only the pseudo header.
    pub partial: bool,
    /// The packet will be segmented on output; the kernel then computes each segment's checksum.
    pub gso: bool,
}

/// A received packet that is owed one verdict. Dropping it without one drops the packet.
#[must_use = "a packet without a verdict waits in the kernel forever"]
#[derive(Debug)]
pub struct Packet<'p> {
    socket: &'p mut QueueSocket,
    slot: usize,
    arrived: Arrived,
    answered: bool,
}

/// What happens to a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Discard it.
    Drop,
    /// Let it continue as it came; changes to its bytes are lost.
    Accept,
    /// Let it continue with its new bytes.
    Rewrite,
    /// Send it, with its new bytes, through the hook's rules again.
    Repeat,
}

/// A packet that still waits in the kernel for its verdict when its batch has ended. If this token is lost, it waits
/// until the queue's owner releases it.
#[must_use = "a packet without a verdict waits in the kernel forever"]
#[derive(Debug)]
pub struct Held {
    id: u32,
}

/// What happens to a held packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Discard it.
    Drop,
    /// Send it, as it came, through the hook's rules again.
    Repeat,
}

impl QueueSocket {
    /// Takes over, in the worker, a queue's socket from its [`crate::Owner`].
    ///
    /// # Errors
    /// When there is no memory for the packets or the sealed templates.
    pub fn open(fd: OwnedFd, queue: u16) -> io::Result<Self> {
        let arena = Arena::new()?;
        let templates = Templates::build(queue, arena.address())?;
        let batch = Batch { arrived: [None; BATCH], bodies: [Body::Nothing; BATCH], received: 0, next: 0 };
        Ok(Self { fd, templates, arena, batch, faults: Faults::default() })
    }

    /// The range a `sendmsg` pointer may lie in, for the seccomp filter.
    #[must_use]
    pub fn pinned(&self) -> Range<u64> {
        self.templates.pinned()
    }

    /// Whether the templates' mapping is `mseal`ed.
    #[must_use]
    pub fn sealed(&self) -> bool {
        self.templates.sealed()
    }

    /// The error counts so far.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Sends the verdicts of the last batch, then receives up to [`BATCH`] packets, waiting at most
    /// [`crate::RECEIVE_TIMEOUT_MS`] for the first. Returns how many came; 0 if the wait timed out.
    ///
    /// # Errors
    /// When the socket can no longer be read.
    pub fn receive(&mut self) -> io::Result<usize> {
        while let Some(packet) = self.next() {
            drop(packet);
        }
        self.flush();
        // If this fails, the last batch must not be answered again.
        (self.batch.next, self.batch.received) = (0, 0);
        self.batch.received = match self.arena.receive(self.fd.as_raw_fd()) {
            Ok(count) => count,
            // ENOBUFS: packets were lost because the socket buffer was full; the kernel counts them.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => 0,
            Err(e) => return Err(e.into()),
        };
        let mut packets = 0;
        for slot in 0..self.batch.received {
            self.batch.bodies[slot] = Body::Nothing;
            self.batch.arrived[slot] = match netlink::parse(self.arena.message(slot)) {
                Incoming::Packet(mut arrived) => {
                    arrived.start = self.arena.settle(slot, arrived.start, arrived.length);
                    packets += 1;
                    Some(arrived)
                }
                Incoming::Answer(0) => None,
                Incoming::Answer(libc::ENOENT) => {
                    self.faults.unknown_id += 1;
                    None
                }
                Incoming::Answer(_) => {
                    self.faults.refused += 1;
                    None
                }
                Incoming::Other => {
                    self.faults.strange += 1;
                    None
                }
            };
        }
        Ok(packets)
    }

    /// The packets still waiting in this batch, in order, each with its id: for looking ahead.
    pub fn waiting(&self) -> impl Iterator<Item = (u32, &[u8], Meta)> {
        let slots = self.batch.next..self.batch.received;
        slots.filter_map(|slot| {
            let arrived = self.batch.arrived[slot]?;
            Some((arrived.id, self.arena.payload(slot, arrived.length), arrived.into()))
        })
    }

    /// The next packet of this batch.
    #[expect(clippy::should_implement_trait, reason = "the token borrows the socket, which Iterator cannot say")]
    pub fn next(&mut self) -> Option<Packet<'_>> {
        while self.batch.next < self.batch.received {
            let slot = self.batch.next;
            self.batch.next += 1;
            if let Some(arrived) = self.batch.arrived[slot] {
                return Some(Packet { socket: self, slot, arrived, answered: false });
            }
        }
        None
    }

    /// Sends the verdicts given so far, as [`QueueSocket::receive`] also does.
    pub fn flush(&mut self) {
        let mut at = 0;
        while let Some(run) = layout::next_run(&self.batch.bodies[..self.batch.received], at) {
            for slot in run.first..run.first + run.count {
                self.fill(slot, self.batch.bodies[slot], run.length);
            }
            let message = self.templates.message(run.template);
            // A verdict is carried out inside sendmsg (netlink_unicast_kernel), so a failure means that nothing was
            // done: the message could not be allocated. Try once more; after that the owner must release the packets.
            if send(self.fd.as_raw_fd(), message).is_err() && send(self.fd.as_raw_fd(), message).is_err() {
                self.faults.unsent += run.count as u64;
            }
            at = run.first + run.count;
        }
        for body in &mut self.batch.bodies[..self.batch.received] {
            *body = Body::Nothing;
        }
    }

    /// Answers a held packet. Ends the batch: packets still waiting in it are dropped, as by [`QueueSocket::receive`].
    pub fn release(&mut self, held: Held, release: Release) {
        const SLOT: usize = 0;
        while let Some(packet) = self.next() {
            drop(packet);
        }
        self.flush();
        let code = if release == Release::Drop { NF_DROP } else { NF_REPEAT };
        self.put_verdict(SLOT, code, held.id);
        let bodies = [Body::Bare];
        if let Some(run) = layout::next_run(&bodies, SLOT) {
            self.fill(SLOT, Body::Bare, run.length);
            let message = self.templates.message(run.template);
            if send(self.fd.as_raw_fd(), message).is_err() && send(self.fd.as_raw_fd(), message).is_err() {
                self.faults.unsent += 1;
            }
        }
    }

    /// Writes a verdict at the start of a slot's body.
    fn put_verdict(&mut self, slot: usize, code: u32, id: u32) {
        let bytes = self.arena.body_mut(slot);
        bytes[0..2].copy_from_slice(&VERDICT_ATTR_LENGTH.to_ne_bytes());
        bytes[2..4].copy_from_slice(&NFQA_VERDICT_HDR.to_ne_bytes());
        bytes[4..8].copy_from_slice(&code.to_be_bytes());
        bytes[8..12].copy_from_slice(&id.to_be_bytes());
    }

    /// Fills a body up to `length` bytes with a filler attribute.
    fn fill(&mut self, slot: usize, body: Body, length: usize) {
        let used = body.used();
        if let Some(rest) = length.checked_sub(used).and_then(|n| u16::try_from(n).ok())
            && usize::from(rest) >= ATTR
        {
            let body = self.arena.body_mut(slot);
            body[used..used + 2].copy_from_slice(&rest.to_ne_bytes());
            body[used + 2..used + ATTR].copy_from_slice(&NFQA_FILLER.to_ne_bytes());
        }
    }
}

impl From<Arrived> for Meta {
    fn from(arrived: Arrived) -> Self {
        Self { cut: arrived.cut, partial: arrived.partial, gso: arrived.gso }
    }
}

fn send(fd: i32, message: *const libc::msghdr) -> Result<(), Errno> {
    // SAFETY: `message` is one of the sealed templates: its iovecs name sealed headers and bodies of this socket's
    // arena, both mapped as long as it lives.
    Errno::result(unsafe { libc::sendmsg(fd, message, 0) }).map(drop)
}

const _: () = assert!(HEADERS + ATTR <= HEADROOM && PAYLOAD_AT == VERDICT_ATTR + ATTR);
const _: () = assert!(VERDICT_ATTR_LENGTH as usize == VERDICT_ATTR);
