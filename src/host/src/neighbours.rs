//! Neighbours: hosts on the links of this one that its packets are handed to. Where the kernel knows no link address it asks for
//! it, three times in three seconds, and drops what waits when nobody answers (neigh_timer_handler, net/core/neighbour.c).

use loaded_queue::{SockProtocol, Subscription};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

/// RTNLGRP_NEIGH, RTM_NEWNEIGH, RTM_GETNEIGH and NDA_DST (include/uapi/linux/rtnetlink.h, neighbour.h).
const GROUP: u32 = 3;
const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOURS: u16 = 30;
const DESTINATION: u16 = 1;
/// NLMSG_ERROR, NLMSG_DONE; NLM_F_REQUEST and NLM_F_DUMP (include/uapi/linux/netlink.h).
const ERROR: u16 = 2;
const DONE: u16 = 3;
const DUMP: u16 = 0x301;
/// `struct nlmsghdr`, and that with `struct ndmsg` behind it, bytes.
const HEADER: usize = 16;
const FIXED: usize = HEADER + 12;
/// Most datagrams of one list: the kernel fills 32 KiB each, some 400 entries.
const MOST: usize = 4096;
/// Longest wait for the next part of a list, milliseconds.
const WAIT: i64 = 1000;

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
    /// changed, or messages were lost.
    #[must_use]
    pub fn read(&mut self, matters: impl Fn(&Neighbour) -> bool) -> bool {
        let mut look = false;
        self.0.read(|heard| {
            look |= match heard.and_then(|bytes| messages(bytes).next()) {
                Some((_, message)) => entry(message)
                    .is_some_and(|(neighbour, resolution)| resolution == Resolution::Failed || matters(&neighbour)),
                None => true,
            };
        });
        look
    }
}

/// The neighbours of both families that packets cannot go to now.
///
/// # Errors
/// If the kernel does not list them.
pub(crate) fn unresolved() -> Result<BTreeMap<Neighbour, Resolution>, Errno> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(WAIT))?;
    let mut request = [0; FIXED];
    request[..4].copy_from_slice(&u32::try_from(FIXED).unwrap_or(0).to_ne_bytes());
    request[4..6].copy_from_slice(&GET_NEIGHBOURS.to_ne_bytes());
    request[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    sendto(socket.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut found = BTreeMap::new();
    let mut buffer = vec![0; 1 << 16];
    for _ in 0..MOST {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, message) in messages(&buffer[..length.min(buffer.len())]) {
            match kind {
                DONE => return Ok(found),
                ERROR => return Err(Errno::EPROTO),
                _ => found.extend(entry(message).filter(|(_, resolution)| *resolution != Resolution::Known)),
            }
        }
    }
    Err(Errno::E2BIG)
}

/// The number of an interface; `None`: there is none of this name.
pub(crate) fn number_of(interface: &str) -> Option<u32> {
    if_nametoindex(interface).ok()
}

/// The messages of a datagram, each with its type.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?)).ok()?;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), message))
    })
}

/// An entry of the table, or one that is gone, which counts as known: nobody is waiting for it.
fn entry(message: &[u8]) -> Option<(Neighbour, Resolution)> {
    let fixed: &[u8; FIXED] = message.get(..FIXED)?.try_into().ok()?;
    let kind = u16::from_ne_bytes([fixed[4], fixed[5]]);
    let interface = u32::from_ne_bytes([fixed[20], fixed[21], fixed[22], fixed[23]]);
    let resolution = match u16::from_ne_bytes([fixed[24], fixed[25]]) {
        _ if kind != NEW_NEIGHBOUR => Resolution::Known,
        0x01 => Resolution::Asked,
        0x20 => Resolution::Failed,
        _ => Resolution::Known,
    };
    let address = attribute(message.get(FIXED..)?, DESTINATION)?;
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    Some(((interface, address), resolution))
}

/// The value of the first attribute of a type.
fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        let &[a, b, c, d, ..] = rest else { return None };
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = rest.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u16, state: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; FIXED];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[20..24].copy_from_slice(&7_u32.to_ne_bytes());
        bytes[24..26].copy_from_slice(&state.to_ne_bytes());
        for (kind, value) in attributes {
            bytes.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes
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
        let found: Vec<_> = messages(&two).map(|(_, message)| entry(message)).collect();
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
        fn whatever_comes_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let read: Vec<_> = messages(&bytes).map(|(_, message)| entry(message)).collect();
            prop_assert!(read.len() <= bytes.len() / HEADER);
        }
    }
}
