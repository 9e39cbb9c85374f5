//! The supervisor's orders: when a worker's turn comes, what it is told while it serves, and how it goes on when its
//! supervisor dies.

use crate::clock::now;
use crate::decide::Decider;
use crate::error::Error;
use crate::time::Now;
use loaded_ipc::{FromWorker, LinkError, SupervisorLink, TURN, TableKey, TableKeys, ToWorker, Turn};
use loaded_sandbox::Survival;
use loaded_table::{Counters, TableSpec};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::sync::atomic::{Ordering, fence};

/// Maximum number of messages of the supervisor read in one poll.
const ORDERS: usize = 32;
/// Milliseconds a successor waits, after the supervisor's death, for its predecessor to give up its turn. The predecessor
/// polls its link at least every 50 ms.
const TURN_WITHIN_MS: u64 = 1000;

/// Who gives orders to a worker that serves.
pub(crate) struct Orders<'l> {
    /// `None`: the supervisor is dead and nobody gives orders any more.
    pub(crate) link: Option<&'l SupervisorLink>,
    pub(crate) survival: Survival,
    pub(crate) tables: TableSpecs,
}

/// What the two tables are, by the supervisor's word.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableSpecs {
    pub(crate) flows: TableSpec,
    pub(crate) clients: TableSpec,
}

impl TableSpecs {
    pub(crate) fn new(flows: u32, clients: u32, keys: TableKeys) -> Self {
        let spec = |capacity: u32, TableKey(key)| TableSpec::new(capacity as usize, key);
        Self { flows: spec(flows, keys.flows), clients: spec(clients, keys.clients) }
    }
}

impl Orders<'_> {
    /// Carries out the supervisor's orders. `false`: this worker is to end.
    pub(crate) fn obey(&mut self, decider: &mut Decider, now: Now) -> Result<bool, Error> {
        let Some(link) = self.link else { return Ok(true) };
        for _ in 0..ORDERS {
            match link.receive() {
                Err(LinkError::Empty) => break,
                // A supervisor that wants its worker to end says so. One whose link closes was killed: its last orders hold.
                Err(LinkError::Closed) => return Ok(self.outlives_supervisor(decider.counters())),
                Ok(ToWorker::Stop) => return Ok(false),
                Err(error) => return Err(error.into()),
                Ok(ToWorker::Admin { backend, admin }) if decider.set_admin(backend, admin, now).is_ok() => {}
                Ok(ToWorker::Explain { id, question }) => {
                    let explained = decider.explain(&question, now);
                    match link.send(&FromWorker::Explained { id, explained }) {
                        // If the supervisor does not read, it gets no answer: packets come first.
                        Ok(()) | Err(LinkError::Full) => {}
                        Err(LinkError::Closed) => return Ok(self.outlives_supervisor(decider.counters())),
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(ToWorker::End { id, flows }) if flows.is_sane() => decider.begin_to_end(id, flows),
                Ok(message) => return Err(out_of_step(&message, "while serving")),
            }
        }
        Ok(true)
    }

    /// Ends flows in the next `buckets` buckets, if that was ordered, and says how many once it is done. `false`: this worker is to end.
    #[cold]
    pub(crate) fn end_flows(&mut self, decider: &mut Decider, buckets: u32, now: Now) -> Result<bool, Error> {
        let Some((id, ended)) = decider.end_some(buckets, now) else { return Ok(true) };
        let said = self.link.map_or(Ok(()), |link| link.send(&FromWorker::Ended { id, ended }));
        // A supervisor that does not read now is told in the next round: it gives no other order before.
        if !matches!(said, Err(LinkError::Full)) {
            decider.end_is_said();
        }
        match said {
            Ok(()) | Err(LinkError::Full) => Ok(true),
            Err(LinkError::Closed) => Ok(self.outlives_supervisor(decider.counters())),
            Err(error) => Err(error.into()),
        }
    }

    /// The supervisor is gone. Returns whether to go on without it.
    pub(crate) fn outlives_supervisor(&mut self, counters: &Counters) -> bool {
        self.link = None;
        let goes_on = self.survival == Survival::Outlives;
        if goes_on {
            set_turn(counters, Turn::Kept);
        }
        goes_on
    }
}

/// Waits, on the link that still blocks, until the queue and the tables are this worker's; `None` if they never will be.
/// From then on the link is non-blocking. The sandbox allows this one flag to be set, so that no worker has to poll before
/// its turn.
pub(crate) fn wait_for_turn<'l>(
    link: &'l SupervisorLink,
    survival: Survival,
    mut tables: TableSpecs,
    counters: &Counters,
) -> Result<Option<Orders<'l>>, Error> {
    loop {
        let link = match link.receive() {
            Ok(ToWorker::Go) => {
                fcntl(link, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(Error::Unblock)?;
                set_turn(counters, Turn::Begun);
                Some(link)
            }
            Ok(ToWorker::Tables { flows, clients, keys }) => {
                tables = TableSpecs::new(flows, clients, keys);
                continue;
            }
            Err(LinkError::Closed) if survival == Survival::Outlives && is_our_turn(counters) => None,
            Ok(ToWorker::Stop) | Err(LinkError::Closed) => return Ok(None),
            Ok(other) => return Err(out_of_step(&other, "instead of Go")),
            Err(error) => return Err(error.into()),
        };
        return Ok(Some(Orders { link, survival, tables }));
    }
}

