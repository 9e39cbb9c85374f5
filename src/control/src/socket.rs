//! Where the control socket is. Each instance has its own, named after its process id, so several can run, in one network
//! namespace or several, without knowing of each other.

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, renameat2};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::unistd::{Gid, Group, getegid, geteuid, linkat, setegid};
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Where instances put their sockets, and where a client looks for them.
pub const DIRECTORY: &str = "/run/loaded";

/// Connections that may wait to be accepted; the kernel caps this at net.core.somaxconn, 4096 by default.
const BACKLOG: i32 = 1024;

/// Maximum number of files looked at in [`DIRECTORY`]: only root can put any there.
const MOST_FILES: usize = 4096;

/// Where an instance's socket is when nothing else is said: `/run/loaded/control-PID.sock`.
#[must_use]
pub fn default_path() -> PathBuf {
    Path::new(DIRECTORY).join(format!("control-{}.sock", std::process::id()))
}

/// Where the socket is that a group may read by, beside a control socket.
#[must_use]
pub fn monitor_path(control: &Path) -> PathBuf {
    let mut name = control.file_name().unwrap_or_default().to_owned();
    name.push(MONITORS);
    control.with_file_name(name)
}

/// What the name of a monitors' socket has after that of the control socket.
const MONITORS: &str = ".monitor";

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another instance answers there.
    #[error("control socket {}: another instance answers there; stop it, or name another path with --control", .0.display())]
    Live(PathBuf),
    /// The name is taken by something else.
    #[error("control socket {}: the file there is not a control socket; remove it, or name another path with \
             --control", .0.display())]
    InTheWay(PathBuf),
    /// Somebody else could replace the socket.
    #[error("control socket: {} must be a directory of uid {owner} that nobody else may write to", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Whose it must be.
        owner: u32,
    },
    /// The kernel refused something.
    #[error("control socket {}: {act}: {source}", path.display())]
    Refused {
        /// Of which path.
        path: PathBuf,
        /// What was tried.
        act: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A listening socket and its name, which is removed on drop.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the name we made.
    file: (u64, u64),
}

