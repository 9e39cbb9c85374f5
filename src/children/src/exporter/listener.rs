//! The socket at which metrics are asked for. The supervisor makes it and keeps it, whatever becomes of the exporter: whoever
//! connects meanwhile waits in its backlog.

use crate::Error;
use loaded_config::plan::{MetricsAddress, Plan};
use loaded_control::{group_named, in_group};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// A socket that listens, or none, and the last error, so that it is logged once.
#[derive(Debug)]
pub(super) struct Listener {
    bound: Option<Bound>,
    trouble: Option<String>,
}

/// A socket that listens. Dropping this removes its name, if it has one.
#[derive(Debug)]
pub struct Bound {
    socket: OwnedFd,
    address: MetricsAddress,
    /// Device and inode of the name.
    file: Option<(u64, u64)>,
}

impl Listener {
    pub(super) fn none() -> Self {
        Self { bound: None, trouble: None }
    }

    pub(super) fn bound(&self) -> Option<&Bound> {
        self.bound.as_ref()
    }

    pub(super) fn put(&mut self, bound: Option<Bound>) {
        self.bound = bound;
        self.trouble = None;
    }

    /// Whether this error was not logged already.
    pub(super) fn is_news(&mut self, error: &Error) -> bool {
        let text = error.to_string();
        self.trouble.replace(text.clone()) != Some(text)
    }

    /// Listens where a plan says, if it does.
    pub(super) fn bind(plan: &Plan) -> Result<Option<Bound>, Error> {
        let Some(address) = &plan.metrics else { return Ok(None) };
        let bound = match address {
            MetricsAddress::Tcp(tcp) => TcpListener::bind(tcp).and_then(|listener| {
                listener.set_nonblocking(true)?;
                if !tcp.ip().is_loopback() {
                    log::info!("metrics: whoever reaches {tcp} may read them: there is no TLS and no password");
                }
                Ok(Bound { socket: listener.into(), address: address.clone(), file: None })
            }),
            MetricsAddress::Unix(path) => Bound::unix(path, plan.monitor_group.as_deref()),
        };
        bound.map(Some).map_err(|source| Error::Metrics { address: address.to_string(), source })
    }
}

impl Bound {
    pub(crate) fn address(&self) -> &MetricsAddress {
        &self.address
    }

    /// Takes over a socket that listens already.
    pub fn adopt(socket: OwnedFd, address: MetricsAddress) -> Self {
        let file = match &address {
            MetricsAddress::Tcp(_) => None,
            MetricsAddress::Unix(path) => file_at(path),
        };
        Self { socket, address, file }
    }

    /// Makes a Unix socket: mode 0600, or 0660 and the group's. What a dead instance has left is replaced.
    fn unix(path: &Path, group: Option<&str>) -> io::Result<Self> {
        let group = group.map(group_named).transpose()?;
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Ok(metadata) if metadata.file_type().is_socket() && !answers(path) => fs::remove_file(path)?,
            Ok(metadata) if metadata.file_type().is_socket() => return Err(Errno::EADDRINUSE.into()),
            Ok(_) => return Err(io::Error::other("the file there is no socket; remove it, or name another path")),
            Err(error) => return Err(error),
        }
        let socket = stream()?;
        // The name gets the socket's mode (unix_bind_bsd, net/unix/af_unix.c) and our group: there is no moment in which others
        // get in. To change the group of a file that is there would need CAP_CHOWN.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        in_group(group, || bind(socket.as_raw_fd(), &UnixAddr::new(path)?))?;
        // From here on the name goes if anything fails.
        let this = Self { socket, address: MetricsAddress::Unix(path.to_owned()), file: file_at(path) };
        if group.is_some() {
            fs::set_permissions(path, Permissions::from_mode(0o660))?;
        }
        listen(&this.socket, Backlog::new(BACKLOG)?)?;
        Ok(this)
    }

    /// Leaves the name to whoever has the socket too.
    fn name(&self) -> Option<&PathBuf> {
        match &self.address {
            MetricsAddress::Unix(path) if self.file.is_some() && file_at(path) == self.file => Some(path),
            _ => None,
        }
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Some(path) = self.name()
            && let Err(error) = fs::remove_file(path)
        {
            log::warn!("remove {}: {error}", path.display());
        }
    }
}

fn stream() -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
}

/// Whether somebody listens there, or might.
fn answers(path: &Path) -> bool {
    let connected = stream().and_then(|fd| connect(fd.as_raw_fd(), &UnixAddr::new(path)?));
    !matches!(connected, Err(Errno::ECONNREFUSED | Errno::ENOENT))
}

fn file_at(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
