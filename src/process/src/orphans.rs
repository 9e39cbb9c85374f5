//! As process 1 of a container, a supervisor inherits the children of other processes that end.

use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};

/// Process 1, to which the kernel gives orphans (reaper, find_new_reaper in kernel/exit.c).
const INIT: u32 = 1;

/// Waits for orphans that have ended, if this is process 1. `ours` are children that somebody here waits for.
pub fn reap(ours: &[u32]) {
    if std::process::id() != INIT {
        return;
    }
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // The kernel shows the same one again until somebody has waited for it: one of ours hides the others until the next look.
    while let Some(pid) = waitid(Id::All, look).ok().and_then(|status| status.pid()) {
        if ours.contains(&pid.as_raw().cast_unsigned()) || waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_err() {
            break;
        }
    }
}
