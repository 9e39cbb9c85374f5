//! The exporter's life: take over what the supervisor opened, give up all rights, then answer until the link ends.

use crate::exporter::{Exporter, out_of_turn};
use crate::{hostile, sandbox};
use loaded_ipc::{
    Clipped, EXPORTER_LINK_FD, ExporterSupervisorLink, FromExporter, LISTENER_FD, LinkError, MAX_TEXT, ToExporter,
    VERSION, clip,
};
use loaded_sandbox::{Identity, SandboxError, SandboxRequirement, inherited, leave};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use std::fmt::Write;
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock};

/// Exit code of an exporter that gives up; the supervisor reads the reason on the link.
const EXIT_FAILED: i32 = 3;
/// Exit code when the supervisor has closed the link, or has told it to stop.
const EXIT_DONE: i32 = 0;

/// What the supervisor tells an exporter on its command line.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// The user to become.
    pub identity: Identity,
    /// The supervisor's process id.
    pub parent: u32,
    /// Whether a kernel that lacks a layer is good enough.
    pub requirement: SandboxRequirement,
}

/// Why an exporter cannot run. The supervisor receives the text.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Sandbox(#[from] SandboxError),
    #[error("link to the supervisor: {0}")]
    Link(#[from] LinkError),
    #[error("the supervisor speaks version {0} of the messages, this exporter {VERSION}")]
    Version(u16),
}

/// The link, where the panic hook can find it.
static LINK: OnceLock<ExporterSupervisorLink> = OnceLock::new();

/// Runs an exporter on the descriptors that [`loaded_ipc`] numbers. Ends the process.
pub fn run(arguments: &Arguments) -> ! {
    let Ok(link) = inherited(EXPORTER_LINK_FD) else { leave(EXIT_FAILED) };
    let link = LINK.get_or_init(|| ExporterSupervisorLink::from_fd(link));
    report_panics();
    match serve(link, arguments) {
        Ok(()) | Err(Error::Link(LinkError::Closed)) => leave(EXIT_DONE),
        Err(error) => {
            let _ = link.send(&FromExporter::Failed(clip(error.to_string())));
            leave(EXIT_FAILED)
        }
    }
}

fn serve(link: &ExporterSupervisorLink, arguments: &Arguments) -> Result<(), Error> {
    let Arguments { identity, parent, requirement } = arguments;
    sandbox::drop_to(identity, *parent)?;
    match link.receive()? {
        ToExporter::Hello { version: VERSION } => {}
        ToExporter::Hello { version } => return Err(Error::Version(version)),
        other => return Err(out_of_turn(&other).into()),
    }
    // The supervisor has made it non-blocking.
    let listener = inherited(LISTENER_FD)?;
    link.set_nonblocking()?;
    let mut exporter = Exporter::new(link, listener.as_fd());
    sandbox::close(*requirement)?;

    // Inside the sandbox nothing may be dropped that closes a descriptor or frees much: the process ends here.
    let ended = link.send(&FromExporter::Prepared).and_then(|()| wait_for_go(link)).and_then(|()| {
        hostile::play(link, listener.as_fd())?;
        exporter.run()
    });
    match ended {
        Ok(()) | Err(LinkError::Closed) => leave(EXIT_DONE),
        Err(error) => {
            let _ = link.send(&FromExporter::Failed(clip(Error::from(error).to_string())));
            leave(EXIT_FAILED)
        }
    }
}

fn wait_for_go(link: &ExporterSupervisorLink) -> Result<(), LinkError> {
    loop {
        match ppoll(&mut [PollFd::new(link.as_fd(), PollFlags::POLLIN)], None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        match link.receive() {
            Ok(ToExporter::Go) => return Ok(()),
            Ok(other) => return Err(out_of_turn(&other)),
            Err(LinkError::Empty) => {}
            Err(error) => return Err(error),
        }
    }
}

/// A panic ends the exporter with its message on the link. The standard library's way, SIGABRT, would meet the sandbox first
/// and look like an attack.
fn report_panics() {
    let text = Mutex::new(String::with_capacity(MAX_TEXT));
    std::panic::set_hook(Box::new(move |panic| {
        if let (Some(link), Ok(mut text)) = (LINK.get(), text.try_lock()) {
            let _ = write!(Clipped(&mut text), "{panic}");
            let _ = link.send(&FromExporter::Failed(std::mem::take(&mut text)));
        }
        leave(EXIT_FAILED)
    }));
}
