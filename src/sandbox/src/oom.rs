//! Whom the kernel kills when memory is short. By default it picks the largest process (oom_badness, mm/oom_kill.c):
//! the supervisor, not the worker just starting. But a worker is replaced in a moment, and nobody replaces the
//! supervisor. So the supervisor is spared, as sshd spares its listener, and its children are offered instead: their
//! memory is bounded, and so is the supervisor's.

use std::{fs, io};

/// proc_pid_oom_score_adj(5). Every process inherits it.
const SCORE: &str = "/proc/self/oom_score_adj";
const USUAL: &str = "0";
const NEVER: &str = "-1000";

/// The supervisor's: it is never chosen. A value that somebody else has set (`OOMScoreAdjust=` of a unit) stays.
///
/// # Errors
/// Without CAP_SYS_RESOURCE, or without /proc.
pub fn spare_from_oom() -> io::Result<()> {
    if fs::read_to_string(SCORE)?.trim_end() != USUAL {
        return Ok(());
    }
    fs::write(SCORE, NEVER)
}

/// A child's: it can be chosen like any other process. Its first act, because until then another process could be
/// killed for the memory it takes.
///
/// # Errors
/// Without /proc.
pub fn offer_to_oom() -> io::Result<()> {
    if fs::read_to_string(SCORE)?.trim_end() != NEVER {
        return Ok(());
    }
    fs::write(SCORE, USUAL)
}
