//! The worker's life: take over what the supervisor opened, give up all rights, then receive, decide, answer.

use crate::decide::{Decider, Look, Now, Place, Prepared};
use crate::early::Early;
use crate::fence;
use crate::inbox::Inbox;
use crate::outcome::verdict;
use crate::setup::{Assembly, OutOfStep};
use loaded_ipc::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, LINK_FD, MEMBERSHIP_FD, QUEUE_FD};
use loaded_ipc::{
    Clipped, Fault, FromWorker, IN_HAND, LinkError, MARK_MASK, MAX_TEXT, Outcome, RECEIVED, SupervisorLink, ToWorker,
    VERSION, clip, in_hand, mark_of,
};
use loaded_jail::{Floor, Identity, JailError, Layer, Level, Survival, inherited, leave};
use loaded_queue::{BATCH, Faults, Packet, Port};
use loaded_table::{AffinityTable, Counters, FlowTable, Region, Timeouts};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::fmt::Write;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// Buckets of each table that are swept after each batch, and after each wait that brought nothing.
const SWEEP_BUSY: usize = 4;
const SWEEP_IDLE: usize = 1024;
/// Milliseconds after which a busy worker looks at its links; the coarse clock ticks every 1 to 10.
const LOOK_EVERY: u64 = 5;
/// Milliseconds without a moment in which nothing waited: what comes has waited for as long, and may be lost on the way.
const BEHIND: u64 = 50;
/// Messages of the supervisor that are read in one look.
const ORDERS: usize = 32;

/// How a worker ends on purpose; the supervisor reads the reason on the link.
const EXIT_FAILED: i32 = 3;
/// The supervisor is gone or says so.
const EXIT_DONE: i32 = 0;

/// What the supervisor tells a worker on its command line.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// Who to become.
    pub identity: Identity,
    /// The core to run on.
    pub core: u16,
    /// The supervisor's process id.
    pub parent: u32,
    /// Whether a kernel without a layer is good enough.
    pub floor: Floor,
    /// Whether to go on when the supervisor dies.
    pub survival: Survival,
}

