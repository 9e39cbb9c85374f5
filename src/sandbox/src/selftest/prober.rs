//! The testbed of a prober, and how it enters the sandbox.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags};

use super::{Observed, enter_private_namespaces, raise_loopback, run_all};
use crate::attempt::Attempt;
use crate::attempt::prober::{CHECKED_PORT, OTHER_PORT, allowed, forbidden, landlocked};
use crate::drop::{Survival, drop_rights};
use crate::error::SandboxError;
use crate::family::Family;
use crate::fds::keep_only_fds;
use crate::identity::Identity;
use crate::ping::{PingKind, open_ping_socket};
use crate::policy::{Bindings, SandboxPolicy};
use crate::seal::{SandboxRequirement, seal};
use crate::support::{KernelSupport, Layer};

/// Links to workers that the testbed's prober has.
const WORKERS: RawFd = 2;
/// Which groups may open ping sockets in this network.
const PING_GROUPS: &str = "/proc/sys/net/ipv4/ping_group_range";

/// A testbed with a working `lo`, listeners on the ports of the attempts, and what a prober starts with.
#[derive(Debug)]
pub struct ProberTestbed {
    null: File,
    link: OwnedFd,
    ping4: OwnedFd,
    ping6: OwnedFd,
    epoll: OwnedFd,
    workers: Vec<OwnedFd>,
    /// Listeners, and the far ends of links.
    _others: Vec<OwnedFd>,
    supervisor: u32,
}

impl ProberTestbed {
    /// Makes it around this process, for good ([`enter_private_namespaces`]). `kind`: what the prober is to ping with.
    /// A new network has the kernel's default, which leaves only raw sockets.
    pub fn set_up(kind: PingKind) -> Result<ProberTestbed, SandboxError> {
        enter_private_namespaces()?;
        raise_loopback()?;
        if kind == PingKind::Ping {
            std::fs::write(PING_GROUPS, "0 0").map_err(os("write to", PING_GROUPS))?;
        }
        let null = File::options().read(true).write(true).open("/dev/null").map_err(os("open", "/dev/null"))?;
        let mut others = Vec::new();
        for port in [CHECKED_PORT, OTHER_PORT] {
            others.push(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(os("listen on", "lo"))?.into());
            others.push(TcpListener::bind((Ipv6Addr::LOCALHOST, port)).map_err(os("listen on", "lo"))?.into());
            others.push(UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).map_err(os("bind a UDP socket on", "lo"))?.into());
            others.push(UdpSocket::bind((Ipv6Addr::LOCALHOST, port)).map_err(os("bind a UDP socket on", "lo"))?.into());
        }
        let mut near = Vec::new();
        for _ in 0..=WORKERS {
            let (one, other) = UnixDatagram::pair().map_err(os("make", "a pair of sockets"))?;
            near.push(one.into());
            others.push(other.into());
        }
        let link = near.swap_remove(0);
        let ((ping4, _), (ping6, _)) = (open_ping_socket(Family::V4)?, open_ping_socket(Family::V6)?);
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|source| SandboxError::Refused {
            act: "make",
            object: "an epoll instance".to_owned(),
            source,
        })?;
        let epoll = epoll.0;
        Ok(ProberTestbed {
            null,
            link,
            ping4,
            ping6,
            epoll,
            workers: near,
            _others: others,
            supervisor: std::process::id(),
        })
    }

    /// The bindings of a prober in this testbed that checks these TCP ports, and [`CHECKED_PORT`] by UDP.
    pub fn bindings(&self, tcp_ports: &[u16]) -> Bindings {
        Bindings::Prober {
            link_fd: 3,
            ping4_fd: 4,
            ping6_fd: 5,
            epoll_fd: 6,
            workers: 7..7 + WORKERS,
            tcp_ports: tcp_ports.to_vec(),
            udp_ports: vec![CHECKED_PORT],
        }
    }

    /// Takes a sacrificed child into its sandbox as a prober: its descriptors and no others, then the two stages.
    pub fn enter(
        &self,
        policy: &SandboxPolicy,
        bindings: &Bindings,
        requirement: SandboxRequirement,
    ) -> Result<(), SandboxError> {
        let identity = Identity::lookup("nobody")?;
        let ours = [&self.link, &self.ping4, &self.ping6, &self.epoll].into_iter().chain(&self.workers);
        let mut fds = vec![self.null.as_raw_fd(); 3];
        fds.extend(ours.map(AsRawFd::as_raw_fd));
        take_places(&fds)?;
        drop_rights(policy.role(), &identity, self.supervisor, Survival::DiesToo)?;
        seal(policy, bindings, requirement).map(drop)
    }
}

/// Makes every attempt that a prober must and must not be able to make. The release's policy is
/// [`SandboxPolicy::prober`]; `udp` as given there. The process must have one thread.
///
/// # Errors
/// When the test could not be run; then nothing is known.
pub fn examine_prober(
    testbed: &ProberTestbed,
    policy: &SandboxPolicy,
    udp: bool,
    requirement: SandboxRequirement,
) -> Result<Vec<(Attempt, Observed)>, SandboxError> {
    let bindings = testbed.bindings(&[CHECKED_PORT]);
    let mut attempts = [forbidden(udp), allowed(udp)].concat();
    if KernelSupport::probe().has(Layer::LandlockNet) {
        attempts.extend(landlocked());
    }
    run_all(&|| testbed.enter(policy, &bindings, requirement).map(|()| bindings.clone()), &attempts)
}

/// Puts duplicates of these descriptors on 0, 1, 2 and so on, and closes all others. The child leaves by exit_group, so
/// no owner closes a number that belongs to another by then.
pub(super) fn take_places(fds: &[RawFd]) -> Result<(), SandboxError> {
    let refused = |source| SandboxError::Refused { act: "duplicate", object: "a descriptor".to_owned(), source };
    // First move them out of the way of their final numbers.
    let high = fds.iter().map(|fd| {
        // SAFETY: makes a new descriptor above the places; nothing owns it until it is there.
        Errno::result(unsafe { libc::fcntl(*fd, libc::F_DUPFD, 100) })
    });
    let high: Vec<RawFd> = high.collect::<Result<_, _>>().map_err(refused)?;
    for (fd, place) in high.iter().zip(0..) {
        // SAFETY: whatever had this number belonged to the parent's half of the program, which this child does not run.
        Errno::result(unsafe { libc::dup2(*fd, place) }).map_err(refused)?;
    }
    let places: Vec<RawFd> = (0..).take(fds.len()).collect();
    keep_only_fds(&places)
}

pub(super) fn os(act: &'static str, object: &'static str) -> impl FnOnce(std::io::Error) -> SandboxError {
    move |e| {
        let source = e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        SandboxError::Refused { act, object: object.to_owned(), source }
    }
}
