//! One process of a worker, from its start to its end.

use super::Terms;
use super::questions::Questions;
use crate::children::child::{Child, START_DEADLINE, printable};
use loaded_ipc::{Admin, BackendIndex, FromWorker, ToWorker};
use loaded_sandbox::proof::prove;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a worker may take to finish its batch and go. It looks at its link every 50 ms when idle.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);
/// Messages heard at a time; an honest worker says two in its life, and answers what it is asked.
const HEARD_AT_ONCE: u32 = 16;

/// A process of a worker.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) child: Child<FromWorker, ToWorker>,
    pub(super) generation: u64,
    pub(super) stage: Stage,
    /// What it was told that the operator wants of each backend.
    pub(super) told: BTreeMap<BackendIndex, Admin>,
    /// What it was asked.
    pub(super) questions: Questions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Configures and seals itself.
    Preparing,
    /// Waits for `Go`.
    Prepared,
    /// Opens the tables.
    Opening,
    Serving,
    /// Told to stop, at this time.
    Leaving(Instant),
}

impl Life {
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Preparing | Stage::Opening => Some(self.child.deadline()),
            Stage::Leaving(since) => Some(since + LEAVE_DEADLINE),
            Stage::Prepared | Stage::Serving => None,
        }
    }

    pub(super) fn talk(&mut self, terms: &Terms, goes_at_once: bool) -> Result<(), String> {
        self.child.flush()?;
        // A hostile one may never stop to talk. What it has more to say waits, and the deadline below counts.
        for _ in 0..HEARD_AT_ONCE {
            let Some(message) = self.child.hear()? else { break };
            match message {
                FromWorker::Prepared { generation }
                    if self.stage == Stage::Preparing && generation == self.generation && self.child.was_told() =>
                {
                    prove(self.child.pid(), &terms.expected)
                        .map_err(|differences| format!("is not jailed as it should be: {}", differences.join("; ")))?;
                    self.stage = Stage::Prepared;
                }
                FromWorker::Ready { generation }
                    if self.stage == Stage::Opening && generation == self.generation && self.child.was_told() =>
                {
                    self.stage = Stage::Serving;
                }
                FromWorker::Explained { id, explained } if self.questions.answered(id, explained) => {}
                FromWorker::Failed(text) => self.child.confess(&text)?,
                // It was about to get ready when it was told to stop.
                FromWorker::Prepared { .. } | FromWorker::Ready { .. } if matches!(self.stage, Stage::Leaving(_)) => {}
                message => return Err(printable(&format!("said {message:?} out of turn"))),
            }
        }
        if goes_at_once && self.stage == Stage::Prepared {
            self.child.tell(ToWorker::Go);
            self.stage = Stage::Opening;
            self.child.flush()?;
        }
        match self.deadline() {
            Some(deadline) if deadline <= Instant::now() => Err(match self.stage {
                Stage::Leaving(_) => format!("does not go within {LEAVE_DEADLINE:?}"),
                _ => format!("not ready within {START_DEADLINE:?}"),
            }),
            _ => Ok(()),
        }
    }
}

impl Stage {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Prepared => "prepared",
            Self::Opening => "opening its tables",
            Self::Serving => "serving",
            Self::Leaving(_) => "leaving",
        }
    }
}

pub(super) fn farewell(message: FromWorker) -> Option<String> {
    match message {
        FromWorker::Failed(text) => Some(text),
        _ => None,
    }
}
