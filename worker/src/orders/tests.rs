//! What a worker makes of the orders of its supervisor.

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
    assert!(orders.end_flows(&mut decider, 1, now()).expect("a piece") && decider.is_ending(), "one piece is not all");
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
