//! Tables, chains and rules, whichever program wrote them.

use crate::matches::Match;
use loaded_netfilter::Family;
use std::collections::{BTreeMap, BTreeSet};

/// A table of netfilter.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) dialect: Dialect,
    /// The families whose packets it sees.
    pub(crate) families: Vec<Family>,
    pub(crate) name: String,
    pub(crate) chains: BTreeMap<String, Vec<Rule>>,
    /// Where packets enter, in the order of the listing.
    pub(crate) bases: Vec<Base>,
}

/// How a table's rules are spelled, and so which program it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// iptables or ip6tables.
    Iptables(Family),
    /// nft, with the family as nft calls it.
    Nft(&'static str),
}

/// A chain that the kernel sends packets to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    pub(crate) chain: String,
    pub(crate) hook: Hook,
    /// Lower ones come first.
    pub(crate) priority: i32,
    /// What becomes of packets that no rule decides about.
    pub(crate) drops: bool,
    /// Of hooks of interfaces; empty: they are not known.
    pub(crate) devices: Vec<String>,
    /// The rule it begins with, and that before which it ends: our jump splits the chain PREROUTING of raw in two.
    pub(crate) rules: (usize, usize),
    /// Whether packets meet it before our rules, behind them, or it is not known.
    pub(crate) order: ChainOrder,
}

/// Where on a packet's way a chain is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Ingress,
    Prerouting,
    Forward,
    Postrouting,
    Egress,
}

/// The order of a chain of PREROUTING or ingress and ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChainOrder {
    Before,
    /// In the same chain, below our jump: packets that a worker has accepted do not come back to it, repeated ones do.
    Below,
    /// Of the same priority: the one that was registered later comes first.
    Unknown,
    Behind,
}

/// Priority of our rules: NF_IP_PRI_RAW, include/uapi/linux/netfilter_ipv4.h.
pub(crate) const RAW: i32 = -300;

impl Table {
    /// Lets every rule drop what it would give to queues that nobody owns: `owned` has all that somebody does. `None`: not known.
    pub(crate) fn know_queues(&mut self, owned: Option<&BTreeSet<u16>>) {
        for rule in self.chains.values_mut().flatten() {
            if let Ruling::Queues(first, last) = rule.ruling {
                let is_read = owned.is_none_or(|owned| owned.range(first..=last.max(first)).next().is_some());
                rule.ruling = if is_read { Ruling::Hands } else { Ruling::Drop };
            }
        }
    }
}

/// A rule: what it asks of a packet, all of it, and what it does with those that meet it.
#[derive(Debug, Clone)]
pub(crate) struct Rule {
    pub(crate) matches: Vec<Match>,
    pub(crate) ruling: Ruling,
    pub(crate) name: RuleName,
}

/// How an operator finds a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RuleName {
    /// As iptables-save writes it, from `-A` on.
    Text(String),
    /// nft's handle.
    Handle(u64),
}

/// What a rule does with a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// Nothing that matters here: it counts, logs, marks.
    Nothing,
    Accept,
    /// Dropped or rejected.
    Drop,
    Jump(String),
    Goto(String),
    Return,
    /// Another program or another place gets it, or it is not known what becomes of it.
    Hands,
    /// A program that reads one of these queues gets it; while nobody reads them the kernel drops it (nf_queue, net/netfilter/nf_queue.c).
    Queues(u16, u16),
}
