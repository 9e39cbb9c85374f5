//! The desired rules, and the transaction that leads to them.

use super::chain::{self, Chain, Matches};
use super::present::PresentRules;
use super::reach::Reach;
use super::steer::Steering;
use super::write;
use crate::Family;

/// The desired rules. Two sets are equal if they treat every packet alike, whatever the order and repetitions in the
/// [`Reach`] they came from: an update to an equal set can be skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSet {
    pub(super) base: u16,
    /// The chains of both families: with the matches that are wanted first, then without those that a kernel may lack.
    variants: Vec<(Matches, [Vec<Chain>; 2])>,
}

impl RuleSet {
    /// `queues` holds one queue number a worker, in worker order. A family without a VIP gets no rules.
    ///
    /// # Panics
    /// If `queues` is empty.
    #[must_use]
    pub fn new(reach: &Reach, queues: &[u16], steering: &Steering) -> Self {
        assert!(!queues.is_empty(), "no worker, no rules");
        let chains = |matches| {
            Family::ALL.map(|family| {
                let wanted = reach.vips().any(|vip| family.has(vip));
                if wanted { write::chains(reach, family, queues, steering, matches) } else { Vec::new() }
            })
        };
        let rpfilter = reach.backends().any(|backend| reach.is_checked(backend));
        let wanted = Matches { socket: reach.defragment, rpfilter };
        let variants = wanted.and_less().into_iter().map(|matches| (matches, chains(matches)));
        Self { base: reach.base, variants: variants.collect() }
    }

    /// No rules at all.
    pub(super) fn nothing(base: u16) -> Self {
        Self { base, variants: vec![(Matches::NONE, [Vec::new(), Vec::new()])] }
    }

    /// The input of `iptables-restore --noflush` (or `ip6tables-restore`) on a host that has none of our chains; `None` for a
    /// family without rules.
    #[must_use]
    pub fn text(&self, family: Family) -> Option<String> {
        let nothing = PresentRules::default();
        let wanted = self.matches().next().unwrap_or(Matches::NONE);
        (!self.chains(family, wanted).is_empty()).then(|| self.script(family, &nothing, wanted))
    }

    /// The matches that are wanted, and then what is left where a kernel lacks some.
    pub(super) fn matches(&self) -> impl Iterator<Item = Matches> {
        self.variants.iter().map(|(matches, _)| *matches)
    }

    pub(super) fn chains(&self, family: Family, matches: Matches) -> &[Chain] {
        let variant = self.variants.iter().find(|(of, _)| *of == matches);
        variant.map_or(&[], |(_, chains)| &chains[family as usize])
    }

    /// All chains that have to be there, but for the marker.
    pub(super) fn wanted(&self, family: Family, matches: Matches) -> Vec<Chain> {
        let mut wanted = self.chains(family, matches).to_vec();
        if !wanted.is_empty() && matches.socket {
            wanted.push(chain::defrag(self.base));
        }
        wanted
    }

    /// The transaction that leads from the present state to this one.
    pub(super) fn script(&self, family: Family, present: &PresentRules, matches: Matches) -> String {
        let mut wanted = self.wanted(family, matches);
        if !wanted.is_empty() && (!present.table || present.marked) {
            wanted.push(Chain { name: chain::marker(self.base), rules: Vec::new() });
        }
        let rest = chain::rest(self.base);
        let stays = |name: &String| rest.contains(name) || wanted.iter().any(|chain| chain.name == *name);
        let gone: Vec<_> = present.chains.iter().filter(|name| !stays(name)).collect();

        // With --noflush a line ":NAME" creates a chain, or empties an existing one.
        let declared = wanted.iter().map(|chain| format!(":{} - [0:0]", chain.name));
        let unhooked = present.jumps.iter().map(|(chain, jump)| format!("-D {chain} {jump}"));
        let emptied = gone.iter().map(|name| format!("-F {name}"));
        let filled = wanted.iter().flat_map(|chain| chain.rules.iter().map(|rule| format!("-A {} {rule}", chain.name)));
        let hooks = if wanted.is_empty() { Vec::new() } else { chain::hooks(self.base).to_vec() };
        let hooked = hooks.iter().map(|(chain, jump)| format!("-I {chain} 1 {jump}"));
        let deleted = gone.iter().map(|name| format!("-X {name}"));
        transaction(declared.chain(unhooked).chain(emptied).chain(filled).chain(hooked).chain(deleted))
    }
}

pub(super) fn transaction(lines: impl Iterator<Item = String>) -> String {
    let body: String = lines.map(|line| line + "\n").collect();
    format!("*raw\n{body}COMMIT\n")
}
