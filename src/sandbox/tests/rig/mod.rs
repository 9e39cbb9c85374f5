//! Shared by the root tests: each case runs in a forked child, in namespaces of its own.
//!
//! These test binaries have `harness = false`: libtest runs cases on threads, a forked child of a threaded process may
//! find the allocator locked forever, and every stage of the sandbox refuses a process with threads anyway. So each is
//! a plain `main` with a list of cases, the simplest sound design.

#![allow(dead_code, clippy::unwrap_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use loaded_sandbox::{Identity, SandboxError, SandboxPolicy, leave};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, geteuid};

pub(crate) type Case = (&'static str, fn());

/// Runs the cases that the arguments select, as libtest would; cargo-nextest passes `--list` and `--exact`.
pub(crate) fn run(cases: &[Case]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|a| a == flag);
    if has("--list") {
        // No case is ignored.
        let cases = if has("--ignored") { &[] } else { cases };
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if !geteuid().is_root() {
        if std::env::var_os("LOADED_CI").is_some() {
            println!("FAILED: these tests need root, and LOADED_CI is set");
            return ExitCode::FAILURE;
        }
        println!("skipped: these tests need root");
        return ExitCode::SUCCESS;
    }
    let wanted = arguments.iter().find(|a| !a.starts_with('-')).map_or("", String::as_str);
    let matches = |name: &str| if has("--exact") { name == wanted } else { name.contains(wanted) };
    let mut failed = 0;
    for (name, case) in cases.iter().filter(|(name, _)| matches(name)) {
        let status = in_child(case);
        let good = matches!(status, WaitStatus::Exited(_, 0));
        println!("{name} ... {}", if good { "ok".to_owned() } else { format!("FAILED ({status:?})") });
        failed += usize::from(!good);
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs `attempt` in a forked child and returns how it ended; 0 means no panic.
pub(crate) fn in_child(attempt: impl FnOnce()) -> WaitStatus {
    // SAFETY: this program has one thread.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let code = i32::from(catch_unwind(AssertUnwindSafe(attempt)).is_err());
            leave(code);
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

/// As `in_child`, but the child must succeed. A panic has already printed why.
#[track_caller]
pub(crate) fn child_passes(attempt: impl FnOnce()) {
    let status = in_child(attempt);
    assert!(matches!(status, WaitStatus::Exited(_, 0)), "{status:?}");
}

pub(crate) fn nobody() -> Identity {
    Identity::lookup("nobody").unwrap()
}

/// A raw call's answer, or -errno.
pub(crate) fn raw(number: libc::c_long, args: [u64; 6]) -> i64 {
    let [a, b, c, d, e, f] = args;
    // SAFETY: tests pass numbers, null pointers, and pointers to memory that outlives the call.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer == -1 { -i64::from(nix::errno::Errno::last_raw()) } else { answer }
}

pub(crate) fn errno(number: i32) -> i64 {
    -i64::from(number)
}

/// Simulates a kernel without a call, by a filter: `number` answers `errno`, permanently and in children too. With
/// `first`, only where argument 0 has that value (a prctl option).
pub(crate) fn kernel_without(number: libc::c_long, first: Option<u64>, errno: i32) {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    let rules = first
        .map(|value| {
            let demand = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
            SeccompRule::new(vec![demand]).unwrap()
        })
        .into_iter()
        .collect();
    let filter = SeccompFilter::new(
        [(number, rules)].into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// The release sandbox of a role, for `run_attempt`: the two stages and nothing else.
pub(crate) fn release_sandbox(
    policy: SandboxPolicy,
    bindings: loaded_sandbox::Bindings,
) -> impl Fn() -> Result<loaded_sandbox::Bindings, SandboxError> {
    let supervisor = std::process::id();
    move || {
        loaded_sandbox::drop_rights(policy.role(), &nobody(), supervisor, loaded_sandbox::Survival::DiesToo)?;
        loaded_sandbox::seal(&policy, &bindings, loaded_sandbox::SandboxRequirement::Required)?;
        Ok(bindings.clone())
    }
}
