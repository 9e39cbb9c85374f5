//! What rules of ours in nftables have counted, asked of the kernel chain by chain: a list of all rules, as iptables-save makes
//! it, is thousands of lines where there are thousands of backends.

use super::refused::chains_of_refusals;
use crate::Family;
use crate::attribute::{append, attribute, attributes};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use std::os::fd::{AsRawFd, OwnedFd};

/// NFNL_SUBSYS_NFTABLES (include/uapi/linux/netfilter/nfnetlink.h), above NFT_MSG_NEWRULE and NFT_MSG_GETRULE
/// (include/uapi/linux/netfilter/nf_tables.h).
const RULE: u16 = 10 << 8 | 6;
const GET_RULES: u16 = 10 << 8 | 7;
/// NLM_F_REQUEST and NLM_F_DUMP; NLMSG_ERROR and NLMSG_DONE (include/uapi/linux/netlink.h).
const DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Attributes of a rule: NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS; NFTA_EXPR_NAME, NFTA_EXPR_DATA of each of
/// these; NFTA_MATCH_NAME of a match of xtables; NFTA_COUNTER_PACKETS of a counter.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;
const NAME: u16 = 1;
const DATA: u16 = 2;
const MATCH_NAME: u16 = 1;
const PACKETS: u16 = 2;
/// `struct nlmsghdr`, and that with `struct nfgenmsg` behind it, bytes.
const HEADER: usize = 16;
const HEADERS: usize = 20;
/// Most datagrams of one list: our chains of this kind have few rules, and a datagram has room for dozens.
const MOST: usize = 256;
const ROOM: usize = 1 << 16;
/// Longest wait for the next part of a list, milliseconds; the kernel answers within the call.
const WAIT: i64 = 1000;

/// Packets that the rules of this instance in this family have taken for no reply, by where they came from.
///
/// # Errors
/// If the kernel does not list the rules.
pub(super) fn refused(family: Family, base: u16) -> Result<u64, Errno> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkNetFilter)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(WAIT))?;
    chains_of_refusals(base)
        .iter()
        .try_fold(0_u64, |sum, chain| Ok(sum.saturating_add(in_chain(&socket, family, chain)?)))
}

fn in_chain(socket: &OwnedFd, family: Family, chain: &str) -> Result<u64, Errno> {
    sendto(socket.as_raw_fd(), &request(family, chain), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let (mut sum, mut buffer) = (0_u64, vec![0; ROOM]);
    for _ in 0..MOST {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for (kind, message) in messages(&buffer[..length.min(buffer.len())]) {
            match kind {
                RULE => sum = sum.saturating_add(counted(message.get(HEADERS..).unwrap_or_default())),
                DONE => return Ok(sum),
                ERROR => return Err(error_of(message)),
                _ => {}
            }
        }
    }
    Err(Errno::E2BIG)
}

fn request(family: Family, chain: &str) -> Vec<u8> {
    let mut bytes = vec![0; HEADERS];
    append(&mut bytes, TABLE, b"raw\0");
    append(&mut bytes, CHAIN, &[chain.as_bytes(), b"\0"].concat());
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&GET_RULES.to_ne_bytes());
    bytes[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    // NFPROTO_IPV4, NFPROTO_IPV6
    bytes[HEADER] = if family == Family::V4 { 2 } else { 10 };
    bytes
}

/// The messages of a datagram, each with its type.
fn messages(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([message[4], message[5]]), message))
    })
}

/// A negative errno follows the header.
fn error_of(message: &[u8]) -> Errno {
    let code = message.get(HEADER..).and_then(|rest| rest.first_chunk());
    code.map_or(Errno::EPROTO, |code| Errno::from_raw(i32::from_ne_bytes(*code).saturating_neg()))
}

/// What a rule has counted, if it is one that asks where a packet comes from: by xt_rpfilter or, should iptables come to
/// translate that, by the expression `fib`.
fn counted(rule: &[u8]) -> u64 {
    let expressions = attributes(attribute(rule, EXPRESSIONS).unwrap_or_default());
    let (mut asks, mut packets) = (false, 0);
    for (name, data) in expressions.map(|(_, one)| (attribute(one, NAME), attribute(one, DATA).unwrap_or_default())) {
        match name {
            Some(b"match\0") => asks |= attribute(data, MATCH_NAME) == Some(b"rpfilter\0"),
            Some(b"fib\0") => asks = true,
            Some(b"counter\0") => {
                packets = attribute(data, PACKETS)
                    .and_then(|value| value.first_chunk())
                    .map_or(0, |n| u64::from_be_bytes(*n));
            }
            _ => {}
        }
    }
    if asks { packets } else { 0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nested(all: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        all.iter().for_each(|(kind, value)| append(&mut bytes, *kind, value));
        bytes
    }

    fn expression(name: &str, data: &[(u16, Vec<u8>)]) -> (u16, Vec<u8>) {
        (1, nested(&[(NAME, [name.as_bytes(), b"\0"].concat()), (DATA, nested(data))]))
    }

    fn rule(expressions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        nested(&[(TABLE, b"raw\0".into()), (CHAIN, b"LOADED-3-F\0".into()), (EXPRESSIONS, nested(expressions))])
    }

    #[test]
    fn a_rule_that_asks_where_a_packet_comes_from_is_counted_and_no_other() {
        let counter = |packets: u64| {
            expression("counter", &[(1, 7_u64.to_be_bytes().into()), (PACKETS, packets.to_be_bytes().into())])
        };
        let by = |name: &str| expression("match", &[(MATCH_NAME, [name.as_bytes(), b"\0"].concat())]);
        let verdict = expression("immediate", &[]);
        assert_eq!(counted(&rule(&[by("bpf"), by("rpfilter"), counter(11), verdict.clone()])), 11);
        assert_eq!(counted(&rule(&[expression("fib", &[]), counter(5), verdict.clone()])), 5);
        assert_eq!(counted(&rule(&[by("bpf"), counter(11), verdict.clone()])), 0);
        assert_eq!((counted(&rule(&[by("rpfilter"), verdict])), counted(&[])), (0, 0));
    }

    #[test]
    fn the_kernel_is_asked_for_one_chain() {
        let asked = request(Family::V6, "LOADED-3-I");
        assert_eq!(
            messages(&asked).map(|(kind, message)| (kind, message.len())).collect::<Vec<_>>(),
            [(GET_RULES, asked.len())]
        );
        assert_eq!((asked[HEADER], attribute(&asked[HEADERS..], CHAIN)), (10, Some(&b"LOADED-3-I\0"[..])));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = counted(&bytes);
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}
