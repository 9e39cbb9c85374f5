//! The kernel's word that this host's network has changed.

use loaded_netlink::{SockProtocol, Subscription, messages};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// RTNLGRP_ LINK 1, TC 4, IPV4_IFADDR 5, IPV4_ROUTE 7, IPV4_RULE 8, IPV6_IFADDR 9, IPV6_ROUTE 11, IPV6_RULE 19, IPV4_NETCONF 24
/// and IPV6_NETCONF 25, which tell of `rp_filter` and forwarding, and NEXTHOP 32, which takes its routes along in silence
/// (include/uapi/linux/rtnetlink.h).
const GROUPS: [u32; 11] = [1, 4, 5, 7, 8, 9, 11, 19, 24, 25, 32];
/// RTM_NEWLINK 16, RTM_DELLINK, RTM_NEWADDR 20, RTM_DELADDR 21
const LINKS_AND_ADDRESSES: std::ops::RangeInclusive<u16> = 16..=21;
/// RTM_NEWROUTE
const NEW_ROUTE: u16 = 24;

/// A subscription to changes of links, addresses, routes, routing rules and settings of this network namespace.
#[derive(Debug)]
pub struct HostEvents(Subscription);

/// What has changed since it was last asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostChanges {
    /// Anything; or messages were lost.
    pub any: bool,
    /// Something that may have taken a route or a routing rule away: anything but a new route.
    pub may_lose_routes: bool,
    /// Links or addresses.
    pub addresses: bool,
}

impl HostEvents {
    /// Subscribes.
    ///
    /// # Errors
    /// If the kernel refuses a socket.
    pub fn open() -> Result<Self, Errno> {
        Subscription::open(SockProtocol::NetlinkRoute, &GROUPS).map(Self)
    }

    /// Reads what is there, without waiting.
    #[must_use]
    pub fn read(&mut self) -> HostChanges {
        let mut changes = HostChanges::default();
        // Each notice of this kind is a datagram of its own (rtnl_notify).
        self.0.read(|heard| match heard.and_then(|bytes| messages(bytes).next()) {
            Some(message) => {
                changes.any = true;
                changes.may_lose_routes |= message.kind != NEW_ROUTE;
                changes.addresses |= LINKS_AND_ADDRESSES.contains(&message.kind);
            }
            None => changes = HostChanges { any: true, may_lose_routes: true, addresses: true },
        });
        changes
    }
}

impl AsFd for HostEvents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
