//! Shared memory: a sealed memfd, its mapping, and a view of the mapping as atomics.
//!
//! The only unsafe code of the crate is here. Views hand out types made of atomics alone, for which every bit pattern
//! is a value: a process that scribbles into the same pages can give us wrong numbers, but no undefined behaviour.
#![allow(unsafe_code)]

mod counters;

use crate::error::Error;
use crate::layout::{Births, Bucket, RegionHeader};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use nix::sys::stat::fstat;
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

pub use counters::{CounterReader, Counters};

/// Every mapping begins on a page, so no type of ours is aligned more strictly than this.
const PAGE: usize = 4096;

/// On machines with huge pages of another size this alignment is just useless.
const HUGE_PAGE: usize = 2 << 20;
/// madvise(2). The libc crate has it for some C libraries only.
const MADV_COLLAPSE: i32 = 25;

/// Types that may be laid over memory that another process can write.
///
/// # Safety
/// Made of atomics only (so concurrent writes are no data race), without padding, valid for every bit pattern,
/// alignment at most [`PAGE`].
pub(crate) unsafe trait Plain {}

// SAFETY: an integer atomic; every bit pattern is a value.
unsafe impl Plain for AtomicU64 {}
// SAFETY: repr(C), only integer atomics, padding excluded by the size assertion beside the type.
unsafe impl Plain for Bucket {}
// SAFETY: as for Bucket.
unsafe impl Plain for RegionHeader {}
// SAFETY: an array of integer atomics.
unsafe impl Plain for Births {}

/// Makes a zeroed memfd of `bytes` bytes whose size can never change: it is sealed against shrinking, growing and further
/// seals, so that a hostile worker cannot take pages away under the supervisor, which would die by SIGBUS.
///
/// `name` shows up as `/memfd:name` in `/proc/PID/maps`.
pub fn create(name: &str, bytes: usize) -> Result<OwnedFd, Error> {
    let fail = |act| {
        move |source: nix::Error| Error::Memory { name: name.chars().take(64).collect(), act, source: source.into() }
    };
    let length = i64::try_from(bytes).map_err(|_| fail("ftruncate")(nix::Error::EFBIG))?;
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).map_err(fail("memfd_create"))?;
    nix::unistd::ftruncate(&fd, length).map_err(fail("ftruncate"))?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).map_err(fail("seal"))?;
    Ok(fd)
}

/// Checks that `fd` is what [`create`] makes for `bytes` bytes, whoever made it.
///
/// # Errors
/// If its size is another or could change.
pub fn check(fd: impl AsFd, bytes: usize) -> Result<(), Error> {
    match sealed_size(fd)? {
        have if have.get() == bytes => Ok(()),
        have => Err(Error::Size { need: bytes, have: have.get() }),
    }
}

/// The size of a memfd that cannot shrink.
fn sealed_size(fd: impl AsFd) -> Result<NonZeroUsize, Error> {
    // F_GET_SEALS fails with EINVAL on anything but a memfd (fcntl(2)).
    let seals = fcntl(&fd, FcntlArg::F_GET_SEALS).map_err(|e| memory("get seals", e))?;
    if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
        return Err(Error::NotSealed { seals });
    }
    let size = fstat(&fd).map_err(|e| memory("fstat", e))?.st_size;
    usize::try_from(size).ok().and_then(NonZeroUsize::new).ok_or(Error::Size { need: 1, have: 0 })
}

/// A whole memfd, mapped shared. Unmapped when dropped, unless it is kept [`for_good`](Region::for_good).
#[derive(Debug)]
pub struct Region {
    start: NonNull<c_void>,
    bytes: NonZeroUsize,
    for_good: bool,
}

