//! Stage two: from an unprivileged process to one that can do nothing but its work. Afterwards nothing can be opened,
//! mapped or allocated from the kernel, so everything must be there by now.

use landlock::{
    ABI, Access, AccessFs, AccessNet, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};
use nix::sys::prctl;
use nix::sys::resource::{getrlimit, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::error::SandboxError;
use crate::kernel;
use crate::policy::compile::compile;
use crate::policy::{Bindings, Confinement, SandboxPolicy};
use crate::role::Role;
use crate::support::{self, KernelSupport, Layer};

/// The newest Landlock ABI this program knows. Not the kernel's own, so that what we ask for does not depend on where
/// we run; the crate's best effort leaves out what the kernel cannot do.
const NEWEST: ABI = ABI::V10;

/// What to do on a kernel that lacks Landlock or seccomp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxRequirement {
    /// Refuse to start, naming the layer.
    Required,
    /// Go on without it: `--allow-weak-sandbox`.
    AllowWeak,
}

impl SandboxRequirement {
    /// For the supervisor, before it starts anything: fails if `seal` would refuse on this kernel.
    pub fn check(self, support: &KernelSupport) -> Result<(), SandboxError> {
        for layer in [Layer::Seccomp, Layer::Landlock] {
            if self == SandboxRequirement::Required && !support.has(layer) {
                return Err(SandboxError::WeakKernel { missing: layer.name(), consequence: layer.consequence() });
            }
        }
        Ok(())
    }
}

/// Seals the process. Runs after [`drop_rights`](crate::drop_rights), when everything is allocated and `env` is known.
///
/// The order: Landlock needs one new descriptor, so it precedes RLIMIT_NOFILE; it and seccomp need no_new_privs for a
/// process without CAP_SYS_ADMIN; setrlimit and everything else must precede seccomp.
pub fn seal(
    policy: &SandboxPolicy,
    env: &Bindings,
    requirement: SandboxRequirement,
) -> Result<KernelSupport, SandboxError> {
    if policy.role() == Role::Supervisor {
        return Err(SandboxError::WrongRole { act: "seal", role: policy.role() });
    }
    if kernel::has_threads() {
        return Err(SandboxError::Threads { act: "seal" });
    }
    // Compiled before anything is lost, so that a mistake in the policy can still be reported.
    let program = compile(policy, Some(env))?;
    let mut support = KernelSupport::default();
    support.note(Layer::Seccomp, support::has_seccomp(), "kill-process action");

    prctl::set_no_new_privs().map_err(|source| SandboxError::Refused {
        act: "set",
        object: "no_new_privs".to_owned(),
        source,
    })?;
    let (tcp_ports, udp_ports) = env.ports();
    support.note_landlock(restrict_with_landlock(tcp_ports, udp_ports)?);
    requirement.check(&support)?;
    limit_resources(policy.role(), env.workers())?;
    let_faults_kill()?;
    freeze_heap();

    if support.has(Layer::Seccomp) {
        // TSYNC although there is only one thread: if there were others, they would be sealed too.
        seccompiler::apply_filter_all_threads(&program).map_err(|e| SandboxError::Seccomp {
            act: "load",
            role: policy.role(),
            detail: e.to_string(),
        })?;
    }
    Ok(support)
}

/// Takes every right that Landlock knows and gives back only these: to connect to `tcp_ports` by TCP and to send to
/// `udp_ports` by UDP, on any host. Returns the kernel's ABI, 0 for none.
///
/// Landlock does not see netlink, UDP (before ABI 10) or descriptors already open (tests/facts.rs). It does see a
/// socket that is open but not connected: connecting it is checked then (hook_socket_connect in
/// security/landlock/net.c).
pub fn restrict_with_landlock(tcp_ports: &[u16], udp_ports: &[u16]) -> Result<i64, SandboxError> {
    let failed = |e: RulesetError| SandboxError::Landlock { detail: e.to_string() };
    let abi = support::landlock_abi();
    if abi == 0 {
        return Ok(0);
    }
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|r| r.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|r| r.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    for port in tcp_ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp)).map_err(failed)?;
    }
    for port in udp_ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectSendUdp)).map_err(failed)?;
    }
    if !udp_ports.is_empty() {
        // Port 0: the kernel gives the socket a local port when it sends (AccessNet::ConnectSendUdp).
        ruleset = ruleset.add_rule(NetPort::new(0, AccessNet::BindUdp)).map_err(failed)?;
    }
    let status = ruleset.restrict_self().map_err(failed)?;
    // The crate's best effort may enforce nothing at all without calling that an error.
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(SandboxError::Landlock { detail: format!("the kernel has ABI {abi} and enforces nothing") });
    }
    Ok(abi)
}

/// Sets a role's limits, soft and hard, so that raising them needs CAP_SYS_RESOURCE; where the hard limit is lower
/// already, that one stays. `workers`: how many a prober talks
/// to; 0 for any other role.
pub fn limit_resources(role: Role, workers: usize) -> Result<(), SandboxError> {
    for limit in Confinement::of(role).limits {
        let wanted = limit.value.with(workers);
        let refused =
            |source| SandboxError::Refused { act: "set limit", object: format!("{} {wanted}", limit.name), source };
        let (_, hard) = getrlimit(limit.resource).map_err(refused)?;
        let value = wanted.min(hard);
        setrlimit(limit.resource, value, value).map_err(refused)?;
    }
    Ok(())
}

/// Removes the handlers that Rust's runtime installs for stack overflow. On any other fault they restore the default
/// with rt_sigaction (library/std/src/sys/pal/unix/stack_overflow.rs), which inside the sandbox is SIGSYS: every wild
/// pointer would be logged as a suspected compromise, and a store into the templates would not be logged as what it is.
fn let_faults_kill() -> Result<(), SandboxError> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGSEGV, Signal::SIGBUS] {
        // SAFETY: the default action runs no code of ours.
        unsafe { sigaction(signal, &default) }.map_err(|source| SandboxError::Refused {
            act: "take the handler of",
            object: signal.to_string(),
            source,
        })?;
    }
    Ok(())
}

/// Heap for all small allocations after the seal: messages of the link, some 64 KiB each, many times over.
const SPARE_HEAP: usize = 1 << 20;

/// Makes the allocator live with what it has. glibc's `free` returns memory by brk once 128 KiB at the top are unused,
/// and the process would die of that (mallopt(3), M_TRIM_THRESHOLD); a `malloc` that finds nothing calls brk or mmap.
/// What does not fit into the spare heap still dies, as it should: nothing in the sandbox may grow.
fn freeze_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two numbers of the allocator: never map a block by itself, never give memory back.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, -1);
    }
    drop(std::hint::black_box(Vec::<u8>::with_capacity(SPARE_HEAP)));
}
