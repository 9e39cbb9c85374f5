//! Pinned verdicts: every `msghdr`, `iovec` and `nlmsghdr` a worker can ever send, in memory nobody can change.
//!
//! The kernel checks CAP_NET_ADMIN of the *current sender* (net/netlink/af_netlink.c, `netlink_net_capable`), and
//! NETLINK_NETFILTER also carries nftables, conntrack and queue configuration. A worker free to send anything on its
//! queue's socket could delete the firewall. So seccomp allows `sendmsg` only with a pointer into this region, and the
//! region fixes everything but the bodies: the number of messages, their lengths, their type (a verdict) and their
//! queue. For packets of its own queue a hostile worker can still choose the verdict (including NF_QUEUE to another
//! queue), the new content and, in a batched body, any verdict attribute (mark, priority, conntrack where the packet
//! has an entry; in raw PREROUTING it has none).
//!
//! As a second line of defence the memfd is write-sealed, mapped read-only and, where the kernel can (6.10), `mseal`ed.

use crate::layout::{self, BATCH, BATCHED, STEPS, TEMPLATES};
use crate::netlink::{HEADERS, MessageKind, headers};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use std::ffi::c_void;
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::Range;
use std::ptr::NonNull;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("struct msghdr and struct iovec are laid out here for 64-bit Linux");

/// `struct msghdr` is 56 bytes; with this stride, "points to a template" is a matter of alignment.
const MSGHDR: usize = 64;
const IOVEC: usize = 16;
/// Headers of one body length, padded.
const HEADER: usize = 32;

const IOVECS_AT: usize = TEMPLATES * MSGHDR;
/// Batched iovecs: for each length one array of (headers, body) pairs over all slots, of which each template takes a
/// window. Then one pair for each single template.
const IOVECS: usize = BATCHED.len() * BATCH * 2 + BATCH * STEPS * 2;
const HEADERS_AT: usize = IOVECS_AT + IOVECS * IOVEC;
const LENGTHS: usize = BATCHED.len() + STEPS;
const REGION: usize = (HEADERS_AT + LENGTHS * HEADER).next_multiple_of(4096);

/// Nobody writes any more, and nobody ever had it mapped to write. Not F_SEAL_WRITE, which says the same: before Linux 6.7, and the
/// stable kernels that have its change, what has that seal cannot be mapped shared, not even to be read (mm/mmap.c).
const SEALS: SealFlag = SealFlag::F_SEAL_FUTURE_WRITE
    .union(SealFlag::F_SEAL_GROW)
    .union(SealFlag::F_SEAL_SHRINK)
    .union(SealFlag::F_SEAL_SEAL);

/// The sealed region.
#[derive(Debug)]
pub(crate) struct Templates {
    base: NonNull<c_void>,
    sealed: bool,
}

impl Templates {
    /// Builds and seals the templates for `queue`; their bodies lie in the arena at address `arena`.
    pub(crate) fn build(queue: u16, arena: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(REGION).ok_or(Errno::EINVAL)?;
        // SAFETY: a new private mapping at an address of the kernel's choice; nothing else is affected.
        let base = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let mut memfd =
            File::from(memfd_create(c"loaded-verdicts", MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_CLOEXEC)?);
        memfd.write_all(&contents(queue, base.as_ptr() as usize, arena))?;
        fcntl(&memfd, FcntlArg::F_ADD_SEALS(SEALS))?;
        let address = NonZeroUsize::new(base.as_ptr() as usize);
        // SAFETY: MAP_FIXED replaces exactly the reservation made above, which nothing refers to.
        unsafe { mmap(address, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED | MapFlags::MAP_FIXED, &memfd, 0)? };
        Ok(Self { base, sealed: mseal(base, REGION) })
    }

    /// The addresses a `msghdr` pointer may have: from the first template to the end of the last.
    pub(crate) fn pinned(&self) -> Range<u64> {
        let start = self.base.as_ptr() as u64;
        start..start + (TEMPLATES * MSGHDR) as u64
    }

    /// Whether the mapping itself is sealed (Linux 6.10).
    pub(crate) fn sealed(&self) -> bool {
        self.sealed
    }

    /// The message of a template, to be passed to `sendmsg` only.
    pub(crate) fn message(&self, template: usize) -> *const libc::msghdr {
        self.base.as_ptr().cast::<libc::msghdr>().cast_const().wrapping_byte_add(template.min(TEMPLATES - 1) * MSGHDR)
    }
}

