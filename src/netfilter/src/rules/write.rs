//! Writes the rules: from the traffic that is to be balanced ([`Reach`]) to the text of one family's chains.
//!
//! ```text
//! PREROUTING ─→ LOADED-0                 what is ours to look at
//!                 ├ from a VIP           → S  untracked, and on its way: a reply that a worker has rewritten comes
//!                 │                           by again (NF_REPEAT) with the VIP as its source
//!                 ├ name servers         return
//!                 ├ ICMP                 ⇒ I  neighbour discovery returns; from a backend, but not from where it is:
//!                 │                           returns; errors → E, then ⇒ M
//!                 └                      ⇒ M  to a VIP → Q; from a backend → F (through B1, B2… when they are many);
//!                                             to a backend's own address, where services adopt replies → P (through B…)
//! F: not from where the backend is: returns; ⇒ R
//! M begins, and I too, with what answers this host's own connections and pings from a VIP: return
//! E: error to a VIP → Q; error whose quoted packet went to a backend → R
//! OUTPUT ─→ O: errors that this host makes itself → E: "too big" for a link of ours, "time exceeded" here
//! Q: untracked, then one queue a worker by the source      R: one queue a worker by the destination, but for this host
//! P: one queue a worker by the source: what the workers note of it is the backend's own, and stays tracked
//! D: never reached; its match makes the kernel reassemble fragments
//! T: empty; says that we made the table
//! ```
//! `→` is a jump, `⇒` a goto. The rules match packets to a VIP before packets from a backend: so a backend that connects to
//! the VIP counts as a client, and most packets match after a few rules. R does not untrack before the verdict: the worker
//! leaves connections that a backend opens itself alone, and they must stay tracked.
//!
//! **From where a backend is** means: by an interface that the route to its address leads through (xt_rpfilter), in the routing
//! table of the interface's VRF, by any of several next hops, or by the loopback. A packet that comes by another interface is
//! no reply: its source address is forged. It is forwarded untouched, as every router would do; no client has a connection
//! with that address. For ICMP errors I has this match and not R: R is also reached from OUTPUT, where the match is not
//! allowed (PREROUTING alone has an interface that a packet came by). It is applied only to errors whose source is a backend:
//! any router behind this host may report an error, from any address, and workers take no backend out for a router's error.
//!
//! What a backend sends to this host itself meets no worker: it is nobody's reply, for this host's own connections to a
//! VIP meet no rule. And among it are the answers to the prober. Steered like other replies, all of them would go to one
//! worker: if it hangs they are lost, if it is hostile it can forge them; then all backends count as down for every worker.

mod icmp;

use super::chain::{Chain, Matches};
use super::reach::Reach;
use super::steer::{Steering, fragment};
use super::traffic::{Side, Traffic};
use crate::Family;
use loaded_ipc::{PortRange, Protocol};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Rules in one chain of backends. With 4096 backends a packet then meets 3 · 16 rules at most.
const FAN: usize = 16;

/// By an interface that no route to its source leads through.
const ELSEWHERE: &str = "-m rpfilter --invert";

/// All chains but the marker and the defragmenter.
pub(crate) fn chains(
    reach: &Reach,
    family: Family,
    queues: &[u16],
    steering: &Steering,
    matches: Matches,
) -> Vec<Chain> {
    let fragments = (!matches.socket).then(|| format!("-m bpf --bytecode \"{}\"", fragment(family)));
    Layout { reach, family, queues, steering, fragments, rpfilter: matches.rpfilter }.chains()
}

struct Layout<'a> {
    reach: &'a Reach,
    family: Family,
    queues: &'a [u16],
    steering: &'a Steering,
    /// The match for a fragment, where the kernel does not reassemble packets.
    fragments: Option<String>,
    /// Replies are taken only from where their backend is.
    rpfilter: bool,
}

