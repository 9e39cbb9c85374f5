//! The supervisor's trim: it stays root, with eight capabilities and without the calls it never makes.

use caps::CapSet;
use nix::sys::prctl;

use crate::drop::{drop_bounding_set, keep_only_caps};
use crate::error::SandboxError;
use crate::kernel;
use crate::policy::compile::compile;
use crate::policy::{Confinement, SandboxPolicy};
use crate::role::Role;
use crate::support::{self, KernelSupport, Layer};

/// Trims the calling process for good. Call it when set-up is over (naming the owner of a busy queue and taking over a
/// dead supervisor's workers need CAP_SYS_PTRACE) and before the first thread and the first child.
///
/// At exec, children with uid 0 get back these capabilities and no others: the bounding set limits what root gains
/// (capabilities(7), "Capabilities and execution of programs by root").
///
/// `is_filtered`: this same deny list is already in force, inherited from the previous supervisor. Filters only add up,
/// for this process and all its children, so each upgrade would add one more.
pub fn trim_supervisor(is_filtered: bool) -> Result<KernelSupport, SandboxError> {
    const ACT: &str = "trim the supervisor";
    if kernel::has_threads() {
        return Err(SandboxError::Threads { act: ACT });
    }
    let confinement = Confinement::of(Role::Supervisor);
    let policy = SandboxPolicy::supervisor();
    let program = compile(&policy, None)?;
    for kept in confinement.caps {
        // What is missing now (in a container, by a unit file) would be missing when a worker must be replaced: report
        // it at start.
        let held = caps::has_cap(None, CapSet::Permitted, kept.cap).map_err(|e| SandboxError::Capabilities {
            act: "read",
            object: "the permitted set",
            detail: e.to_string(),
        })?;
        if !held {
            return Err(SandboxError::MissingCapability { act: ACT, capability: kept.cap.to_string(), why: kept.why });
        }
    }
    drop_bounding_set(confinement)?;
    keep_only_caps(&confinement.cap_set())?;
    prctl::set_no_new_privs().map_err(|source| SandboxError::Refused {
        act: "set",
        object: "no_new_privs".to_owned(),
        source,
    })?;

    let mut support = KernelSupport::default();
    support.note(Layer::Seccomp, support::has_seccomp(), "deny list");
    if support.has(Layer::Seccomp) && !is_filtered {
        seccompiler::apply_filter(&program).map_err(|e| SandboxError::Seccomp {
            act: "load",
            role: Role::Supervisor,
            detail: e.to_string(),
        })?;
    }
    Ok(support)
}
