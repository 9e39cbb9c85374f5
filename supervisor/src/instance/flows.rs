//! `loaded flows`: searches for flows, a piece in each turn of the loop, so that everything else goes on meanwhile.

use super::Instance;
use super::flow_search::FlowSearch;
use crate::handover::monotonic;
use loaded_control::{ANSWER_DEADLINE, Answer, FlowQuery, Reply};
use std::time::Instant;

/// Maximum number of searches at a time; the rest of the control socket's connections is for other requests.
const MAX_SEARCHES: usize = 4;

impl Instance {
    /// Begins a search; the answer comes later.
    pub(super) fn begin_search(&mut self, query: FlowQuery) -> Answer {
        if self.operator.searches.len() >= MAX_SEARCHES {
            return Reply::error(format!("{MAX_SEARCHES} searches for flows are under way; ask again in a moment"))
                .into();
        }
        let id = self.operator.next_number();
        match FlowSearch::new(id, query, &self.current.roster, Instant::now() + ANSWER_DEADLINE) {
            Ok(search) => {
                self.operator.searches.push_back(search);
                Answer::Later(id)
            }
            Err(text) => Reply::error(text).into(),
        }
    }

    /// Reads a piece for one search, and answers it if that was the last.
    pub(super) fn continue_searches(&mut self) {
        let Some(mut search) = self.operator.searches.pop_front() else { return };
        let now = Instant::now();
        if search.deadline <= now {
            // Its client was told so by the connection.
            return;
        }
        let Some(worker) = self.children.workers.get(search.worker) else {
            let (id, list) = (search.id, search.into_list());
            return self.operator.settle(id, &Reply::Flows(Box::new(list)));
        };
        if search.wants_table() {
            match worker.memory.flow_reader() {
                Ok(reader) => search.give(reader),
                Err(error) => {
                    return self.operator.settle(search.id, &Reply::error(format!("{}: {error}", worker.name())));
                }
            }
        }
        search.go_on(&self.current.roster, worker.position, monotonic::seconds());
        self.operator.searches.push_back(search);
    }
}
