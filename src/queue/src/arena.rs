//! The memory that packets are received into and answered from: one slot per packet, see [`crate::layout`].

use crate::layout::{ARENA, BATCH, HEADROOM, PAYLOAD_AT, STRIDE, body_at};
use crate::netlink::{ATTR, HEADERS, MAX_PAYLOAD};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;

/// [`BATCH`] in the type that recvmmsg takes.
const WANTED: libc::c_uint = 32;
const _: () = assert!(WANTED as usize == BATCH);

/// Slots, and the arrays `recvmmsg` fills.
#[derive(Debug)]
pub(crate) struct Arena {
    base: NonNull<u8>,
    messages: Box<[libc::mmsghdr; BATCH]>,
    iovecs: Box<[libc::iovec; BATCH]>,
    /// Bytes expected before the payload. Packets of one interface carry the same attributes, so the last message
    /// predicts the next one.
    prefix: usize,
    /// The prefix that the iovecs are set up for.
    aimed: usize,
    /// Received length of each slot's message.
    lengths: [usize; BATCH],
}

impl Arena {
    pub(crate) fn new() -> io::Result<Self> {
        let length = NonZeroUsize::new(ARENA).ok_or(Errno::EINVAL)?;
        // SAFETY: a new private mapping at an address of the kernel's choice. MAP_POPULATE: the worker's sandbox
        // does not stop page faults, but the hot path should not take them either.
        let base = unsafe {
            mmap_anonymous(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE,
            )?
        };
        // SAFETY: mmsghdr and iovec are plain data; all zeros (null pointers, zero lengths) is a valid value.
        let (messages, iovecs) = unsafe { (Box::new(std::mem::zeroed()), Box::new(std::mem::zeroed())) };
        let mut arena = Self {
            base: base.cast(),
            messages,
            iovecs,
            prefix: HEADERS + 12 + 8 + 16 + 8 + ATTR,
            aimed: usize::MAX,
            lengths: [0; BATCH],
        };
        for slot in 0..BATCH {
            arena.messages[slot].msg_hdr.msg_iov = &raw mut arena.iovecs[slot];
            arena.messages[slot].msg_hdr.msg_iovlen = 1;
        }
        Ok(arena)
    }

    pub(crate) fn address(&self) -> usize {
        self.base.as_ptr() as usize
    }

    /// Waits for one message, then takes whatever else has arrived. Messages are placed so that a payload which begins
    /// where the last one did already lies where the verdict's body needs it: nothing is copied.
    pub(crate) fn receive(&mut self, socket: i32) -> Result<usize, Errno> {
        if self.aimed != self.prefix {
            self.aimed = self.prefix;
            for slot in 0..BATCH {
                let start = self.start(slot);
                self.iovecs[slot].iov_base = self.base.as_ptr().wrapping_add(start).cast();
                self.iovecs[slot].iov_len = (slot + 1) * STRIDE - start;
            }
        }
        // SAFETY: the messages point to this arena's iovecs, and those to disjoint parts of its mapping; no
        // reference into the mapping is alive, for `self` is borrowed mutably. A null timeout is allowed.
        let count = Errno::result(unsafe {
            libc::recvmmsg(socket, self.messages.as_mut_ptr(), WANTED, libc::MSG_WAITFORONE, std::ptr::null_mut())
        })?;
        let count = usize::try_from(count).unwrap_or(0).min(BATCH);
        for slot in 0..count {
            let room = (slot + 1) * STRIDE - self.start(slot);
            self.lengths[slot] = (self.messages[slot].msg_len as usize).min(room);
        }
        Ok(count)
    }

    /// The message received in a slot.
    pub(crate) fn message(&self, slot: usize) -> &[u8] {
        let start = self.start(slot);
        &self.bytes()[start..start + self.lengths[slot]]
    }

    /// Moves the payload, found at `offset` in a slot's message, to its place in the verdict's body unless it is there
    /// already. Returns its offset in the body.
    pub(crate) fn settle(&mut self, slot: usize, offset: usize, length: usize) -> usize {
        let (from, to) = (self.start(slot) + offset, body_at(slot) + PAYLOAD_AT);
        if from != to && length > 0 {
            self.bytes_mut().copy_within(from..from + length, to);
            if offset <= HEADROOM + PAYLOAD_AT {
                self.prefix = offset;
            }
        }
        PAYLOAD_AT
    }

    /// The packet in a slot; `length` is at most what the kernel delivered.
    pub(crate) fn payload(&self, slot: usize, length: usize) -> &[u8] {
        let start = body_at(slot) + PAYLOAD_AT;
        &self.bytes()[start..start + length.min(MAX_PAYLOAD)]
    }

    pub(crate) fn payload_mut(&mut self, slot: usize, length: usize) -> &mut [u8] {
        let start = body_at(slot) + PAYLOAD_AT;
        &mut self.bytes_mut()[start..start + length.min(MAX_PAYLOAD)]
    }

    /// From a slot's body to the end of the slot.
    pub(crate) fn body_mut(&mut self, slot: usize) -> &mut [u8] {
        let start = body_at(slot);
        &mut self.bytes_mut()[start..(slot + 1) * STRIDE]
    }

    fn start(&self, slot: usize) -> usize {
        body_at(slot) + PAYLOAD_AT - self.aimed.min(HEADROOM + PAYLOAD_AT)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is ARENA bytes long, initialised (zeroed) by the kernel and never unmapped; the
        // kernel writes to it only inside `receive`, which borrows `self` mutably.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), ARENA) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably, so no other reference is alive.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), ARENA) }
    }
}
