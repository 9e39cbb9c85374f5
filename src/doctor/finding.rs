//! What a check found.

use loaded_host::{Problem, Severity};
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
    let grade = match problem.severity {
        Severity::Fatal => Grade::Fatal,
        Severity::Impairing | Severity::Warning => Grade::Warning,
        Severity::Unknown => Grade::Unseen,
    };
    Finding { grade, object: problem.kind, text: problem.to_string() }
}
