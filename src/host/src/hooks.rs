//! Programs and filters of others that see packets before any rule does, or after all of them: XDP, and filters at tc ingress and
//! egress. What they decide cannot be told from here, so they are named and judged by nobody.

use crate::problem::{Problem, Severity};
use loaded_netlink::{Request, SockProtocol, Socket, attribute, number};
use nix::net::if_::if_nametoindex;
use std::collections::{BTreeMap, BTreeSet};

/// RTM_GETLINK; IFLA_XDP, and in it IFLA_XDP_ATTACHED and IFLA_XDP_PROG_ID (include/uapi/linux/rtnetlink.h, if_link.h).
const GET_LINKS: u16 = 18;
const XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM: u16 = 4;
/// `struct ifinfomsg`, bytes, and where the number of the interface is in it.
const IFINFOMSG: usize = 16;
const LINK_INDEX: usize = 4;
/// RTM_GETTFILTER; TCA_KIND, TCA_OPTIONS, and in the options of kind "bpf" TCA_BPF_NAME (rtnetlink.h, pkt_cls.h).
const GET_FILTERS: u16 = 46;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const BPF_NAME: u16 = 7;
/// `struct tcmsg`, bytes, and where priority (the upper half) and protocol are in it.
const TCMSG: usize = 20;
const INFO: usize = 16;
/// The qdisc `ingress`, and ingress and egress of `clsact` (include/uapi/linux/pkt_sched.h). The first has only one list, which the
/// kernel shows whichever of them is asked for (ingress_tcf_block, net/sched/sch_ingress.c).
const PARENTS: [(u32, Hook); 3] =
    [(0xffff_0000, Hook::Ingress), (0xffff_fff2, Hook::Ingress), (0xffff_fff3, Hook::Egress)];
/// How names of our own filters begin.
const OURS: &[u8] = b"loaded-";

/// Where filters sit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Hook {
    Ingress,
    Egress,
}

/// Whatever of others is there, on these interfaces. One that the kernel does not list has nothing.
pub(crate) fn of_others(interfaces: &BTreeSet<&str>) -> Vec<Problem> {
    let numbered = interfaces.iter().filter_map(|name| Some((if_nametoindex(*name).ok()?, *name)));
    let names: BTreeMap<u32, &str> = numbered.collect();
    let mut problems = Vec::new();
    let Ok(mut kernel) = Socket::open(SockProtocol::NetlinkRoute) else { return problems };
    let _ = kernel.ask(Request::new(GET_LINKS, Request::DUMP).body(&[0; IFINFOMSG]), |_, link| {
        if let Some((index, program)) = xdp(link)
            && let Some(name) = names.get(&index)
        {
            problems.push(of_xdp(name, program));
        }
    });
    for (index, name) in names {
        let mut filters: BTreeMap<Hook, BTreeSet<_>> = BTreeMap::new();
        for (parent, hook) in PARENTS {
            let filters = filters.entry(hook).or_default();
            let tcmsg = [0, index, 0, parent, 0].map(u32::to_ne_bytes).concat();
            let _ =
                kernel.ask(Request::new(GET_FILTERS, Request::DUMP).body(&tcmsg), |_, one| filters.extend(filter(one)));
            if parent == PARENTS[0].0 && !filters.is_empty() {
                break;
            }
        }
        problems.extend(filters.iter().filter_map(|(hook, filters)| of_filters(name, *hook, filters)));
    }
    problems
}

fn of_xdp(interface: &str, program: u32) -> Problem {
    let text = format!(
        "an XDP program (id {program}) on {interface} sees packets before any rule does: what it drops never comes here"
    );
    let problem = Problem::new("hooks", Severity::Warning, text);
    problem.mended_by(format!("bpftool prog show id {program}"))
}

