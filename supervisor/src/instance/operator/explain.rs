//! `loaded explain`: what would become of a client's next packet. The worker that would get it is asked, and its answer checked,
//! since it may be hostile. Nothing here waits for it.

use super::OpenQuestion;
use super::explanation::{WorkerAnswer, checked};
use crate::instance::Instance;
use loaded_control::{Answer, Explanation, Reply, Tuple};
use loaded_ipc::Question;
use std::time::{Duration, Instant};

/// How long a worker may take to answer. It looks at its link every 5 ms when busy, and every 50 ms when idle.
const DEADLINE: Duration = Duration::from_secs(1);
/// Maximum number of questions that wait, to all workers together: that leaves connections of the control socket for
/// other requests.
const MAX_WAITING: usize = 8;

impl Instance {
    /// Asks the worker that gets this client's packets; the answer comes later.
    pub(super) fn explain(&mut self, tuple: Tuple) -> Answer {
        match self.ask_worker(tuple) {
            Ok(id) => Answer::Later(id),
            Err(text) => Reply::error(text).into(),
        }
    }

    fn ask_worker(&mut self, tuple: Tuple) -> Result<u32, String> {
        let tuple = checked(tuple)?;
        let vips = || self.current.roster.vips().map(|(_, vip)| vip);
        if !vips().any(|vip| vip == tuple.vip) {
            return Err(format!("{} is not a virtual IP of this instance; loaded status lists them", tuple.vip));
        }
        if vips().any(|vip| vip == tuple.client) {
            return Err(format!("{} is a virtual IP: packets from one bypass the workers", tuple.client));
        }
        if self.current.plan.nameservers.contains(&tuple.client)
            && tuple.client_port == 53
            && matches!(tuple.protocol, 6 | 17)
        {
            return Err(format!("{} is a name server: its answers bypass the workers", tuple.client));
        }
        if self.operator.questions.waiting.len() >= MAX_WAITING {
            return Err(format!("{MAX_WAITING} questions wait for an answer; ask again in a moment"));
        }
        let workers = u16::try_from(self.children.workers.len()).unwrap_or(u16::MAX);
        let position = self.fixed.steering.worker_of(tuple.client, workers);
        let worker = self.children.workers.iter_mut().find(|worker| worker.position == position);
        let worker = worker.ok_or_else(|| format!("there is no worker {position}"))?;
        let id = self.operator.next_number();
        let Tuple { protocol, client, client_port, vip, vip_port } = tuple;
        worker.ask(id, Question { protocol, client, client_port, vip, vip_port })?;
        let deadline = Instant::now() + DEADLINE;
        self.operator.questions.waiting.push(OpenQuestion { id, tuple, worker: position, deadline });
        Ok(id)
    }

    /// Passes the workers' answers on, and says which workers have not answered in time.
    pub(in crate::instance) fn answer_questions(&mut self) {
        let now = Instant::now();
        let mut replies = Vec::new();
        for worker in &mut self.children.workers {
            for (id, generation, explained) in worker.answers() {
                // A question that has waited for too long was answered with an error already.
                let position = self.operator.questions.waiting.iter().position(|waiting| waiting.id == id);
                let Some(waiting) = position.map(|position| self.operator.questions.waiting.swap_remove(position))
                else {
                    continue;
                };
                let answer = WorkerAnswer { tuple: waiting.tuple, worker: waiting.worker, explained };
                let reply = match answer.in_words(&self.current.roster, now) {
                    _ if generation != self.current.roster.generation() => {
                        Reply::error("the configuration has just changed; ask again")
                    }
                    Ok(explanation) => {
                        let path = self.host.path_of(answer.tuple, &explained, worker, &self.current.roster);
                        Reply::Explained(Box::new(Explanation { path: Some(path), ..explanation }))
                    }
                    Err(problem) => {
                        worker.condemn(&format!("gave an impossible explanation: {problem}"));
                        Reply::error(format!("{} has given an impossible answer and is killed", worker.name()))
                    }
                };
                replies.push((id, reply));
            }
        }
        self.operator.questions.waiting.retain(|waiting| {
            let overdue = waiting.deadline <= now;
            if overdue {
                let name = format!("worker[{}]", waiting.worker);
                let text = format!("{name} has not answered within {DEADLINE:?}; loaded status shows how it is");
                replies.push((waiting.id, Reply::error(text)));
            }
            !overdue
        });
        replies.iter().for_each(|(id, reply)| self.operator.settle(*id, reply));
    }
}
