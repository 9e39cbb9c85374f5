//! The sockets that ping: which kind is opened, and how a raw one is restricted.

#![allow(clippy::unwrap_used)]

mod rig;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::ExitCode;

use loaded_sandbox::selftest::{enter_private_namespaces, raise_loopback};
use loaded_sandbox::{Family, PingKind, open_ping_socket};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use rig::{child_passes, errno, raw};

fn main() -> ExitCode {
    rig::run(&[
        ("a ping socket where the host allows it, else a raw one", kinds),
        ("neither kind can be had: the text says what to do", neither),
        ("a raw socket hears echo replies and nothing else", replies_only),
        ("the filter is locked", filter_locked),
        ("broadcast for IPv4, no loop of multicasts for IPv6", options),
    ])
}

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

fn enter() {
    enter_private_namespaces().unwrap();
    raise_loopback().unwrap();
}

fn allow_ping_sockets() {
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
}

fn option(fd: &OwnedFd, level: i32, name: i32) -> i32 {
    let (mut value, mut length) = (-1i32, 4u32);
    // SAFETY: stores an int into a live one.
    let answer = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut length) };
    assert_eq!(answer, 0);
    value
}

fn kinds() {
    enter();
    for family in FAMILIES {
        let (fd, kind) = open_ping_socket(family).unwrap();
        assert_eq!((kind, option(&fd, libc::SOL_SOCKET, libc::SO_TYPE)), (PingKind::Raw, libc::SOCK_RAW));
    }
    allow_ping_sockets();
    for family in FAMILIES {
        let (fd, kind) = open_ping_socket(family).unwrap();
        assert_eq!((kind, option(&fd, libc::SOL_SOCKET, libc::SO_TYPE)), (PingKind::Ping, libc::SOCK_DGRAM));
        assert!(OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK));
        assert_eq!(fcntl(&fd, FcntlArg::F_GETFD).unwrap(), FdFlag::FD_CLOEXEC.bits());
    }
}

fn neither() {
    enter();
    caps::drop(None, caps::CapSet::Effective, caps::Capability::CAP_NET_RAW).unwrap();
    for family in FAMILIES {
        let text = open_ping_socket(family).unwrap_err().to_string();
        println!("{text}");
        assert!(text.contains(&family.to_string()) && text.contains("EACCES") && text.contains("EPERM"), "{text}");
        assert!(text.contains("ping_group_range=\"0 0\"") && text.contains("CAP_NET_RAW"), "{text}");
    }
}

fn send(fd: &OwnedFd, family: Family, kind: u8) {
    let checksum = (!(u16::from(kind) << 8)).to_be_bytes();
    let message = [kind, 0, checksum[0], checksum[1], 0, 0, 0, 0];
    let mut to = [0u8; 28];
    let length = match family {
        Family::V4 => {
            to[..8].copy_from_slice(&[2, 0, 0, 0, 127, 0, 0, 1]);
            16
        }
        Family::V6 => {
            (to[0], to[23]) = (10, 1);
            28
        }
    };
    let args = [fd.as_raw_fd().unsigned_abs().into(), message.as_ptr() as u64, 8, 0, to.as_ptr() as u64, length];
    assert_eq!(raw(libc::SYS_sendto, args), 8);
}

/// The types of the ICMP messages that wait on a raw socket.
fn heard(fd: &OwnedFd, family: Family) -> Vec<u8> {
    let mut types = Vec::new();
    let mut bytes = [0u8; 64];
    while nix::sys::socket::recv(fd.as_raw_fd(), &mut bytes, nix::sys::socket::MsgFlags::empty()).is_ok() {
        types.push(if family == Family::V4 { bytes[20] } else { bytes[0] });
    }
    types
}

fn unfiltered(family: Family) -> OwnedFd {
    use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
    let (family, protocol) = match family {
        Family::V4 => (AddressFamily::Inet, SockProtocol::Icmp),
        Family::V6 => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    socket(family, SockType::Raw, SockFlag::SOCK_NONBLOCK, protocol).unwrap()
}

/// On `lo` a raw socket also hears what it sends.
fn replies_only() {
    enter();
    for (family, request, reply, others) in
        [(Family::V4, 8, 0, [3, 5, 11, 13]), (Family::V6, 128, 129, [1, 2, 137, 143])]
    {
        let (fd, kind) = open_ping_socket(family).unwrap();
        assert_eq!(kind, PingKind::Raw);
        let all = unfiltered(family);
        send(&fd, family, request);
        for other in others {
            send(&fd, family, other);
        }
        assert_eq!(heard(&fd, family), [reply]);
        assert!(heard(&all, family).len() > others.len(), "who has no filter hears them");
    }
}

fn filter_locked() {
    enter();
    for family in FAMILIES {
        let (fd, _) = open_ping_socket(family).unwrap();
        let set = |option: i32, value: u64, length: u64| {
            let socket = fd.as_raw_fd().unsigned_abs().into();
            raw(libc::SYS_setsockopt, [socket, 1, u64::from(option.unsigned_abs()), value, length, 0])
        };
        let all = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: u32::MAX }];
        let program = libc::sock_fprog { len: 1, filter: all.as_ptr().cast_mut() };
        let zero = 0i32;
        let eperm = errno(libc::EPERM);
        assert_eq!(set(libc::SO_DETACH_FILTER, (&raw const zero) as u64, 4), eperm);
        assert_eq!(set(libc::SO_ATTACH_FILTER, (&raw const program) as u64, 16), eperm);
        assert_eq!(set(libc::SO_LOCK_FILTER, (&raw const zero) as u64, 4), eperm);
    }
}

fn options() {
    for allowed in [false, true] {
        child_passes(|| {
            enter();
            if allowed {
                allow_ping_sockets();
            }
            let (v4, _) = open_ping_socket(Family::V4).unwrap();
            assert_eq!(option(&v4, libc::SOL_SOCKET, libc::SO_BROADCAST), 1);
            let (v6, _) = open_ping_socket(Family::V6).unwrap();
            assert_eq!(option(&v6, libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP), 0);
            if !allowed {
                assert_eq!(option(&v4, libc::IPPROTO_IP, libc::IP_HDRINCL), 0);
            }
        });
    }
}
