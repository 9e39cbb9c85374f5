//! Whether a supervisor could take over the workers of a killed one on this host, which means to take descriptors out of
//! their processes.

use caps::{CapSet, Capability};
use loaded_sandbox::PidFd;
use std::fs;
use std::sync::OnceLock;

static POSSIBLE: OnceLock<Result<(), &'static str>> = OnceLock::new();

/// Whether it is possible. Ask before rights are given up; the first answer holds for good.
///
/// # Errors
/// Why it is not. Workers that outlive their supervisor would then only stand in the way of the next one.
pub fn is_possible() -> Result<(), &'static str> {
    *POSSIBLE.get_or_init(|| {
        // With scope 3 Yama denies it to everybody (yama_ptrace_access_check, security/yama/yama_lsm.c).
        let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
        let own = || PidFd::open(std::process::id()).and_then(|own| own.take(0));
        match caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_PTRACE) {
            Ok(true) if scope.trim() == "3" => Err("kernel.yama.ptrace_scope is 3"),
            Ok(true) if own().is_err() => Err("this kernel has no pidfd_getfd (Linux 5.6)"),
            Ok(true) => Ok(()),
            _ => Err("CAP_SYS_PTRACE is missing"),
        }
    })
}

/// Takes over the answer of a predecessor, which had the rights to find out.
pub fn set_known(possible: bool) {
    let _ = POSSIBLE.set(if possible { Ok(()) } else { Err("the previous supervisor could not find out") });
}
