//! The few calls that neither std nor nix offers, each wrapped once.

use std::ffi::{c_int, c_long, c_ulong};

use nix::errno::Errno;

/// Ends the process at once with one system call: no atexit handlers, no flushing, no destructors.
///
/// Inside the sandbox this is the only way out: `abort` needs rt_sigprocmask, gettid and tgkill and would end in
/// SIGSYS, which the supervisor must be able to read as "suspected compromise".
pub fn leave(code: i32) -> ! {
    // SAFETY: _exit takes an integer and does not return; glibc's and musl's _exit is exit_group(2).
    unsafe { libc::_exit(code) }
}

/// prctl(2) with integer arguments.
pub(crate) fn prctl(option: c_int, a2: c_ulong, a3: c_ulong) -> Result<c_int, Errno> {
    let zero: c_ulong = 0;
    // SAFETY: only used with options whose arguments are plain numbers; unused ones must be 0 (PR_SET_MDWE checks).
    Errno::result(unsafe { libc::prctl(option, a2, a3, zero, zero) })
}

/// A raw system call with numbers for arguments. Returns -errno on failure, as the kernel does.
///
/// # Safety
/// The caller vouches for every argument that this call takes as a pointer, and for the call's effect on the process.
pub(crate) unsafe fn syscall(number: c_long, args: &[u64]) -> i64 {
    let a = |i: usize| args.get(i).copied().unwrap_or(0);
    // SAFETY: passed on to the caller. All six registers are set, so no argument is left to chance.
    let answer = unsafe { libc::syscall(number, a(0), a(1), a(2), a(3), a(4), a(5)) };
    if answer == -1 { -i64::from(Errno::last_raw()) } else { answer }
}

/// Whether this process has more than one thread.
///
/// unshare(CLONE_THREAD) is a no-op for a single-threaded process and EINVAL for any other (unshare(2);
/// `check_unshare_flags` in kernel/fork.c). It needs no /proc, so it works after chroot too.
pub(crate) fn has_threads() -> bool {
    // SAFETY: unshare takes flags only; with CLONE_THREAD alone it changes nothing.
    unsafe { libc::unshare(libc::CLONE_THREAD) != 0 }
}
