//! The descriptors children are started with, besides /dev/null on 0, 1 and 2: the supervisor puts them there, the
//! child takes them over by these numbers.

use std::os::fd::RawFd;

/// Worker: the netlink socket of its queue.
pub const QUEUE_FD: RawFd = 3;
/// Worker: its end of the link to the supervisor.
pub const LINK_FD: RawFd = 4;
/// Worker: its end of the link from the prober; present even if no prober runs.
pub const MEMBERSHIP_FD: RawFd = 5;
/// Worker: memory of the flow table. This and the next three stay open in the worker's custody: if the supervisor is
/// killed, the next one takes them from there.
pub const FLOWS_FD: RawFd = 6;
/// Worker: memory of the affinity table.
pub const CLIENTS_FD: RawFd = 7;
/// Worker: memory of the counters.
pub const COUNTERS_FD: RawFd = 8;
/// Worker: the supervisor's journal, read only. The worker itself never reads it.
pub const JOURNAL_FD: RawFd = 9;

/// Worker: where the kernel path sees whose flows it keeps. Mapped, and closed before the sandbox; /dev/null without a kernel
/// path.
pub const KEEPING_FD: RawFd = 10;
/// Worker: the ring of the kernel path's reports; the same.
pub const REPORTS_FD: RawFd = 11;

/// Prober: its end of the link to the supervisor.
pub const PROBER_LINK_FD: RawFd = 3;
/// Prober: a socket that pings IPv4, or /dev/null.
pub const PING4_FD: RawFd = 4;
/// Prober: a socket that pings IPv6, or /dev/null.
pub const PING6_FD: RawFd = 5;
/// Prober: an epoll instance that nobody else has.
pub const EPOLL_FD: RawFd = 6;
/// Prober: its ends of the links to the workers, one descriptor each from here on, in the order of the workers. Then
/// the sockets with marks.
pub const WORKERS_FD: RawFd = 7;

/// Exporter: its end of the link to the supervisor.
pub const EXPORTER_LINK_FD: RawFd = 3;
/// Exporter: the socket that listens for those who ask.
pub const LISTENER_FD: RawFd = 4;
/// Exporter: the first number of a connection that it accepts.
pub const CONNECTIONS_FD: RawFd = 5;