impl Bound {
    /// Makes the socket, mode 0600, or 0660 and this group's, in the place of what a dead instance has left.
    pub(super) fn new(path: &Path, group: Option<Gid>) -> Result<Self, ControlError> {
        let fail = |act| move |source: io::Error| ControlError::Refused { path: path.to_owned(), act, source };
        let path = std::path::absolute(path).map_err(fail("find its directory"))?;
        let path = path.as_path();
        let fail = |act| move |source: io::Error| ControlError::Refused { path: path.to_owned(), act, source };
        // A longer name could be made, by the link below, but nobody could connect to it.
        UnixAddr::new(path).map_err(|errno| fail("use its name")(errno.into()))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        if directory == Path::new(DIRECTORY) {
            own_directory(directory)?;
            let monitors = candidates(directory).into_iter().map(|path| monitor_path(&path));
            let monitors: Vec<_> = monitors.filter(|path| path.exists()).collect();
            let left = candidates(directory).into_iter().chain(monitors);
            for stale in left.filter(|path| state(path) == SocketState::Stale) {
                // Somebody else may have been faster.
                let _ = fs::remove_file(stale);
            }
        }
        match state(path) {
            SocketState::Absent => {}
            SocketState::Stale => fs::remove_file(path).map_err(fail("replace that of a dead instance"))?,
            SocketState::Live => return Err(ControlError::Live(path.to_owned())),
            SocketState::Other => return Err(ControlError::InTheWay(path.to_owned())),
        }
        // Between bind and listen a socket refuses connections, and so looks like a dead instance's: it gets its name
        // only once it listens.
        let unnamed = directory.join(format!(".{}", std::process::id()));
        let _ = fs::remove_file(&unnamed);
        let listener = listener(&unnamed, group).map_err(|errno| fail("make it")(errno.into()))?;
        let metadata = fs::symlink_metadata(&unnamed);
        let named = name(&unnamed, path);
        let _ = fs::remove_file(&unnamed);
        named.map_err(|errno| fail("give it its name")(errno.into()))?;
        let metadata = metadata.map_err(fail("look at it"))?;
        Ok(Self { listener, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
    }

    /// A socket that listens under the name `theirs` already; from now on under `path`.
    pub(super) fn adopt(listener: UnixListener, theirs: &Path, path: &Path) -> Result<Self, ControlError> {
        let fail = |act| move |source: io::Error| ControlError::Refused { path: path.to_owned(), act, source };
        // The flag is one of the open file, which the other instance has too; it is set there all the same.
        listener.set_nonblocking(true).map_err(fail("make it non-blocking"))?;
        if theirs != path {
            fs::rename(theirs, path).map_err(fail("take over the previous supervisor's"))?;
        }
        let metadata = fs::symlink_metadata(path).map_err(fail("look at it"))?;
        Ok(Self { listener, path: path.to_owned(), file: (metadata.dev(), metadata.ino()) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Another instance may have the name now.
        if fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file)
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("remove {}: {error}", self.path.display());
        }
    }
}

fn listener(path: &Path, group: Option<Gid>) -> Result<UnixListener, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The name gets the socket's mode (unix_bind_bsd, net/unix/af_unix.c): there is no moment in which it has another.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    in_group(group, || bind(fd.as_raw_fd(), &UnixAddr::new(path)?))?;
    // The umask would have taken this from the socket's own mode.
    let members = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP;
    let open = || match group {
        Some(_) => fchmodat(AT_FDCWD, path, members, FchmodatFlags::FollowSymlink),
        None => Ok(()),
    };
    let listening = open().and_then(|()| listen(&fd, Backlog::new(BACKLOG)?));
    if listening.is_err() {
        let _ = fs::remove_file(path);
    }
    listening.map(|()| UnixListener::from(fd))
}

/// Does something as a member of a group: what it makes belongs to the group. Needs CAP_SETGID; to change the group of a file that
/// is there would need CAP_CHOWN.
///
/// # Errors
/// The kernel refuses.
pub fn in_group(group: Option<Gid>, act: impl FnOnce() -> Result<(), Errno>) -> Result<(), Errno> {
    let Some(group) = group else { return act() };
    let own = getegid();
    setegid(group)?;
    let done = act();
    setegid(own).and(done)
}

/// The group of this name.
///
/// # Errors
/// There is none, or nobody can tell.
pub fn group_named(name: &str) -> io::Result<Gid> {
    let found = Group::from_name(name)?;
    found
        .map(|group| group.gid)
        .ok_or_else(|| io::Error::other(format!("there is no group {name:?}; groupadd -r {name}")))
}

/// Gives it its name, unless somebody has that by now. Renaming takes no room on a full disk; a file system that cannot
/// rename so (renameat2(2), EINVAL) can link.
fn name(unnamed: &Path, path: &Path) -> Result<(), Errno> {
    match renameat2(AT_FDCWD, unnamed, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EINVAL | Errno::ENOSYS) => linkat(AT_FDCWD, unnamed, AT_FDCWD, path, AtFlags::empty()),
        named => named,
    }
}

/// What is found under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SocketState {
    /// No file of this name.
    Absent,
    /// A stale socket: nobody listens.
    Stale,
    /// A live socket, or one we have no permission for.
    Live,
    /// Not a stream socket.
    Other,
}

/// Checks without blocking: a busy instance counts as live.
pub(super) fn state(path: &Path) -> SocketState {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return SocketState::Absent,
        Ok(metadata) if metadata.file_type().is_socket() => {}
        _ => return SocketState::Other,
    }
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let connected = socket(AddressFamily::Unix, SockType::Stream, flags, None)
        .and_then(|fd| connect(fd.as_raw_fd(), &UnixAddr::new(path)?));
    match connected {
        Err(Errno::ECONNREFUSED) => SocketState::Stale,
        Err(Errno::ENOENT) => SocketState::Absent,
        Err(Errno::EPROTOTYPE) => SocketState::Other,
        _ => SocketState::Live,
    }
}

/// The directory of our sockets, made if it is not there.
fn own_directory(path: &Path) -> Result<(), ControlError> {
    let fail = |act| move |source: io::Error| ControlError::Refused { path: path.to_owned(), act, source };
    match DirBuilder::new().mode(0o755).create(path) {
        // Whatever the umask is: that a socket is there is no secret.
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(fail("make it readable"))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(fail("make the directory")(error)),
    }
    let metadata = fs::symlink_metadata(path).map_err(fail("look at the directory"))?;
    let owner = geteuid().as_raw();
    let ours = metadata.is_dir() && metadata.uid() == owner && metadata.mode() & 0o022 == 0;
    if ours { Ok(()) } else { Err(ControlError::Directory { path: path.to_owned(), owner }) }
}

/// The files in a directory whose names are those of control sockets, sorted.
pub(super) fn candidates(directory: &Path) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with("control-") && name.ends_with(".sock")
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().take(MOST_FILES);
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_one).collect();
    paths.sort();
    paths
}