impl Region {
    /// Maps `fd` readable and writable, and touches every page: if the machine is short of memory, that is an error now and
    /// not a SIGBUS under load. Asks for huge pages, since the TLB cannot hold the small pages of a whole table; the kernel may
    /// decline.
    ///
    /// Refuses a descriptor that is not sealed against shrinking, so one that came from a hostile process is safe.
    pub fn map(fd: impl AsFd) -> Result<Self, Error> {
        let region = Self::map_as(fd, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        // SAFETY: our own whole mapping; the advice changes no content.
        let _ = unsafe { madvise(region.start, region.bytes.get(), MmapAdvise::MADV_HUGEPAGE) };
        // SAFETY: as above.
        match unsafe { madvise(region.start, region.bytes.get(), MmapAdvise::MADV_POPULATE_WRITE) } {
            // EINVAL: unknown to Linux before 5.14. The pages are then allocated on first use.
            Ok(()) | Err(nix::Error::EINVAL) => {}
            Err(source) => return Err(memory("populate", source)),
        }
        // MADV_HUGEPAGE does nothing where the system says "never" for shared memory, which is the default. MADV_COLLAPSE
        // works whatever the system says (Linux 6.1).
        // SAFETY: our own whole mapping; pages may move, but neither their content nor their address changes.
        unsafe { libc::madvise(region.start.as_ptr(), region.bytes.get(), MADV_COLLAPSE) };
        Ok(region)
    }

    /// Maps `fd` for reading alone. Whatever tried to write there would end its process.
    pub(crate) fn map_read_only(fd: impl AsFd) -> Result<Self, Error> {
        Self::map_as(fd, ProtFlags::PROT_READ)
    }

    /// Maps the first `bytes` bytes of a BPF array that was made with `BPF_F_MMAPABLE`, readable and writable. All its pages
    /// exist from its making to its end, and a mapping past its last page is refused (`array_map_mmap` in
    /// kernel/bpf/arraymap.c), so nothing can be taken away under us and nothing is left to populate. They are small pages.
    ///
    /// `fd` must be such an array: unlike a memfd it cannot be asked without bpf(2), so who has it from a process that is not
    /// trusted must ask the kernel first.
    pub fn map_array(fd: impl AsFd, bytes: usize) -> Result<Self, Error> {
        Self::map_array_as(fd, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    /// The same, for reading alone.
    pub(crate) fn map_array_read_only(fd: impl AsFd, bytes: usize) -> Result<Self, Error> {
        Self::map_array_as(fd, bytes, ProtFlags::PROT_READ)
    }

    fn map_array_as(fd: impl AsFd, bytes: usize, protection: ProtFlags) -> Result<Self, Error> {
        let bytes = NonZeroUsize::new(bytes).ok_or(Error::Size { need: 1, have: 0 })?;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours.
        let start =
            unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, &fd, 0) }.map_err(|e| memory("mmap", e))?;
        Ok(Self { start, bytes, for_good: false })
    }

    fn map_as(fd: impl AsFd, protection: ProtFlags) -> Result<Self, Error> {
        let bytes = sealed_size(&fd)?;
        // SAFETY: a fresh mapping; without MAP_FIXED the address is a hint, and it overlaps nothing of ours.
        let start = unsafe { mmap(aligned_hole(bytes), bytes, protection, MapFlags::MAP_SHARED, &fd, 0) }
            .map_err(|source| memory("mmap", source))?;
        Ok(Self { start, bytes, for_good: false })
    }

    /// The same, never unmapped: inside the sandbox munmap is deadly, also on the way out of an error.
    #[must_use]
    pub fn for_good(mut self) -> Self {
        self.for_good = true;
        self
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    /// All of it, as words: for tests that look at a table from outside.
    pub fn words(&self) -> &[AtomicU64] {
        self.view(0, self.bytes.get() / size_of::<u64>()).unwrap_or_default()
    }

    /// `count` values of `T` beginning `offset` bytes into the region; `None` unless they lie in it, aligned.
    pub(crate) fn view<T: Plain>(&self, offset: usize, count: usize) -> Option<&[T]> {
        const { assert!(align_of::<T>() <= PAGE) };
        let end = size_of::<T>().checked_mul(count)?.checked_add(offset)?;
        if end > self.bytes.get() || !offset.is_multiple_of(align_of::<T>()) {
            return None;
        }
        // SAFETY: offset..end lies in the mapping, which lives as long as `self` and cannot shrink (sealed); start is
        // page aligned and offset a multiple of T's alignment; T: Plain accepts any content and concurrent writers.
        Some(unsafe { std::slice::from_raw_parts(self.start.as_ptr().byte_add(offset).cast::<T>(), count) })
    }
}

/// An address at which `bytes` bytes are free and could be huge pages. A hint, and none for less than a huge page.
fn aligned_hole(bytes: NonZeroUsize) -> Option<NonZeroUsize> {
    let room = bytes.checked_add(HUGE_PAGE).filter(|_| bytes.get() >= HUGE_PAGE)?;
    // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing of ours.
    let hole = unsafe { mmap_anonymous(None, room, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE) }.ok()?;
    // SAFETY: the mapping made above, whole; nothing refers to it.
    unsafe { munmap(hole, room.get()) }.ok()?;
    hole.addr().get().checked_next_multiple_of(HUGE_PAGE).and_then(NonZeroUsize::new)
}

/// `count` values of `T` in a region, checked once so that access needs no check.
#[derive(Debug)]
pub(crate) struct Array<T> {
    region: Region,
    offset: usize,
    count: usize,
    of: std::marker::PhantomData<T>,
}

impl<T: Plain> Array<T> {
    /// Takes the region; `None` unless the values lie in it, aligned.
    pub(crate) fn new(region: Region, offset: usize, count: usize) -> Option<Self> {
        region.view::<T>(offset, count)?;
        Some(Self { region, offset, count, of: std::marker::PhantomData })
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: `new` made the checks of `view` for these very numbers, and the region cannot shrink.
        unsafe { std::slice::from_raw_parts(self.region.start.as_ptr().byte_add(self.offset).cast::<T>(), self.count) }
    }

    /// As many values of `U`, behind these; `None` unless they lie in the region too.
    #[inline]
    pub(crate) fn behind<U: Plain>(&self) -> Option<&[U]> {
        self.region.view(self.offset + self.count * size_of::<T>(), self.count)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.for_good {
            return;
        }
        // SAFETY: our own whole mapping; views borrow `self`, so none is left.
        let _ = unsafe { munmap(self.start, self.bytes.get()) };
    }
}

/// Asks the CPU to bring `line` into its cache. A hint: nothing on CPUs we have no intrinsic for.
#[inline(always)]
pub(crate) fn prefetch<T>(line: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch cannot fault, and SSE is part of x86_64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(line).cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

fn memory(act: &'static str, source: nix::Error) -> Error {
    Error::Memory { name: "region".to_owned(), act, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_sealed() {
        let fd = create("sealed", 8192).expect("create");
        assert_eq!(nix::unistd::ftruncate(&fd, 4096), Err(nix::Error::EPERM));
        assert_eq!(nix::unistd::ftruncate(&fd, 16384), Err(nix::Error::EPERM));
        assert_eq!(fcntl(&fd, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)), Err(nix::Error::EPERM));
    }

    #[test]
    fn large_regions_could_be_huge_pages() {
        let fd = create("large", 5 << 20).expect("create");
        let regions = [(); 3].map(|()| Region::map(&fd).expect("map"));
        assert!(regions.iter().all(|region| region.start.addr().get().is_multiple_of(HUGE_PAGE)));
    }

    #[test]
    fn an_unsealed_or_foreign_descriptor_is_refused() {
        let unsealed = memfd_create("unsealed", MFdFlags::MFD_ALLOW_SEALING).expect("memfd");
        nix::unistd::ftruncate(&unsealed, 4096).expect("ftruncate");
        assert!(matches!(Region::map(&unsealed), Err(Error::NotSealed { .. })));
        let file = std::fs::File::open("/proc/self/exe").expect("open");
        assert!(matches!(Region::map(&file), Err(Error::Memory { act: "get seals", .. })));
        let empty = create("empty", 0).expect("create");
        assert!(matches!(Region::map(&empty), Err(Error::Size { .. })));
    }

    #[test]
    fn views_stay_inside_and_aligned() {
        let region = Region::map(create("views", 4096).expect("create")).expect("map");
        assert!(region.view::<AtomicU64>(0, 512).is_some());
        assert!(region.view::<AtomicU64>(0, 513).is_none());
        assert!(region.view::<AtomicU64>(8, 512).is_none());
        assert!(region.view::<AtomicU64>(4, 1).is_none());
        assert!(region.view::<AtomicU64>(usize::MAX - 7, 1).is_none());
        assert!(region.view::<AtomicU64>(0, usize::MAX).is_none());
    }
}