/// The region's bytes as they will lie at address `base`, integers in host byte order.
fn contents(queue: u16, base: usize, arena: usize) -> Vec<u8> {
    let mut region = vec![0; REGION];
    let mut put = |at: usize, words: &[usize]| {
        for (word, place) in words.iter().zip(region[at..].chunks_exact_mut(8)) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
    };
    // struct msghdr: name, namelen, iov, iovlen, control, controllen, flags. Without a name netlink_sendmsg takes
    // the socket's own destination, the kernel.
    let mut message = |template: usize, iovec: usize, count: usize| {
        put(template * MSGHDR, &[0, 0, base + IOVECS_AT + iovec * IOVEC, count, 0, 0, 0]);
    };
    for class in 0..BATCHED.len() {
        for first in 0..BATCH {
            for count in 1..=BATCH {
                // A window that would run past the arena ends at its last slot.
                let slots = count.min(BATCH - first);
                message(layout::batched_template(class, first, count), (class * BATCH + first) * 2, slots * 2);
            }
        }
    }
    let singles = BATCHED.len() * BATCH * 2;
    for slot in 0..BATCH {
        for step in 0..STEPS {
            message(layout::single_template(slot, step), singles + (slot * STEPS + step) * 2, 2);
        }
    }
    let mut pair = |at: usize, length_index: usize, slot: usize, length: usize| {
        let header = base + HEADERS_AT + length_index * HEADER;
        put(IOVECS_AT + at * IOVEC, &[header, HEADERS, arena + layout::body_at(slot), length]);
    };
    for slot in 0..BATCH {
        for (class, &length) in BATCHED.iter().enumerate() {
            pair((class * BATCH + slot) * 2, class, slot, length);
        }
        for step in 0..STEPS {
            pair(singles + (slot * STEPS + step) * 2, BATCHED.len() + step, slot, layout::step_length(step));
        }
    }
    for (index, length) in BATCHED.into_iter().chain((0..STEPS).map(layout::step_length)).enumerate() {
        let at = HEADERS_AT + index * HEADER;
        // The lengths are below 70,000.
        let total = u32::try_from(HEADERS + length).unwrap_or(u32::MAX);
        region[at..at + HEADERS].copy_from_slice(&headers(MessageKind::Verdict, queue, total, false));
    }
    region
}

/// Linux 6.10, mm/mseal.c: the mapping can no longer be unmapped, moved, replaced or made writable.
fn mseal(base: NonNull<c_void>, length: usize) -> bool {
    const SYS_MSEAL: libc::c_long = 462;
    // SAFETY: the range is exactly the mapping made by `build`; sealing forbids changes and reads nothing.
    unsafe { libc::syscall(SYS_MSEAL, base.as_ptr(), length, 0_usize) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(region: &[u8], at: usize) -> usize {
        usize::from_ne_bytes(region[at..at + 8].try_into().expect("eight bytes"))
    }

    /// Walks every template as the kernel would: each names only sealed headers and arena bodies, and each header's
    /// length is the sum of its two iovecs.
    #[test]
    fn every_template_is_a_whole_number_of_verdicts_for_the_queue() {
        let (base, arena) = (0x7000_0000_0000, 0x6000_0000_0000);
        let region = contents(0x1234, base, arena);
        for template in 0..TEMPLATES {
            let at = template * MSGHDR;
            let (iov, iovlen) = (word(&region, at + 16), word(&region, at + 24));
            assert!((2..=2 * BATCH).contains(&iovlen) && iovlen % 2 == 0, "template {template}: {iovlen}");
            for zero in [0, 8, 32, 40, 48, 56] {
                assert_eq!(word(&region, at + zero), 0);
            }
            for pair in 0..iovlen / 2 {
                let entry = iov - base + pair * 2 * IOVEC;
                let header = word(&region, entry) - base;
                assert!(header >= HEADERS_AT && word(&region, entry + 8) == HEADERS);
                let (body, length) = (word(&region, entry + 16) - arena, word(&region, entry + 24));
                assert!((0..BATCH).any(|s| body == layout::body_at(s)) && body + length <= layout::ARENA);
                let total = u32::from_ne_bytes(region[header..header + 4].try_into().expect("four bytes"));
                assert_eq!(total as usize, HEADERS + length);
                assert_eq!(&region[header + 4..header + 8], &[1, 3, 1, 0], "a verdict, no ACK");
                assert_eq!(&region[header + 18..header + 20], &[0x12, 0x34]);
            }
        }
    }

    #[test]
    fn the_region_is_sealed_against_its_owner() {
        let templates = Templates::build(1, 0x1000).expect("build");
        let range = templates.pinned();
        assert!(range.start.is_multiple_of(64) && templates.message(0) as u64 == range.start);
        let page = templates.base;
        // SAFETY: asks for a change that must be refused; if it were granted nothing would be written.
        let refused = unsafe { nix::sys::mman::mprotect(page, 4096, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) };
        assert!(refused.is_err());
        if templates.sealed() {
            // SAFETY: must be refused; if it were granted the templates are not used again in this test.
            assert!(unsafe { nix::sys::mman::munmap(page, 4096) }.is_err());
        }
    }
}
