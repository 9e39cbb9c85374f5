//! A policy with one part taken out, for tests that must see the suite turn red.

use seccompiler::SeccompAction;

use crate::policy::{Arg, SandboxPolicy};

/// What to take out.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// A demand on an argument of a call, in each rule that has it; one must.
    Argument(&'static str, Arg),
    /// A whole allowed call, all its rules.
    Call(&'static str),
    /// The death of whatever is not listed.
    Default,
}

impl SandboxPolicy {
    /// The same policy without `part`. Panics if the policy has no such part, for then a test would prove nothing.
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
            // seccompiler refuses two equal actions; Log is Allow with a line in the audit log.
            Part::Default => self.others = SeccompAction::Log,
        }
        self
    }
}
