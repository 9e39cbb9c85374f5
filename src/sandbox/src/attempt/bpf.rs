//! Attempts against the kernel path: each command of bpf(2) that reads, writes, loads, attaches or keeps something, and the maps
//! that a worker shares with the kernel or does not have at all. The filter judges the number of the call, so one command is as
//! forbidden as another; that no command is an exception is what these show.

use super::kind::{Attempt, Context, at, door};

/// Descriptors of a worker: its flow table, which is a map where there is a kernel path; and of maps that it has mapped and closed
/// before its sandbox closed: the bytes of backends, the ring of reports. The next one is where the supervisor's maps would begin
/// (backends, addresses), had a worker any of them.
const FLOWS: u32 = 6;
const KEEPING: u32 = 10;
const REPORTS: u32 = 11;
const ANOTHER: u32 = 12;
const PAGE: u64 = 4096;
const READ: u64 = 1;
const READ_WRITE: u64 = 3;
const SHARED: u64 = 1;

/// One command with a map, a program or a number in the first field of `union bpf_attr`, and key and value in the process's own page
/// (include/uapi/linux/bpf.h: `map_fd` or `prog_type`, then key, value and flags at 8, 16 and 24).
fn ask(command: u64, first: u32, s: &Context) -> i64 {
    let attributes = [u64::from(first), s.page, s.page, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    door(libc::SYS_bpf, &[command, at(&attributes), 128])
}

macro_rules! commands {
    ($($number:literal $name:literal,)*) => {
        /// By the kernel's own table (`enum bpf_cmd` in include/uapi/linux/bpf.h).
        pub(super) const COMMANDS: &[Attempt] = &[
            $(Attempt::deadly(concat!("bpf ", $name), |s| ask($number, FLOWS, s)),)*
        ];
    };
}

commands! {
    0 "MAP_CREATE",
    1 "MAP_LOOKUP_ELEM",
    2 "MAP_UPDATE_ELEM",
    3 "MAP_DELETE_ELEM",
    4 "MAP_GET_NEXT_KEY",
    5 "PROG_LOAD",
    6 "OBJ_PIN",
    7 "OBJ_GET",
    8 "PROG_ATTACH",
    9 "PROG_DETACH",
    10 "PROG_TEST_RUN",
    13 "PROG_GET_FD_BY_ID",
    14 "MAP_GET_FD_BY_ID",
    15 "OBJ_GET_INFO_BY_FD",
    17 "RAW_TRACEPOINT_OPEN",
    18 "BTF_LOAD",
    21 "MAP_LOOKUP_AND_DELETE_ELEM",
    22 "MAP_FREEZE",
    24 "MAP_LOOKUP_BATCH",
    26 "MAP_UPDATE_BATCH",
    28 "LINK_CREATE",
    29 "LINK_UPDATE",
    30 "LINK_GET_FD_BY_ID",
    33 "ITER_CREATE",
    34 "LINK_DETACH",
    36 "TOKEN_CREATE",
    1000 "with a command above the known",
    0xffff_ffff "with the command -1",
}

/// The maps by their descriptors, in other ways than by bpf(2).
pub(super) const MAPS: &[Attempt] = &[
    Attempt::deadly("mmap the bytes of backends once more", |_| map(KEEPING, READ_WRITE)),
    Attempt::deadly("mmap the ring of reports once more", |_| map(REPORTS, READ_WRITE)),
    Attempt::deadly("mmap a map that is not the worker's", |_| map(ANOTHER, READ_WRITE)),
    Attempt::deadly("mmap a map that is not the worker's, to read it", |_| map(ANOTHER, READ)),
    Attempt::deadly("bpf MAP_UPDATE_ELEM of a map that is not the worker's", |s| ask(2, ANOTHER, s)),
    Attempt::deadly("bpf MAP_LOOKUP_ELEM of a map that is not the worker's", |s| ask(1, ANOTHER, s)),
    Attempt::deadly("bpf MAP_UPDATE_ELEM of the bytes of backends", |s| ask(2, KEEPING, s)),
    Attempt::deadly("epoll on the ring of reports", |s| {
        door(libc::SYS_epoll_ctl, &[0, u64::from(libc::EPOLL_CTL_ADD.unsigned_abs()), u64::from(REPORTS), s.page])
    }),
];

fn map(fd: u32, protection: u64) -> i64 {
    door(libc::SYS_mmap, &[0, PAGE, protection, SHARED, u64::from(fd), 0])
}
