//! What a worker's process was asked, and what it has answered. It may be hostile: it can answer each question once, and only
//! what was asked.

use loaded_ipc::Explained;
use std::collections::VecDeque;

/// Maximum number of questions without an answer, so that they do not pile up for a process that is stopped.
pub(super) const MAX_OPEN: usize = 8;

/// The questions of one process.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Without an answer, in the order they were asked.
    open: VecDeque<u32>,
    answers: Vec<(u32, Explained)>,
}

impl Questions {
    /// Notes a question. `false`: there are too many, so it must not be asked.
    pub(super) fn asked(&mut self, id: u32) -> bool {
        let has_room = self.open.len() + self.answers.len() < MAX_OPEN;
        if has_room {
            self.open.push_back(id);
        }
        has_room
    }

    /// Takes an answer. Answers come in the order of the questions; a question that was skipped gets none. `false`:
    /// nobody asked.
    pub(super) fn answered(&mut self, id: u32, explained: Explained) -> bool {
        let Some(place) = self.open.iter().position(|open| *open == id) else { return false };
        self.open.drain(..=place);
        self.answers.push((id, explained));
        true
    }

    /// Hands out the answers there are.
    pub(super) fn answers(&mut self) -> impl Iterator<Item = (u32, Explained)> {
        self.answers.drain(..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loaded_ipc::{Assumed, Outcome};

    const SAID: Explained =
        Explained { assumed: Assumed::Any, outcome: Outcome::PassedForeign, service: None, flow: None, chosen: None };

    #[test]
    fn only_what_was_asked_has_an_answer_and_one() {
        let mut questions = Questions::default();
        assert!(!questions.answered(0, SAID), "nobody has asked");
        assert!((1..=3).all(|id| questions.asked(id)));
        assert!(!questions.answered(4, SAID));
        assert!(questions.answered(2, SAID));
        assert!(!questions.answered(2, SAID), "answered before");
        assert!(!questions.answered(1, SAID), "passed over");
        assert!(questions.answered(3, SAID));
        assert_eq!(questions.answers().map(|(id, _)| id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(questions.answers().count(), 0);
    }

    #[test]
    fn no_more_are_asked_than_it_answers() {
        let mut questions = Questions::default();
        assert!((0..8).all(|id| questions.asked(id)) && !questions.asked(8));
        assert!(questions.answered(0, SAID));
        assert!(!questions.asked(8), "the answer waits to be fetched");
        assert_eq!(questions.answers().count(), 1);
        assert!(questions.asked(8) && !questions.asked(9));
    }
}
