//! The kernel's word that nftables rules have changed, iptables-nft's among them.

use loaded_netlink::{SockProtocol, Subscription, attribute, messages};
use nix::errno::Errno;
use std::os::fd::{AsFd, BorrowedFd};

/// NFNLGRP_NFTABLES (include/uapi/linux/netfilter/nfnetlink.h).
const GROUP: u32 = 7;
/// NFNL_SUBSYS_NFTABLES
const SUBSYSTEM: u8 = 10;
/// NFT_MSG_NEWGEN (include/uapi/linux/netfilter/nf_tables.h): the end of a transaction, and who has made it.
const NEW_GENERATION: u8 = 15;
const NFTA_GEN_PROC_PID: u16 = 2;
const NFTA_GEN_PROC_NAME: u16 = 3;
/// The table's name in messages about tables, chains and rules: NFTA_TABLE_NAME, NFTA_CHAIN_TABLE, NFTA_RULE_TABLE.
const NFTA_TABLE: u16 = 1;
/// NFPROTO_IPV4, NFPROTO_IPV6
const FAMILIES: [u8; 2] = [2, 10];
/// `struct nfgenmsg`, bytes: the family comes first.
const NFGENMSG: usize = 4;

/// A subscription to changes of nftables in this network namespace.
#[derive(Debug)]
pub struct Events(Subscription);

/// What has changed since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Any table.
    pub any: bool,
    /// A table `raw` of IPv4 or IPv6, where our rules are; or messages were lost.
    pub raw: bool,
    /// The process that made the last change of a table `raw`: its name and pid.
    pub by: Option<(String, u32)>,
    /// The transaction whose messages come now has changed such a table.
    open: bool,
}

impl Events {
    /// Subscribes.
    ///
    /// # Errors
    /// If this kernel has no nftables, or without CAP_NET_ADMIN.
    pub fn open() -> Result<Self, Errno> {
        Subscription::open(SockProtocol::NetlinkNetFilter, &[GROUP]).map(Self)
    }

    /// Reads what is there, without waiting.
    #[must_use]
    pub fn read(&mut self) -> Changes {
        let mut changes = Changes::default();
        self.0.read(|heard| match heard {
            Some(bytes) => changes.note(bytes),
            None => (changes.any, changes.raw) = (true, true),
        });
        changes
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Changes {
    fn note(&mut self, datagram: &[u8]) {
        for message in messages(datagram) {
            // nlmsg_type: the subsystem, and below it the kind of message (NFNL_SUBSYS_ID, NFNL_MSG_TYPE).
            let [kind, subsystem] = message.kind.to_le_bytes();
            let Some(([family, ..], attributes)) = message.body.split_first_chunk::<NFGENMSG>() else { continue };
            if subsystem != SUBSYSTEM {
                continue;
            }
            if kind == NEW_GENERATION {
                if std::mem::take(&mut self.open) {
                    self.by = maker(attributes);
                }
                continue;
            }
            self.any = true;
            self.open |= FAMILIES.contains(family) && attribute(attributes, NFTA_TABLE) == Some(b"raw\0");
            self.raw |= self.open;
        }
    }
}

fn maker(attributes: &[u8]) -> Option<(String, u32)> {
    let pid = attribute(attributes, NFTA_GEN_PROC_PID)?.try_into().ok().map(u32::from_be_bytes)?;
    let name = attribute(attributes, NFTA_GEN_PROC_NAME)?;
    Some((String::from_utf8_lossy(name).trim_end_matches('\0').to_owned(), pid))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use loaded_netlink::Request;
    use proptest::prelude::*;

    fn message(kind: u8, family: u8, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let empty = Request::new(u16::from_le_bytes([kind, SUBSYSTEM]), 0).body(&[family, 0, 0, 0]);
        attributes.iter().fold(empty, |message, (kind, value)| message.bytes(*kind, value)).finish(0)
    }

    fn changes(bytes: &[u8]) -> Changes {
        let mut changes = Changes::default();
        changes.note(bytes);
        changes
    }

    #[test]
    fn a_change_of_our_table_is_told_from_others_and_its_maker_is_named() {
        // NFT_MSG_DELRULE
        let rule = |family, table: &'static [u8]| message(8, family, &[(NFTA_TABLE, table), (2, b"PREROUTING\0")]);
        let made = message(NEW_GENERATION, 0, &[(1, &[0, 0, 0, 7]), (2, &[0, 0, 0x10, 1]), (3, b"nft\0")]);
        let seen = |bytes: &[u8]| {
            let Changes { any, raw, by, .. } = changes(bytes);
            (any, raw, by)
        };
        assert_eq!(seen(&rule(2, b"raw\0")), (true, true, None));
        assert_eq!(seen(&rule(10, b"raw\0")), (true, true, None));
        assert_eq!(seen(&rule(1, b"raw\0")), (true, false, None), "the table inet raw is not ours");
        assert_eq!(seen(&rule(2, b"rawest\0")), (true, false, None));
        let nft = Some(("nft".to_owned(), 4097));
        assert_eq!(seen(&[rule(2, b"raw\0"), made.clone()].concat()), (true, true, nft.clone()));
        let other = [rule(2, b"raw\0"), made, rule(2, b"filter\0"), message(NEW_GENERATION, 0, &[])].concat();
        assert_eq!(seen(&other), (true, true, nft), "who has changed another table is not asked for");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), start in 0..64_u32) {
            let mut bytes = bytes;
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&start.to_ne_bytes());
            }
            let _ = changes(&bytes);
        }
    }
}
