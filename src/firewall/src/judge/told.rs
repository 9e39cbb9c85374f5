//! What is told of a loss, with the command that mends it.

use crate::rule::{Base, ChainOrder, Dialect, Hook, Rule, RuleName, Table};
use crate::walk::Culprit;
use loaded_config::plan::{Plan, Service};
use loaded_host::{Problem, Severity};
use loaded_ipc::Mode;
use loaded_netfilter::Family;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Of more addresses no command is made.
const MOST_ADDRESSES: usize = 64;

/// Whose packets are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    Requests,
    Replies,
    Both,
}

impl Whose {
    pub(super) fn and(self, other: Self) -> Self {
        if self == other { self } else { Self::Both }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Replies => "replies",
            Self::Both => "requests and replies",
        }
    }
}

/// What one chain drops, for one reason.
#[derive(Debug)]
pub(super) struct Loss<'t> {
    table: &'t Table,
    base: &'t Base,
    culprit: Culprit<'t>,
    /// For each service and family how bad it is, and whom it strikes.
    of: BTreeMap<Of, (Severity, Whose)>,
}

/// A service and a family.
type Of = (String, u8);

impl Culprit<'_> {
    /// What tells one from another in the same chain.
    pub(super) fn key(&self) -> String {
        match self {
            Self::Policy => String::new(),
            Self::Rule(Rule { name: RuleName::Text(text), .. }) => text.clone(),
            Self::Rule(Rule { name: RuleName::Handle(handle), .. }) => handle.to_string(),
        }
    }
}

impl<'t> Loss<'t> {
    pub(super) fn new(table: &'t Table, base: &'t Base, culprit: Culprit<'t>) -> Self {
        Self { table, base, culprit, of: BTreeMap::new() }
    }

    /// Adds a service; the worst that is said of it counts.
    pub(super) fn add(&mut self, severity: Severity, service: &str, family: Family, whose: Whose) {
        let of = (service.to_owned(), if family == Family::V4 { 4 } else { 6 });
        let (known, whom) = self.of.entry(of).or_insert((severity, whose));
        match severity.cmp(known) {
            Ordering::Less => (*known, *whom) = (severity, whose),
            Ordering::Equal => *whom = whom.and(whose),
            Ordering::Greater => {}
        }
    }

    /// For each severity one problem if it is about the whole plan, else one for each family or service.
    pub(super) fn problems(&self, plan: &Plan) -> Vec<Problem> {
        let all = everyone(plan);
        let severities: BTreeSet<_> = self.of.values().map(|(severity, _)| *severity).collect();
        severities.into_iter().flat_map(|severity| self.of_severity(severity, plan, &all)).collect()
    }

    fn of_severity(&self, severity: Severity, plan: &Plan, all: &BTreeSet<Of>) -> Vec<Problem> {
        let struck: BTreeMap<_, _> = self.of.iter().filter(|(_, (of, _))| *of == severity).collect();
        let Some(whose) = struck.values().map(|(_, whose)| *whose).reduce(Whose::and) else { return Vec::new() };
        let ours: BTreeSet<_> = struck.keys().map(|of| (*of).clone()).collect();
        let (text, mend) = (self.text(severity, whose), self.mend(severity, whose, &ours, plan));
        let about = |service: Option<&str>, family: Option<u8>| Problem {
            service: service.map(str::to_owned),
            family,
            mend: mend.clone(),
            ..Problem::new("firewall", severity, format!("{text}{}", self.scope(service, family)))
        };
        if ours == *all {
            return vec![about(None, None)];
        }
        let mut problems = Vec::new();
        for family in [4, 6] {
            let names = |of: &BTreeSet<Of>| -> BTreeSet<String> {
                of.iter().filter(|(_, number)| *number == family).map(|(name, _)| name.clone()).collect()
            };
            match names(&ours) {
                none if none.is_empty() => {}
                some if some == names(all) => problems.push(about(None, Some(family))),
                some => problems.extend(some.iter().map(|name| about(Some(name), Some(family)))),
            }
        }
        problems
    }

    /// Whom it strikes, if not everyone that the table sees.
    fn scope(&self, service: Option<&str>, family: Option<u8>) -> String {
        match (service, family) {
            (Some(service), Some(family)) => format!(" (service {service}, IPv{family})"),
            (None, Some(family)) if self.table.families.len() > 1 => format!(" (IPv{family})"),
            _ => String::new(),
        }
    }

    fn text(&self, severity: Severity, whose: Whose) -> String {
        let whose = whose.text();
        let before = self.base.order == ChainOrder::Before;
        let past = before && matches!(self.table.dialect, Dialect::Iptables(_));
        match (severity, self.culprit) {
            (Severity::Unknown, _) => format!(
                "it is not known what {} does with balanced packets, {whose} among them: this reader does not understand it; \
                 send a request",
                self.what()
            ),
            (_, Culprit::Rule(Rule { name: RuleName::Text(rule), .. })) if past => format!(
                "rule `{rule}` of the table {} comes before ours, and no worker sees what it takes; to move it behind ours",
                self.table.name
            ),
            (Severity::Warning, _) if before => {
                format!("{} comes before ours and may take packets to a VIP", self.chain())
            }
            (Severity::Warning, _) => {
                format!("{} drops balanced {whose} of some clients, or may drop them", self.what())
            }
            (_, Culprit::Policy) => format!(
                "{} has the policy DROP, and no rule of {} accepts {}",
                self.short_chain(),
                self.program(),
                if before {
                    format!("balanced {whose}")
                } else {
                    "untracked packets, which balanced packets are".to_owned()
                }
            ),
            (_, Culprit::Rule(_)) => format!("{} drops balanced {whose}", self.what()),
        }
    }

