//! What rules of ours in nftables have counted, asked of the kernel chain by chain: a list of all rules, as iptables-save makes
//! it, is thousands of lines where there are thousands of backends.

use super::refused::chains_of_refusals;
use crate::Family;
use loaded_netlink::{Request, SockProtocol, Socket, attribute, attributes};
use nix::errno::Errno;

/// NFNL_SUBSYS_NFTABLES (include/uapi/linux/netfilter/nfnetlink.h), above NFT_MSG_NEWRULE and NFT_MSG_GETRULE
/// (include/uapi/linux/netfilter/nf_tables.h).
const RULE: u16 = 10 << 8 | 6;
const GET_RULES: u16 = 10 << 8 | 7;
/// Attributes of a rule: NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS; NFTA_EXPR_NAME, NFTA_EXPR_DATA of each of
/// these; NFTA_MATCH_NAME of a match of xtables; NFTA_COUNTER_PACKETS of a counter.
const TABLE: u16 = 1;
const CHAIN: u16 = 2;
const EXPRESSIONS: u16 = 4;
const NAME: u16 = 1;
const DATA: u16 = 2;
const MATCH_NAME: u16 = 1;
const PACKETS: u16 = 2;
/// `struct nfgenmsg`, bytes.
const NFGENMSG: usize = 4;

/// Packets that the rules of this instance in this family have taken for no reply, by where they came from.
///
/// # Errors
/// If the kernel does not list the rules.
pub(super) fn refused(family: Family, base: u16) -> Result<u64, Errno> {
    let mut kernel = Socket::open(SockProtocol::NetlinkNetFilter)?;
    chains_of_refusals(base)
        .iter()
        .try_fold(0_u64, |sum, chain| Ok(sum.saturating_add(in_chain(&mut kernel, family, chain)?)))
}

fn in_chain(kernel: &mut Socket, family: Family, chain: &str) -> Result<u64, Errno> {
    let mut sum = 0_u64;
    kernel.ask(request(family, chain), |kind, body| {
        if kind == RULE {
            sum = sum.saturating_add(counted(body.get(NFGENMSG..).unwrap_or_default()));
        }
    })?;
    Ok(sum)
}

fn request(family: Family, chain: &str) -> Request {
    // NFPROTO_IPV4, NFPROTO_IPV6
    let family = if family == Family::V4 { 2 } else { 10 };
    Request::new(GET_RULES, Request::DUMP).body(&[family, 0, 0, 0]).text(TABLE, "raw").text(CHAIN, chain)
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
    use loaded_netlink::{Attributes, messages};
    use proptest::prelude::*;

    fn nested(all: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut nested = Attributes::default();
        for (kind, value) in all {
            nested.bytes(*kind, value);
        }
        nested.raw().to_vec()
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
        let asked = request(Family::V6, "LOADED-3-I").finish(1);
        let message = messages(&asked).next().unwrap();
        let (fixed, attributes) = message.body.split_at(NFGENMSG);
        assert_eq!((message.kind, fixed), (GET_RULES, &[10, 0, 0, 0][..]));
        assert_eq!(
            (attribute(attributes, TABLE), attribute(attributes, CHAIN)),
            (Some(&b"raw\0"[..]), Some(&b"LOADED-3-I\0"[..]))
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = counted(&bytes);
        }
    }
}
