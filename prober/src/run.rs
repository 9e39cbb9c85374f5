//! The prober's life: take over what the supervisor opened, give up all rights, then check until the link ends.

use crate::flights::Flights;
use crate::ping::Pings;
use crate::prober::Prober;
use crate::sandbox::{self, Needs};
use crate::setup::{Assembly, OutOfStep, Setup};
use crate::{MAX_MARKED, MAX_WORKERS};
use loaded_ipc::{
    Clipped, EPOLL_FD, FromProber, LinkError, MAX_TEXT, MembershipWriter, PING4_FD, PING6_FD, PROBER_LINK_FD, Pinger,
    ProberSupervisorLink, ToProber, VERSION, WORKERS_FD, clip,
};
use loaded_sandbox::{CHECK_SOCKETS, Identity, SandboxError, SandboxRequirement, inherited, leave};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::Epoll;
use nix::sys::resource::{Resource, getrlimit};
use std::convert::Infallible;
use std::fmt::Write;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Mutex, OnceLock};

/// Exit code of a prober that gives up; the supervisor reads the reason on the link.
const EXIT_FAILED: i32 = 3;
/// Exit code when the supervisor has closed the link.
const EXIT_DONE: i32 = 0;

/// What the supervisor tells a prober on its command line.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// The user to become.
    pub identity: Identity,
    /// The supervisor's process id.
    pub parent: u32,
    /// Whether a kernel that lacks a layer is good enough.
    pub requirement: SandboxRequirement,
    /// How many workers it has links to, 0..=[`MAX_WORKERS`].
    pub workers: u16,
    /// How many sockets with marks follow them, 0..=[`MAX_MARKED`].
    pub marked: u16,
}

/// Why a prober cannot run. The supervisor receives the text.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    #[error("link to the supervisor: {0}")]
    Link(#[from] LinkError),
    #[error("{0}")]
    OutOfStep(#[from] OutOfStep),
    #[error("make descriptor {0} non-blocking: {1}")]
    Blocking(RawFd, Errno),
    #[error("ask for RLIMIT_NOFILE: {0}")]
    Limit(Errno),
    #[error("the supervisor speaks version {0} of the messages, this prober {VERSION}")]
    Version(u16),
    #[error("{0} workers are more than the {MAX_WORKERS} that a prober can talk to")]
    Workers(u16),
    #[error("{0} marked sockets for {1} backends that need one; the limit is {MAX_MARKED}")]
    Marked(u16, usize),
}

/// The link, where the panic hook can find it.
static LINK: OnceLock<ProberSupervisorLink> = OnceLock::new();

/// Runs a prober on the descriptors that [`loaded_ipc`] numbers. Ends the process.
pub fn run(arguments: &Arguments) -> ! {
    let Ok(link) = inherited(PROBER_LINK_FD) else { leave(EXIT_FAILED) };
    let link = LINK.get_or_init(|| ProberSupervisorLink::from_fd(link));
    report_panics();
    let Err(error) = serve(link, arguments);
    end(link, &error)
}

fn serve(link: &ProberSupervisorLink, arguments: &Arguments) -> Result<Infallible, Error> {
    let Arguments { identity, parent, requirement, workers, marked } = arguments;
    if usize::from(*workers) > MAX_WORKERS {
        return Err(Error::Workers(*workers));
    }
    let given = workers.saturating_add(*marked);
    sandbox::drop_to(identity, *parent, given)?;
    let (ping4, ping6, setup) = receive_setup(link)?;
    let pings = Pings::new(pinger(PING4_FD, ping4)?, pinger(PING6_FD, ping6)?);
    let mut writers = Vec::with_capacity(usize::from(*workers));
    for number in WORKERS_FD..WORKERS_FD + RawFd::from(*workers) {
        let writer = MembershipWriter::from_fd(inherited(number)?);
        writer.set_nonblocking()?;
        writers.push(writer);
    }
    if setup.marked() != usize::from(*marked) || usize::from(*marked) > MAX_MARKED {
        return Err(Error::Marked(*marked, setup.marked()));
    }
    // They lie where the sandbox allows checks to have sockets; they are non-blocking already.
    let numbers = WORKERS_FD + RawFd::from(*workers)..WORKERS_FD + RawFd::from(given);
    let sockets = numbers.map(inherited).collect::<Result<Vec<_>, _>>()?;
    link.set_nonblocking()?;
    let (generation, needs) = (setup.generation(), Needs::of(&setup, *workers));
    let flights = Flights::new(Epoll(inherited(EPOLL_FD)?), slots(given, *marked)?);
    let mut prober = Prober::new(setup, link, writers, pings, sockets, flights);
    sandbox::close(&needs, *requirement)?;

    // Inside the sandbox nothing may be dropped that closes a descriptor or frees much: the process ends here without
    // returning.
    let ended = link.send(&FromProber::Prepared { generation }).and_then(|()| prober.run());
    let Err(error) = ended.map(|never| match never {});
    end(link, &error.into())
}

/// How many checks can be under way: as many as there can be sockets beside the descriptors it was given.
fn slots(given: u16, marked: u16) -> Result<u16, Error> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::Limit)?;
    let room = hard.saturating_sub(u64::from(WORKERS_FD.unsigned_abs()) + u64::from(given));
    let most = CHECK_SOCKETS.unsigned_abs().saturating_sub(marked.into());
    // One that finds no descriptor after all ends as Cause::NotMade.
    Ok(u16::try_from(room.min(most.into())).unwrap_or(u16::MAX).max(1))
}

