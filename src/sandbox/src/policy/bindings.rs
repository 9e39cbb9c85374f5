//! The numbers behind a policy's symbols, known only at run time.

use std::ops::Range;
use std::os::fd::RawFd;

use super::rule::Fd;
use super::{exporter, prober};
use crate::error::SandboxError;
use crate::role::Role;

/// What a role's symbols stand for in one process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bindings {
    /// A worker's.
    Worker {
        /// The number of [`Fd::Queue`].
        queue_fd: RawFd,
        /// The number of [`Fd::Link`].
        link_fd: RawFd,
        /// The number of [`Fd::Membership`].
        membership_fd: RawFd,
        /// The addresses of the `msghdr` table, 64 bytes a row. It must already be mapped read-only from sealed memory.
        templates: Range<u64>,
    },
    /// The prober's. Every number below the end of `workers` must be open, so that a new socket lies above them all.
    Prober {
        /// The number of [`Fd::Link`].
        link_fd: RawFd,
        /// The number of [`Fd::Ping4`].
        ping4_fd: RawFd,
        /// The number of [`Fd::Ping6`].
        ping6_fd: RawFd,
        /// The number of [`Fd::Epoll`].
        epoll_fd: RawFd,
        /// The numbers of [`Fd::Workers`]: at least one, above all others.
        workers: Range<RawFd>,
        /// Ports that checks may connect to by TCP, host byte order. Landlock allows no others.
        tcp_ports: Vec<u16>,
        /// Ports that checks may send to by UDP, host byte order. Landlock enforces this from ABI 10 on.
        udp_ports: Vec<u16>,
    },
    /// The exporter's. Every number up to the higher of the two must be open, so that a connection lies above both.
    Exporter {
        /// The number of [`Fd::Link`].
        link_fd: RawFd,
        /// The number of [`Fd::Listener`].
        listener_fd: RawFd,
    },
}

impl Bindings {
    /// The distance between two rows of the table: sizeof(struct msghdr), 56, rounded up to a power of two, so that a
    /// mask can test "points at the start of a row"; seccomp can compute nothing else.
    pub const STRIDE: u64 = 64;

    /// The role they belong to.
    pub fn role(&self) -> Role {
        match self {
            Bindings::Worker { .. } => Role::Worker,
            Bindings::Prober { .. } => Role::Prober,
            Bindings::Exporter { .. } => Role::Exporter,
        }
    }

    /// The numbers that this descriptor may have; `None` if the role has no such descriptor.
    pub(crate) fn numbers(&self, fd: Fd) -> Option<Range<RawFd>> {
        let one = |number: RawFd| number..number.saturating_add(1);
        match (self, fd) {
            (Bindings::Worker { queue_fd, .. }, Fd::Queue) => Some(one(*queue_fd)),
            (
                Bindings::Worker { link_fd, .. }
                | Bindings::Prober { link_fd, .. }
                | Bindings::Exporter { link_fd, .. },
                Fd::Link,
            ) => Some(one(*link_fd)),
            (Bindings::Worker { membership_fd, .. }, Fd::Membership) => Some(one(*membership_fd)),
            (Bindings::Prober { ping4_fd, .. }, Fd::Ping4) => Some(one(*ping4_fd)),
            (Bindings::Prober { ping6_fd, .. }, Fd::Ping6) => Some(one(*ping6_fd)),
            (Bindings::Prober { epoll_fd, .. }, Fd::Epoll) => Some(one(*epoll_fd)),
            (Bindings::Prober { workers, .. }, Fd::Workers) => Some(workers.clone()),
            (Bindings::Prober { workers, .. }, Fd::Checks) => {
                Some(workers.end..workers.end.saturating_add(prober::CHECK_SOCKETS))
            }
            (Bindings::Exporter { listener_fd, .. }, Fd::Listener) => Some(one(*listener_fd)),
            (Bindings::Exporter { link_fd, listener_fd }, Fd::Connections) => {
                let first = (*link_fd).max(*listener_fd).saturating_add(1);
                Some(first..first.saturating_add(exporter::CONNECTIONS))
            }
            _ => None,
        }
    }

    pub(crate) fn templates(&self) -> Option<Range<u64>> {
        match self {
            Bindings::Worker { templates, .. } => Some(templates.clone()),
            Bindings::Prober { .. } | Bindings::Exporter { .. } => None,
        }
    }

    /// How many workers the process talks to.
    pub(crate) fn workers(&self) -> usize {
        self.numbers(Fd::Workers).map_or(0, |numbers| numbers.len())
    }

    /// The TCP ports and UDP ports that Landlock leaves open.
    pub(crate) fn ports(&self) -> (&[u16], &[u16]) {
        match self {
            Bindings::Worker { .. } | Bindings::Exporter { .. } => (&[], &[]),
            Bindings::Prober { tcp_ports, udp_ports, .. } => (tcp_ports, udp_ports),
        }
    }

    pub(crate) fn check(&self, role: Role) -> Result<(), SandboxError> {
        let wrong = |problem: String| Err(SandboxError::Bindings { role, problem });
        if self.role() != role {
            return wrong(format!("the numbers are a {}'s", self.role()));
        }
        match self {
            Bindings::Worker { queue_fd, link_fd, membership_fd, templates: Range { start, end } } => {
                if !all_differ(&[*queue_fd, *link_fd, *membership_fd]) {
                    return wrong(format!("queue is {queue_fd}, link is {link_fd}, membership is {membership_fd}"));
                }
                let stride = Bindings::STRIDE;
                if *start == 0 || start >= end || start % stride != 0 || end % stride != 0 {
                    return wrong(format!("templates {start:#x}..{end:#x} are not a table of 64-byte rows"));
                }
            }
            Bindings::Prober { link_fd, ping4_fd, ping6_fd, epoll_fd, workers, .. } => {
                let others = [*link_fd, *ping4_fd, *ping6_fd, *epoll_fd];
                let above = others.iter().all(|fd| *fd < workers.start);
                if !all_differ(&others) || !above || workers.is_empty() {
                    return wrong(format!(
                        "link is {link_fd}, ping4 is {ping4_fd}, ping6 is {ping6_fd}, epoll is {epoll_fd}, workers are \
                         {workers:?}"
                    ));
                }
            }
            Bindings::Exporter { link_fd, listener_fd } => {
                if !all_differ(&[*link_fd, *listener_fd]) {
                    return wrong(format!("link is {link_fd}, listener is {listener_fd}"));
                }
            }
        }
        Ok(())
    }
}

fn all_differ(fds: &[RawFd]) -> bool {
    fds.iter().enumerate().all(|(place, fd)| *fd >= 0 && !fds[..place].contains(fd))
}