/// The supervisor was killed before it said "go". Returns whether it had already told the predecessor to end: then the
/// predecessor says so in the counters. The sandbox has no call to wait with, so this spins, for no longer than
/// [`TURN_WITHIN_MS`].
fn is_our_turn(counters: &Counters) -> bool {
    let since = now().millis;
    while now().millis.saturating_sub(since) < TURN_WITHIN_MS {
        match counters.get(TURN).map(Turn::from_word) {
            // If several wait, one of them gets it.
            Some(Turn::Over) => return counters.exchange(TURN, Turn::Over as u64, Turn::Kept as u64),
            Some(Turn::Begun) => std::hint::spin_loop(),
            Some(Turn::Kept) | None => break,
        }
    }
    false
}

pub(crate) fn set_turn(counters: &Counters, turn: Turn) {
    // Whoever sees this word also sees all that was written into the tables before.
    fence(Ordering::Release);
    counters.set(TURN, turn as u64);
}

pub(crate) fn out_of_step(message: &ToWorker, when: &str) -> Error {
    Error::Link(LinkError::Malformed(format!("{message:?} {when}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::example;
    use loaded_ipc::{
        ALL_COUNTERS, Admin, BackendIndex, ChoiceReason, Chosen, FlowsMeant, OnFailure, Outcome, Question, Unserved,
        WorkerLink,
    };
    use loaded_table::shm;

    fn keys() -> TableKeys {
        TableKeys { flows: TableKey([1; 16]), clients: TableKey([2; 16]) }
    }

    fn tables(capacity: u32) -> TableSpecs {
        TableSpecs::new(capacity, capacity, keys())
    }

    fn obeys_by(link: &SupervisorLink) -> Orders<'_> {
        Orders { link: Some(link), survival: Survival::DiesToo, tables: tables(1) }
    }

    fn counters() -> Counters {
        let memory = shm::create("test", Counters::bytes_for(ALL_COUNTERS)).expect("memory");
        Counters::map(&memory).expect("map")
    }

    fn waits<'l>(link: &'l SupervisorLink, counters: &Counters) -> Result<Option<Orders<'l>>, Error> {
        wait_for_turn(link, Survival::Outlives, tables(1), counters)
    }

    #[test]
    fn what_was_said_last_of_the_tables_counts() {
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        for capacity in [7, 9] {
            supervisor.send(&ToWorker::Tables { flows: capacity, clients: 5, keys: keys() }).expect("send");
        }
        supervisor.send(&ToWorker::Go).expect("send");
        let tables = waits(&worker, &counters()).expect("go").expect("go").tables;
        assert_eq!(tables.flows, TableSpec::new(9, [1; 16]));
        assert_eq!(tables.clients, TableSpec::new(5, [2; 16]));
    }

    #[test]
    fn before_go_only_tables_or_stop_may_come() {
        let ends = || WorkerLink::pair().expect("pair");
        let counters = counters();
        let (supervisor, worker) = ends();
        supervisor.send(&ToWorker::Go).expect("send");
        assert!(waits(&worker, &counters).expect("go").is_some_and(|orders| orders.link.is_some()));
        assert!(matches!(worker.receive(), Err(LinkError::Empty)), "the link blocks no more");

        let (supervisor, worker) = ends();
        supervisor.send(&ToWorker::Stop).expect("send");
        assert!(waits(&worker, &counters).expect("stop").is_none());
        for other in [ToWorker::Commit, ToWorker::Admin { backend: BackendIndex(5), admin: Admin::Enabled }] {
            let (supervisor, worker) = ends();
            supervisor.send(&other).expect("send");
            assert!(waits(&worker, &counters).is_err());
        }
    }

    #[test]
    fn an_orphan_takes_its_turn_if_no_other_worker_has_it() {
        let left = |survival, turn| {
            let (supervisor, worker) = WorkerLink::pair().expect("pair");
            let counters = counters();
            set_turn(&counters, turn);
            drop(supervisor);
            let taken = wait_for_turn(&worker, survival, tables(1), &counters).expect("closed");
            let another = waits(&worker, &counters).expect("closed");
            assert!(taken.is_none() || another.is_none(), "two workers took the same turn");
            taken.map(|orders| orders.link.is_none())
        };
        assert_eq!(left(Survival::Outlives, Turn::Over), Some(true));
        for (survival, turn) in [
            (Survival::Outlives, Turn::Kept),
            // The predecessor has said nothing, but may be about to.
            (Survival::Outlives, Turn::Begun),
            (Survival::DiesToo, Turn::Over),
            (Survival::DiesToo, Turn::Begun),
        ] {
            assert_eq!(left(survival, turn), None, "{survival:?} {turn:?}");
        }
    }

    #[test]
    fn a_serving_worker_obeys_admin_and_stop_and_nothing_else() {
        let mut decider = example(now());
        let mut obeys = |messages: &[ToWorker]| {
            let (supervisor, worker) = WorkerLink::pair().expect("pair");
            worker.set_nonblocking().expect("nonblocking");
            messages.iter().for_each(|message| supervisor.send(message).expect("send"));
            obeys_by(&worker).obey(&mut decider, now()).ok()
        };
        let admin = |backend| ToWorker::Admin { backend: BackendIndex(backend), admin: Admin::Draining };
        assert_eq!(obeys(&[]), Some(true));
        assert_eq!(obeys(&[admin(5), admin(5)]), Some(true));
        assert_eq!(obeys(&[admin(5), ToWorker::Stop, ToWorker::Commit]), Some(false));
        for strange in [
            admin(4),
            ToWorker::Go,
            ToWorker::Commit,
            ToWorker::Begin { generation: 8, unserved: Unserved::Pass, malformed: OnFailure::Drop },
        ] {
            assert_eq!(obeys(&[strange]), None);
        }
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        drop(supervisor);
        assert!(!obeys_by(&worker).obey(&mut decider, now()).expect("an end"));
    }

    #[test]
    fn a_worker_that_outlives_its_supervisor_goes_on_by_its_last_orders() {
        let mut decider = example(now());
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        worker.set_nonblocking().expect("nonblocking");
        let mut orders = Orders { link: Some(&worker), survival: Survival::Outlives, tables: tables(1) };
        supervisor.send(&ToWorker::Admin { backend: BackendIndex(5), admin: Admin::Draining }).expect("send");
        drop(supervisor);
        for _ in 0..3 {
            assert!(orders.obey(&mut decider, now()).expect("goes on"));
        }
        assert!(orders.link.is_none(), "it does not poll the link any more");
        assert_eq!(decider.counters().get(TURN), Some(Turn::Kept as u64));

        // If it was told to end, it ends all the same.
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        supervisor.send(&ToWorker::Stop).expect("send");
        drop(supervisor);
        let mut orders = Orders { link: Some(&worker), survival: Survival::Outlives, tables: tables(1) };
        assert!(!orders.obey(&mut decider, now()).expect("an end"));
    }

    #[test]
    fn a_serving_worker_ends_flows_and_says_how_many() {
        let mut decider = example(now());
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        worker.set_nonblocking().expect("nonblocking");
        let nothing = FlowsMeant { client: None, backend: None, port: None, service: None, state: None };
        let all = FlowsMeant { client: Some(("0.0.0.0".parse().expect("address"), 0)), ..nothing };
        supervisor.send(&ToWorker::End { id: 7, flows: all }).expect("send");
        let mut orders = obeys_by(&worker);
        assert!(orders.obey(&mut decider, now()).expect("obeys") && decider.is_ending());
        assert!(
            orders.end_flows(&mut decider, 1, now()).expect("a piece") && decider.is_ending(),
            "one piece is not all"
        );
        while decider.is_ending() {
            assert!(orders.end_flows(&mut decider, 1000, now()).expect("a piece"));
        }
        assert_eq!(supervisor.receive().expect("answer"), FromWorker::Ended { id: 7, ended: 0 });

        // A supervisor that does not read is told once it does.
        supervisor.send(&ToWorker::End { id: 9, flows: all }).expect("send");
        assert!(orders.obey(&mut decider, now()).expect("obeys"));
        while worker.send(&FromWorker::Ready { generation: 1 }).is_ok() {}
        for _ in 0..3 {
            assert!(orders.end_flows(&mut decider, 100_000, now()).expect("goes on") && decider.is_ending());
        }
        supervisor.set_nonblocking().expect("nonblocking");
        while let Ok(FromWorker::Ready { .. }) = supervisor.receive() {}
        assert!(orders.end_flows(&mut decider, 1, now()).expect("told") && !decider.is_ending());
        assert_eq!(supervisor.receive().expect("answer"), FromWorker::Ended { id: 9, ended: 0 });
        supervisor.send(&ToWorker::End { id: 8, flows: nothing }).expect("send");
        assert!(obeys_by(&worker).obey(&mut decider, now()).is_err(), "an order that means everything is none");
    }

    #[test]
    fn a_serving_worker_answers_questions() {
        let mut decider = example(now());
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        worker.set_nonblocking().expect("nonblocking");
        let [client, vip] = ["203.0.113.7", "192.0.2.1"].map(|address| address.parse().expect("address"));
        for id in [7, 8] {
            let question = Question { protocol: 17, client, client_port: 1, vip, vip_port: 2 };
            supervisor.send(&ToWorker::Explain { id, question }).expect("send");
        }
        assert!(obeys_by(&worker).obey(&mut decider, now()).expect("answers"));
        let chosen = Some(Chosen { backend: BackendIndex(5), reason: ChoiceReason::Strategy { candidates: 1 } });
        for expected in [7, 8] {
            let Ok(FromWorker::Explained { id, explained }) = supervisor.receive() else { panic!("no answer") };
            assert_eq!((id, explained.outcome, explained.chosen), (expected, Outcome::ForwardedNew, chosen));
        }
        assert_eq!(decider.held(), (0, 0), "nothing has changed");
    }
}
