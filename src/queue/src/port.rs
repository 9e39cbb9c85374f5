//! A worker's side of a queue: receive packets in batches, answer each exactly once.

#[cfg(feature = "hostile")]
mod hostile;

use crate::arena::Arena;
use crate::layout::{self, BATCH, Body, HEADROOM, MARKED, PAYLOAD_AT, VERDICT_ATTR};
use crate::netlink::{
    self, ATTR, Arrived, HEADERS, Incoming, NF_ACCEPT, NF_DROP, NF_REPEAT, NFQA_FILLER, NFQA_MARK, NFQA_PAYLOAD,
    NFQA_VERDICT_HDR,
};
use crate::template::Templates;
use nix::errno::Errno;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};

/// An attribute with a 32-bit value, as its length field has it.
const MARK_ATTR_LENGTH: u16 = 8;
/// [`VERDICT_ATTR`] as an attribute's length field has it.
const VERDICT_ATTR_LENGTH: u16 = 12;

/// Receives the packets of one queue and answers them through pinned templates. Nothing here allocates after
/// [`Port::open`].
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
    templates: Templates,
    arena: Arena,
    batch: Batch,
    faults: Faults,
}

/// The packets received and not yet sent back.
#[derive(Debug)]
struct Batch {
    arrived: [Option<Arrived>; BATCH],
    bodies: [Body; BATCH],
    received: usize,
    next: usize,
}

/// What went wrong without harm to the queue; rising counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    /// The kernel did not know a packet's id any more (ENOENT): its queue was flushed meanwhile.
    pub unknown_id: u64,
    /// The kernel refused a verdict for another reason.
    pub refused: u64,
    /// A send failed twice; its packets wait until the queue's owner replays them.
    pub unsent: u64,
    /// Messages that are neither packets nor answers.
    pub strange: u64,
    /// Tokens that were dropped without a verdict and so dropped their packet.
    pub defaulted: u64,
    /// New lengths that a packet cannot have or that leave its room; its packet was dropped.
    pub unfit: u64,
}

/// What the kernel says about a packet beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// The packet was longer than 65,531 bytes and was cut. Its content must never be sent back.
    pub cut: bool,
    /// The transport checksum is only the pseudo header's sum.
    pub partial: bool,
    /// To be cut into segments on its way out; the kernel then makes each segment's checksum.
    pub gso: bool,
}

/// A received packet that is owed one verdict. Dropped without one, it drops the packet.
#[must_use = "a packet without a verdict waits in the kernel for ever"]
#[derive(Debug)]
pub struct Packet<'p> {
    port: &'p mut Port,
    slot: usize,
    arrived: Arrived,
    answered: bool,
}

/// How a packet ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Discard it.
    Drop,
    /// Let it go on as it came; changes to its bytes are lost.
    Accept,
    /// Let it go on with its new bytes.
    Rewrite,
    /// Send it, with its new bytes, through the hook's rules once more.
    Repeat,
}

/// A packet that waits in the kernel for its verdict beyond its batch. If this is lost, it waits until the queue's owner
/// replays it.
#[must_use = "a packet without a verdict waits in the kernel for ever"]
#[derive(Debug)]
pub struct Held {
    id: u32,
}

/// How a packet that was held ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Discard it.
    Drop,
    /// Send it, as it came, through the hook's rules once more.
    Repeat,
}

