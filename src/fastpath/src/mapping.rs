//! A BPF map in this process's memory, seen as atomics: others write it at the same time, the kernel or another process.
//!
//! The only unsafe code of the crate.
#![allow(unsafe_code)]

use crate::error::Error;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64};

/// Every mapping begins on a page.
pub(crate) const PAGE: usize = 4096;

/// May a mapping be written?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A part of a map, mapped shared. Unmapped when dropped, unless it is kept [`for_good`](Mapping::for_good).
///
/// Its pages exist as long as the map, whose size never changes, and the mapping keeps the map alive (`bpf_map_mmap` in
/// kernel/bpf/syscall.c).
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    for_good: bool,
}

// SAFETY: the mapping belongs to the process and not to a thread; it is read and written through atomics alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `bytes` bytes of a map from `offset`, a multiple of the page size.
    pub(crate) fn new(
        fd: impl AsFd,
        what: &'static str,
        (offset, bytes): (usize, usize),
        access: Access,
    ) -> Result<Self, Error> {
        let fail = |source: nix::Error| Error::Map { what, source: source.into() };
        let bytes = NonZeroUsize::new(bytes.next_multiple_of(PAGE)).ok_or_else(|| fail(nix::Error::EINVAL))?;
        let offset = i64::try_from(offset).map_err(|_| fail(nix::Error::EINVAL))?;
        let protection = match access {
            Access::Read => ProtFlags::PROT_READ,
            Access::Write => ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
        };
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours.
        let start = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, fd, offset) }.map_err(fail)?;
        Ok(Self { start, bytes, for_good: false })
    }

    /// The same, never unmapped: inside the sandbox munmap is deadly.
    pub(crate) fn for_good(mut self) -> Self {
        self.for_good = true;
        self
    }

    /// All of it as words. Storing into a mapping that was made for reading is a segmentation fault.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the whole mapping, page aligned, alive as long as `self`; any bits are a value, and others may write them.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes.get() / size_of::<u64>()) }
    }

    /// All of it as bytes.
    pub(crate) fn bytes(&self) -> &[AtomicU8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.bytes.get()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.for_good {
            // SAFETY: our own whole mapping; slices of it borrow `self`, so none is left.
            let _ = unsafe { munmap(self.start, self.bytes.get()) };
        }
    }
}
