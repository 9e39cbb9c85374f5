//! Becoming a daemon, the PID file, and telling a service manager.
//!
//! The daemon is started by exec of ourselves, in a session of its own. The starter stays until the daemon serves or
//! has failed, so that errors and the exit code appear where the command was given.

use crate::Error;
use command_fds::{CommandFdExt, FdMapping};
use loaded_sandbox::{inherited, keep_only_fds};
use nix::fcntl::OFlag;
use nix::sys::prctl;
use nix::unistd::{dup2_stderr, geteuid, setsid};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Hidden argument of the daemon, which then finds its starter on [`STARTER_FD`].
pub const DETACHED: &str = "--detached";
/// The daemon's end of the socket on which it says that it serves.
pub const STARTER_FD: i32 = 3;

/// The starter's side: runs the daemon and waits for its word. Returns the exit code.
///
/// # Errors
/// When the daemon cannot be started.
pub fn start(arguments: &[OsString]) -> Result<i32, Error> {
    let fail = |act| move |source| Error::Start { act, source };
    let (mut ours, theirs) = UnixStream::pair().map_err(fail("make a socket to the daemon"))?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("loaded").args(arguments).arg(DETACHED).stdin(Stdio::null()).stdout(Stdio::null());
    let mapping = FdMapping { parent_fd: OwnedFd::from(theirs), child_fd: STARTER_FD };
    command.fd_mappings(vec![mapping]).map_err(|e| fail("hand the daemon a socket")(io::Error::other(e)))?;
    let mut daemon = command.spawn().map_err(fail("start the daemon"))?;
    drop(command);
    let mut word = [0];
    match ours.read(&mut word) {
        Ok(1) => Ok(0),
        _ => Ok(daemon.wait().map_err(fail("wait for the daemon"))?.code().unwrap_or(1)),
    }
}

/// The daemon's first act: takes its end of the socket to the starter, and closes whatever else the starter had open (the lock
/// of a script, a pipe), which must not stay open as long as the daemon lives.
///
/// # Errors
/// When there is no starter.
pub fn take_starter() -> Result<OwnedFd, Error> {
    keep_only_fds(&[0, 1, 2, STARTER_FD])?;
    Ok(inherited(STARTER_FD)?)
}

/// Leaves the starter's session, terminal and directory, and takes the name "loaded": the kernel calls a process that was
/// started as /proc/self/exe "exe".
///
/// # Errors
/// When there is no new session to be had.
pub fn detach() -> Result<(), Error> {
    let fail = |act| move |source| Error::Start { act, source };
    setsid().map_err(|e| fail("start a session")(e.into()))?;
    prctl::set_name(c"loaded").map_err(|e| fail("set the process's name")(e.into()))?;
    std::env::set_current_dir("/").map_err(fail("change directory to /"))
}

/// Tells the starter that the daemon serves, and lets go of its stderr.
///
/// # Errors
/// When /dev/null cannot be had.
pub fn release(starter: OwnedFd) -> Result<(), Error> {
    let fail = |act| move |source| Error::Start { act, source };
    let null = OpenOptions::new().write(true).open("/dev/null").map_err(fail("open /dev/null"))?;
    dup2_stderr(&null).map_err(|e| fail("release stderr")(e.into()))?;
    // It does not matter if the starter was killed meanwhile.
    let _ = UnixStream::from(starter).write_all(b"1");
    Ok(())
}

/// Tells the service manager, if there is one, how the service is. Waits for nobody: one that does not read its socket must not
/// stop the supervisor, as [`sd_notify::notify`] would, which sends blocking.
pub fn notify(state: sd_notify::NotifyState<'_>) {
    let Some(path) = std::env::var_os(NOTIFY_SOCKET) else { return };
    let tell = || {
        let name = path.as_bytes();
        // sd_notify(3): an @ stands for the zero byte of an abstract name.
        let address = match name.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.to_string().as_bytes(), &address?)
    };
    if let Err(error) = tell() {
        log::warn!("tell the service manager {state}: {}: {error}", path.display());
    }
}

/// Whether a service manager waits for a notification, or a container ends with this process; loaded then stays in the foreground.
#[must_use]
pub fn is_managed() -> bool {
    std::env::var_os(NOTIFY_SOCKET).is_some() || std::process::id() == 1
}

/// Where a service manager listens, sd_notify(3).
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";

/// A file with our process id; dropping this removes it.
#[derive(Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it. A file of a process that has ended, or of `predecessor`, is replaced; a link is never followed.
    ///
    /// # Errors
    /// When it belongs to a living process or cannot be written.
    pub fn write(path: &Path, predecessor: Option<u32>) -> Result<Self, Error> {
        let fail = |source| Error::PidFile { path: path.to_owned(), source };
        if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == 0) {
            // A full disk leaves it empty.
            fs::remove_file(path).map_err(fail)?;
        } else if let Some(pid) = recorded(path) {
            if is_instance(pid) && pid != std::process::id() && Some(pid) != predecessor {
                return Err(fail(io::Error::other(format!("pid {pid} is running: stop it, or name another file"))));
            }
            fs::remove_file(path).map_err(fail)?;
        }
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits();
        let file = OpenOptions::new().write(true).create_new(true).mode(0o644).custom_flags(flags).open(path);
        let mut file = file.map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(|source| {
            // An empty file must not stand in the way of the next start.
            let _ = fs::remove_file(path);
            fail(source)
        })?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Somebody may have written another file there.
        if recorded(&self.0) != Some(std::process::id()) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.0) {
            log::warn!("remove {}: {error}", self.0.display());
        }
    }
}

/// Whether a process of our user has our name and has not ended: anybody can take a name, and wait for a pid. A killed process
/// keeps its name until its parent has waited for it.
fn is_instance(pid: u32) -> bool {
    if !fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == geteuid().as_raw()) {
        return false;
    }
    // "PID (NAME) STATE …", proc_pid_stat(5); Z and X have ended.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.split_once(" (loaded) ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

/// The process id in a PID file. Follows no link and does not block on a pipe.
fn recorded(path: &Path) -> Option<u32> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).bits();
    let mut text = String::new();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
