//! Which ICMP goes where: the chains I, E and O.

use super::{ELSEWHERE, Layout};
use crate::Family;
use crate::rules::steer::{errors_about, quotes_source_port, sent_by};
use std::net::IpAddr;

/// Errors a worker knows how to translate. Source quench and redirect are for routers of another age.
const ICMP_ERRORS: [u8; 3] = [3, 11, 12];
const ICMPV6_ERRORS: [u8; 4] = [1, 2, 3, 4];
/// MLD (RFC 2710, 3810) and neighbour discovery (RFC 4861): the link does not live without them.
const ICMPV6_LINK: [u8; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];

impl Layout<'_> {
    pub(super) fn icmp(&self) -> Vec<String> {
        let link: &[u8] = if self.family == Family::V4 { &[] } else { &ICMPV6_LINK };
        let link = link.iter().map(|kind| format!("{} -j RETURN", self.icmp_type(*kind)));
        let checked: Vec<_> = self.checked().collect();
        let forged = sent_by(self.family, &checked).into_iter();
        let forged = forged.map(|program| format!("-m bpf --bytecode \"{program}\" {ELSEWHERE} -j RETURN"));
        link.chain(forged)
            .chain(self.own_pings())
            .chain(self.errors_about_own())
            .chain(self.own_errors())
            .chain([format!("-g {}", self.name("M"))])
            .collect()
    }

    /// ICMP errors that this host makes about balanced packets. Without these rules it would keep an error to a VIP, which is
    /// its own address, and an error to a client would quote a backend. After OUTPUT the kernel routes a packet anew if a
    /// worker has changed its destination (nf_reroute).
    pub(super) fn own_errors(&self) -> Vec<String> {
        let errors: &[u8] = if self.family == Family::V4 { &ICMP_ERRORS } else { &ICMPV6_ERRORS };
        errors.iter().map(|kind| format!("{} -j {}", self.icmp_type(*kind), self.name("E"))).collect()
    }

    pub(super) fn errors(&self) -> Vec<String> {
        let to_vips = self.vips().map(|vip| format!("-d {} -j {}", self.host(vip), self.name("Q")));
        let addresses: Vec<_> = self.backends().collect();
        let about = errors_about(self.family, &addresses).into_iter();
        let about = about.map(|program| format!("-m bpf --bytecode \"{program}\" -j {}", self.name("R")));
        to_vips.chain(about).collect()
    }

    /// Answers to pings that this host has sent from a VIP: a client has no reason to send one.
    fn own_pings(&self) -> Vec<String> {
        let kind = if self.family == Family::V4 { 0 } else { 129 };
        let vips = self.vips().filter(|vip| self.traffic_to(*vip).is_whole());
        vips.map(|vip| format!("-d {} {} -j RETURN", self.host(vip), self.icmp_type(kind))).collect()
    }

    /// Errors about connections that this host has opened from a VIP ("too big" among them): xt_socket looks for the owner of the
    /// quoted packet, and finds none for other ICMP.
    fn errors_about_own(&self) -> Vec<String> {
        let concerned = |vip: &IpAddr| !self.traffic_to(*vip).protocols_on(self.reach.own_ports).is_empty();
        let vips = self.vips().filter(|vip| self.fragments.is_none() && concerned(vip));
        let program = quotes_source_port(self.family, self.reach.own_ports);
        vips.map(|vip| format!("-d {} -m bpf --bytecode \"{program}\" -m socket -j RETURN", self.host(vip))).collect()
    }

    pub(super) fn icmp_name(&self) -> &'static str {
        if self.family == Family::V4 { "icmp" } else { "ipv6-icmp" }
    }

    fn icmp_type(&self, kind: u8) -> String {
        match self.family {
            Family::V4 => format!("-p icmp -m icmp --icmp-type {kind}"),
            Family::V6 => format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind}"),
        }
    }
}
