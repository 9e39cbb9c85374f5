//! What a check found.

use loaded_control::Effect;
use loaded_host::{Problem, Severity};
use loaded_supervisor::conditions::{effect, refuses_start};
use std::fmt;

/// The result of one check, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grade {
    /// In order.
    Sound,
    /// Not checked; the text says why.
    Unseen,
    /// Something may not work.
    Warning,
    /// `loaded` would not start, or would balance nothing of some service.
    Fatal,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The result.
    pub(crate) grade: Grade,
    /// What was checked: one word.
    pub(crate) object: &'static str,
    /// What was found, and the command that fixes it.
    pub(crate) text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = match self.grade {
            Grade::Sound => "ok",
            Grade::Unseen => "unseen",
            Grade::Warning => "warning",
            Grade::Fatal => "fatal",
        };
        write!(f, "{grade:<8} {:<10} {}", self.object, self.text)
    }
}

pub(super) fn sound(object: &'static str, text: impl ToString) -> Finding {
    Finding { grade: Grade::Sound, object, text: text.to_string() }
}

pub(super) fn unseen(object: &'static str, text: impl ToString) -> Finding {
    Finding { grade: Grade::Unseen, object, text: text.to_string() }
}

pub(super) fn warning(object: &'static str, text: impl ToString) -> Finding {
    Finding { grade: Grade::Warning, object, text: text.to_string() }
}

pub(super) fn fatal(object: &'static str, text: impl ToString) -> Finding {
    Finding { grade: Grade::Fatal, object, text: text.to_string() }
}

/// What the list of conditions says that a running instance goes by too.
pub(super) fn of_problem(problem: &Problem) -> Finding {
    let grade = match (effect(problem.severity), problem.severity) {
        _ if refuses_start(problem) => Grade::Fatal,
        (Effect::Stops, _) => Grade::Fatal,
        (_, Severity::Unknown) => Grade::Unseen,
        (Effect::Impairs | Effect::Note, _) => Grade::Warning,
    };
    Finding { grade, object: problem.kind, text: problem.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loaded_control::{Health, InstanceVerdict, ServiceHealth};
    use loaded_supervisor::conditions::of_problem as condition;

    const ALL: [Severity; 5] =
        [Severity::Fatal, Severity::NoStart, Severity::Impairing, Severity::Warning, Severity::Unknown];

    /// Every condition of the list that start, watch and doctor share has one of these severities, is about one service or
    /// all, and about one family or both.
    #[test]
    fn nothing_that_doctor_calls_fatal_is_ever_serving() {
        for severity in ALL {
            for (service, family) in [(None, None), (None, Some(4)), (Some("web"), None), (Some("dns"), Some(6))] {
                let service = service.map(str::to_owned);
                let problem = Problem { service, family, ..Problem::new("host", severity, "x") };
                let grade = of_problem(&problem).grade;
                let of = |name: &str| ServiceHealth {
                    name: name.to_owned(),
                    families: vec![4, 6],
                    verdict: InstanceVerdict::Serving,
                    up: 1,
                };
                let verdict = Health::judged(vec![of("web"), of("dns")], vec![condition(&problem)]).verdict;
                let counts = matches!(severity, Severity::Fatal | Severity::NoStart | Severity::Impairing);
                assert_eq!(verdict != InstanceVerdict::Serving, counts, "{problem:?}");
                assert_eq!(grade == Grade::Fatal, counts && severity != Severity::Impairing, "{problem:?}");
                assert_eq!(
                    verdict == InstanceVerdict::NotServing,
                    severity == Severity::Fatal && problem.service.is_none() && family.is_none()
                );
            }
        }
    }
}
