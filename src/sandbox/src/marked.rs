//! Marked sockets, opened by the supervisor and handed to the prober, which may not mark anything. What they send is
//! routed by the mark; a socket can give up its connection and be used again.

use crate::error::SandboxError;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// Opens a stream or datagram socket: non-blocking, close-on-exec. Needs CAP_NET_ADMIN.
///
/// # Errors
/// When the kernel refuses.
pub fn marked(v4: bool, streams: bool, mark: u32) -> Result<OwnedFd, SandboxError> {
    let refused = |source| SandboxError::Refused { act: "open", object: "a socket with a mark".to_owned(), source };
    let family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let kind = if streams { SockType::Stream } else { SockType::Datagram };
    let fd = socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None).map_err(refused)?;
    setsockopt(&fd, sockopt::Mark, &mark).map_err(refused)?;
    Ok(fd)
}

/// Gives up a connection in any state, so that its socket can connect again, by connecting to an address of no family
/// (connect(2); `tcp_disconnect` in net/ipv4/tcp.c). Landlock always allows it.
///
/// # Errors
/// Whatever the kernel answers.
pub fn disconnect(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr>()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the kernel reads `length` bytes of `nowhere`, which lives through the call; AF_UNSPEC is 0.
    Errno::result(unsafe { libc::connect(socket.as_raw_fd(), &raw const nowhere, length) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{SockaddrStorage, connect, getsockopt};
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn a_socket_connects_again_and_keeps_its_mark() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).expect("bind");
            let to = SockaddrStorage::from(listener.local_addr().expect("address"));
            let socket = marked(address.starts_with('1'), true, 0x7000).expect("a socket");
            for _ in 0..3 {
                match connect(socket.as_raw_fd(), &to) {
                    Ok(()) | Err(Errno::EINPROGRESS) => {}
                    Err(errno) => panic!("{errno}"),
                }
                assert_eq!(getsockopt(&socket, sockopt::Mark), Ok(0x7000));
                drop(listener.accept().expect("accepted"));
                disconnect(socket.as_fd()).expect("disconnect");
            }
        }
    }
}
