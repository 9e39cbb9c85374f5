//! The prober's sandbox: first everything it needs is acquired, then every right but its checks is given up.

use crate::setup::Setup;
use loaded_ipc::{EPOLL_FD, PING4_FD, PING6_FD, PROBER_LINK_FD, WORKERS_FD};
use loaded_sandbox::{
    Bindings, Identity, KernelSupport, Role, SandboxError, SandboxPolicy, SandboxRequirement, Survival, drop_rights,
    keep_only_fds, seal,
};
use std::os::fd::RawFd;

/// What the sandbox must leave open; it depends on the configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Needs {
    /// Links to workers, from [`WORKERS_FD`] on.
    pub(crate) workers: u16,
    /// Where it connects by TCP, sorted, without duplicates.
    pub(crate) tcp_ports: Vec<u16>,
    /// Where it sends by UDP, likewise. If empty, it needs no UDP socket.
    pub(crate) udp_ports: Vec<u16>,
}

impl Needs {
    pub(crate) fn of(setup: &Setup, workers: u16) -> Self {
        Self { workers, tcp_ports: setup.tcp_ports(), udp_ports: setup.udp_ports() }
    }
}

/// First half, as root and right after exec: leaves no descriptor but 0, 1, 2, the link, the two for pings and `given`
/// more from [`WORKERS_FD`] on; changes to another user and an empty root.
///
/// # Errors
/// When a step fails; the process must then end.
pub(crate) fn drop_to(identity: &Identity, parent: u32, given: u16) -> Result<KernelSupport, SandboxError> {
    let kept: Vec<RawFd> = (0..WORKERS_FD + RawFd::from(given)).collect();
    keep_only_fds(&kept)?;
    drop_rights(Role::Prober, identity, parent, Survival::DiesToo)
}

/// Second half, when all memory is allocated: from here on nothing but the loop's own system calls.
///
/// # Errors
/// When a step fails, or the kernel lacks a layer that `requirement` demands.
pub(crate) fn close(needs: &Needs, requirement: SandboxRequirement) -> Result<KernelSupport, SandboxError> {
    let bindings = Bindings::Prober {
        link_fd: PROBER_LINK_FD,
        ping4_fd: PING4_FD,
        ping6_fd: PING6_FD,
        epoll_fd: EPOLL_FD,
        workers: WORKERS_FD..WORKERS_FD + RawFd::from(needs.workers),
        tcp_ports: needs.tcp_ports.clone(),
        udp_ports: needs.udp_ports.clone(),
    };
    seal(&SandboxPolicy::prober(!needs.udp_ports.is_empty()), &bindings, requirement)
}
