//! The sandbox of a worker: first it acquires everything it needs, then it gives up every right but its queue.
//!
//! The same steps serve the running worker and `--selftest`, which tries every known way out of them.

use loaded_ipc::{
    CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, KEEPING_FD, LINK_FD, MEMBERSHIP_FD, QUEUE_FD, REPORTS_FD,
};
use loaded_queue::QueueSocket;
use loaded_sandbox::{
    Bindings, Identity, KernelSupport, Role, SandboxError, SandboxPolicy, SandboxRequirement, Survival,
};
use loaded_sandbox::{drop_rights, keep_only_fds, seal};

/// First half, as root and right after exec: no descriptor but the listed ones, another user, an empty root.
///
/// # Errors
/// When a step fails; the process must then end.
pub fn drop_to(identity: &Identity, parent: u32, survival: Survival) -> Result<KernelSupport, SandboxError> {
    keep_only_fds(&[
        0,
        1,
        2,
        QUEUE_FD,
        LINK_FD,
        MEMBERSHIP_FD,
        FLOWS_FD,
        CLIENTS_FD,
        COUNTERS_FD,
        JOURNAL_FD,
        KEEPING_FD,
        REPORTS_FD,
    ])?;
    drop_rights(Role::Worker, identity, parent, survival)
}

/// Second half, when all memory is allocated: nothing but the loop's own system calls from here on.
///
/// # Errors
/// When a step fails, or the kernel lacks a layer that `requirement` demands.
pub fn close(socket: &QueueSocket, requirement: SandboxRequirement) -> Result<KernelSupport, SandboxError> {
    close_by(&SandboxPolicy::worker(), socket, requirement)
}

/// As [`close`], by a policy of the caller's. A release has no other than the worker's; tests of the self-test have.
pub(crate) fn close_by(
    policy: &SandboxPolicy,
    socket: &QueueSocket,
    requirement: SandboxRequirement,
) -> Result<KernelSupport, SandboxError> {
    seal(policy, &bindings(socket), requirement)
}

/// The numbers behind the symbols of the policy.
pub(crate) fn bindings(socket: &QueueSocket) -> Bindings {
    Bindings::Worker { queue_fd: QUEUE_FD, link_fd: LINK_FD, membership_fd: MEMBERSHIP_FD, templates: socket.pinned() }
}
