//! Whether the kernel passes packets on: it is asked to route one as if it had come in by an interface, with all rules, tables and
//! source checks that such a packet meets (inet_rtm_getroute in net/ipv4/route.c, inet6_rtm_getroute in net/ipv6/route.c). Nothing
//! is sent.

use loaded_netlink::{Request, SockProtocol, Socket};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use std::net::IpAddr;

/// RTM_GETROUTE; RTA_DST, RTA_SRC, RTA_IIF (include/uapi/linux/rtnetlink.h).
const GET_ROUTE: u16 = 26;
const DESTINATION: u16 = 1;
const SOURCE: u16 = 2;
const INTERFACE: u16 = 3;
/// Bytes of a `struct rtmsg`: family, lengths of destination and source, and zeros.
const RTMSG: usize = 12;
/// Of routes and rules of types unreachable, prohibit and blackhole, of no route at all, and of a source that the kernel does not
/// believe (fib_props in net/ipv4/fib_semantics.c, fib_validate_source in net/ipv4/fib_frontend.c).
const REFUSALS: [Errno; 5] = [Errno::EHOSTUNREACH, Errno::EACCES, Errno::EINVAL, Errno::ENETUNREACH, Errno::EXDEV];

/// A packet that is to be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Passage<'a> {
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    /// The interface that it comes in by.
    pub(crate) by: &'a str,
}

/// Asks for passages.
#[derive(Debug)]
pub(crate) struct Passages(Socket);

impl Passages {
    pub(crate) fn open() -> Result<Self, Errno> {
        Socket::open(SockProtocol::NetlinkRoute).map(Self)
    }

    /// `false` only where the kernel says that it would drop the packet.
    pub(crate) fn are_open(&mut self, passage: Passage<'_>) -> bool {
        let Ok(index) = if_nametoindex(passage.by) else { return true };
        !matches!(self.0.ask(request(passage, index), |_, _| ()), Err(errno) if REFUSALS.contains(&errno))
    }
}

fn request(Passage { from, to, .. }: Passage<'_>, index: u32) -> Request {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let mut rtmsg = [0; RTMSG];
    // AF_INET 2, AF_INET6 10.
    rtmsg[..3].copy_from_slice(if to.is_ipv4() { &[2, 32, 32] } else { &[10, 128, 128] });
    let request = Request::new(GET_ROUTE, 0).body(&rtmsg);
    let request = request.bytes(DESTINATION, &octets(to)).bytes(SOURCE, &octets(from));
    request.bytes(INTERFACE, &index.to_ne_bytes())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_what_it_would_drop() {
        let mut passages = Passages::open().unwrap();
        let address = |text: &str| text.parse().unwrap();
        // No packet of these addresses comes from elsewhere, unless route_localnet allows it.
        let martian = Passage { from: address("255.255.255.255"), to: address("127.0.0.1"), by: "lo" };
        assert!(!passages.are_open(martian));
        assert!(passages.are_open(Passage { by: "nosuchdevice", ..martian }), "not known");
    }
}
