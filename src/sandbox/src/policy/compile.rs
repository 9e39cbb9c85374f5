//! Compiles a policy and its bindings to a BPF program.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::SandboxPolicy;
use super::bindings::Bindings;
use super::rule::{Arg, SyscallRule};
use crate::error::SandboxError;

/// x32 calls carry this bit but the architecture of x86_64, so an architecture check lets them pass (seccomp(2)). An
/// allow list is not affected; a deny list by number could be bypassed where the kernel has x32.
const X32_BIT: u32 = 0x4000_0000;

pub(crate) fn compile(policy: &SandboxPolicy, env: Option<&Bindings>) -> Result<BpfProgram, SandboxError> {
    let role = policy.role;
    if let Some(env) = env {
        env.check(role)?;
    }
    let mut table: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in &policy.rules {
        let conditions = conditions(policy, rule, env)?;
        let alternatives = table.entry(rule.number).or_default();
        // In seccompiler, no alternatives at all means "any arguments".
        let any = policy.rules.iter().any(|other| other.number == rule.number && other.args.is_empty());
        if !any {
            alternatives.push(SeccompRule::new(conditions).map_err(|e| unfit(policy, &e))?);
        }
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| unfit(policy, &e))?;
    // seccompiler checks the architecture first and answers KILL_PROCESS: int 0x80 ends there.
    let filter =
        SeccompFilter::new(table, policy.others.clone(), policy.listed.clone(), arch).map_err(|e| unfit(policy, &e))?;
    let is_deny_list = policy.listed == SeccompAction::KillProcess;
    let mut program = if is_deny_list { kill_x32() } else { BpfProgram::new() };
    program.extend(BpfProgram::try_from(filter).map_err(|e| unfit(policy, &e))?);
    Ok(program)
}

fn conditions(
    policy: &SandboxPolicy,
    rule: &SyscallRule,
    env: Option<&Bindings>,
) -> Result<Vec<SeccompCondition>, SandboxError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, Ge, Lt, MaskedEq};

    let unbound = || SandboxError::Bindings { role: policy.role, problem: format!("{} needs bindings", rule.call) };
    let mut all = Vec::new();
    let mut demand = |index, length, operator, value| {
        SeccompCondition::new(index, length, operator, value).map(|c| all.push(c)).map_err(|e| unfit(policy, &e))
    };
    for arg in rule.args.iter() {
        match *arg {
            Arg::FdIs(fd) => {
                let numbers = env.and_then(|env| env.numbers(fd)).ok_or_else(unbound)?;
                let [start, end] = [numbers.start, numbers.end].map(|number| u64::from(number.unsigned_abs()));
                if end - start == 1 {
                    demand(0, Dword, Eq, start)?;
                } else {
                    demand(0, Dword, Ge, start)?;
                    demand(0, Dword, Lt, end)?;
                }
            }
            Arg::InTemplates(index) => {
                let templates = env.and_then(Bindings::templates).ok_or_else(unbound)?;
                demand(index, Qword, Ge, templates.start)?;
                demand(index, Qword, Lt, templates.end)?;
            }
            Arg::AlignedTo(index, to) => demand(index, Qword, MaskedEq(to - 1), 0)?,
            Arg::Is(index, value) => demand(index, Dword, Eq, u64::from(value))?,
            Arg::OnlyBits(index, bits) => demand(index, Dword, MaskedEq(u64::from(!bits)), 0)?,
            Arg::Null(index) => demand(index, Qword, Eq, 0)?,
        }
    }
    Ok(all)
}

fn kill_x32() -> BpfProgram {
    const LOAD_NUMBER: u16 = 0x20; // BPF_LD|BPF_W|BPF_ABS; the number is at offset 0 of struct seccomp_data
    const JUMP_IF_GE: u16 = 0x35; // BPF_JMP|BPF_JGE|BPF_K
    const RETURN: u16 = 0x06; // BPF_RET|BPF_K
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_GE, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS },
    ]
}

