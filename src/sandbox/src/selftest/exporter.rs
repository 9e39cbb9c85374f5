//! The testbed of an exporter, and how it enters the sandbox.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use super::prober::{os, take_places};
use super::{Observed, enter_private_namespaces, raise_loopback, run_all};
use crate::attempt::Attempt;
use crate::attempt::exporter::{allowed, forbidden};
use crate::drop::{Survival, drop_rights};
use crate::error::SandboxError;
use crate::identity::Identity;
use crate::policy::{Bindings, SandboxPolicy};
use crate::seal::{SandboxRequirement, seal};

/// A testbed with a working `lo`, and what an exporter starts with. Each child gets a listener of its own.
#[derive(Debug)]
pub struct ExporterTestbed {
    null: File,
    link: OwnedFd,
    /// The far end of the link.
    _supervisor: OwnedFd,
    pid: u32,
}

impl ExporterTestbed {
    /// Makes it around this process, for good ([`enter_private_namespaces`]).
    pub fn set_up() -> Result<ExporterTestbed, SandboxError> {
        enter_private_namespaces()?;
        raise_loopback()?;
        let null = File::options().read(true).write(true).open("/dev/null").map_err(os("open", "/dev/null"))?;
        let (link, supervisor) = UnixDatagram::pair().map_err(os("make", "a pair of sockets"))?;
        Ok(ExporterTestbed { null, link: link.into(), _supervisor: supervisor.into(), pid: std::process::id() })
    }

    /// The bindings of an exporter in this testbed.
    #[must_use]
    pub fn bindings() -> Bindings {
        Bindings::Exporter { link_fd: 3, listener_fd: 4 }
    }

    /// Takes a sacrificed child into its sandbox as an exporter: its descriptors and no others, then the two stages. So many
    /// have connected and asked by then; the first of them stays, on descriptor 0, and the others have gone.
    pub fn enter(
        &self,
        policy: &SandboxPolicy,
        askers: usize,
        requirement: SandboxRequirement,
    ) -> Result<(), SandboxError> {
        let identity = Identity::lookup("nobody")?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(os("listen on", "lo"))?;
        listener.set_nonblocking(true).map_err(os("listen on", "lo"))?;
        let address = listener.local_addr().map_err(os("look at", "the listener"))?;
        let mut all = Vec::new();
        for _ in 0..askers {
            let mut asker = TcpStream::connect(address).map_err(os("connect to", "the listener"))?;
            asker.write_all(b"GET / HTTP/1.0\r\n\r\n").map_err(os("ask", "the listener"))?;
            all.push(asker);
        }
        let null = self.null.as_raw_fd();
        let first = all.first().map_or(null, AsRawFd::as_raw_fd);
        take_places(&[first, null, null, self.link.as_raw_fd(), listener.as_raw_fd()])?;
        std::mem::forget((all, listener));
        drop_rights(policy.role(), &identity, self.pid, Survival::DiesToo)?;
        seal(policy, &Self::bindings(), requirement).map(drop)
    }
}

/// Makes every attempt that an exporter must and must not be able to make. The release's policy is
/// [`SandboxPolicy::exporter`]. The process must have one thread.
///
/// # Errors
/// When the test could not be run; then nothing is known.
pub fn examine_exporter(
    testbed: &ExporterTestbed,
    policy: &SandboxPolicy,
    requirement: SandboxRequirement,
) -> Result<Vec<(Attempt, Observed)>, SandboxError> {
    let enter = || testbed.enter(policy, 1, requirement).map(|()| ExporterTestbed::bindings());
    run_all(&enter, &[forbidden(), allowed()].concat())
}
