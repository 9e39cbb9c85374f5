//! Becomes the operator's program that is told of a change (key `notify`): gives up every right, and executes it. Started by the
//! supervisor, which waits for its end (`src/children/src/notices.rs`).

use loaded_sandbox::{Identity, SandboxError, become_stranger, begin_session, keep_only_fds};
use loaded_supervisor::NOTICE_LIMIT;
use nix::unistd::alarm;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What a shell says of a program that it cannot run.
const NOT_RUN: u8 = 127;
/// How much later the kernel ends it if no supervisor is left to do so.
const LATER: u32 = 5;

/// Returns only if the program cannot be run.
pub(crate) fn run(identity: &Identity, program: &[OsString]) -> ExitCode {
    let Some((path, words)) = program.split_first() else { return ExitCode::from(NOT_RUN) };
    begin_session();
    let ready = || -> Result<(), SandboxError> {
        keep_only_fds(&[0, 1, 2])?;
        become_stranger(identity)
    };
    if ready().is_ok() {
        // It outlives exec; whoever it has started is the supervisor's to end.
        alarm::set(u32::try_from(NOTICE_LIMIT.as_secs()).unwrap_or(LATER) + LATER);
        let _ = Command::new(path).args(words).exec();
    }
    ExitCode::from(NOT_RUN)
}
