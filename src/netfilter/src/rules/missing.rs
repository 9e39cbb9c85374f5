//! What of our rules is no longer as it was written.

use super::chain::{Matches, hooks};
use super::present::{PresentRules, RawTable};
use super::rule_set::RuleSet;
use crate::{Error, Family, Tools};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

/// What is missing of one family's rules, or is not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which family.
    pub family: Family,
    what: MissingPart,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum MissingPart {
    /// No chain and no jump of ours is there.
    Everything,
    /// A jump from this built-in chain.
    Jump(&'static str),
    /// This chain.
    Chain(String),
    /// Some of the rules in this chain.
    Rules(String),
}

/// What was written of one family's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WrittenRules {
    /// The matches that the kernel has; without it nothing was written yet.
    pub(super) matches: Option<Matches>,
    /// Chain and rule, as iptables-save shows them: its spelling is not ours. Taken from the first look that finds as many
    /// rules in each chain as were written.
    shown: Option<Vec<(String, String)>>,
}

impl WrittenRules {
    pub(super) fn new(matches: Matches) -> Self {
        Self { matches: Some(matches), shown: None }
    }

    /// What is missing of `rules`. The first difference alone is told.
    pub(super) fn missing(&mut self, family: Family, rules: &RuleSet, present: &PresentRules) -> Option<Missing> {
        let wanted = rules.wanted(family, self.matches?);
        if wanted.is_empty() {
            return None;
        }
        if present.chains.is_empty() && present.jumps.is_empty() {
            return Some(Missing { family, what: MissingPart::Everything });
        }
        let found = |what| Some(Missing { family, what });
        let hooks = hooks(rules.base);
        let is_there = |(chain, jump): &&(&str, String)| present.jumps.iter().any(|(c, j)| c == chain && j == jump);
        if let Some((chain, _)) = hooks.iter().find(|hook| !is_there(hook)) {
            return found(MissingPart::Jump(chain));
        }
        if let Some(chain) = wanted.iter().find(|chain| !present.chains.contains(&chain.name)) {
            return found(MissingPart::Chain(chain.name.clone()));
        }
        let count = |name: &String| present.rules.iter().filter(|(chain, _)| chain == name).count();
        if let Some(chain) = wanted.iter().find(|chain| count(&chain.name) != chain.rules.len()) {
            return found(MissingPart::Rules(chain.name.clone()));
        }
        let shown = self.shown.get_or_insert_with(|| present.rules.clone());
        let changed = shown.iter().zip(&present.rules).find(|(then, now)| then != now);
        changed.and_then(|((chain, _), _)| found(MissingPart::Rules(chain.clone())))
    }
}

/// Families with a virtual IP whose packets no rule of the instance with this queue base takes: a jump or all chains are
/// missing. For one that is not itself asked; what a chain holds is not examined.
///
/// # Errors
/// If the rules cannot be read.
pub fn unhooked(tools: &Tools, base: u16, vips: &BTreeSet<IpAddr>) -> Result<Vec<Missing>, Error> {
    let mut all = Vec::new();
    for family in Family::ALL.into_iter().filter(|family| vips.iter().any(|vip| family.has(*vip))) {
        let present = RawTable::parse(&tools.save(family)?).of(base);
        let jumps = || present.jumps.iter().any(|(chain, _)| chain == "PREROUTING");
        let what = match present.chains.is_empty() {
            true => MissingPart::Everything,
            false if !jumps() => MissingPart::Jump("PREROUTING"),
            false => continue,
        };
        all.push(Missing { family, what });
    }
    Ok(all)
}

impl Missing {
    /// Whether nothing of ours is there, so that no packet comes to a worker.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.what == MissingPart::Everything
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.family)?;
        match &self.what {
            MissingPart::Everything => f.write_str("all rules"),
            MissingPart::Jump(chain) => write!(f, "the jump from {chain}"),
            MissingPart::Chain(name) => write!(f, "chain {name}"),
            MissingPart::Rules(name) => write!(f, "rules of chain {name}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;
    use crate::rules::tests::{plan, rules};
    use loaded_ipc::Protocol;

    /// What iptables-save would show of these rules.
    fn saved(rules: &RuleSet, family: Family) -> String {
        let text = rules.text(family).unwrap();
        text.replace("-I PREROUTING 1", "-A PREROUTING").replace("-I OUTPUT 1", "-A OUTPUT")
    }

    #[test]
    fn what_others_have_removed_is_named() {
        let rules = rules(&plan(&["192.0.2.1"], &["198.51.100.1"], Protocol::Any, &[]));
        let family = Family::V4;
        let whole = saved(&rules, family);
        let base = rules.base;
        let mut written = WrittenRules::new(rules.matches().next().unwrap());
        let mut missing = |text: &str| {
            let found = written.missing(family, &rules, &RawTable::parse(text).of(base));
            found.map(|missing| missing.to_string())
        };
        assert_eq!(missing(&whole), None);
        let without =
            |line: &str| whole.lines().filter(|l| !l.starts_with(line)).map(|l| format!("{l}\n")).collect::<String>();
        assert_eq!(missing(""), Some("IPv4: all rules".to_owned()));
        assert_eq!(missing(&without("-A OUTPUT")), Some("IPv4: the jump from OUTPUT".to_owned()));
        let chain = format!("LOADED-{base}-Q");
        assert_eq!(missing(&without(&format!(":{chain} "))), Some(format!("IPv4: chain {chain}")));
        assert_eq!(missing(&without(&format!("-A {chain} -j CT"))), Some(format!("IPv4: rules of chain {chain}")));
        let other = whole.replace("--queue-num ", "--queue-num 1");
        assert_eq!(missing(&other), Some(format!("IPv4: rules of chain {chain}")), "as many, but others");
        let foreign = whole.replace("-A PREROUTING", "-A PREROUTING -p tcp -j DROP\n-A PREROUTING");
        assert_eq!(missing(&foreign), None, "rules of others do not count");
    }
}
