//! From a policy and its bindings to a BPF program.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};

use super::{Arg, Bindings, Fd, Policy, Rule, Stance};
use crate::error::JailError;

/// x32 calls have this bit and the architecture of x86_64, so an architecture check lets them by (seccomp(2)). An
/// allow list does not care; a deny list by number could be walked around with it where the kernel has x32.
const X32_BIT: u32 = 0x4000_0000;

pub(crate) fn compile(policy: &Policy, env: Option<&Bindings>) -> Result<BpfProgram, JailError> {
    let role = policy.role;
    if let Some(env) = env {
        env.check(role)?;
    }
    let mut table: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in &policy.rules {
        let conditions = conditions(policy, rule, env)?;
        let alternatives = table.entry(rule.number).or_default();
        // seccompiler: no alternatives at all means "whatever the arguments".
        if !conditions.is_empty() {
            alternatives.push(SeccompRule::new(conditions).map_err(|e| unfit(policy, &e))?);
        }
    }
    let (listed, others) = match policy.stance {
        Stance::AllowListed => (SeccompAction::Allow, SeccompAction::KillProcess),
        Stance::KillListed => (SeccompAction::KillProcess, SeccompAction::Allow),
        // seccompiler refuses two equal actions; Log is Allow with a line in the audit log.
        #[cfg(feature = "weakened")]
        Stance::AllowAll => (SeccompAction::Allow, SeccompAction::Log),
    };
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|e| unfit(policy, &e))?;
    // seccompiler puts the architecture check first, with KILL_PROCESS: int 0x80 ends there.
    let filter = SeccompFilter::new(table, others, listed, arch).map_err(|e| unfit(policy, &e))?;
    let mut program = match policy.stance {
        Stance::KillListed => kill_x32(),
        _ => BpfProgram::new(),
    };
    program.extend(BpfProgram::try_from(filter).map_err(|e| unfit(policy, &e))?);
    Ok(program)
}

fn conditions(policy: &Policy, rule: &Rule, env: Option<&Bindings>) -> Result<Vec<SeccompCondition>, JailError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, Ge, Lt, MaskedEq};

    let unbound = || JailError::Bindings { role: policy.role, problem: format!("{} needs bindings", rule.call) };
    let mut all = Vec::new();
    let mut demand = |index, length, operator, value| {
        SeccompCondition::new(index, length, operator, value).map(|c| all.push(c)).map_err(|e| unfit(policy, &e))
    };
    for arg in rule.args.iter() {
        match *arg {
            Arg::FdIs(fd) => {
                let env = env.ok_or_else(unbound)?;
                let number = match fd {
                    Fd::Queue => env.queue_fd,
                    Fd::Link => env.link_fd,
                };
                demand(0, Dword, Eq, u64::from(number.unsigned_abs()))?;
            }
            Arg::InTemplates(index) => {
                let templates = &env.ok_or_else(unbound)?.templates;
                demand(index, Qword, Ge, templates.start)?;
                demand(index, Qword, Lt, templates.end)?;
            }
            Arg::AlignedTo(index, to) => demand(index, Qword, MaskedEq(to - 1), 0)?,
            Arg::Is(index, value) => demand(index, Dword, Eq, u64::from(value))?,
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

fn unfit(policy: &Policy, error: &BackendError) -> JailError {
    JailError::Seccomp { act: "compile", role: policy.role, detail: error.to_string() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bindings() -> Bindings {
        Bindings { queue_fd: 3, link_fd: 4, templates: 0x2000_0000_0000..0x2000_0000_4000 }
    }

    #[test]
    fn the_workers_policy_compiles_small() {
        let program = compile(&Policy::worker(), Some(&bindings())).unwrap();
        // Each packet batch runs through it twice; a program that grew has a reason or a mistake.
        assert!(program.len() < 100, "{} instructions", program.len());
    }

    #[test]
    fn a_rule_with_symbols_needs_bindings() {
        let text = compile(&Policy::worker(), None).unwrap_err().to_string();
        assert!(text.contains("needs bindings"), "{text}");
    }

    #[test]
    fn senseless_bindings_are_refused() {
        let with = |f: fn(&mut Bindings)| {
            let mut b = bindings();
            f(&mut b);
            compile(&Policy::worker(), Some(&b))
        };
        assert!(with(|b| b.link_fd = 3).is_err());
        assert!(with(|b| b.queue_fd = -1).is_err());
        assert!(with(|b| b.templates = 64..64).is_err());
        assert!(with(|b| b.templates.start += 8).is_err());
        assert!(with(|b| b.templates = 0..64).is_err());
    }

    #[test]
    fn the_supervisors_deny_list_starts_with_x32() {
        let program = compile(&Policy::supervisor(), None).unwrap();
        assert_eq!(program[1].k, X32_BIT);
    }

    #[test]
    fn no_call_is_listed_twice() {
        for policy in [Policy::worker(), Policy::supervisor()] {
            let mut numbers: Vec<i64> = policy.rules().iter().map(|r| r.number).collect();
            numbers.sort_unstable();
            let before = numbers.len();
            numbers.dedup();
            assert_eq!(numbers.len(), before, "{}", policy.role());
        }
    }
}
