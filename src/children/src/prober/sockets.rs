//! What the supervisor opens for the prober, which has no right to.

use crate::Error;
use loaded_ipc::{Pinger, ToProber, mark_of};
use loaded_sandbox::{Family, PingKind, marked as open_marked, open_ping_socket};
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use std::fs::File;
use std::os::fd::OwnedFd;

/// For each target that is checked at a VIP, in their order, a socket with its backend's mark: the prober itself has no right
/// to set one.
pub(super) fn marked(messages: &[ToProber]) -> Result<Vec<OwnedFd>, Error> {
    let streams = |index: u16| {
        let mut checks = messages.iter().filter_map(|message| match message {
            ToProber::Check { index, check } => Some((*index, &check.kind)),
            _ => None,
        });
        let kind = checks.find(|(number, _)| *number == index).map(|(_, kind)| kind);
        kind.is_none_or(|kind| kind.udp_port().is_none())
    };
    let targets = messages.iter().filter_map(|message| match message {
        ToProber::Target { backend, check, vip: Some(vip), .. } => Some((*backend, *check, vip.is_ipv4())),
        _ => None,
    });
    let open = |(backend, check, v4)| Ok(open_marked(v4, streams(check), mark_of(backend))?);
    targets.map(open).collect()
}

/// A new epoll instance, which the prober alone will have.
pub(super) fn epoll() -> Result<OwnedFd, Error> {
    let made = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC);
    made.map(|epoll| epoll.0).map_err(|errno| Error::Start { act: "make an epoll instance", source: errno.into() })
}

/// A socket that pings, or /dev/null where none can be had.
pub(super) fn pinger(family: Family) -> Result<(OwnedFd, Pinger), Error> {
    match open_ping_socket(family) {
        Ok((socket, PingKind::Ping)) => Ok((socket, Pinger::Ping)),
        Ok((socket, PingKind::Raw)) => Ok((socket, Pinger::Raw)),
        Err(error) => {
            log::warn!("no ping socket: {error}; ping checks will fail");
            let null = File::options().read(true).write(true).open("/dev/null");
            let null = null.map_err(|source| Error::Start { act: "open /dev/null", source })?;
            Ok((null.into(), Pinger::None))
        }
    }
}
