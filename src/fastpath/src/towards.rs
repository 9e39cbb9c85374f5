//! By which interface the kernel would send to an address: that is where packets in its name must come from.

use crate::error::Error;
use loaded_netlink::{Request, SockProtocol, Socket, attribute, number};
use std::net::IpAddr;

/// include/uapi/linux/rtnetlink.h: RTM_NEWROUTE, RTM_GETROUTE, RTA_DST, RTA_OIF, RTN_UNICAST; bytes of a `struct rtmsg`.
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const DESTINATION: u16 = 1;
const INTERFACE: u16 = 4;
const UNICAST: u8 = 1;
const MESSAGE: usize = 12;

/// Asks for routes.
#[derive(Debug)]
pub struct Towards(Socket);

impl Towards {
    /// Opens a socket for it.
    ///
    /// # Errors
    /// If the kernel gives none.
    pub fn open() -> Result<Self, Error> {
        Socket::open(SockProtocol::NetlinkRoute).map(Self).map_err(|e| Error::refused("open rtnetlink", e))
    }

    /// Index of the interface that the route to this address leads through, by all rules and tables, for a packet of this host
    /// without a mark. Of several next hops the kernel names one. `None`: no route leads to another host.
    pub fn interface(&mut self, address: IpAddr) -> Option<u32> {
        let octets = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        // struct rtmsg: family, length of the destination, and zeros. AF_INET 2, AF_INET6 10.
        let mut message = [0; MESSAGE];
        message[0] = if address.is_ipv4() { 2 } else { 10 };
        message[1] = if address.is_ipv4() { 32 } else { 128 };
        let mut found = None;
        let request = Request::new(GET_ROUTE, 0).body(&message).bytes(DESTINATION, &octets);
        let asked = self.0.ask(request, |kind, body| {
            if kind == NEW_ROUTE && body.get(7) == Some(&UNICAST) {
                let index = attribute(body.get(MESSAGE..).unwrap_or_default(), INTERFACE);
                found = index.and_then(|value| number(value, 0));
            }
        });
        asked.ok().and(found)
    }
}