impl Port {
    /// Takes over a queue's socket (from its [`crate::Owner`]) in the worker.
    ///
    /// # Errors
    /// When memory for the packets or the sealed templates cannot be had.
    pub fn open(socket: OwnedFd, queue: u16) -> io::Result<Self> {
        let arena = Arena::new()?;
        let templates = Templates::build(queue, arena.address())?;
        let batch = Batch { arrived: [None; BATCH], bodies: [Body::Nothing; BATCH], received: 0, next: 0 };
        Ok(Self { socket, templates, arena, batch, faults: Faults::default() })
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

    /// Counts of what went wrong so far.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Sends the verdicts of the last batch, then receives up to [`BATCH`] packets, waiting at most
    /// [`crate::RECEIVE_TIMEOUT_MS`] for the first. Returns how many came; 0 when the wait ended without one.
    ///
    /// # Errors
    /// When the socket cannot be read any more.
    pub fn receive(&mut self) -> io::Result<usize> {
        while let Some(packet) = self.next() {
            drop(packet);
        }
        self.flush();
        // Should this fail, the last batch must not be answered again.
        (self.batch.next, self.batch.received) = (0, 0);
        self.batch.received = match self.arena.receive(self.socket.as_raw_fd()) {
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

    /// The packets that still wait in this batch, first to last, for looking ahead: each with its id.
    pub fn waiting(&self) -> impl Iterator<Item = (u32, &[u8], Meta)> {
        let slots = self.batch.next..self.batch.received;
        slots.filter_map(|slot| {
            let arrived = self.batch.arrived[slot]?;
            Some((arrived.id, self.arena.payload(slot, arrived.length), arrived.into()))
        })
    }

    /// The next packet of this batch.
    #[expect(clippy::should_implement_trait, reason = "the token borrows the port, which Iterator cannot say")]
    pub fn next(&mut self) -> Option<Packet<'_>> {
        while self.batch.next < self.batch.received {
            let slot = self.batch.next;
            self.batch.next += 1;
            if let Some(arrived) = self.batch.arrived[slot] {
                return Some(Packet { port: self, slot, arrived, answered: false });
            }
        }
        None
    }

    /// Sends the verdicts given so far. [`Port::receive`] does it too.
    pub fn flush(&mut self) {
        let mut at = 0;
        while let Some(run) = layout::next_run(&self.batch.bodies[..self.batch.received], at) {
            for slot in run.first..run.first + run.count {
                self.fill(slot, self.batch.bodies[slot], run.length);
            }
            let message = self.templates.message(run.template);
            // A verdict is carried out inside sendmsg (netlink_unicast_kernel), so a failure means nothing was
            // done: allocating the message failed. Once more, then the owner's replay has to help.
            if send(self.socket.as_raw_fd(), message).is_err() && send(self.socket.as_raw_fd(), message).is_err() {
                self.faults.unsent += run.count as u64;
            }
            at = run.first + run.count;
        }
        for body in &mut self.batch.bodies[..self.batch.received] {
            *body = Body::Nothing;
        }
    }

    /// Answers a packet that was held. It ends the batch: what waits in it yet is dropped, as by [`Port::receive`].
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
            if send(self.socket.as_raw_fd(), message).is_err() && send(self.socket.as_raw_fd(), message).is_err() {
                self.faults.unsent += 1;
            }
        }
    }

    /// Writes a verdict to the beginning of a slot's body.
    fn put_verdict(&mut self, slot: usize, code: u32, id: u32) {
        let bytes = self.arena.body_mut(slot);
        bytes[0..2].copy_from_slice(&VERDICT_ATTR_LENGTH.to_ne_bytes());
        bytes[2..4].copy_from_slice(&NFQA_VERDICT_HDR.to_ne_bytes());
        bytes[4..8].copy_from_slice(&code.to_be_bytes());
        bytes[8..12].copy_from_slice(&id.to_be_bytes());
    }

