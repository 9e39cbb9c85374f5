//! The other two ways into an x86_64 kernel: x32 numbers and the 32-bit gate.

use std::ffi::c_long;

use super::kind::{Attempt, Context, Expect, door};
use crate::policy::Fd;

pub(super) const ATTEMPTS: &[Attempt] = &[
    Attempt::deadly("sendmsg by its x32 number", |s| x32(libc::SYS_sendmsg, s)),
    Attempt::deadly("getpid by its x32 number", |s| x32(libc::SYS_getpid, s)),
    Attempt { name: "getpid by int 0x80", expect: Expect::Death, prepare: None, run: int80 },
];

fn x32(number: c_long, s: &Context) -> i64 {
    door(number | 0x4000_0000, &[s.fd(Fd::Queue), s.templates().start, 0])
}

/// The 32-bit gate, where 20 is getpid. SIGSYS from the filter's architecture check; SIGSEGV on a kernel built without
/// the gate.
fn int80(_: &Context) -> i64 {
    let answer: i64;
    // SAFETY: getpid takes no argument and touches no memory; the gate may clear r8 to r11.
    unsafe {
        std::arch::asm!("int 0x80", inout("rax") 20i64 => answer,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    answer
}
