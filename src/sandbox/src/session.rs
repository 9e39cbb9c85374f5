//! What a child has to do with the terminal its supervisor was started from: nothing.

use nix::unistd::setsid;

/// Begins a session of its own. What a terminal sends to all in the foreground is for the supervisor, which ends its children
/// in order. And when a supervisor is killed whose child is stopped just then, the kernel sends that child SIGHUP if they share
/// a session (kill_orphaned_pgrp, kernel/exit.c): a worker would die of it.
pub fn begin_session() {
    // It fails for the leader of a process group alone, which no child that was started by us is.
    let _ = setsid();
}
