//! The worker's life: take over what the supervisor opened, give up all rights, then receive, decide, answer.

use crate::decide::{Decider, Look};
use crate::fence;
use crate::outcome::verdict;
use crate::setup::{Assembly, OutOfStep, Setup};
use loaded_ipc::{CLIENTS_FD, COUNTERS_FD, FLOWS_FD, LINK_FD, QUEUE_FD};
use loaded_ipc::{Fault, FromWorker, LinkError, MAX_TEXT, Outcome, RECEIVED, SupervisorLink, ToWorker, VERSION, clip};
use loaded_jail::{Floor, Identity, JailError, Layer, Level, inherited, leave};
use loaded_queue::{BATCH, Faults, Port};
use loaded_table::{AffinityTable, Counters, FlowTable, Region, Timeouts};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::fmt::{self, Write};
use std::sync::{Mutex, OnceLock};

/// Buckets of each table that are swept after each batch, and after each wait that brought nothing.
const SWEEP_BUSY: usize = 4;
const SWEEP_IDLE: usize = 1024;
/// Batches after which a busy worker looks at its link. A batch takes about 50 µs, so this is some 3 ms.
const LINK_EVERY: u32 = 64;

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

    fence::drop_to(&arguments.identity, arguments.parent)?;
    let (queue, setup) = receive_setup(link)?;
    let flows = Region::map(inherited(FLOWS_FD)?)?.for_good();
    let clients = Region::map(inherited(CLIENTS_FD)?)?.for_good();
    let counters = Counters::map(inherited(COUNTERS_FD)?)?;
    let mut port = Port::open(inherited(QUEUE_FD)?, queue)?;
    if !port.sealed() && Level::probe().has(Layer::Mseal) {
        return Err(Error::Unsealed);
    }
    link.set_nonblocking()?;
    fence::close(&port, arguments.floor)?;

    // Behind the fence nothing may be dropped that closes or unmaps: it would be the last thing it does.
    end(link, behind_fence(link, &mut port, setup, (flows, clients), &counters))
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
    port: &mut Port,
    setup: Setup,
    (flows, clients): (Region, Region),
    counters: &Counters,
) -> Result<(), Error> {
    // A worker before us may have been hostile, and has written these. So they are first read behind the fence.
    let generation = setup.generation();
    let flows = FlowTable::open(flows, Timeouts::default())?;
    let clients = AffinityTable::open(clients, |_| {})?;
    let mut decider = Decider::new(setup, flows, clients);
    link.send(&FromWorker::Ready { generation })?;
    forward(link, port, &mut decider, counters)
}

/// Receives the first transaction, on the still blocking link.
fn receive_setup(link: &SupervisorLink) -> Result<(u16, Setup), Error> {
    let (worker, queue) = match link.receive()? {
        ToWorker::Hello { version: VERSION, worker, queue } => (worker, queue),
        ToWorker::Hello { version, .. } => return Err(Error::Version(version)),
        other => return Err(Error::Link(LinkError::Malformed(format!("{other:?} instead of Hello")))),
    };
    let mut assembly = Assembly::default();
    loop {
        if let Some(setup) = assembly.take(link.receive()?, worker)? {
            return Ok((queue, setup));
        }
    }
}

/// The hot loop: two system calls a batch, no allocation, no lock.
fn forward(link: &SupervisorLink, port: &mut Port, decider: &mut Decider, counters: &Counters) -> Result<(), Error> {
    let mut looks: [Option<Look>; BATCH] = [None; BATCH];
    let mut faults = port.faults();
    let mut until_link = LINK_EVERY;
    loop {
        let received = port.receive()?;
        let now = seconds();
        for (look, (bytes, meta)) in looks.iter_mut().zip(port.waiting()) {
            *look = Some(decider.look(bytes, meta.cut));
        }
        for look in looks[..received.min(BATCH)].iter().flatten() {
            decider.prefetch(look);
        }
        let mut next = looks.iter();
        while let Some(mut packet) = port.next() {
            // Without a look there is no verdict: the token then drops the packet and `Faults` counts it.
            let Some(Some(look)) = next.next() else { continue };
            let meta = packet.meta();
            let outcome = decider.decide(look, packet.bytes(), meta, now);
            counters.add(outcome.index(), 1);
            packet.settle(verdict(outcome));
        }
        port.flush();
        counters.add(RECEIVED, received as u64);
        count_faults(counters, &mut faults, port.faults());

        until_link -= 1;
        if received == 0 || until_link == 0 {
            until_link = LINK_EVERY;
            match link.receive() {
                Err(LinkError::Empty) => {}
                Err(LinkError::Closed) => return Ok(()),
                Err(error) => return Err(error.into()),
                Ok(message) => {
                    return Err(Error::Link(LinkError::Malformed(format!("{message:?} while running"))));
                }
            }
        }
        decider.sweep(now, if received == 0 { SWEEP_IDLE } else { SWEEP_BUSY });
    }
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
        (Outcome::DroppedUndecided.index(), before.defaulted, after.defaulted),
    ] {
        counters.add(index, new - old);
    }
    *before = after;
}

/// Seconds of the monotonic clock. The coarse one is read without a system call and ticks often enough.
fn seconds() -> u32 {
    clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).map_or(0, |t| u32::try_from(t.tv_sec()).unwrap_or(u32::MAX))
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

/// Writes into a string until its capacity is used up; behind the fence there may be no more memory.
struct Clipped<'s>(&'s mut String);

impl Write for Clipped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.0.capacity() - self.0.len();
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Ok(())
    }
}