/// Why a worker cannot run. The supervisor gets the text.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Jail(#[from] JailError),
    #[error("link to the supervisor: {0}")]
    Link(#[from] LinkError),
    #[error("{0}")]
    OutOfStep(#[from] OutOfStep),
    #[error("link to the supervisor: make it wait no more: {0}")]
    Unblock(nix::errno::Errno),
    #[error("tables: {0}")]
    Table(#[from] loaded_table::Error),
    #[error("queue: {0}")]
    Queue(#[from] std::io::Error),
    #[error("the kernel has mseal, but the verdict templates could not be sealed with it")]
    Unsealed,
    #[error("pin to core {0}: {1}")]
    Pin(u16, nix::errno::Errno),
    #[error("the supervisor speaks version {0} of the messages, this worker {VERSION}")]
    Version(u16),
}

/// The link, where the panic hook finds it too.
static LINK: OnceLock<SupervisorLink> = OnceLock::new();

/// Runs a worker on the descriptors that [`loaded_ipc`] numbers. Ends the process.
pub fn run(arguments: &Arguments) -> ! {
    let Ok(link) = inherited(LINK_FD) else { leave(EXIT_FAILED) };
    let link = LINK.get_or_init(|| SupervisorLink::from_fd(link));
    report_panics();
    let Err(error) = serve(link, arguments);
    end(link, Err(error))
}

fn serve(link: &SupervisorLink, arguments: &Arguments) -> Result<Infallible, Error> {
    let mut cpus = CpuSet::new();
    let pinned = cpus.set(usize::from(arguments.core)).and_then(|()| sched_setaffinity(Pid::from_raw(0), &cpus));
    pinned.map_err(|e| Error::Pin(arguments.core, e))?;

    #[cfg(feature = "taken")]
    crate::taken::reach()?;
    fence::drop_to(&arguments.identity, arguments.parent, arguments.survival)?;
    let (queue, prepared) = receive_setup(link)?;
    let [flows_fd, clients_fd, counters_fd] = [inherited(FLOWS_FD)?, inherited(CLIENTS_FD)?, inherited(COUNTERS_FD)?];
    let flows = Region::map(&flows_fd)?.for_good();
    let clients = Region::map(&clients_fd)?.for_good();
    let counters = Counters::map(&counters_fd)?.for_good();
    // Kept for a supervisor that comes after one that was killed.
    let _custody = ManuallyDrop::new([flows_fd, clients_fd, counters_fd, inherited(JOURNAL_FD)?]);
    let inbox = Inbox::new(inherited(MEMBERSHIP_FD)?, prepared.generation())?;
    let port = Port::open(inherited(QUEUE_FD)?, queue)?;
    if !port.sealed() && Level::probe().has(Layer::Mseal) {
        return Err(Error::Unsealed);
    }
    #[cfg(feature = "taken")]
    crate::taken::arm(fence::bindings(&port), queue)?;
    fence::close(&port, arguments.floor)?;

    // Behind the fence nothing may be dropped that closes or unmaps: it would be the last thing it does.
    let mut kept = ManuallyDrop::new((inbox, port));
    let (inbox, port) = &mut *kept;
    end(link, behind_fence(link, inbox, port, prepared, (flows, clients, counters), arguments.survival))
}

/// Says how it ended, if it can be said, and ends. The exit code has to do if not.
fn end(link: &SupervisorLink, result: Result<(), Error>) -> ! {
    match result {
        Ok(()) => leave(EXIT_DONE),
        Err(error) => {
            let _ = link.send(&FromWorker::Failed(clip(error.to_string())));
            leave(EXIT_FAILED)
        }
    }
}

fn behind_fence(
    link: &SupervisorLink,
    inbox: &mut Inbox,
    port: &mut Port,
    prepared: Prepared,
    (flows, clients, counters): (Region, Region, Counters),
    survival: Survival,
) -> Result<(), Error> {
    // Its memories are long enough to be unmapped, and it may be told to go before it is used.
    let prepared = ManuallyDrop::new(prepared);
    let generation = prepared.generation();
    link.send(&FromWorker::Prepared { generation })?;
    if !wait_for_go(link)? {
        return Ok(());
    }
    counters.set(IN_HAND, 0);
    agree(&counters);
    // A worker before us may have been hostile, and has written these. So they are first read behind the fence; and
    // only now, for until now it may have gone on writing.
    let flows = FlowTable::open(flows, Timeouts::default())?;
    let clients = AffinityTable::open(clients, |_| {})?;
    let prepared = ManuallyDrop::into_inner(prepared);
    let mut decider = ManuallyDrop::new(prepared.open(flows, clients, counters, now()));
    let mut superior = Superior { link: Some(link), survival };
    match link.send(&FromWorker::Ready { generation }) {
        // The one before has ended, so nobody else could serve.
        Err(LinkError::Closed) if superior.is_left() => {}
        said => said?,
    }
    forward(&mut superior, inbox, port, &mut decider)
}

/// A worker that was killed within a batch has counted outcomes, and not yet that it has received their packets.
fn agree(counters: &Counters) {
    let outcomes = Outcome::ALL.iter().filter_map(|outcome| counters.get(outcome.index()));
    counters.set(RECEIVED, outcomes.fold(0, u64::wrapping_add));
}

/// Waits, on the still blocking link, until the queue and the tables are this worker's: `false` if they never will be.
/// From then on the link never blocks. The fence lets this one flag be set, so that nobody need poll for an order.
fn wait_for_go(link: &SupervisorLink) -> Result<bool, Error> {
    match link.receive() {
        Ok(ToWorker::Go) => {}
        Ok(ToWorker::Stop) | Err(LinkError::Closed) => return Ok(false),
        Ok(other) => return Err(out_of_step(&other, "instead of Go")),
        Err(error) => return Err(error.into()),
    }
    fcntl(link, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(Error::Unblock)?;
    Ok(true)
}

/// Receives the transaction, on the still blocking link.
fn receive_setup(link: &SupervisorLink) -> Result<(u16, Prepared), Error> {
    let (worker, queue) = match link.receive()? {
        ToWorker::Hello { version: VERSION, worker, queue } => (worker, queue),
        ToWorker::Hello { version, .. } => return Err(Error::Version(version)),
        other => return Err(out_of_step(&other, "instead of Hello")),
    };
    let mut assembly = Assembly::default();
    loop {
        if let Some(setup) = assembly.take(link.receive()?, worker)? {
            return Ok((queue, Prepared::new(setup)));
        }
    }
}

/// The hot loop: two system calls a batch, no allocation, no lock.
fn forward(
    superior: &mut Superior<'_>,
    inbox: &mut Inbox,
    port: &mut Port,
    decider: &mut Decider,
) -> Result<(), Error> {
    let mut looks: [Option<Look>; BATCH] = [None; BATCH];
    let mut faults = port.faults();
    let (mut looked, mut idle) = (0, now().millis);
    let mut early = Early::new();
    loop {
        let received = port.receive()?;
        let now = now();
        for (look, (id, bytes, meta)) in looks.iter_mut().zip(port.waiting()) {
            decider.counters().set(IN_HAND, in_hand(id));
            *look = Some(decider.look(bytes, meta));
        }
        for look in looks[..received.min(BATCH)].iter().flatten() {
            decider.prefetch(look);
        }
        let mut next = looks.iter();
        let mut waiting = 0;
        while let Some(mut packet) = port.next() {
            // Without a look there is no verdict: the token then drops the packet and `Faults` counts it.
            let Some(Some(look)) = next.next() else { continue };
            decider.counters().set(IN_HAND, in_hand(packet.id()));
            #[cfg(feature = "taken")]
            if superior.link.is_some_and(|link| crate::taken::over(&mut packet, link)) {
                continue;
            }
            let (meta, length) = (packet.meta(), packet.bytes().len());
            let decided = decider.decide(look, Place { room: packet.room(), length, meta }, now);
            if decided.outcome == Outcome::RepeatedFragment {
                waiting += u64::from(hold(&mut early, packet, look, decider, now));
                continue;
            }
            decider.counters().add(decided.outcome.index(), 1);
            match decided.direct {
                Some(backend) => packet.settle_marked(mark_of(backend), MARK_MASK),
                None if decided.length == length => packet.settle(verdict(decided.outcome)),
                None => packet.settle_resized(verdict(decided.outcome), decided.length),
            }
        }
        decider.counters().set(IN_HAND, 0);
        port.flush();
        decider.counters().add(RECEIVED, received as u64 - waiting);
        early.look(port, decider, now);
        count_faults(decider.counters(), &mut faults, port.faults());
        if received < BATCH {
            idle = now.millis;
        }

        if received == 0 || now.millis.saturating_sub(looked) >= LOOK_EVERY {
            looked = now.millis;
            // Every packet of the batch has its verdict; nothing of the tables is touched after an order to stop.
            if !superior.obey(decider, now)? {
                early.leave(port, decider);
                return Ok(());
            }
            inbox.look(decider, now);
            if now.millis.saturating_sub(idle) >= BEHIND {
                decider.fall_behind();
            }
            decider.tick(now);
        }
        decider.sweep(now.seconds, if received == 0 { SWEEP_IDLE } else { SWEEP_BUSY });
    }
}

/// Lets a piece wait for the first one of its datagram; where there is no room it is dropped. Whether it waits.
#[cold]
fn hold(early: &mut Early, mut packet: Packet<'_>, look: &Look, decider: &Decider, now: Now) -> bool {
    let waits = match Decider::datagram(look, packet.bytes()) {
        Some(datagram) => early.hold(packet, datagram, now),
        None => Err(packet),
    };
    let Err(packet) = waits else { return true };
    decider.counters().add(Outcome::DroppedFragment.index(), 1);
    packet.settle(verdict(Outcome::DroppedFragment));
    false
}

/// Who gives orders to a worker that serves.
struct Superior<'l> {
    /// `None`: the supervisor is dead, and nobody gives orders any more.
    link: Option<&'l SupervisorLink>,
    survival: Survival,
}

impl Superior<'_> {
    /// Does what the supervisor says. `false`: this worker is to end.
    fn obey(&mut self, decider: &mut Decider, now: Now) -> Result<bool, Error> {
        let Some(link) = self.link else { return Ok(true) };
        for _ in 0..ORDERS {
            match link.receive() {
                Err(LinkError::Empty) => break,
                // A supervisor that wants an end says so. One that says nothing more was killed: what it said last holds.
                Err(LinkError::Closed) => return Ok(self.is_left()),
                Ok(ToWorker::Stop) => return Ok(false),
                Err(error) => return Err(error.into()),
                Ok(ToWorker::Admin { backend, admin }) if decider.set_admin(backend, admin, now).is_ok() => {}
                Ok(ToWorker::Explain { id, question }) => {
                    let explained = decider.explain(&question, now);
                    match link.send(&FromWorker::Explained { id, explained }) {
                        // Where the supervisor does not read, it does without an answer: packets come first.
                        Ok(()) | Err(LinkError::Full) => {}
                        Err(LinkError::Closed) => return Ok(self.is_left()),
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(message) => return Err(out_of_step(&message, "while serving")),
            }
        }
        Ok(true)
    }

    /// The supervisor is gone. Whether to go on without.
    fn is_left(&mut self) -> bool {
        self.link = None;
        self.survival == Survival::Outlives
    }
}

fn out_of_step(message: &ToWorker, when: &str) -> Error {
    Error::Link(LinkError::Malformed(format!("{message:?} {when}")))
}

fn count_faults(counters: &Counters, before: &mut Faults, after: Faults) {
    if *before == after {
        return;
    }
    for (index, old, new) in [
        (Fault::UnknownId.index(), before.unknown_id, after.unknown_id),
        (Fault::Refused.index(), before.refused, after.refused),
        (Fault::Unsent.index(), before.unsent, after.unsent),
        (Fault::Strange.index(), before.strange, after.strange),
        (Fault::Unfit.index(), before.unfit, after.unfit),
        (Outcome::DroppedUndecided.index(), before.defaulted, after.defaulted),
    ] {
        counters.add(index, new - old);
    }
    *before = after;
}

/// The monotonic clock. The coarse one is read without a system call and ticks often enough.
fn now() -> Now {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(Duration::ZERO, Duration::from);
    Now { seconds: u32::try_from(time.as_secs()).unwrap_or(u32::MAX), millis: millis(time) }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A panic ends the worker with its message on the link. The way of the standard library, SIGABRT, would meet the
/// fence first and look like an attack.
fn report_panics() {
    let text = Mutex::new(String::with_capacity(MAX_TEXT));
    std::panic::set_hook(Box::new(move |panic| {
        if let (Some(link), Ok(mut text)) = (LINK.get(), text.try_lock()) {
            let _ = write!(Clipped(&mut text), "{panic}");
            let _ = link.send(&FromWorker::Failed(std::mem::take(&mut text)));
        }
        leave(EXIT_FAILED)
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::example;
    use loaded_ipc::{Admin, BackendIndex, Chosen, OnFailure, Question, Unserved, Why, WorkerLink};

    fn obeys_by(link: &SupervisorLink) -> Superior<'_> {
        Superior { link: Some(link), survival: Survival::DiesToo }
    }

    #[test]
    fn before_the_order_to_begin_only_an_end_may_come() {
        let ends = || WorkerLink::pair().expect("pair");
        let (supervisor, worker) = ends();
        supervisor.send(&ToWorker::Go).expect("send");
        assert!(wait_for_go(&worker).expect("go"));
        assert!(matches!(worker.receive(), Err(LinkError::Empty)), "it waits no more");

        let (supervisor, worker) = ends();
        supervisor.send(&ToWorker::Stop).expect("send");
        assert!(!wait_for_go(&worker).expect("stop"));
        let (supervisor, worker) = ends();
        drop(supervisor);
        assert!(!wait_for_go(&worker).expect("closed"));
        for other in [ToWorker::Commit, ToWorker::Admin { backend: BackendIndex(5), admin: Admin::Enabled }] {
            let (supervisor, worker) = ends();
            supervisor.send(&other).expect("send");
            assert!(wait_for_go(&worker).is_err());
        }
    }

    #[test]
    fn while_it_serves_a_worker_hears_of_backends_and_of_its_end() {
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
    fn who_outlives_its_supervisor_goes_on_by_what_it_was_told() {
        let mut decider = example(now());
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        worker.set_nonblocking().expect("nonblocking");
        let mut superior = Superior { link: Some(&worker), survival: Survival::Outlives };
        supervisor.send(&ToWorker::Admin { backend: BackendIndex(5), admin: Admin::Draining }).expect("send");
        drop(supervisor);
        for _ in 0..3 {
            assert!(superior.obey(&mut decider, now()).expect("goes on"));
        }
        assert!(superior.link.is_none(), "it looks no more");

        // Told to end it ends all the same.
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        supervisor.send(&ToWorker::Stop).expect("send");
        drop(supervisor);
        let mut superior = Superior { link: Some(&worker), survival: Survival::Outlives };
        assert!(!superior.obey(&mut decider, now()).expect("an end"));
    }

    #[test]
    fn what_it_is_asked_while_it_serves_it_answers() {
        let mut decider = example(now());
        let (supervisor, worker) = WorkerLink::pair().expect("pair");
        worker.set_nonblocking().expect("nonblocking");
        let [client, vip] = ["203.0.113.7", "192.0.2.1"].map(|address| address.parse().expect("address"));
        for id in [7, 8] {
            let question = Question { protocol: 17, client, client_port: 1, vip, vip_port: 2 };
            supervisor.send(&ToWorker::Explain { id, question }).expect("send");
        }
        assert!(obeys_by(&worker).obey(&mut decider, now()).expect("answers"));
        let chosen = Some(Chosen { backend: BackendIndex(5), why: Why::Strategy { candidates: 1 } });
        for expected in [7, 8] {
            let Ok(FromWorker::Explained { id, explained }) = supervisor.receive() else { panic!("no answer") };
            assert_eq!((id, explained.outcome, explained.chosen), (expected, Outcome::ForwardedNew, chosen));
        }
        assert_eq!(decider.held(), (0, 0), "nothing came of it");
    }
}
