//! The way of one packet through one base chain and those that it jumps to.

use crate::packet::Packet;
use crate::rule::{Base, ChainOrder, Dialect, Rule, Ruling, Table};
use crate::truth::Truth;
use std::collections::BTreeMap;

/// What a base chain makes of packets of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ChainEffect<'t> {
    /// Some of them may come through.
    pub(crate) passes: bool,
    /// What drops some of them: a rule, or the policy. The first that was met.
    pub(crate) dropped_by: Option<Culprit<'t>>,
    /// Whether something hinges on a rule that was not understood.
    pub(crate) unread: Option<&'t Rule>,
}

/// What drops packets.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Culprit<'t> {
    Rule(&'t Rule),
    Policy,
}

/// Walks a packet through a base chain. Chains are walked once each, so that the work is bounded by the number of rules.
pub(crate) fn walk<'t>(table: &'t Table, base: &Base, packet: &Packet<'_>) -> ChainEffect<'t> {
    let past = base.order == ChainOrder::Before && matches!(table.dialect, Dialect::Iptables(_));
    let mut walk = Walk { table, packet, past, walked: BTreeMap::new(), effect: ChainEffect::default() };
    let rules = table.chains.get(&base.chain).map_or(&[][..], |rules| &rules[base.rules.0..base.rules.1]);
    if walk.rules(rules, true) {
        match base.drops {
            true => drop(walk.effect.dropped_by.get_or_insert(Culprit::Policy)),
            false => walk.effect.passes = true,
        }
    }
    walk.effect
}

struct Walk<'t, 'p> {
    table: &'t Table,
    packet: &'p Packet<'p>,
    /// These rules are above ours in the same chain: what they accept, or let return, goes past our jump.
    past: bool,
    /// Chains that were walked, and whether packets may come back from them.
    walked: BTreeMap<&'t str, bool>,
    effect: ChainEffect<'t>,
}

impl<'t> Walk<'t, '_> {
    /// Whether packets may come to the end of these rules, or return before it.
    fn rules(&mut self, rules: &'t [Rule], in_base: bool) -> bool {
        let mut returns = false;
        for rule in rules {
            let truth = rule.matches.iter().fold(Truth::Yes, |truth, one| match truth {
                Truth::No => truth,
                _ => truth.and(one.asks(self.packet)),
            });
            if truth == Truth::No || rule.ruling == Ruling::Nothing {
                continue;
            }
            if truth == Truth::Unread || matches!(rule.ruling, Ruling::Hands | Ruling::Queues(..)) {
                self.effect.unread.get_or_insert(rule);
            }
            let goes_on = match &rule.ruling {
                Ruling::Nothing => true,
                Ruling::Accept if self.past => self.drops(rule),
                Ruling::Return if self.past && in_base => self.drops(rule),
                Ruling::Accept | Ruling::Hands | Ruling::Queues(..) => {
                    self.effect.passes = true;
                    false
                }
                Ruling::Drop => self.drops(rule),
                Ruling::Jump(chain) => self.chain(chain),
                // Whoever returns from there returns from here.
                Ruling::Goto(chain) => {
                    returns |= self.chain(chain);
                    false
                }
                Ruling::Return => {
                    returns = true;
                    false
                }
            };
            if truth == Truth::Yes && !goes_on {
                return returns;
            }
        }
        true
    }

    /// The packet does not go on.
    fn drops(&mut self, rule: &'t Rule) -> bool {
        self.effect.dropped_by.get_or_insert(Culprit::Rule(rule));
        false
    }

    fn chain(&mut self, name: &str) -> bool {
        let Some((name, rules)) = self.table.chains.get_key_value(name) else { return true };
        if let Some(returns) = self.walked.get(name.as_str()) {
            return *returns;
        }
        // The kernel refuses circles; if this is one nevertheless, it ends.
        self.walked.insert(name, true);
        let returns = self.rules(rules, false);
        self.walked.insert(name, returns);
        returns
    }
}
