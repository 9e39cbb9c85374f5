//! Detaches children from the terminal that their supervisor was started from.

use nix::unistd::setsid;

/// Starts a session of its own. What a terminal sends to its foreground processes is for the supervisor, which stops
/// its children in order. Also, if a supervisor is killed while a child in its session is stopped, the kernel sends
/// that child SIGHUP (kill_orphaned_pgrp, kernel/exit.c), and a worker would die of it.
pub fn begin_session() {
    // Fails only for the leader of a process group, which no child that we start is.
    let _ = setsid();
}