/// Reports how it ended, if it can, and ends. If it cannot, the exit code must do.
fn end(link: &ProberSupervisorLink, error: &Error) -> ! {
    if matches!(error, Error::Link(LinkError::Closed)) {
        leave(EXIT_DONE);
    }
    let _ = link.send(&FromProber::Failed(clip(error.to_string())));
    leave(EXIT_FAILED)
}

/// Receives the configuration, while the link still blocks.
fn receive_setup(link: &ProberSupervisorLink) -> Result<(Pinger, Pinger, Setup), Error> {
    let (ping4, ping6, seed) = match link.receive()? {
        ToProber::Hello { version: VERSION, ping4, ping6, seed } => (ping4, ping6, seed),
        ToProber::Hello { version, .. } => return Err(Error::Version(version)),
        other => return Err(Error::Link(LinkError::Malformed(format!("{other:?} instead of Hello")))),
    };
    let mut assembly = Assembly::new(seed);
    loop {
        if let Some(setup) = assembly.take(link.receive()?)? {
            return Ok((ping4, ping6, setup));
        }
    }
}

/// Takes over a ping socket, if the descriptor is one.
fn pinger(number: RawFd, pinger: Pinger) -> Result<Option<(OwnedFd, Pinger)>, Error> {
    if pinger == Pinger::None {
        return Ok(None);
    }
    let socket = inherited(number)?;
    fcntl(&socket, FcntlArg::F_GETFL)
        .and_then(|flags| fcntl(&socket, FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK)))
        .map_err(|errno| Error::Blocking(number, errno))?;
    Ok(Some((socket, pinger)))
}

/// A panic ends the prober with its message on the link. The standard library's way, SIGABRT, would meet the sandbox
/// first and look like an attack.
fn report_panics() {
    let text = Mutex::new(String::with_capacity(MAX_TEXT));
    std::panic::set_hook(Box::new(move |panic| {
        if let (Some(link), Ok(mut text)) = (LINK.get(), text.try_lock()) {
            let _ = write!(Clipped(&mut text), "{panic}");
            let _ = link.send(&FromProber::Failed(std::mem::take(&mut text)));
        }
        leave(EXIT_FAILED)
    }));
}
