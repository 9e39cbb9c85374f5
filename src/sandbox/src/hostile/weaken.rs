//! Policies with one part removed, for tests that must see the suite fail.

use seccompiler::SeccompAction;

use crate::policy::{Arg, SandboxPolicy};

/// The part to remove.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// A demand on an argument of a call, in every rule that has it; at least one must.
    Argument(&'static str, Arg),
    /// An allowed call, with all its rules.
    Call(&'static str),
    /// The death of whatever is not listed.
    Default,
}

impl SandboxPolicy {
    /// The same policy without `part`. Panics if the policy has no such part, because the test would prove nothing.
    #[must_use]
    pub fn without(mut self, part: Part) -> SandboxPolicy {
        match part {
            Part::Argument(call, arg) => {
                let mut found = false;
                for rule in self.rules.iter_mut().filter(|r| r.call == call && r.args.contains(&arg)) {
                    rule.args = rule.args.iter().copied().filter(|a| *a != arg).collect();
                    found = true;
                }
                assert!(found, "{call} has no demand {arg:?}");
            }
            Part::Call(call) => {
                let before = self.rules.len();
                self.rules.retain(|r| r.call != call);
                assert_ne!(self.rules.len(), before, "no call {call} in the policy");
            }
            // seccompiler refuses two equal actions; Log is Allow plus a line in the audit log.
            Part::Default => self.others = SeccompAction::Log,
        }
        self
    }
}
