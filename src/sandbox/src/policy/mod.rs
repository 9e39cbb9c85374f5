//! What each role may do, as data with reasons.
//!
//! One file per role. The same tables are enforced (`compile`, `drop_rights`, `seal`), printed ([`print()`]) and
//! compared with the golden files, so what is printed is what is enforced.

mod bindings;
pub(crate) mod compile;
mod print;
mod prober;
mod supervisor;
mod worker;

use std::borrow::Cow;
use std::fmt;

use caps::{Capability, CapsHashSet};
use nix::sched::CloneFlags;
use nix::sys::resource::Resource;
use seccompiler::SeccompAction;

pub use bindings::Bindings;
pub use print::print;
pub use prober::CHECK_SOCKETS;

/// The three kinds of process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Root, trimmed.
    Supervisor,
    /// One per core, reads packets.
    Worker,
    /// Checks the backends.
    Prober,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Role::Supervisor => "supervisor",
            Role::Worker => "worker",
            Role::Prober => "prober",
        })
    }
}

/// A descriptor by its purpose; [`Bindings`] gives it one or more numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fd {
    /// The netlink socket that owns the worker's queue.
    Queue,
    /// The socket to the supervisor.
    Link,
    /// A worker's socket to the prober, read only.
    Membership,
    /// The prober's socket that pings IPv4.
    Ping4,
    /// The prober's socket that pings IPv6.
    Ping6,
    /// The prober's sockets to the workers, write only.
    Workers,
    /// The sockets that the prober opens for its checks.
    Checks,
}

/// What a rule demands of one argument. Indices start at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arg {
    /// Argument 0 is this descriptor, or one of these. Compared as 32 bits, all the kernel uses of it.
    FdIs(Fd),
    /// A pointer into the table of pinned templates, compared in all 64 bits.
    InTemplates(u8),
    /// The low bits of a pointer are zero; the alignment is a power of two.
    AlignedTo(u8, u64),
    /// An int with this value. 32 bits, all the kernel uses of an int.
    Is(u8, u32),
    /// Flags with no bit set but these. 32 bits, all the kernel uses of an int.
    OnlyBits(u8, u32),
    /// A null pointer, compared in all 64 bits.
    Null(u8),
}

/// One system call of a policy: allowed or, on the supervisor's deny list, deadly. Rules for the same call are
/// alternatives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyscallRule {
    /// Its name.
    pub call: &'static str,
    /// Its number on this architecture.
    pub number: i64,
    /// All must hold; an empty list means any arguments.
    pub args: Cow<'static, [Arg]>,
    /// The reason why the role needs it, or must not have it.
    pub why: &'static str,
}

impl SyscallRule {
    const fn new(call: &'static str, number: libc::c_long, args: &'static [Arg], why: &'static str) -> SyscallRule {
        SyscallRule { call, number, args: Cow::Borrowed(args), why }
    }
}

/// A role's system calls. In a release only [`SandboxPolicy::worker`], [`SandboxPolicy::prober`] and
/// [`SandboxPolicy::supervisor`] make one.
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

/// A capability that stays.
#[derive(Debug)]
pub(crate) struct KeptCapability {
    pub(crate) cap: Capability,
    pub(crate) why: &'static str,
}

/// A namespace that the process leaves for a new, empty one.
#[derive(Debug)]
pub(crate) struct Namespace {
    pub(crate) name: &'static str,
    pub(crate) flag: CloneFlags,
    pub(crate) why: &'static str,
}

/// A resource limit, soft and hard.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) name: &'static str,
    pub(crate) resource: Resource,
    pub(crate) value: LimitValue,
    pub(crate) why: &'static str,
}

/// A limit that may depend on how many workers the process talks to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LimitValue {
    /// A constant.
    Fixed(u64),
    /// One more for each worker.
    AndWorkers(u64),
}

impl LimitValue {
    pub(crate) fn with(self, workers: usize) -> u64 {
        match self {
            LimitValue::Fixed(value) => value,
            LimitValue::AndWorkers(value) => value.saturating_add(workers as u64),
        }
    }
}

impl fmt::Display for LimitValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LimitValue::Fixed(value) => write!(f, "{value}"),
            LimitValue::AndWorkers(value) => write!(f, "{value}+workers"),
        }
    }
}

/// Everything about a role that is not a system call.
#[derive(Debug)]
pub(crate) struct Confinement {
    pub(crate) caps: &'static [KeptCapability],
    pub(crate) namespaces: &'static [Namespace],
    /// What Landlock takes away.
    pub(crate) landlock: &'static str,
    pub(crate) limits: &'static [Limit],
    /// The descriptors from 0 on.
    pub(crate) fds: &'static [&'static str],
    /// The descriptor that follows once for each worker, if any.
    pub(crate) fd_per_worker: Option<&'static str>,
    /// What a hostile process of this role can still do; empty where it is not listed.
    pub(crate) remains: &'static [&'static str],
    /// What a memory fault leads to.
    pub(crate) faults: &'static str,
}

impl Confinement {
    pub(crate) fn of(role: Role) -> &'static Confinement {
        match role {
            Role::Supervisor => &supervisor::CONFINEMENT,
            Role::Worker => &worker::CONFINEMENT,
            Role::Prober => &prober::CONFINEMENT,
        }
    }

    pub(crate) fn cap_mask(&self) -> u64 {
        self.caps.iter().fold(0, |mask, kept| mask | kept.cap.bitmask())
    }

    pub(crate) fn cap_set(&self) -> CapsHashSet {
        self.caps.iter().map(|kept| kept.cap).collect()
    }
}