    /// Closes a body of `length` bytes with a filler attribute.
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

impl Packet<'_> {
    /// Its number in the queue: rises by one with each packet, modulo 2^32.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.arrived.id
    }

    /// What the kernel says about it.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.arrived.into()
    }

    /// Its bytes, from the network header on.
    #[must_use]
    pub fn bytes(&mut self) -> &mut [u8] {
        self.port.arena.payload_mut(self.slot, self.arrived.length)
    }

    /// Its bytes and up to [`crate::SPARE`] more, fewer only where it has nearly the largest length there is. What the
    /// spare bytes hold is of no packet: whoever sends them must have written them. End it with
    /// [`Packet::settle_resized`].
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        self.port.arena.payload_mut(self.slot, layout::room(self.arrived.length))
    }

    /// Answers it. A packet that was cut is never rewritten: what is missing would be lost, so it is dropped.
    pub fn settle(mut self, verdict: Verdict) {
        let verdict = if self.arrived.cut && verdict != Verdict::Accept { Verdict::Drop } else { verdict };
        self.answer(verdict, self.arrived.length);
    }

    /// Lets it go on as it came, with `bits` in the part of its mark that `mask` names; the rest of the mark stays. Nothing
    /// of its content is sent back, so one that was cut can go on too.
    pub fn settle_marked(mut self, bits: u32, mask: u32) {
        let mark = self.arrived.mark & !mask | bits & mask;
        self.write_verdict(NF_ACCEPT);
        let bytes = self.port.arena.body_mut(self.slot);
        bytes[12..14].copy_from_slice(&MARK_ATTR_LENGTH.to_ne_bytes());
        bytes[14..16].copy_from_slice(&NFQA_MARK.to_ne_bytes());
        bytes[16..20].copy_from_slice(&mark.to_be_bytes());
        self.port.batch.bodies[self.slot] = Body::Marked;
    }

    /// Answers it with the first `length` bytes of its [`Packet::room`]: with another packet in its place. So a
    /// packet that was cut can be answered too. A length below 20 or beyond the room drops it and is counted as
    /// [`Faults::unfit`]. For [`Verdict::Drop`] and [`Verdict::Accept`] the length means nothing.
    ///
    /// The kernel trims or grows the packet and then takes its checksum as `CHECKSUM_NONE`, that is complete
    /// (`nfqnl_mangle`, net/netfilter/nfnetlink_queue.c). A GSO packet stays one: its segment size is not touched. Made
    /// so short that it is no longer than one segment, it passes the hooks and is then *dropped* where a device or
    /// the stack would cut it up (`tcp_gso_segment`, net/ipv4/tcp_offload.c: EINVAL). So the answer to a GSO packet
    /// is lost, and the sender gets the one to its retransmission, a single segment.
    pub fn settle_resized(mut self, verdict: Verdict, length: usize) {
        let sends_bytes = matches!(verdict, Verdict::Rewrite | Verdict::Repeat);
        if sends_bytes && !layout::fits(length, self.arrived.length) {
            self.port.faults.unfit += 1;
            return self.answer(Verdict::Drop, 0);
        }
        self.answer(verdict, length);
    }

    /// Gives no verdict yet: the packet stays in the kernel, its bytes here are lost. [`Port::release`] answers it.
    pub fn hold(mut self) -> Held {
        self.answered = true;
        Held { id: self.arrived.id }
    }

    fn answer(&mut self, verdict: Verdict, length: usize) {
        let (code, body) = match verdict {
            Verdict::Drop => (NF_DROP, Body::Bare),
            Verdict::Accept => (NF_ACCEPT, Body::Bare),
            Verdict::Rewrite => (NF_ACCEPT, Body::Payload(length)),
            Verdict::Repeat => (NF_REPEAT, Body::Payload(length)),
        };
        self.write_verdict(code);
        if let Body::Payload(length) = body {
            let bytes = self.port.arena.body_mut(self.slot);
            // The length without padding: with it the kernel would see a longer packet.
            let attr = u16::try_from(ATTR + length).unwrap_or(u16::MAX);
            bytes[12..14].copy_from_slice(&attr.to_ne_bytes());
            bytes[14..16].copy_from_slice(&NFQA_PAYLOAD.to_ne_bytes());
        }
        self.port.batch.bodies[self.slot] = body;
    }

    fn write_verdict(&mut self, code: u32) {
        self.answered = true;
        self.port.put_verdict(self.slot, code, self.arrived.id);
    }
}

impl Drop for Packet<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.port.faults.defaulted += 1;
            self.answer(Verdict::Drop, 0);
        }
    }
}

fn send(socket: i32, message: *const libc::msghdr) -> Result<(), Errno> {
    // SAFETY: `message` is one of the sealed templates: its iovecs name sealed headers and bodies of this port's
    // arena, both mapped as long as the port lives.
    Errno::result(unsafe { libc::sendmsg(socket, message, 0) }).map(drop)
}

const _: () = assert!(HEADERS + ATTR <= HEADROOM && PAYLOAD_AT == VERDICT_ATTR + ATTR);
const _: () = assert!(VERDICT_ATTR_LENGTH as usize == VERDICT_ATTR);
const _: () = assert!(VERDICT_ATTR + MARK_ATTR_LENGTH as usize == MARKED);
