//! The two ping sockets, opened by the supervisor, and the echo messages on them (RFC 792, RFC 4443 §4).
//!
//! A reply is recognised by its token (eight random bytes that the request carried) and by its sender. Nothing else in
//! it is believed: a ping socket changes the id, and a raw socket hears every ICMP message of the host.

use loaded_ipc::Pinger;
use loaded_sandbox::Family;
use nix::errno::Errno;
use nix::libc::{in6_addr, in6_pktinfo};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn6, SockaddrStorage, recvfrom, sendmsg, sendto};
use std::io::IoSlice;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Type, code, checksum, id, sequence, token.
const MESSAGE: usize = 16;
/// An IPv4 header with all its options, and a message.
const MAX_DATAGRAM: usize = 60 + MESSAGE;

/// The sockets that can ping.
#[derive(Debug)]
pub struct Pings {
    v4: Option<Ping>,
    v6: Option<Ping>,
    /// The id of requests on raw sockets; on a ping socket the kernel sets its own.
    id: u16,
    sequence: u16,
}

#[derive(Debug)]
struct Ping {
    socket: OwnedFd,
    raw: bool,
}

impl Pings {
    /// Takes over the sockets, which must not block. Without one, checks that need it end as
    /// [`loaded_ipc::Cause::NotMade`].
    #[must_use]
    pub fn new(v4: Option<(OwnedFd, Pinger)>, v6: Option<(OwnedFd, Pinger)>) -> Self {
        let ping = |(socket, pinger)| match pinger {
            Pinger::None => None,
            Pinger::Ping => Some(Ping { socket, raw: false }),
            Pinger::Raw => Some(Ping { socket, raw: true }),
        };
        Self { v4: v4.and_then(ping), v6: v6.and_then(ping), id: 0x6c64, sequence: 0 }
    }

    /// The socket of a family, to wait on.
    pub(crate) fn socket(&self, family: Family) -> Option<BorrowedFd<'_>> {
        self.of(family).map(|ping| ping.socket.as_fd())
    }

    /// Sends an echo request. EMFILE where there is no socket for its family.
    pub(crate) fn send(&mut self, to: IpAddr, token: u64) -> Result<(), Errno> {
        let request = self.request(to.is_ipv4(), token);
        let ping = self.of(if to.is_ipv4() { Family::V4 } else { Family::V6 }).ok_or(Errno::EMFILE)?;
        let to = SockaddrStorage::from(SocketAddr::new(to, 0));
        sendto(ping.socket.as_raw_fd(), &request, &to, MsgFlags::empty()).map(drop)
    }

    /// Sends an echo request out of one interface, from one address of ours. Allocates some forty bytes during the
    /// call; the heap that `seal` leaves has room for them.
    pub(crate) fn send_from(&mut self, from: Ipv6Addr, interface: u32, to: Ipv6Addr, token: u64) -> Result<(), Errno> {
        let request = self.request(false, token);
        let ping = self.of(Family::V6).ok_or(Errno::EMFILE)?;
        let source = in6_pktinfo { ipi6_addr: in6_addr { s6_addr: from.octets() }, ipi6_ifindex: interface };
        let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, interface));
        let control = [ControlMessage::Ipv6PacketInfo(&source)];
        sendmsg(ping.socket.as_raw_fd(), &[IoSlice::new(&request)], &control, MsgFlags::empty(), Some(&to)).map(drop)
    }

    /// Reads one datagram: who replied, with which token. `None`: nothing is waiting. `Some(None)`: it was something
    /// else.
    pub(crate) fn receive(&self, family: Family) -> Option<Option<(IpAddr, u64)>> {
        let ping = self.of(family)?;
        let mut bytes = [0; MAX_DATAGRAM];
        match recvfrom::<SockaddrStorage>(ping.socket.as_raw_fd(), &mut bytes) {
            Ok((length, from)) => {
                let token = token_of(bytes.get(..length)?, family, ping.raw);
                Some(token.and_then(|token| Some((source(&from?)?, token))))
            }
            // An error from an ICMP message; the call has cleared it.
            Err(Errno::EAGAIN) => None,
            Err(_) => Some(None),
        }
    }

    fn of(&self, family: Family) -> Option<&Ping> {
        match family {
            Family::V4 => self.v4.as_ref(),
            Family::V6 => self.v6.as_ref(),
        }
    }

    fn request(&mut self, v4: bool, token: u64) -> [u8; MESSAGE] {
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = [0; MESSAGE];
        message[0] = if v4 { 8 } else { 128 };
        message[4..6].copy_from_slice(&self.id.to_be_bytes());
        message[6..8].copy_from_slice(&self.sequence.to_be_bytes());
        message[8..].copy_from_slice(&token.to_be_bytes());
        if v4 {
            let sum = checksum(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        // The kernel computes ICMPv6's, which covers the source address, on either kind of socket (RFC 3542 §3.1).
        message
    }
}

fn source(from: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = from.as_sockaddr_in().map(|from| IpAddr::V4(from.ip()));
    v4.or_else(|| from.as_sockaddr_in6().map(|from| IpAddr::V6(from.ip())))
}

/// The token of an echo reply. Only a raw IPv4 socket delivers the IP header as well (raw(7)).
fn token_of(datagram: &[u8], family: Family, raw: bool) -> Option<u64> {
    let (skip, reply) = match (family, raw) {
        (Family::V4, true) => (usize::from(datagram.first()? & 0x0f) * 4, 0),
        (Family::V4, false) => (0, 0),
        (Family::V6, _) => (0, 129),
    };
    let message = datagram.get(skip..)?.first_chunk::<MESSAGE>()?;
    let [kind, code, _, _, _, _, _, _, token @ ..] = *message;
    (kind == reply && code == 0).then(|| u64::from_be_bytes(token))
}

/// RFC 1071.
fn checksum(message: &[u8; MESSAGE]) -> u16 {
    let (words, _) = message.as_chunks::<2>();
    let mut sum: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOKEN: u64 = 0x0102_0304_0506_0708;

    #[test]
    fn a_request_is_well_formed() {
        let mut pings = Pings::new(None, None);
        let request = pings.request(true, TOKEN);
        assert_eq!((request[0], request[1], &request[6..8]), (8, 0, &[0, 1][..]));
        assert_eq!(checksum(&request), 0, "a sum over its own checksum is zero");
        assert_eq!(pings.request(false, TOKEN)[..4], [128, 0, 0, 0]);
        assert_eq!(pings.send(IpAddr::from([127, 0, 0, 1]), 1), Err(Errno::EMFILE));
    }

    #[test]
    fn a_reply_is_read_behind_its_header() {
        let mut reply = Pings::new(None, None).request(true, TOKEN).to_vec();
        assert_eq!(token_of(&reply, Family::V4, false), None, "a request is no reply");
        reply[0] = 0;
        assert_eq!(token_of(&reply, Family::V4, false), Some(TOKEN));
        assert_eq!(token_of(&reply[..15], Family::V4, false), None);
        let mut raw = vec![0u8; 24];
        raw[0] = 0x46;
        raw.extend_from_slice(&reply);
        assert_eq!(token_of(&raw, Family::V4, true), Some(TOKEN));
        raw[0] = 0x4f;
        assert_eq!(token_of(&raw, Family::V4, true), None);
        reply[0] = 129;
        assert_eq!(token_of(&reply, Family::V6, true), Some(TOKEN));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_reply_or_not(bytes in prop::collection::vec(any::<u8>(), 0..100), raw: bool, v4: bool) {
            let _ = token_of(&bytes, if v4 { Family::V4 } else { Family::V6 }, raw);
        }
    }
}
