//! Who answers a queue before a worker's first process does: the workers of a supervisor that was killed, or of one that
//! gives way. Only when they have ended the process begins: a queue and its tables have one user at a time.

use loaded_sandbox::PidFd;

/// Those before.
#[derive(Debug)]
pub(crate) enum PreviousWorkers {
    /// None, or they have ended.
    Nobody,
    /// They serve, and go on until we are ready. Empty: their own supervisor ends them.
    Serving(Vec<PidFd>),
    /// They were told to end.
    Ending(Vec<PidFd>),
}

impl PreviousWorkers {
    /// Whether the queue is free.
    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Nobody)
    }

    /// Whether they will have ended in a moment.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Self::Ending(_))
    }

    /// We are ready: they end. What they have read and not answered is then for [`PreviousWorkers::settle`]'s caller to free. Whether
    /// we have ended them, and not their own supervisor.
    pub(super) fn end(&mut self) -> bool {
        let Self::Serving(processes) = self else { return false };
        let are_killed = !processes.is_empty();
        for process in processes.iter() {
            if let Err(error) = process.kill() {
                log::error!("{error}");
            }
        }
        *self = Self::Ending(std::mem::take(processes));
        are_killed
    }

    /// Whether the queue has become free just now, and whether what they held has to be freed.
    pub(super) fn settle(&mut self) -> Option<bool> {
        let Self::Ending(processes) = self else { return None };
        if !processes.iter().all(PidFd::has_ended) {
            return None;
        }
        let killed = !processes.is_empty();
        *self = Self::Nobody;
        Some(killed)
    }
}
