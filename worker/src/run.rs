//! The worker's life: it takes over what the supervisor opened, gives up all rights, then forwards packets until its end.

use crate::clock::now;
use crate::decide::Prepared;
use crate::error::Error;
use crate::forward::{Ears, forward};
use crate::hostile;
use crate::inbox::Inbox;
use crate::orders::{Orders, TableSpecs, out_of_step, wait_for_turn};
use crate::sandbox;
use crate::setup::{Assembly, flow_timeouts};
use loaded_fastpath::{Keeping, REPORTS_BYTES, Reports};
use loaded_ipc::{
    CLIENTS_FD, COUNTERS_FD, FLOWS_FD, JOURNAL_FD, KEEPING_FD, LINK_FD, MEMBERSHIP_FD, QUEUE_FD, REPORTS_FD,
};
use loaded_ipc::{
    CURRENT_PACKET, Clipped, Fault, FromWorker, Idle, LinkError, MAX_TEXT, Outcome, RECEIVED, SupervisorLink, ToWorker,
    VERSION, clip,
};
use loaded_queue::QueueSocket;
use loaded_sandbox::{Identity, KernelSupport, Layer, SandboxRequirement, Survival, inherited, leave};
use loaded_table::{AffinityTable, Counters, Damage, FlowTable, Region};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use std::convert::Infallible;
use std::fmt::Write;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, OnceLock};

/// Exit code after an error, whose text the supervisor gets on the link.
const EXIT_FAILED: i32 = 3;
/// Exit code when the supervisor is gone or has said to stop.
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
    /// Whether a kernel that lacks a layer of the sandbox is good enough.
    pub requirement: SandboxRequirement,
    /// Whether to go on when the supervisor dies.
    pub survival: Survival,
    /// Whether the kernel path sends packets of its flows on.
    pub fast: bool,
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

    hostile::map_memory(arguments.fast)?;
    sandbox::drop_to(&arguments.identity, arguments.parent, arguments.survival)?;
    let Received { queue, tables, prepared } = receive_setup(link)?;
    let [flows_fd, clients_fd, counters_fd] = [inherited(FLOWS_FD)?, inherited(CLIENTS_FD)?, inherited(COUNTERS_FD)?];
    let (keeping_fd, reports_fd) = (inherited(KEEPING_FD)?, inherited(REPORTS_FD)?);
    let (flows, prepared, reports) = match arguments.fast {
        false => (Region::map(&flows_fd)?, prepared, None),
        true => {
            let bytes = FlowTable::bytes_for(tables.flows.capacity);
            let keeping = Keeping::map(&keeping_fd)?.for_good();
            let reports = Reports::map(&reports_fd, REPORTS_BYTES)?.for_good();
            hostile::map_flows(&flows_fd, bytes)?;
            (Region::map_array(&flows_fd, bytes)?, prepared.with_keeping(keeping), Some(reports))
        }
    };
    // What they name stays mapped: these two are in nobody's custody here.
    drop((keeping_fd, reports_fd));
    let flows = flows.for_good();
    let clients = Region::map(&clients_fd)?.for_good();
    let counters = Counters::map(&counters_fd)?.for_good();
    // Custody: the next supervisor finds these here if this one is killed.
    let _custody = ManuallyDrop::new([flows_fd, clients_fd, counters_fd, inherited(JOURNAL_FD)?]);
    let inbox = Inbox::new(inherited(MEMBERSHIP_FD)?, prepared.generation())?;
    let socket = QueueSocket::open(inherited(QUEUE_FD)?, queue)?;
    if !socket.sealed() && KernelSupport::probe().has(Layer::Mseal) {
        return Err(Error::Unsealed);
    }
    hostile::prepare(&sandbox::bindings(&socket), queue)?;
    sandbox::close(&socket, arguments.requirement)?;

    // Inside the sandbox nothing may be dropped that closes or unmaps: it would be the last thing it does.
    let mut kept = ManuallyDrop::new((Ears { inbox, reports }, socket));
    let (ears, socket) = &mut *kept;
    end(link, serve_sandboxed(link, ears, socket, (prepared, tables), (flows, clients, counters), arguments.survival))
}

