//! Acts against the process's own memory: code out of data, and a worker's sealed templates.

use super::{Act, Expect, Scene, door};

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

fn table(s: &Scene) -> u64 {
    s.templates().start & !(PAGE - 1)
}

pub(super) const ACTS: &[Act] = &[
    Act::deadly("mmap", |_| map(0, READ | WRITE, 0)),
    Act::deadly("mmap writable and executable", |_| map(0, READ | WRITE | EXEC, 0)),
    Act::deadly("mprotect data to executable", |s| door(libc::SYS_mprotect, &[s.page, PAGE, READ | EXEC])),
    Act::deadly("brk", |_| door(libc::SYS_brk, &[0])),
    Act::deadly("munmap", |s| door(libc::SYS_munmap, &[s.page, PAGE])),
    Act::deadly("madvise", |s| door(libc::SYS_madvise, &[s.page, PAGE, 0])),
    Act::deadly("memfd_create", |s| door(libc::SYS_memfd_create, &[s.page, 0])),
    Act::deadly("memfd_secret", |_| door(libc::SYS_memfd_secret, &[0])),
    Act::deadly("shmget", |_| door(libc::SYS_shmget, &[0, PAGE, 0])),
];

pub(super) const TEMPLATES: &[Act] = &[
    Act::deadly("mprotect the templates to writable", |s| door(libc::SYS_mprotect, &[table(s), PAGE, READ | WRITE])),
    Act::deadly("mmap over the templates", |s| map(table(s), READ | WRITE, FIXED)),
    Act::deadly("munmap the templates", |s| door(libc::SYS_munmap, &[table(s), PAGE])),
    Act::deadly("mremap the templates", |s| door(libc::SYS_mremap, &[table(s), PAGE, PAGE, 1, 0])),
    Act::deadly("madvise the templates away", |s| {
        door(libc::SYS_madvise, &[table(s), PAGE, u64::from(libc::MADV_DONTNEED.unsigned_abs())])
    }),
    Act::deadly("remap_file_pages of the templates", |s| door(libc::SYS_remap_file_pages, &[table(s), PAGE, 0, 0, 0])),
    Act { name: "store into the templates", expect: Expect::Segv, prepare: None, run: store },
];

fn store(s: &Scene) -> i64 {
    let row = s.templates().start as *mut u8;
    // SAFETY: meant to fault. The bindings name memory that the room mapped; if it can be written, the act reports
    // that by living, and the child ends.
    unsafe { row.write_volatile(1) };
    0
}
