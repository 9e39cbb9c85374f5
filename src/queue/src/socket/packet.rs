//! What a worker does with a received packet: reads it, changes it, and gives it its one verdict.

use super::{Held, Meta, Packet, Verdict};
use crate::layout::{self, Body, MARKED, VERDICT_ATTR};
use crate::netlink::{ATTR, NF_ACCEPT, NF_DROP, NF_REPEAT, NFQA_MARK, NFQA_PAYLOAD};

/// The length field of an attribute with a 32-bit value.
const MARK_ATTR_LENGTH: u16 = 8;

impl Packet<'_> {
    /// Its id in the queue: rises by one with each packet, modulo 2^32.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.arrived.id
    }

    /// What the kernel says about it.
    #[must_use]
    pub fn meta(&self) -> Meta {
        self.arrived.into()
    }

    /// Its bytes, starting with the network header.
    #[must_use]
    pub fn bytes(&mut self) -> &mut [u8] {
        self.socket.arena.payload_mut(self.slot, self.arrived.length)
    }

    /// Its bytes and up to [`crate::SPARE`] more; fewer only if it is close to the maximum length. The spare bytes hold
    /// leftovers, not packet data: write them before sending them. Finish with [`Packet::settle_resized`].
    #[must_use]
    pub fn room(&mut self) -> &mut [u8] {
        self.socket.arena.payload_mut(self.slot, layout::room(self.arrived.length))
    }

    /// Answers it. A packet that was cut is dropped, never rewritten: its missing bytes would be lost.
    pub fn settle(mut self, verdict: Verdict) {
        let verdict = if self.arrived.cut && verdict != Verdict::Accept { Verdict::Drop } else { verdict };
        self.answer(verdict, self.arrived.length);
    }

    /// Lets it continue as it came, with `bits` in the part of its mark that `mask` selects; the rest of the mark
    /// stays. No content is sent back, so a packet that was cut can continue too.
    pub fn settle_marked(mut self, bits: u32, mask: u32) {
        let mark = self.arrived.mark & !mask | bits & mask;
        self.write_verdict(NF_ACCEPT);
        let bytes = self.socket.arena.body_mut(self.slot);
        bytes[12..14].copy_from_slice(&MARK_ATTR_LENGTH.to_ne_bytes());
        bytes[14..16].copy_from_slice(&NFQA_MARK.to_ne_bytes());
        bytes[16..20].copy_from_slice(&mark.to_be_bytes());
        self.socket.batch.bodies[self.slot] = Body::Marked;
    }

    /// Answers it with the first `length` bytes of its [`Packet::room`], that is, with another packet in its place;
    /// this works for a packet that was cut, too. A length below 20 or beyond the room drops it and counts as
    /// [`crate::Faults::unfit`]. [`Verdict::Drop`] and [`Verdict::Accept`] ignore the length.
    ///
    /// The kernel trims or grows the packet and then takes its checksum as complete (`CHECKSUM_NONE`; `nfqnl_mangle`,
    /// net/netfilter/nfnetlink_queue.c). A GSO packet stays one: its segment size is not touched. If it is then no
    /// longer than one segment, it passes the hooks but is *dropped* where a device or the stack would segment it
    /// (`tcp_gso_segment`, net/ipv4/tcp_offload.c: EINVAL). So the answer to a GSO packet is lost, and the sender gets
    /// the one to its retransmission, a single segment.
    pub fn settle_resized(mut self, verdict: Verdict, length: usize) {
        let sends_bytes = matches!(verdict, Verdict::Rewrite | Verdict::Repeat);
        if sends_bytes && !layout::fits(length, self.arrived.length) {
            self.socket.faults.unfit += 1;
            return self.answer(Verdict::Drop, 0);
        }
        self.answer(verdict, length);
    }

    /// Defers the verdict: the packet stays in the kernel, its bytes here are lost. [`crate::QueueSocket::release`] answers it.
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
            let bytes = self.socket.arena.body_mut(self.slot);
            // The length without padding; with it the kernel would see a longer packet.
            let attr = u16::try_from(ATTR + length).unwrap_or(u16::MAX);
            bytes[12..14].copy_from_slice(&attr.to_ne_bytes());
            bytes[14..16].copy_from_slice(&NFQA_PAYLOAD.to_ne_bytes());
        }
        self.socket.batch.bodies[self.slot] = body;
    }

    fn write_verdict(&mut self, code: u32) {
        self.answered = true;
        self.socket.put_verdict(self.slot, code, self.arrived.id);
    }
}

impl Drop for Packet<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.socket.faults.defaulted += 1;
            self.answer(Verdict::Drop, 0);
        }
    }
}

const _: () = assert!(VERDICT_ATTR + MARK_ATTR_LENGTH as usize == MARKED);
