//! Ping sockets, opened by the supervisor and handed to the prober, which opens none itself.
//!
//! The kind we want is the kernel's ping socket: the kernel fills in checksum and id of an echo request and lets in
//! only the answers to its own requests; it refuses other types and a forged sender (ping_supported in
//! net/ipv4/ping.c). Where the host's `net.ipv4.ping_group_range` forbids ping sockets (as it does by default, even to
//! root), a raw socket takes their place, restricted in two ways:
//!
//!  - A locked filter lets in only echo replies. They may answer other processes, so the prober must recognise its own
//!    by id and content.
//!  - The kernel makes its header: IP_HDRINCL, which would allow forged senders, is off, and seccomp forbids the prober
//!    the setsockopt that would turn it on.
//!
//! A compromised prober with a raw socket can still send other ICMP messages, from addresses of the host.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};

use crate::error::SandboxError;
use crate::family::Family;

/// The kind of a socket that pings: the prober must talk to each in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PingKind {
    /// A ping socket: the kernel sets checksum and id; received data starts with the ICMP header.
    Ping,
    /// A raw socket: the prober sets the id and, for IPv4, the checksum; received data starts with the IP header for
    /// IPv4, with the ICMP header for IPv6 (raw(7), RFC 3542 §3).
    Raw,
}

/// Opens one: non-blocking, close-on-exec, able to reach broadcast addresses (IPv4), and deaf to its own multicasts
/// (IPv6).
///
/// # Errors
/// When neither kind can be opened; the text says why and what to do.
pub fn open_ping_socket(family: Family) -> Result<(OwnedFd, PingKind), SandboxError> {
    let opened = match open(family, SockType::Datagram) {
        Ok(fd) => Ok((fd, PingKind::Ping)),
        Err(ping) => open(family, SockType::Raw)
            .and_then(|fd| let_in_replies_only(&fd, family).map(|()| (fd, PingKind::Raw)))
            .map_err(|raw| SandboxError::NoPinger { family, ping, raw }),
    };
    let (fd, kind) = opened?;
    let (level, option, value, object) = match family {
        Family::V4 => (libc::SOL_SOCKET, libc::SO_BROADCAST, 1i32, "SO_BROADCAST of a socket that pings IPv4"),
        Family::V6 => {
            (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, 0, "IPV6_MULTICAST_LOOP of a socket that pings IPv6")
        }
    };
    set(&fd, level, option, &value).map_err(|source| SandboxError::Refused {
        act: "set",
        object: object.to_owned(),
        source,
    })?;
    Ok((fd, kind))
}

fn open(family: Family, kind: SockType) -> Result<OwnedFd, Errno> {
    let (family, protocol) = match family {
        Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
        Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)
}

const LOAD_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX|BPF_B|BPF_MSH: x = 4 * (byte & 15), the length of an IPv4 header
const LOAD_BYTE: u16 = 0x30; // BPF_LD|BPF_B|BPF_ABS
const LOAD_BYTE_PAST_X: u16 = 0x50; // BPF_LD|BPF_B|BPF_IND
const JUMP_IF_EQUAL: u16 = 0x15; // BPF_JMP|BPF_JEQ|BPF_K
const RETURN: u16 = 0x06; // BPF_RET|BPF_K: how many bytes to let in
const ECHO_REPLY: u32 = 0; // RFC 792
const ECHO_REPLY_V6: u32 = 129; // RFC 4443 §4.2

const fn instruction(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

const fn unless_equal(k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf: skip, k }
}

/// A raw IPv4 socket sees the IP header (raw_rcv in net/ipv4/raw.c).
const REPLIES: [libc::sock_filter; 5] = [
    instruction(LOAD_HEADER_LENGTH, 0),
    instruction(LOAD_BYTE_PAST_X, 0),
    unless_equal(ECHO_REPLY, 1),
    instruction(RETURN, u32::MAX),
    instruction(RETURN, 0),
];
/// A raw IPv6 socket sees ICMPv6 (rawv6_rcv in net/ipv6/raw.c).
const REPLIES_V6: [libc::sock_filter; 4] =
    [instruction(LOAD_BYTE, 0), unless_equal(ECHO_REPLY_V6, 1), instruction(RETURN, u32::MAX), instruction(RETURN, 0)];

/// Makes the filter permanent: once locked it can be neither changed nor removed (sk_attach_filter in
/// net/core/filter.c). What arrived between opening and locking is still delivered, so the reader checks the type too.
fn let_in_replies_only(fd: &OwnedFd, family: Family) -> Result<(), Errno> {
    match family {
        Family::V4 => attach(fd, &REPLIES)?,
        Family::V6 => attach(fd, &REPLIES_V6)?,
    }
    set(fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1i32)
}

fn attach(fd: &OwnedFd, program: &[libc::sock_filter]) -> Result<(), Errno> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::EINVAL)?;
    // The kernel copies the program and does not write to it.
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn set<T>(fd: &OwnedFd, level: i32, option: i32, value: &T) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(size_of::<T>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: reads one T, which is an int or a sock_fprog as the options used here want, whose pointer is good.
    let answer = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, std::ptr::from_ref(value).cast(), length) };
    Errno::result(answer).map(drop)
}