/// Reports how it ended, if the link still works, and exits.
fn end(link: &SupervisorLink, result: Result<(), Error>) -> ! {
    match result {
        Ok(()) => leave(EXIT_DONE),
        Err(error) => {
            let _ = link.send(&FromWorker::Failed(clip(error.to_string())));
            leave(EXIT_FAILED)
        }
    }
}

fn serve_sandboxed(
    link: &SupervisorLink,
    ears: &mut Ears,
    socket: &mut QueueSocket,
    (prepared, tables): (Prepared, TableSpecs),
    (flows, clients, counters): (Region, Region, Counters),
    survival: Survival,
) -> Result<(), Error> {
    // Large allocations are unmapped when they are dropped, and the worker may be stopped before it uses this.
    let prepared = ManuallyDrop::new(prepared);
    let generation = prepared.generation();
    link.send(&FromWorker::Prepared { generation })?;
    let Some(mut orders) = wait_for_turn(link, survival, tables, &counters)? else { return Ok(()) };
    counters.set(CURRENT_PACKET, 0);
    make_counters_agree(&counters);
    // A worker before us may have been hostile, and has written these. So they are first read inside the sandbox; and
    // only now, for until now it may have gone on writing.
    let flows = FlowTable::open(flows, orders.tables.flows, flow_timeouts(&Idle::STANDARD))?;
    let clients = AffinityTable::open(clients, orders.tables.clients, |_| {})?;
    report_damage(&orders, &counters, [("flow table", flows.damage()), ("affinity table", clients.damage())]);
    let prepared = ManuallyDrop::into_inner(prepared);
    let mut decider = ManuallyDrop::new(prepared.open(flows, clients, counters, now()));
    match orders.link.map_or(Ok(()), |link| link.send(&FromWorker::Ready { generation })) {
        // The predecessor has ended, so nobody else could serve.
        Err(LinkError::Closed) if orders.outlives_supervisor(decider.counters()) => {}
        said => said?,
    }
    forward(&mut orders, ears, socket, &mut decider)
}

/// Counts and tells which tables were not what the supervisor has said. They are empty now.
fn report_damage(orders: &Orders<'_>, counters: &Counters, tables: [(&str, Option<Damage>); 2]) {
    for (table, damage) in tables.into_iter().filter_map(|(table, damage)| Some((table, damage?))) {
        counters.add(Fault::TableDamaged.index(), 1);
        if let Some(link) = orders.link {
            // If the supervisor is gone, the counter says it to the next one.
            let _ = link.send(&FromWorker::Damaged(clip(format!("{table}: {damage}"))));
        }
    }
}

/// A worker that was killed within a batch has counted outcomes, but not yet received packets: makes the sums agree.
fn make_counters_agree(counters: &Counters) {
    let outcomes = Outcome::ALL.iter().filter_map(|outcome| counters.get(outcome.index()));
    counters.set(RECEIVED, outcomes.fold(0, u64::wrapping_add));
}

/// What the supervisor has said before the sandbox closes.
struct Received {
    queue: u16,
    tables: TableSpecs,
    prepared: Prepared,
}

/// Receives the configuration, on the link that still blocks.
fn receive_setup(link: &SupervisorLink) -> Result<Received, Error> {
    let (worker, queue) = match link.receive()? {
        ToWorker::Hello { version: VERSION, worker, queue } => (worker, queue),
        ToWorker::Hello { version, .. } => return Err(Error::Version(version)),
        other => return Err(out_of_step(&other, "instead of Hello")),
    };
    let tables = match link.receive()? {
        ToWorker::Tables { flows, clients, keys } => TableSpecs::new(flows, clients, keys),
        other => return Err(out_of_step(&other, "instead of Tables")),
    };
    let mut assembly = Assembly::default();
    loop {
        if let Some(setup) = assembly.take(link.receive()?, worker)? {
            return Ok(Received { queue, tables, prepared: Prepared::new(setup) });
        }
    }
}

/// Makes a panic end the worker with its message on the link. SIGABRT, which the standard library uses, would run into the
/// sandbox and look like an attack.
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
