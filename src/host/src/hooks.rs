//! Programs and filters of others that see packets before any rule does: XDP, and filters at tc ingress. What they decide cannot be
//! told from here, so they are named and judged by nobody.

use crate::problem::{Problem, Severity};
use crate::rtnetlink::{HEADER, attribute, list, number};
use nix::net::if_::if_nametoindex;
use std::collections::{BTreeMap, BTreeSet};

/// RTM_GETLINK; IFLA_XDP, and in it IFLA_XDP_ATTACHED and IFLA_XDP_PROG_ID (include/uapi/linux/rtnetlink.h, if_link.h).
const GET_LINKS: u16 = 18;
const XDP: u16 = 43;
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM: u16 = 4;
/// `struct ifinfomsg`, bytes, and where the number of the interface is in it.
const IFINFOMSG: usize = 16;
const LINK_INDEX: usize = HEADER + 4;
/// RTM_GETTFILTER; TCA_KIND, TCA_OPTIONS, and in the options of kind "bpf" TCA_BPF_NAME (rtnetlink.h, pkt_cls.h).
const GET_FILTERS: u16 = 46;
const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const BPF_NAME: u16 = 7;
/// `struct tcmsg`, bytes, and where priority (the upper half) and protocol are in it.
const TCMSG: usize = 20;
const INFO: usize = HEADER + 16;
/// Ingress of `clsact`, and the qdisc `ingress` (include/uapi/linux/pkt_sched.h).
const PARENTS: [u32; 2] = [0xffff_fff2, 0xffff_0000];
/// How names of our own filters begin.
const OURS: &[u8] = b"loaded-";

/// Whatever of others is there, on these interfaces. One that the kernel does not list has nothing.
pub(crate) fn of_others(interfaces: &BTreeSet<&str>) -> Vec<Problem> {
    let numbered = interfaces.iter().filter_map(|name| Some((if_nametoindex(*name).ok()?, *name)));
    let names: BTreeMap<u32, &str> = numbered.collect();
    let mut problems = Vec::new();
    let _ = list(GET_LINKS, &[0; IFINFOMSG], |_, message| {
        if let Some((index, program)) = xdp(message)
            && let Some(name) = names.get(&index)
        {
            problems.push(of_xdp(name, program));
        }
    });
    for (index, name) in names {
        let mut filters = BTreeSet::new();
        for parent in PARENTS {
            let request = [0, index, 0, parent, 0].map(u32::to_ne_bytes).concat();
            let _ = list(GET_FILTERS, &request, |_, message| filters.extend(filter(message)));
        }
        problems.extend(of_filters(name, &filters));
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

fn of_filters(interface: &str, filters: &BTreeSet<(u32, String)>) -> Option<Problem> {
    let all: Vec<_> = filters.iter().map(|(priority, kind)| format!("{kind} with priority {priority}")).collect();
    let text = format!(
        "filters of others at tc ingress of {interface} ({}) see packets before any rule does: what they drop never comes here",
        all.join(", ")
    );
    let problem = || Problem::new("hooks", Severity::Warning, text);
    (!all.is_empty()).then(|| problem().mended_by(format!("tc filter show dev {interface} ingress")))
}

/// The interface of a message about a link, and the program that it has.
fn xdp(message: &[u8]) -> Option<(u32, u32)> {
    let xdp = attribute(message.get(HEADER + IFINFOMSG..)?, XDP)?;
    let is_attached = attribute(xdp, XDP_ATTACHED)?.first().is_some_and(|mode| *mode != 0);
    let program = attribute(xdp, XDP_PROGRAM).and_then(|id| number(id, 0)).unwrap_or(0);
    is_attached.then_some((number(message, LINK_INDEX)?, program))
}

/// Priority and kind of a filter that is not ours. The kernel tells of each priority once without options, and then of its filters
/// (tcf_chain_dump, net/sched/cls_api.c).
fn filter(message: &[u8]) -> Option<(u32, String)> {
    let attributes = message.get(HEADER + TCMSG..)?;
    let kind = attribute(attributes, KIND)?;
    let name = attribute(attribute(attributes, OPTIONS)?, BPF_NAME);
    let text: String = kind.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    let is_ours = text == "bpf" && name.is_some_and(|name| name.starts_with(OURS));
    (!is_ours).then_some((number(message, INFO)? >> 16, text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::rtnetlink::fixture::{message, nested};
    use crate::rtnetlink::messages;
    use proptest::prelude::*;

    #[test]
    fn a_link_has_its_program() {
        let mut fixed = [0; IFINFOMSG];
        fixed[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        let with = |mode: u8| {
            let inner = [nested(XDP_ATTACHED, &[mode]), nested(XDP_PROGRAM, &12_u32.to_ne_bytes())].concat();
            message(16, &fixed, &[(3, b"eth0\0"), (XDP | 0x8000, &inner)])
        };
        assert_eq!(xdp(&with(2)), Some((7, 12)));
        assert_eq!(xdp(&with(0)), None, "none is attached");
        assert_eq!(xdp(&message(16, &fixed, &[(3, b"eth0\0")])), None);
        assert!(of_xdp("eth0", 12).to_string().contains("(id 12) on eth0"));
    }

    #[test]
    fn filters_of_others_are_told_from_ours() {
        let mut fixed = [0; TCMSG];
        fixed[16..20].copy_from_slice(&(10_u32 << 16 | 0x0300).to_ne_bytes());
        let named = |name: &[u8]| {
            let options = nested(BPF_NAME, name);
            message(44, &fixed, &[(KIND, b"bpf\0"), (OPTIONS, &options)])
        };
        assert_eq!(filter(&named(b"loaded-5\0")), None);
        assert_eq!(filter(&named(b"cilium\0")), Some((10, "bpf".to_owned())));
        assert_eq!(filter(&message(44, &fixed, &[(KIND, b"bpf\0")])), None, "ours may follow");
        let flower = message(44, &fixed, &[(KIND, b"flower\0"), (OPTIONS, &[])]);
        assert_eq!(filter(&flower), Some((10, "flower".to_owned())));
        assert_eq!(of_filters("eth0", &BTreeSet::new()), None);
        let both = [(1, "bpf".to_owned()), (10, "flower".to_owned())].into();
        assert!(of_filters("eth0", &both).unwrap().text.contains("(bpf with priority 1, flower with priority 10)"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_to_its_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for (_, message) in messages(&bytes) {
                let _ = (xdp(message), filter(message));
            }
        }
    }
}
