//! The workers that answer a queue before ours does: those of a killed supervisor, or of one that gives way. Ours begins only
//! when they have ended, because a queue and its tables have one user at a time.

use loaded_sandbox::PidFd;

/// The previous workers of a queue.
#[derive(Debug)]
pub enum PreviousWorkers {
    /// There are none, or they have ended.
    None,
    /// They serve until ours is prepared. Empty: their own supervisor ends them.
    Serving(Vec<PidFd>),
    /// They were told to end.
    Ending(Vec<PidFd>),
}

impl PreviousWorkers {
    /// Whether they have ended, and the queue is free.
    pub(super) fn have_ended(&self) -> bool {
        matches!(self, Self::None)
    }

    /// Whether they were told to end and have not yet ended.
    pub(super) fn is_ending(&self) -> bool {
        matches!(self, Self::Ending(_))
    }

    /// Ends them. Returns whether we killed them ourselves; otherwise their own supervisor ended them. Once
    /// [`PreviousWorkers::just_ended`] says so, the packets they have read and not answered must be released.
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

    /// `Some` once, when they have ended: whether we killed them, so that the packets they held must be released.
    pub(super) fn just_ended(&mut self) -> Option<bool> {
        let Self::Ending(processes) = self else { return None };
        if !processes.iter().all(PidFd::has_ended) {
            return None;
        }
        let killed = !processes.is_empty();
        *self = Self::None;
        Some(killed)
    }
}
