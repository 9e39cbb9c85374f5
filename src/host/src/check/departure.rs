//! Whether packets can leave towards backends, as far as interfaces, addresses, routes and rules tell.

use super::{Host, NAMED, host};
use crate::links::Silence;
use crate::problem::{Problem, Severity};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// So many backends of a family the kernel is asked for, each by a system call.
const ASKED: usize = 32;

impl Host<'_> {
    /// Interfaces that bring no packets though routes to backends lead through them. One that is down has no routes.
    pub(super) fn links_to(&self, family: u8, backends: &[IpAddr]) -> Vec<Problem> {
        let mut behind: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for backend in backends {
            if let Some(name) = self.networks.towards(*backend) {
                behind.entry(name).or_default().push(*backend);
            }
        }
        let problem = |(name, backends): (&str, Vec<IpAddr>)| {
            let leads = format!("and the route to these backends leads through it: {}", named(&backends));
            let impairs = |text| host(Severity::Impairing, text).of_family(family);
            Some(match self.silence(name, self.networks.interface(backends[0]))? {
                Silence::Down => return None,
                Silence::NoLink => impairs(format!(
                    "{name} has no link, {leads}; look at its cable, or at the other end (ip link show {name})"
                )),
                Silence::NoArp => {
                    impairs(format!("{name} has noarp, {leads}")).mended_by(format!("ip link set {name} arp on"))
                }
                Silence::BridgePort => {
                    impairs(format!("{name} is a port of a bridge, which takes its packets, {leads}"))
                        .mended_by(format!("ip link set {name} nomaster"))
                }
            })
        };
        behind.into_iter().filter_map(problem).collect()
    }

    /// Backends whose packets the kernel sends elsewhere, or nowhere, whatever the main table says.
    pub(super) fn astray(&self, family: u8, backends: &[IpAddr]) -> Vec<Problem> {
        let impairs = |text| host(Severity::Impairing, text).of_family(family);
        let (own, others): (Vec<_>, Vec<_>) = backends.iter().partition(|backend| self.own.contains(backend));
        let routed = others.into_iter().filter(|backend| self.networks.has_route(*backend));
        let refused: Vec<_> = routed.take(ASKED).filter(|backend| !(self.reaches)(*backend)).collect();
        let mut problems = Vec::new();
        if let Some(first) = own.first() {
            let text = format!(
                "this host has the address of backend {} itself, and sends it no packets; to see where",
                named(&own)
            );
            problems.push(impairs(text).mended_by(format!("ip address show to {first}")));
        }
        if !refused.is_empty() {
            let text = format!(
                "a rule or a route of another table refuses what goes to backend {}, though the main table has a route; to see it",
                named(&refused)
            );
            let see = if family == 4 { "ip rule show" } else { "ip -6 rule show" };
            problems.push(impairs(text).mended_by(see));
        }
        problems
    }
}

/// The first few, and how many more.
pub(super) fn named(addresses: &[IpAddr]) -> String {
    let mut names: Vec<_> = addresses.iter().take(NAMED).map(ToString::to_string).collect();
    if addresses.len() > NAMED {
        names.push(format!("{} more", addresses.len() - NAMED));
    }
    names.join(", ")
}