    fn program(&self) -> String {
        match self.table.dialect {
            Dialect::Iptables(Family::V4) => "iptables".to_owned(),
            Dialect::Iptables(Family::V6) => "ip6tables".to_owned(),
            Dialect::Nft(_) => "it".to_owned(),
        }
    }

    fn short_chain(&self) -> String {
        match self.table.dialect {
            Dialect::Iptables(_) if self.table.name == "filter" => self.base.chain.clone(),
            _ => self.chain(),
        }
    }

    fn chain(&self) -> String {
        let chain = &self.base.chain;
        match self.table.dialect {
            Dialect::Iptables(_) => format!("chain {chain} of the table {}", self.table.name),
            Dialect::Nft(family) => format!("chain {chain} of the nftables table {family} {}", self.table.name),
        }
    }

    /// The rule or, by its policy, the chain.
    fn what(&self) -> String {
        match (self.culprit, self.table.dialect) {
            (Culprit::Policy, _) => self.chain(),
            (Culprit::Rule(Rule { name: RuleName::Text(text), .. }), _) => {
                format!("rule `{text}` of {} (table {})", self.program(), self.table.name)
            }
            (Culprit::Rule(Rule { name: RuleName::Handle(handle), .. }), _) => {
                format!("the rule with handle {handle} in {}", self.chain())
            }
        }
    }

    fn mend(&self, severity: Severity, whose: Whose, of: &BTreeSet<Of>, plan: &Plan) -> Option<String> {
        match (self.table.dialect, severity) {
            (Dialect::Nft(family), Severity::Unknown) => {
                Some(format!("nft -a list table {family} {}", self.table.name))
            }
            (Dialect::Iptables(_), Severity::Unknown) => None,
            (Dialect::Nft(family), _) => Some(self.nft(family, whose, of, plan)),
            (Dialect::Iptables(family), _) => Some(self.iptables(family, of, plan)),
        }
    }

    /// Lets balanced packets through at the beginning of the chain.
    fn nft(&self, family: &str, whose: Whose, of: &BTreeSet<Of>, plan: &Plan) -> String {
        let place = format!("{family} {} {}", self.table.name, self.base.chain);
        if self.base.order != ChainOrder::Before && self.base.hook != Hook::Egress {
            return format!("nft insert rule {place} ct state untracked accept");
        }
        let look = format!("nft list chain {place}");
        if self.base.hook == Hook::Egress {
            return look;
        }
        let mut rules = Vec::new();
        for family in &self.table.families {
            let ip = if *family == Family::V4 { "ip" } else { "ip6" };
            let (vips, backends) = addresses(plan, of, *family);
            let sides = [("daddr", vips, Whose::Replies), ("saddr", backends, Whose::Requests)];
            for (side, addresses, _) in sides.into_iter().filter(|(.., others)| whose != *others) {
                match addresses.as_slice() {
                    [] => {}
                    [one] => rules.push(format!("nft insert rule {place} {ip} {side} {one} accept")),
                    some if some.len() <= MOST_ADDRESSES => {
                        let some = some.join(", ");
                        rules.push(format!("nft 'insert rule {place} {ip} {side} {{ {some} }} accept'"));
                    }
                    _ => return look,
                }
            }
        }
        if rules.is_empty() { look } else { rules.join(" && ") }
    }

    fn iptables(&self, family: Family, of: &BTreeSet<Of>, plan: &Plan) -> String {
        let program = self.program();
        let of_table = if self.table.name == "filter" { String::new() } else { format!(" -t {}", self.table.name) };
        let chain = &self.base.chain;
        match (self.base.order, self.culprit) {
            (ChainOrder::Before, Culprit::Rule(Rule { name: RuleName::Text(text), .. })) => {
                let rule = text.trim_start_matches("-A ");
                format!("{program}{of_table} -D {rule} && {program}{of_table} -A {rule}")
            }
            // Below our jump, and above what drops them.
            (ChainOrder::Below, _) => {
                let (vips, _) = addresses(plan, of, family);
                let at = self.base.rules.0 + 1;
                let each = |vip: &String| format!("{program}{of_table} -I {chain} {at} -s {vip} -j ACCEPT");
                vips.iter().map(each).collect::<Vec<_>>().join(" && ")
            }
            _ => format!("{program}{of_table} -I {chain} -m conntrack --ctstate UNTRACKED -j ACCEPT"),
        }
    }
}

/// VIPs and, in mode "nat", backends of these services.
fn addresses(plan: &Plan, of: &BTreeSet<Of>, family: Family) -> (Vec<String>, Vec<String>) {
    let is_of = |address: &IpAddr| address.is_ipv4() == (family == Family::V4);
    let listed = |all: BTreeSet<IpAddr>| all.into_iter().filter(is_of).map(|address| address.to_string()).collect();
    let services = || plan.services.iter().filter(|service| of.iter().any(|(name, _)| *name == service.name));
    let vips = services().flat_map(|service| &service.vips).copied().collect();
    let translated = services().filter(|service| service.mode == Mode::Nat);
    let backends = translated.flat_map(|service| service.backends.iter().map(|backend| backend.address)).collect();
    (listed(vips), listed(backends))
}

/// Every service with each family of its VIPs.
fn everyone(plan: &Plan) -> BTreeSet<Of> {
    let each = |service: &Service| {
        let name = service.name.clone();
        service.vips.iter().map(|vip| (name.clone(), if vip.is_ipv4() { 4 } else { 6 })).collect::<Vec<_>>()
    };
    plan.services.iter().flat_map(each).collect()
}
