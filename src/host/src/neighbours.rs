//! Neighbours: hosts on the links of this one that its packets are handed to. Where the kernel knows no link address it asks for
//! it, three times in three seconds, and drops what waits when nobody answers (neigh_timer_handler, net/core/neighbour.c).

use loaded_netlink::{Request, SockProtocol, Socket, Subscription, attribute, messages, number};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// RTNLGRP_NEIGH, RTM_NEWNEIGH, RTM_GETNEIGH and NDA_DST (include/uapi/linux/rtnetlink.h, neighbour.h).
const GROUP: u32 = 3;
const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOURS: u16 = 30;
const DESTINATION: u16 = 1;
/// `struct ndmsg`, bytes.
const NDMSG: usize = 12;

/// How far the kernel has come with a neighbour (NUD_INCOMPLETE, NUD_FAILED and all others, include/uapi/linux/neighbour.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// It was asked for, and has not answered yet.
    Asked,
    /// It has answered to none of the questions.
    Failed,
    /// Anything else: packets go out.
    Known,
}

/// Most that are kept of those that have failed since the last look: whoever scans a network makes many fail.
const MOST_FAILED: usize = 4096;

/// A neighbour: the number of an interface, and an address there.
pub type Neighbour = (u32, IpAddr);

/// A subscription to changes of neighbours.
#[derive(Debug)]
pub struct NeighbourEvents(Subscription);

impl NeighbourEvents {
    /// Subscribes.
    ///
    /// # Errors
    /// If the kernel refuses a socket.
    pub fn open() -> Result<Self, Errno> {
        Subscription::open(SockProtocol::NetlinkRoute, &[GROUP]).map(Self)
    }

    /// Reads what is there, without waiting. Whether to look at the neighbours: one of them has failed, one that `matters` has
    /// changed, or messages were lost. Those that have failed are added to `failed`: while somebody sends, the kernel asks for one
    /// again at once, and its list does not show it.
    #[must_use]
    pub fn read(&mut self, failed: &mut BTreeSet<Neighbour>, matters: impl Fn(&Neighbour) -> bool) -> bool {
        let mut look = false;
        self.0.read(|heard| match heard.and_then(|bytes| messages(bytes).next()) {
            Some(message) => {
                if let Some((neighbour, resolution)) = entry(message.kind, message.body) {
                    look |= resolution == Resolution::Failed || matters(&neighbour);
                    if resolution == Resolution::Failed && failed.len() < MOST_FAILED {
                        failed.insert(neighbour);
                    }
                }
            }
            None => look = true,
        });
        look
    }
}

/// The neighbours of both families that packets cannot go to now.
///
/// # Errors
/// If the kernel does not list them.
pub(crate) fn unresolved() -> Result<BTreeMap<Neighbour, Resolution>, Errno> {
    let mut found = BTreeMap::new();
    let list = Request::new(GET_NEIGHBOURS, Request::DUMP).body(&[0; NDMSG]);
    Socket::open(SockProtocol::NetlinkRoute)?.ask(list, |kind, body| {
        found.extend(entry(kind, body).filter(|(_, resolution)| *resolution != Resolution::Known));
    })?;
    Ok(found)
}

/// The number of an interface; `None`: there is none of this name.
pub(crate) fn number_of(interface: &str) -> Option<u32> {
    if_nametoindex(interface).ok()
}

/// An entry of the table, or one that is gone, which counts as known: nobody is waiting for it.
fn entry(kind: u16, body: &[u8]) -> Option<(Neighbour, Resolution)> {
    let (fixed, attributes) = body.split_first_chunk::<NDMSG>()?;
    let interface = number(fixed, 4)?;
    let resolution = match u16::from_ne_bytes([fixed[8], fixed[9]]) {
        _ if kind != NEW_NEIGHBOUR => Resolution::Known,
        0x01 => Resolution::Asked,
        0x20 => Resolution::Failed,
        _ => Resolution::Known,
    };
    let address = attribute(attributes, DESTINATION)?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    Some(((interface, address), resolution))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use loaded_netlink::Message;
    use proptest::prelude::*;

    fn message(kind: u16, state: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut fixed = [0; NDMSG];
        fixed[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        fixed[8..10].copy_from_slice(&state.to_ne_bytes());
        let empty = Request::new(kind, 0).body(&fixed);
        attributes.iter().fold(empty, |message, (kind, value)| message.bytes(*kind, value)).finish(0)
    }

    fn read(message: Message<'_>) -> Option<(Neighbour, Resolution)> {
        entry(message.kind, message.body)
    }

    #[test]
    fn an_entry_has_its_interface_its_address_and_its_state() {
        let v4: IpAddr = [198, 51, 100, 11].into();
        let v6: IpAddr = "2001:db8:2::11".parse().unwrap();
        let link: (u16, &[u8]) = (2, &[2, 0, 0, 0, 0, 1]);
        let octets = "2001:db8:2::11".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let two = [
            message(NEW_NEIGHBOUR, 0x20, &[link, (DESTINATION, &[198, 51, 100, 11])]),
            message(NEW_NEIGHBOUR, 0x01, &[(DESTINATION, &octets)]),
            message(NEW_NEIGHBOUR, 0x02, &[(DESTINATION, &octets)]),
            message(29, 0x20, &[(DESTINATION, &octets)]),
            message(NEW_NEIGHBOUR, 0x20, &[link]),
        ]
        .concat();
        let found: Vec<_> = messages(&two).map(read).collect();
        let all = [
            Some(((7, v4), Resolution::Failed)),
            Some(((7, v6), Resolution::Asked)),
            Some(((7, v6), Resolution::Known)),
            Some(((7, v6), Resolution::Known)),
            None,
        ];
        assert_eq!(found, all);
    }

    #[test]
    fn the_kernel_lists_its_neighbours() {
        assert!(unresolved().is_ok());
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for kind in [NEW_NEIGHBOUR, 29] {
                let _ = entry(kind, &bytes);
            }
        }
    }
}
