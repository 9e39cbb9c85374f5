//! Whom the kernel kills when memory is short. By itself it takes the largest process (oom_badness, mm/oom_kill.c): that is
//! the supervisor, not the worker that starts just then, although a worker's place is taken in a moment and nobody takes
//! the supervisor's. So the supervisor is spared, as sshd spares its listener, and its children offer themselves: their
//! memory is bounded, and so is its own.

use std::{fs, io};

/// proc_pid_oom_score_adj(5). Every process inherits it.
const SCORE: &str = "/proc/self/oom_score_adj";
const USUAL: &str = "0";
const NEVER: &str = "-1000";

/// The supervisor's: it is never chosen. Where somebody has said something else (`OOMScoreAdjust=` of a unit), that holds.
///
/// # Errors
/// Without CAP_SYS_RESOURCE, or without /proc.
pub fn spare_from_oom() -> io::Result<()> {
    if fs::read_to_string(SCORE)?.trim_end() != USUAL {
        return Ok(());
    }
    fs::write(SCORE, NEVER)
}

/// A child's: it can be chosen like any other process. Its first act: until then it can have memory that another one is
/// killed for.
///
/// # Errors
/// Without /proc.
pub fn offer_to_oom() -> io::Result<()> {
    if fs::read_to_string(SCORE)?.trim_end() != NEVER {
        return Ok(());
    }
    fs::write(SCORE, USUAL)
}
