//! For tests only (feature `hostile`): a compromised worker sends anything that fits the templates, as often as it
//! likes.

use super::{Packet, send};
use crate::layout::{BATCHED, Body, VERDICT_ATTR, batched_template};
use crate::netlink::ATTR;
use std::os::fd::AsRawFd;

impl Packet<'_> {
    /// Sends a verdict at once: any code, for any id, followed by any attributes (at most 240 bytes, whole words),
    /// which overwrite the packet's bytes. Does and records nothing else.
    pub fn say(&mut self, code: u32, id: u32, attributes: &[u8]) {
        const CLASS: usize = 0;
        let (slot, length) = (self.slot, BATCHED[CLASS]);
        self.socket.put_verdict(slot, code, id);
        let behind = &mut self.socket.arena.body_mut(slot)[VERDICT_ATTR..length];
        let count = attributes.len().min(behind.len() - ATTR);
        behind[..count].copy_from_slice(&attributes[..count]);
        let body = match count.checked_sub(ATTR) {
            Some(payload) => Body::Payload(payload),
            None => Body::Bare,
        };
        self.socket.fill(slot, body, length);
        // The socket receives the kernel's answer as a message.
        let _ = send(self.socket.fd.as_raw_fd(), self.socket.templates.message(batched_template(CLASS, slot, 1)));
    }

    /// Marks the packet as answered, whatever was sent: it gets no default verdict.
    pub fn leave(&mut self) {
        self.answered = true;
    }
}
