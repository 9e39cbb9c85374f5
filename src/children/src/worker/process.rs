//! One process of a worker, from its start to its end.

use super::ending::Ending;
use super::pulse::Pulse;
use super::questions::Questions;
use crate::child::{Child, ChildSpec, START_DEADLINE, printable};
use loaded_ipc::{Admin, BackendIndex, FromWorker, ToWorker};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a worker may take to finish its batch and go. It looks at its link every 50 ms when idle.
const LEAVE_DEADLINE: Duration = Duration::from_secs(1);
/// Messages heard at a time; an honest worker sends two in its life, and one for each question and order.
const HEARD_AT_ONCE: u32 = 16;
/// Tables of a worker.
const TABLES: usize = 2;

/// A process of a worker.
#[derive(Debug)]
pub(super) struct WorkerProcess {
    pub(super) child: Child<FromWorker, ToWorker>,
    pub(super) generation: u64,
    pub(super) stage: WorkerStage,
    pub(super) pulse: Pulse,
    /// The operator's wish for each backend, as it was last told.
    pub(super) told: BTreeMap<BackendIndex, Admin>,
    /// The number of the state of all wishes that it was told; 0: of none.
    pub(super) synced: u64,
    /// What it was asked, and has answered.
    pub(super) questions: Questions,
    /// The order to end flows that it has, and how many it has ended by it.
    pub(super) ending: Ending,
    /// What it has said of its tables, and nobody has been told yet.
    pub(super) damages: Vec<String>,
}

/// The stages of a worker's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkerStage {
    /// Takes its configuration and seals itself.
    Preparing,
    /// Is configured and sealed, and waits for `Go`.
    Prepared,
    /// Opens the tables.
    Opening,
    Serving,
    /// Was told to stop, at this time.
    Leaving(Instant),
}

impl WorkerProcess {
    pub(super) fn new(
        child: Child<FromWorker, ToWorker>,
        generation: u64,
        told: BTreeMap<BackendIndex, Admin>,
    ) -> Self {
        Self {
            child,
            generation,
            stage: WorkerStage::Preparing,
            pulse: Pulse::default(),
            told,
            synced: 0,
            questions: Questions::default(),
            ending: Ending::default(),
            damages: Vec::new(),
        }
    }

    pub(super) fn is_serving(&self) -> bool {
        self.stage == WorkerStage::Serving
    }

    /// Tells it to answer the packets it holds and to end.
    pub(super) fn leave(&mut self) {
        self.child.tell(ToWorker::Stop);
        self.stage = WorkerStage::Leaving(Instant::now());
    }

    /// When it has to be further, if it has to.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.stage {
            WorkerStage::Preparing | WorkerStage::Opening => Some(self.child.deadline()),
            WorkerStage::Leaving(since) => Some(since + LEAVE_DEADLINE),
            WorkerStage::Prepared | WorkerStage::Serving => None,
        }
    }

    /// Sends and hears what it can without waiting. `goes_at_once`: it serves as soon as it is prepared.
    ///
    /// # Errors
    /// What it has done wrong, for which it is to be killed.
    pub(super) fn talk(&mut self, spec: &ChildSpec, goes_at_once: bool) -> Result<(), String> {
        self.child.flush()?;
        // A hostile one may never stop talking. The rest of its messages wait, and the deadline below applies.
        for _ in 0..HEARD_AT_ONCE {
            let Some(message) = self.child.hear()? else { break };
            match message {
                FromWorker::Prepared { generation }
                    if self.stage == WorkerStage::Preparing
                        && generation == self.generation
                        && self.child.was_told() =>
                {
                    self.child.prove(spec)?;
                    self.stage = WorkerStage::Prepared;
                }
                FromWorker::Ready { generation }
                    if self.stage == WorkerStage::Opening && generation == self.generation && self.child.was_told() =>
                {
                    self.stage = WorkerStage::Serving;
                }
                FromWorker::Damaged(text) if self.stage == WorkerStage::Opening && self.damages.len() < TABLES => {
                    self.damages.push(printable(&text));
                }
                FromWorker::Explained { id, explained } if self.questions.answered(id, explained) => {}
                FromWorker::Ended { id, ended } if self.ending.said(id, ended) => {}
                FromWorker::Failed(text) => self.child.note_reason(&text)?,
                // It was just getting ready when it was told to stop.
                FromWorker::Prepared { .. } | FromWorker::Ready { .. }
                    if matches!(self.stage, WorkerStage::Leaving(_)) => {}
                message => return Err(printable(&format!("said {message:?} out of turn"))),
            }
        }
        if goes_at_once && self.stage == WorkerStage::Prepared {
            self.child.tell(ToWorker::Go);
            self.stage = WorkerStage::Opening;
            self.child.flush()?;
        }
        match self.deadline() {
            Some(deadline) if deadline <= Instant::now() => Err(match self.stage {
                WorkerStage::Leaving(_) => format!("has not ended within {LEAVE_DEADLINE:?}"),
                _ => format!("not ready within {START_DEADLINE:?}"),
            }),
            _ => Ok(()),
        }
    }
}

impl WorkerStage {
    /// In the operator's words.
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

/// The reason that a worker gives for its end.
pub(super) fn reason(message: FromWorker) -> Option<String> {
    match message {
        FromWorker::Failed(text) => Some(text),
        _ => None,
    }
}
