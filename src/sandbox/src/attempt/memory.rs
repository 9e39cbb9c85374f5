//! Attempts against the process's own memory: turning data into code, and changing a worker's sealed templates.

use super::kind::{Attempt, Context, Expect, door};

const PAGE: u64 = 4096;
const READ: u64 = 1;
const WRITE: u64 = 2;
const EXEC: u64 = 4;
const PRIVATE: u64 = 0x02;
const FIXED: u64 = 0x10;
const ANONYMOUS: u64 = 0x20;

fn map(address: u64, protection: u64, flags: u64) -> i64 {
    door(libc::SYS_mmap, &[address, PAGE, protection, PRIVATE | ANONYMOUS | flags, !0, 0])
}

fn table(s: &Context) -> u64 {
    s.templates().start & !(PAGE - 1)
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::deadly("mmap", |_| map(0, READ | WRITE, 0)),
    Attempt::deadly("mmap writable and executable", |_| map(0, READ | WRITE | EXEC, 0)),
    Attempt::deadly("mprotect data to executable", |s| door(libc::SYS_mprotect, &[s.page, PAGE, READ | EXEC])),
    Attempt::deadly("brk", |_| door(libc::SYS_brk, &[0])),
    Attempt::deadly("munmap", |s| door(libc::SYS_munmap, &[s.page, PAGE])),
    Attempt::deadly("madvise", |s| door(libc::SYS_madvise, &[s.page, PAGE, 0])),
    Attempt::deadly("memfd_create", |s| door(libc::SYS_memfd_create, &[s.page, 0])),
    Attempt::deadly("memfd_secret", |_| door(libc::SYS_memfd_secret, &[0])),
    Attempt::deadly("shmget", |_| door(libc::SYS_shmget, &[0, PAGE, 0])),
];

pub(super) const TEMPLATES: &[Attempt] = &[
    Attempt::deadly("mprotect the templates to writable", |s| {
        door(libc::SYS_mprotect, &[table(s), PAGE, READ | WRITE])
    }),
    Attempt::deadly("mmap over the templates", |s| map(table(s), READ | WRITE, FIXED)),
    Attempt::deadly("munmap the templates", |s| door(libc::SYS_munmap, &[table(s), PAGE])),
    Attempt::deadly("mremap the templates", |s| door(libc::SYS_mremap, &[table(s), PAGE, PAGE, 1, 0])),
    Attempt::deadly("madvise the templates away", |s| {
        door(libc::SYS_madvise, &[table(s), PAGE, u64::from(libc::MADV_DONTNEED.unsigned_abs())])
    }),
    Attempt::deadly("remap_file_pages of the templates", |s| {
        door(libc::SYS_remap_file_pages, &[table(s), PAGE, 0, 0, 0])
    }),
    Attempt { name: "store into the templates", expect: Expect::Segv, prepare: None, run: store },
];

/// The descriptors of the tables and counters, and the next number. A worker may have closed them: the filter judges
/// the call before the kernel looks whether there is such a descriptor.
const FLOWS: u64 = 6;
const COUNTERS: u64 = 8;
const BEHIND: u64 = 9;
const SHARE: u64 = 0x01;

fn map_shared(fd: u64) -> i64 {
    door(libc::SYS_mmap, &[0, PAGE, READ | WRITE, SHARE, fd, 0])
}

/// Memory that others also read must keep its size, its seals and its place.
pub(super) const SHARED: &[Attempt] = &[
    Attempt::deadly("mmap the flow table once more", |_| map_shared(FLOWS)),
    Attempt::deadly("mmap the counters once more", |_| map_shared(COUNTERS)),
    Attempt::deadly("mmap the descriptor behind them, writable", |_| map_shared(BEHIND)),
    Attempt::deadly("ftruncate the flow table", |_| door(libc::SYS_ftruncate, &[FLOWS, 0])),
    Attempt::deadly("ftruncate the descriptor behind", |_| door(libc::SYS_ftruncate, &[BEHIND, 0])),
    Attempt::deadly("fallocate a hole into the counters", |_| door(libc::SYS_fallocate, &[COUNTERS, 3, 0, PAGE])),
    Attempt::deadly("write to the flow table", |s| door(libc::SYS_write, &[FLOWS, s.page, 8])),
    Attempt::deadly("pwrite to the descriptor behind", |s| door(libc::SYS_pwrite64, &[BEHIND, s.page, 8, 0])),
    Attempt::deadly("read the descriptor behind", |s| door(libc::SYS_read, &[BEHIND, s.page, 8])),
    Attempt::deadly("pread the flow table", |s| door(libc::SYS_pread64, &[FLOWS, s.page, 8, 0])),
    Attempt::deadly("fcntl F_ADD_SEALS on the flow table", |_| door(libc::SYS_fcntl, &[FLOWS, 1033, 8])),
    Attempt::deadly("fcntl F_SETFL on the counters", |_| {
        door(libc::SYS_fcntl, &[COUNTERS, 4, u64::from(libc::O_NONBLOCK.cast_unsigned())])
    }),
    Attempt::deadly("close the counters", |_| door(libc::SYS_close, &[COUNTERS])),
];

fn store(s: &Context) -> i64 {
    let row = s.templates().start as *mut u8;
    // SAFETY: meant to fault. The bindings name memory that the testbed mapped; if it is writable, the attempt reports
    // that by surviving, and the child ends.
    unsafe { row.write_volatile(1) };
    0
}
