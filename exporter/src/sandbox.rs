//! The exporter's sandbox: every right but to answer is given up.

use loaded_ipc::{CONNECTIONS_FD, EXPORTER_LINK_FD, LISTENER_FD};
use loaded_sandbox::{
    Bindings, Identity, KernelSupport, Role, SandboxError, SandboxPolicy, SandboxRequirement, Survival, drop_rights,
    keep_only_fds, seal,
};
use std::os::fd::RawFd;

/// First half, as root and right after exec: leaves no descriptor but 0, 1, 2, the link and the listener; changes to another
/// user and an empty root.
///
/// # Errors
/// When a step fails; the process must then end.
pub(crate) fn drop_to(identity: &Identity, parent: u32) -> Result<KernelSupport, SandboxError> {
    let kept: Vec<RawFd> = (0..CONNECTIONS_FD).collect();
    keep_only_fds(&kept)?;
    drop_rights(Role::Exporter, identity, parent, Survival::DiesToo)
}

/// Second half, when all memory is allocated: from here on nothing but the loop's own system calls.
///
/// # Errors
/// When a step fails, or the kernel lacks a layer that `requirement` demands.
pub(crate) fn close(requirement: SandboxRequirement) -> Result<KernelSupport, SandboxError> {
    let bindings = Bindings::Exporter { link_fd: EXPORTER_LINK_FD, listener_fd: LISTENER_FD };
    seal(&SandboxPolicy::exporter(), &bindings, requirement)
}