impl Layout<'_> {
    fn chains(&self) -> Vec<Chain> {
        let mut tree = Vec::new();
        let from_backends = self.backends().map(|a| (a, self.of_backend(a))).collect();
        let from_backends = self.tree(Side::Source, from_backends, &mut tree);
        let past_vips: Vec<_> =
            self.backends().map(|a| (a, self.to_backend(a))).filter(|(_, r)| !r.is_empty()).collect();
        let is_watched = !past_vips.is_empty();
        let past_vips = self.tree(Side::Destination, past_vips, &mut tree);
        let mut chains = vec![
            self.chain("", self.entry()),
            self.chain("S", vec!["-j CT --notrack".into()]),
            self.chain("I", self.icmp()),
            self.chain("E", self.errors()),
            self.chain("O", self.own_errors()),
            self.chain("M", [self.own_connections(), self.to_vips(), from_backends, past_vips].concat()),
            self.chain("Q", self.requests()),
            self.chain("R", self.replies()),
        ];
        if self.checked().next().is_some() {
            let elsewhere = format!("{ELSEWHERE} -j RETURN");
            chains.push(self.chain("F", vec![elsewhere, format!("-g {}", self.name("R"))]));
        }
        if is_watched {
            let steer = |worker| self.steering.request(self.family, worker, self.workers()).to_string();
            chains.push(self.chain("P", self.to_queues(steer)));
        }
        chains.extend(tree);
        chains
    }

    fn entry(&self) -> Vec<String> {
        let mut rules: Vec<_> = self.vips().map(|vip| format!("-s {} -g {}", self.host(vip), self.name("S"))).collect();
        let servers: BTreeSet<_> = self.reach.nameservers.iter().filter(|server| self.family.has(**server)).collect();
        for server in servers {
            if let Some(fragment) = &self.fragments {
                rules.push(format!("-s {} {fragment} -j RETURN", self.host(*server)));
                rules.push(format!("-d {} {fragment} -j RETURN", self.host(*server)));
            }
            for protocol in ["udp", "tcp"] {
                rules.push(format!("-s {} -p {protocol} -m {protocol} --sport 53 -j RETURN", self.host(*server)));
                rules.push(format!("-d {} -p {protocol} -m {protocol} --dport 53 -j RETURN", self.host(*server)));
            }
        }
        rules.push(format!("-p {} -g {}", self.icmp_name(), self.name("I")));
        rules.push(format!("-g {}", self.name("M")));
        rules
    }

    /// What answers connections that this host has opened from a VIP, which may be the address that the kernel chooses
    /// towards a backend. Only the socket tells such a packet from a client's. A socket that listens at the VIP must get
    /// no packet of a client: hence the ports, and no first packet of a connection. Packets of sockets that are bound to
    /// no address do not match (xt_socket without --nowildcard).
    fn own_connections(&self) -> Vec<String> {
        // The match would make the kernel reassemble fragments.
        if self.fragments.is_some() {
            return Vec::new();
        }
        let PortRange { low, high } = self.reach.own_ports;
        let rules = self.vips().flat_map(|vip| {
            let protocols = self.traffic_to(vip).protocols_on(self.reach.own_ports);
            let one = |protocol| {
                let later = if protocol == "tcp" { " ! --tcp-flags FIN,SYN,RST,ACK SYN" } else { "" };
                let clause = format!("-p {protocol} -m {protocol} --dport {low}:{high}{later}");
                format!("-d {} {clause} -m socket -j RETURN", self.host(vip))
            };
            protocols.into_iter().map(one).collect::<Vec<_>>()
        });
        rules.collect()
    }

    fn traffic_to(&self, vip: IpAddr) -> Traffic {
        match self.reach.whole_vips {
            true => Traffic::everything(),
            false => Traffic::of(self.reach.to_vip(vip)),
        }
    }

    fn to_vips(&self) -> Vec<String> {
        let rules = self.vips().flat_map(|vip| {
            let traffic = self.traffic_to(vip);
            let to = format!(" -j {}", self.name("Q"));
            let clauses = traffic.clauses(Side::Destination).into_iter();
            let fragments = self.fragments.iter().map(|fragment| format!(" {fragment}"));
            fragments.chain(clauses).map(|clause| format!("-d {}{clause}{to}", self.host(vip))).collect::<Vec<_>>()
        });
        rules.collect()
    }

    fn of_backend(&self, address: IpAddr) -> Vec<String> {
        let parts: Vec<_> = self.reach.served.iter().flat_map(|served| served.replies_of(address)).collect();
        let traffic = Traffic::of(parts.iter().map(|(protocol, ports)| (*protocol, ports.as_slice())));
        let clauses = traffic.clauses(Side::Source).into_iter();
        let fragments = self.fragments.iter().map(|fragment| format!(" {fragment}"));
        let to = self.name(if self.is_checked(address) { "F" } else { "R" });
        fragments.chain(clauses).map(|clause| format!("-s {}{clause} -j {to}", self.host(address))).collect()
    }

    /// What comes to a backend's own address, at a port from which services adopt replies.
    fn to_backend(&self, address: IpAddr) -> Vec<String> {
        let adopting = self
            .reach
            .served
            .iter()
            .filter(|served| served.adopts && !served.ports.is_empty() && served.protocol != Protocol::Any);
        let parts: Vec<_> = adopting.flat_map(|served| served.replies_of(address)).collect();
        let traffic = Traffic::of(parts.iter().map(|(protocol, ports)| (*protocol, ports.as_slice())));
        let clauses = traffic.clauses(Side::Destination).into_iter();
        clauses.map(|clause| format!("-d {}{clause} -j {}", self.host(address), self.name("P"))).collect()
    }

    /// The rules for all backends, by one side's address, when they are few; else one rule for a range of addresses each, to
    /// chains of the same kind, which are added to `chains`.
    fn tree(&self, side: Side, mut leaves: Vec<(IpAddr, Vec<String>)>, chains: &mut Vec<Chain>) -> Vec<String> {
        let range = if side == Side::Source { "--src-range" } else { "--dst-range" };
        leaves.sort_unstable();
        let mut level: Vec<_> = leaves.into_iter().map(|(a, rules)| (a, a, rules)).collect();
        while level.len() > FAN {
            let mut above = Vec::new();
            for group in level.chunks(FAN) {
                let [(first, ..), .., (_, last, _)] = group else {
                    above.extend(group.iter().cloned());
                    continue;
                };
                let name = format!("B{}", chains.len() + 1);
                let rule = format!("-m iprange {range} {first}-{last} -j {}", self.name(&name));
                chains.push(self.chain(&name, group.iter().flat_map(|(_, _, rules)| rules.clone()).collect()));
                above.push((*first, *last, vec![rule]));
            }
            level = above;
        }
        level.into_iter().flat_map(|(_, _, rules)| rules).collect()
    }

    fn requests(&self) -> Vec<String> {
        let untracked = "-j CT --notrack".to_owned();
        let steer = |worker| self.steering.request(self.family, worker, self.workers()).to_string();
        std::iter::once(untracked).chain(self.to_queues(steer)).collect()
    }

    fn replies(&self) -> Vec<String> {
        let to_this_host = "-m addrtype --dst-type LOCAL -j RETURN".to_owned();
        let steer = |worker| self.steering.reply(self.family, worker, self.workers()).to_string();
        std::iter::once(to_this_host).chain(self.to_queues(steer)).collect()
    }

    /// The last worker needs no program: it gets the rest, also what is too short for the programs to read.
    fn to_queues(&self, program: impl Fn(u16) -> String) -> Vec<String> {
        let last = self.workers() - 1;
        // Without it the kernel drops what nobody takes (nf_queue, net/netfilter/nf_queue.c, ESRCH).
        let bypass = if self.reach.bypasses() { " --queue-bypass" } else { "" };
        let rules = (0..).zip(self.queues).map(|(worker, queue)| match worker {
            _ if worker == last => format!("-j NFQUEUE --queue-num {queue}{bypass}"),
            _ => format!("-m bpf --bytecode \"{}\" -j NFQUEUE --queue-num {queue}{bypass}", program(worker)),
        });
        rules.collect()
    }

    fn workers(&self) -> u16 {
        u16::try_from(self.queues.len()).unwrap_or(u16::MAX)
    }

    fn vips(&self) -> impl Iterator<Item = IpAddr> {
        let all: BTreeSet<_> = self.reach.vips().filter(|vip| self.family.has(*vip)).collect();
        all.into_iter()
    }

    /// Whether what comes in this backend's name must come from where it is.
    fn is_checked(&self, backend: IpAddr) -> bool {
        self.rpfilter && self.reach.is_checked(backend)
    }

    fn checked(&self) -> impl Iterator<Item = IpAddr> {
        self.backends().filter(|backend| self.is_checked(*backend))
    }

    fn backends(&self) -> impl Iterator<Item = IpAddr> {
        let all: BTreeSet<_> = self.reach.backends().filter(|address| self.family.has(*address)).collect();
        all.into_iter()
    }

    fn chain(&self, suffix: &str, rules: Vec<String>) -> Chain {
        Chain { name: self.name(suffix), rules }
    }

    /// At most `LOADED-65535-B999`: iptables takes 28 characters.
    fn name(&self, suffix: &str) -> String {
        let base = self.reach.base;
        if suffix.is_empty() { format!("LOADED-{base}") } else { format!("LOADED-{base}-{suffix}") }
    }

    fn host(&self, address: IpAddr) -> String {
        format!("{address}/{}", if self.family == Family::V4 { 32 } else { 128 })
    }
}