fn unfit(policy: &SandboxPolicy, error: &BackendError) -> SandboxError {
    SandboxError::Seccomp { act: "compile", role: policy.role, detail: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn worker() -> Bindings {
        Bindings::Worker { queue_fd: 3, link_fd: 4, membership_fd: 5, templates: 0x2000_0000_0000..0x2000_0000_4000 }
    }

    fn prober() -> Bindings {
        Bindings::Prober {
            link_fd: 3,
            ping4_fd: 4,
            ping6_fd: 5,
            epoll_fd: 6,
            workers: 7..9,
            tcp_ports: vec![80],
            udp_ports: Vec::new(),
        }
    }

    #[test]
    fn the_workers_policy_compiles_small() {
        let program = compile(&SandboxPolicy::worker(), Some(&worker())).unwrap();
        // Each batch of packets runs through it twice; growth has a reason or is a mistake.
        assert!(program.len() < 100, "{} instructions", program.len());
    }

    #[test]
    fn the_probers_policy_compiles() {
        for udp in [false, true] {
            let program = compile(&SandboxPolicy::prober(udp), Some(&prober())).unwrap();
            // Beyond 4096 instructions the kernel refuses a filter (BPF_MAXINSNS).
            assert!(program.len() < 400, "{} instructions", program.len());
        }
    }

    #[test]
    fn the_exporters_policy_compiles_and_needs_two_descriptors() {
        let bindings = |link_fd, listener_fd| Bindings::Exporter { link_fd, listener_fd };
        assert!(compile(&SandboxPolicy::exporter(), Some(&bindings(3, 4))).unwrap().len() < 150);
        for (link_fd, listener_fd) in [(3, 3), (-1, 4), (3, -1)] {
            assert!(compile(&SandboxPolicy::exporter(), Some(&bindings(link_fd, listener_fd))).is_err());
        }
        assert!(compile(&SandboxPolicy::exporter(), Some(&prober())).is_err(), "another role's");
    }

    #[test]
    fn a_rule_with_symbols_needs_bindings() {
        for policy in [SandboxPolicy::worker(), SandboxPolicy::prober(true), SandboxPolicy::exporter()] {
            let text = compile(&policy, None).unwrap_err().to_string();
            assert!(text.contains("needs bindings"), "{text}");
        }
    }

    #[test]
    fn senseless_bindings_are_refused() {
        for (queue_fd, link_fd, membership_fd, templates) in [
            (3, 3, 5, 64..128),
            (3, 4, 3, 64..128),
            (3, 4, 4, 64..128),
            (-1, 4, 5, 64..128),
            (3, 4, 5, 64..64),
            (3, 4, 5, 72..128),
            (3, 4, 5, 64..120),
            (3, 4, 5, 0..64),
        ] {
            let bindings = Bindings::Worker { queue_fd, link_fd, membership_fd, templates };
            assert!(compile(&SandboxPolicy::worker(), Some(&bindings)).is_err(), "{bindings:?}");
        }
        for (link_fd, ping4_fd, ping6_fd, epoll_fd, workers) in [
            (3, 3, 5, 6, 7..8),
            (3, 4, 4, 6, 7..8),
            (3, 4, 5, 5, 7..8),
            (-1, 4, 5, 6, 7..8),
            (3, 4, 5, 6, 7..7),
            (3, 4, 5, 6, 6..8),
            (8, 4, 5, 6, 7..8),
        ] {
            let (tcp_ports, udp_ports) = (Vec::new(), Vec::new());
            let bindings = Bindings::Prober { link_fd, ping4_fd, ping6_fd, epoll_fd, workers, tcp_ports, udp_ports };
            assert!(compile(&SandboxPolicy::prober(true), Some(&bindings)).is_err(), "{bindings:?}");
        }
        assert!(compile(&SandboxPolicy::prober(false), Some(&worker())).is_err(), "another role's");
        assert!(compile(&SandboxPolicy::worker(), Some(&prober())).is_err(), "another role's");
    }

    #[test]
    fn the_supervisors_deny_list_starts_with_x32() {
        let program = compile(&SandboxPolicy::supervisor(), None).unwrap();
        assert_eq!(program[1].k, X32_BIT);
    }

    /// Two rules for one call are alternatives; one without demands would make the other meaningless.
    #[test]
    fn no_rule_is_listed_twice() {
        let children = [SandboxPolicy::worker(), SandboxPolicy::prober(true), SandboxPolicy::exporter()];
        for policy in children.into_iter().chain([SandboxPolicy::supervisor()]) {
            for (place, rule) in policy.rules().iter().enumerate() {
                for other in &policy.rules()[..place] {
                    let apart = rule.number != other.number
                        || (rule.args != other.args && !rule.args.is_empty() && !other.args.is_empty());
                    assert!(apart, "{}: {}", policy.role(), rule.call);
                }
            }
        }
    }
}
