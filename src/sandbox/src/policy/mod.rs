//! What each role may do, as data with reasons.
//!
//! One file per role. The same tables are enforced (`compile`, `drop_rights`, `seal`), printed ([`print()`]) and
//! compared with the golden files, so what is printed is what is enforced.

mod bindings;
pub(crate) mod compile;
mod confinement;
mod exporter;
mod print;
mod prober;
mod rule;
mod supervisor;
mod worker;

use crate::role::Role;
use seccompiler::SeccompAction;

pub use bindings::Bindings;
pub(crate) use confinement::Confinement;
pub use exporter::CONNECTIONS;
pub use print::print;
pub use prober::CHECK_SOCKETS;
pub use rule::{Arg, Fd, SyscallRule};

/// A role's system calls. In a release only [`SandboxPolicy::worker`], [`SandboxPolicy::prober`],
/// [`SandboxPolicy::exporter`] and [`SandboxPolicy::supervisor`] make one.
#[derive(Debug, Clone)]
pub struct SandboxPolicy {
    pub(crate) role: Role,
    /// The effect of a call in `rules`.
    pub(crate) listed: SeccompAction,
    /// The effect of any other call.
    pub(crate) others: SeccompAction,
    pub(crate) rules: Vec<SyscallRule>,
}

impl SandboxPolicy {
    /// What a worker may still call once it is sealed.
    pub fn worker() -> SandboxPolicy {
        SandboxPolicy::allow(Role::Worker, worker::RULES.to_vec())
    }

    /// What the prober may still call once it is sealed; UDP sockets only if a check uses UDP.
    pub fn prober(udp: bool) -> SandboxPolicy {
        SandboxPolicy::allow(Role::Prober, prober::rules(udp))
    }

    /// What the exporter may still call once it is sealed.
    pub fn exporter() -> SandboxPolicy {
        SandboxPolicy::allow(Role::Exporter, exporter::RULES.to_vec())
    }

    /// The calls that kill the supervisor and every child it starts; any other is allowed.
    pub fn supervisor() -> SandboxPolicy {
        SandboxPolicy {
            role: Role::Supervisor,
            listed: SeccompAction::KillProcess,
            others: SeccompAction::Allow,
            rules: supervisor::rules(),
        }
    }

    /// Allows the rules; any other call kills the process.
    fn allow(role: Role, rules: Vec<SyscallRule>) -> SandboxPolicy {
        SandboxPolicy { role, listed: SeccompAction::Allow, others: SeccompAction::KillProcess, rules }
    }

    /// Whose policy this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The table.
    pub fn rules(&self) -> &[SyscallRule] {
        &self.rules
    }
}

impl Confinement {
    pub(crate) fn of(role: Role) -> &'static Confinement {
        match role {
            Role::Supervisor => &supervisor::CONFINEMENT,
            Role::Worker => &worker::CONFINEMENT,
            Role::Prober => &prober::CONFINEMENT,
            Role::Exporter => &exporter::CONFINEMENT,
        }
    }
}
