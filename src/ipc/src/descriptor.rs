//! The descriptors a worker is started with, beside /dev/null on 0, 1 and 2: the supervisor puts them there, the worker
//! takes them over by these numbers.

use std::os::fd::RawFd;

/// The netlink socket of its queue.
pub const QUEUE_FD: RawFd = 3;
/// Its end of the link to the supervisor.
pub const LINK_FD: RawFd = 4;
/// Memory of the flow table; closed once it is mapped.
pub const FLOWS_FD: RawFd = 5;
/// Memory of the affinity table; closed once it is mapped.
pub const CLIENTS_FD: RawFd = 6;
/// Memory of the counters; closed once it is mapped.
pub const COUNTERS_FD: RawFd = 7;
