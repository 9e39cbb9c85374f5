//! Descriptors: a child has exactly the listed ones, and its policy refers to them by number.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::error::SandboxError;

/// Closes every descriptor except the given ones, which must be exactly 0..n and open.
///
/// Must be the first act of a child after exec: an object that already owned a descriptor would find it closed. The
/// kept descriptors stay close-on-exec, which does not matter: no child execs.
pub fn keep_only_fds(kept: &[RawFd]) -> Result<(), SandboxError> {
    let wrong = |problem: String| SandboxError::Descriptors { kept: kept.to_vec(), problem };
    let mut sorted = kept.to_vec();
    sorted.sort_unstable();
    if sorted.iter().zip(0..).any(|(fd, place)| *fd != place) {
        return Err(wrong("they are not exactly 0, 1, 2, … without a gap".to_owned()));
    }
    for fd in &sorted {
        is_open(*fd).map_err(|e| wrong(format!("descriptor {fd} is not open: {e}")))?;
    }
    close_from(kept.len())?;
    // Where /proc is mounted, check the result. An empty list means there is no /proc.
    if let Ok(open) = open_fds()
        && open != sorted
    {
        return Err(wrong(format!("after closing the others, these are open: {open:?}")));
    }
    Ok(())
}

/// Takes over a descriptor that this process was started with. Each can be taken once; one that is not open, or already
/// taken, is refused.
pub fn inherited(fd: RawFd) -> Result<OwnedFd, SandboxError> {
    // 1024 numbers, because a prober has one for each worker.
    static TAKEN: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
    let refuse = |problem: &str| SandboxError::Descriptors { kept: vec![fd], problem: problem.to_owned() };
    let number = usize::try_from(fd).map_err(|_| refuse("out of range"))?;
    let taken = TAKEN.get(number / 64).ok_or_else(|| refuse("out of range"))?;
    let bit = 1u64 << (number % 64);
    if is_open(fd).is_err() {
        return Err(refuse("not open: this role is started by the supervisor, not by hand"));
    }
    if taken.fetch_or(bit, Ordering::Relaxed) & bit != 0 {
        return Err(refuse("taken already"));
    }
    // SAFETY: the descriptor is open, as just seen. It came with exec, so nothing in this process made it or owns it,
    // and TAKEN ensures that it is handed out once.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // It came without the flag; programs that we start must not inherit it.
    fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|e| refuse(&format!("close on exec: {e}")))?;
    Ok(fd)
}

/// This process's open descriptors, sorted, without the one used to list them. Needs /proc.
pub fn open_fds() -> io::Result<Vec<RawFd>> {
    let listed: Vec<RawFd> =
        fs::read_dir("/proc/self/fd")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // The listing's own descriptor is closed by now, so it drops out here.
    let mut open: Vec<RawFd> = listed.into_iter().filter(|fd| is_open(*fd).is_ok()).collect();
    open.sort_unstable();
    Ok(open)
}

fn is_open(fd: RawFd) -> Result<FdFlag, Errno> {
    // SAFETY: the borrow lives for this call only; F_GETFD on a closed number is EBADF and harms nothing.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    fcntl(fd, FcntlArg::F_GETFD).map(FdFlag::from_bits_retain)
}

fn close_from(first: usize) -> Result<(), SandboxError> {
    let refused = |object: String, source| SandboxError::Refused { act: "close", object, source };
    // close_range(2) exists since Linux 5.9; before that, walk the list.
    // SAFETY: by this function's contract nothing owns the descriptors that are closed.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    match Errno::result(answer) {
        Ok(_) => Ok(()),
        Err(Errno::ENOSYS) => {
            let open = open_fds().map_err(|e| {
                refused("all other descriptors".to_owned(), e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
            })?;
            for fd in open.into_iter().filter(|fd| usize::try_from(*fd).is_ok_and(|n| n >= first)) {
                nix::unistd::close(fd).map_err(|e| refused(format!("descriptor {fd}"), e))?;
            }
            Ok(())
        }
        Err(e) => Err(refused(format!("descriptors {first} and up"), e)),
    }
}
