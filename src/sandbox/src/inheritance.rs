//! What a process has from whoever started it, and must not depend on: blocked and ignored signals, the umask, limits. A shell, a
//! cron job or a service manager's unit may leave anything there, and each of these keeps a daemon from ending, from reaping its
//! children or from writing its files.

use crate::error::SandboxError;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::stat::{Mode, umask};

/// Signals that a predecessor may have had ignored and that nobody takes over later. SIGPIPE is not among them: it stays ignored,
/// as the standard library wants it.
const DEFAULTS: [Signal; 5] = [Signal::SIGCHLD, Signal::SIGALRM, Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU];

/// Limits that kill or cripple a supervisor: the size of files counts for shared memory too (inode_newsize_ok, fs/attr.c), and a
/// limit of CPU time ends whoever lives long.
const UNLIMITED: [Resource; 3] = [Resource::RLIMIT_FSIZE, Resource::RLIMIT_CPU, Resource::RLIMIT_AS];

/// Lets no signal be blocked, or ignored but for SIGPIPE and SIGXFSZ; new files are writable by their owner alone. Call it before the first
/// thread.
///
/// # Errors
/// [`SandboxError::Refused`]
pub fn shed_inheritance() -> Result<(), SandboxError> {
    let refused = |act, object: &str| {
        let object = object.to_owned();
        move |source| SandboxError::Refused { act, object, source }
    };
    for default in DEFAULTS {
        // SAFETY: the default action runs no code of this process.
        unsafe { signal(default, SigHandler::SigDfl) }.map_err(refused("reset", default.as_str()))?;
    }
    // Beyond a limit of file sizes that stays, a write fails and is told, instead of ending the process without a word.
    // SAFETY: no code of this process is run for it either.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.map_err(refused("ignore", Signal::SIGXFSZ.as_str()))?;
    SigSet::empty().thread_set_mask().map_err(refused("unblock", "signals"))?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    Ok(())
}

/// Raises the limits that would end or cripple the supervisor, as far as it may. Returns what stays, for the log.
#[must_use]
pub fn raise_limits() -> Vec<String> {
    let kept = UNLIMITED.into_iter().filter_map(|resource| {
        let (_, hard) = getrlimit(resource).ok()?;
        // Beyond the hard limit only with CAP_SYS_RESOURCE.
        let raised = setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY).is_ok();
        if raised || hard == RLIM_INFINITY {
            return setrlimit(resource, RLIM_INFINITY, RLIM_INFINITY)
                .err()
                .map(|error| format!("{resource:?}: {error}"));
        }
        let _ = setrlimit(resource, hard, hard);
        Some(format!("{resource:?} is {hard}, and only CAP_SYS_RESOURCE could raise it"))
    });
    let kept = kept.collect();
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    kept
}
