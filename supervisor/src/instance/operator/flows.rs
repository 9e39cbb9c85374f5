//! `loaded flows`: searches for flows, a piece in each turn of the loop, so that everything else goes on meanwhile; and
//! `loaded flows --end`, which the workers do, each in its own table.

use super::OpenEnding;
use super::flow_search::{FlowSearch, meant};
use crate::instance::Instance;
use crate::roster::monotonic;
use loaded_control::{ANSWER_DEADLINE, Answer, By, EndedFlows, FlowQuery, Reply};
use std::time::{Duration, Instant};

/// Maximum number of searches at a time; the rest of the control socket's connections is for other requests.
const MAX_SEARCHES: usize = 4;

/// How long the operator waits for workers that end flows. A table of a million flows takes one that has few packets 3 s. Whoever
/// takes longer goes on all the same, and then takes the next order.
const END_DEADLINE: Duration = Duration::from_secs(15);

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
    pub(in crate::instance) fn continue_searches(&mut self) {
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
        let (roster, fast) = (&self.current.roster, self.host.fast.as_ref());
        let by_kernel = |protocol, known| fast.is_some_and(|fast| fast.takes(protocol, known, worker, roster));
        search.go_on(roster, worker.position, monotonic::seconds(), &by_kernel);
        self.operator.searches.push_back(search);
    }

    /// Tells the workers to end flows; the answer comes later.
    pub(super) fn end_flows(&mut self, query: FlowQuery) -> Answer {
        if self.operator.ending.is_some() {
            return Reply::error("flows are being ended; say it again in a moment").into();
        }
        let which = in_words(&query);
        let meant = match meant(query, &self.current.roster) {
            Ok(meant) => meant,
            Err(text) => return Reply::error(text).into(),
        };
        let id = self.operator.next_number();
        let (mut waiting, mut done) = (Vec::new(), EndedFlows::default());
        for worker in &mut self.children.workers {
            let list = if worker.end_flows(id, meant) { &mut waiting } else { &mut done.unsaid };
            list.push(worker.position);
        }
        self.operator.ending = Some(OpenEnding { id, deadline: Instant::now() + END_DEADLINE, waiting, done, which });
        Answer::AfterChange(id)
    }

    /// Says how many flows were ended, once every worker has said so, has died, or has taken too long.
    pub(in crate::instance) fn conclude_ending(&mut self) {
        let Some(OpenEnding { id, deadline, waiting, done, .. }) = &mut self.operator.ending else { return };
        let workers = &self.children.workers;
        waiting.retain(|position| {
            let worker = workers.iter().find(|worker| worker.position == *position);
            match worker.map(|worker| worker.ended(*id)) {
                Some(Ok(None)) => true,
                Some(Ok(Some(ended))) => {
                    done.ended = done.ended.saturating_add(ended.into());
                    false
                }
                Some(Err(_)) | None => {
                    done.unsaid.push(*position);
                    false
                }
            }
        });
        if !waiting.is_empty() && Instant::now() < *deadline {
            return;
        }
        let Some(OpenEnding { id, waiting, mut done, which, .. }) = self.operator.ending.take() else { return };
        done.unsaid.extend(waiting);
        done.unsaid.sort_unstable();
        let what = format!("{} flows ended", done.ended);
        log::info!(event = "instance"; "{what}: {which}");
        self.operator.record(what, which, By::Operator);
        self.recorder.set_outdated();
        self.operator.settle(id, &Reply::Ended(done));
    }
}

/// Which flows, for log and history.
fn in_words(query: &FlowQuery) -> String {
    let FlowQuery { client, backend, port, service, state, .. } = query;
    let words = [
        client.map(|(address, length)| format!("client {address}/{length}")),
        backend.map(|address| format!("backend {address}")),
        port.map(|port| format!("port {port}")),
        service.as_ref().map(|name| format!("service {name}")),
        state.as_ref().map(|state| format!("state {state}")),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