fn of_filters(interface: &str, hook: Hook, filters: &BTreeSet<(u32, String)>) -> Option<Problem> {
    let all: Vec<_> = filters.iter().map(|(priority, kind)| format!("{kind} with priority {priority}")).collect();
    let all = all.join(", ");
    let (text, place) = match hook {
        Hook::Ingress => {
            let text = "see packets before any rule does: what they drop never comes here";
            (format!("filters of others at tc ingress of {interface} ({all}) {text}"), "ingress")
        }
        Hook::Egress => {
            let text = "see packets after every rule: what they drop never leaves";
            (format!("filters of others at tc egress of {interface} ({all}) {text}"), "egress")
        }
    };
    let problem = || Problem::new("hooks", Severity::Warning, text);
    (!all.is_empty()).then(|| problem().mended_by(format!("tc filter show dev {interface} {place}")))
}

/// The interface of a message about a link, and the program that it has.
fn xdp(body: &[u8]) -> Option<(u32, u32)> {
    let xdp = attribute(body.get(IFINFOMSG..)?, XDP)?;
    let is_attached = attribute(xdp, XDP_ATTACHED)?.first().is_some_and(|mode| *mode != 0);
    let program = attribute(xdp, XDP_PROGRAM).and_then(|id| number(id, 0)).unwrap_or(0);
    is_attached.then_some((number(body, LINK_INDEX)?, program))
}

/// Priority and kind of a filter that is not ours. The kernel tells of each priority once without options, and then of its filters
/// (tcf_chain_dump, net/sched/cls_api.c).
fn filter(body: &[u8]) -> Option<(u32, String)> {
    let attributes = body.get(TCMSG..)?;
    let kind = attribute(attributes, KIND)?;
    let name = attribute(attribute(attributes, OPTIONS)?, BPF_NAME);
    let text: String = kind.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    let is_ours = text == "bpf" && name.is_some_and(|name| name.starts_with(OURS));
    (!is_ours).then_some((number(body, INFO)? >> 16, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use loaded_netlink::Attributes;
    use proptest::prelude::*;

    /// A body with its fixed part.
    fn body(fixed: &[u8], attributes: &Attributes) -> Vec<u8> {
        [fixed, attributes.raw()].concat()
    }

    #[test]
    fn a_link_has_its_program() {
        let mut fixed = [0; IFINFOMSG];
        fixed[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        let with = |mode: u8| {
            let (mut all, mut inner) = (Attributes::default(), Attributes::default());
            inner.bytes(XDP_ATTACHED, &[mode]).number(XDP_PROGRAM, 12);
            body(&fixed, all.text(3, "eth0").nested(XDP | 0x8000, &inner))
        };
        assert_eq!(xdp(&with(2)), Some((7, 12)));
        assert_eq!(xdp(&with(0)), None, "none is attached");
        assert_eq!(xdp(&body(&fixed, Attributes::default().text(3, "eth0"))), None);
        assert!(of_xdp("eth0", 12).to_string().contains("(id 12) on eth0"));
    }

    #[test]
    fn filters_of_others_are_told_from_ours() {
        let mut fixed = [0; TCMSG];
        fixed[16..20].copy_from_slice(&(10_u32 << 16 | 0x0300).to_ne_bytes());
        let named = |name: &str| {
            let (mut all, mut options) = (Attributes::default(), Attributes::default());
            options.text(BPF_NAME, name);
            body(&fixed, all.text(KIND, "bpf").nested(OPTIONS, &options))
        };
        assert_eq!(filter(&named("loaded-5")), None);
        assert_eq!(filter(&named("cilium")), Some((10, "bpf".to_owned())));
        assert_eq!(filter(&body(&fixed, Attributes::default().text(KIND, "bpf"))), None, "ours may follow");
        let flower = body(&fixed, Attributes::default().text(KIND, "flower").bytes(OPTIONS, &[]));
        assert_eq!(filter(&flower), Some((10, "flower".to_owned())));
        assert_eq!(of_filters("eth0", Hook::Ingress, &BTreeSet::new()), None);
        let both = [(1, "bpf".to_owned()), (10, "flower".to_owned())].into();
        let text = |hook| of_filters("eth0", hook, &both).unwrap().text;
        assert!(
            text(Hook::Ingress)
                .contains("ingress of eth0 (bpf with priority 1, flower with priority 10) see packets before")
        );
        assert!(
            text(Hook::Egress)
                .contains("egress of eth0 (bpf with priority 1, flower with priority 10) see packets after")
        );
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (xdp(&bytes), filter(&bytes));
        }
    }
}
