//! Installs and changes the rules, in one transaction a family. The present state is read first, so one script can add, replace
//! or remove.

use super::chain::Matches;
use super::hits;
use super::missing::{Missing, WrittenRules};
use super::present::{PresentRules, look};
use super::refused::counted;
use super::removal::{remove, tidy};
use super::rule_set::RuleSet;
use crate::error::wrap;
use crate::{Error, Family, Tools, trial};
use loaded_queue::queue_owners;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Our rules in the kernel. Dropping this leaves them in place.
#[derive(Debug)]
pub struct Installed {
    rules: RuleSet,
    tools: Tools,
    notes: Vec<String>,
    /// What was written of each family, for [`Installed::missing`].
    written: [WrittenRules; 2],
    /// Whether iptables works on nftables, once it was asked.
    nft: OnceCell<bool>,
}

/// How often a change is tried while somebody else changes the table between our look and our write.
const TRIES: u32 = 5;

impl Installed {
    /// Installs both families or neither. Chains left by a killed instance with the same queue base are replaced in the same
    /// transaction, so that no packet slips through to the local stack, which would answer it with a reset.
    ///
    /// # Errors
    /// [`Error::Rules`]; then nothing of ours is in the kernel.
    pub fn install(rules: &RuleSet, tools: &Tools) -> Result<Self, Error> {
        let mut this = Self::of(rules, tools);
        for family in Family::ALL {
            if let Err(e) = this.apply(family, rules, "install") {
                this.take_back();
                return Err(e);
            }
        }
        Ok(this)
    }

    /// Replaces the rules of a predecessor whose workers still serve, in one transaction a family.
    ///
    /// # Errors
    /// [`Error::Rules`]; each family then has its old rules or the new ones, and both hand packets to the workers.
    pub fn take_over(rules: &RuleSet, tools: &Tools) -> Result<Self, Error> {
        let mut this = Self::of(rules, tools);
        for family in Family::ALL {
            this.apply(family, rules, "take over")?;
        }
        Ok(this)
    }

    fn of(rules: &RuleSet, tools: &Tools) -> Self {
        Self {
            rules: rules.clone(),
            tools: tools.clone(),
            notes: Vec::new(),
            written: Default::default(),
            nft: OnceCell::new(),
        }
    }

    /// Changes the rules, each family in one transaction: at every moment either the old or the new rules hold, and no
    /// waiting packet is lost. No hook is removed: a family that loses its last VIP keeps its base chains and its
    /// defragmenter, without effect, until [`Installed::tidy`]. Equal rules are written all the same, which restores what
    /// somebody else has flushed.
    ///
    /// # Errors
    /// [`Error::Rules`]; then the old rules hold in both families.
    ///
    /// # Panics
    /// If the new rules have another queue base: an instance keeps its own.
    pub fn update(&mut self, rules: &RuleSet) -> Result<(), Error> {
        assert_eq!(rules.base, self.rules.base, "an instance keeps its queue base");
        let old = self.rules.clone();
        for family in Family::ALL {
            if let Err(e) = self.apply(family, rules, "change") {
                let back = Family::ALL.map(|family| self.apply(family, &old, "go back to the old ones"));
                back.into_iter().filter_map(Result::err).for_each(|e| log::error!("{e}"));
                return Err(e);
            }
        }
        self.rules = rules.clone();
        Ok(())
    }

    /// What was not available and what that means for the operator; to be logged.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Removes our jumps and every rule a packet could meet; no waiting packet is lost. What remains has no effect, and
    /// [`Installed::tidy`] removes it. Tries both families even if one fails; can be repeated.
    ///
    /// # Errors
    /// The first [`Error::Rules`]. If a foreign rule jumps to a chain of ours, our chains are unhooked and emptied all the
    /// same, so packets pass.
    pub fn remove(&mut self) -> Result<(), Error> {
        let results = Family::ALL.map(|family| remove(&self.tools, family, self.rules.base));
        results.into_iter().collect()
    }

    /// Call after [`Installed::remove`], once the queues have drained: removes the rest of our chains, and the raw table if
    /// we created it and it is empty. Returns what it had to leave and why.
    #[must_use]
    pub fn tidy(self) -> Vec<String> {
        Family::ALL.into_iter().filter_map(|family| tidy(&self.tools, family, self.rules.base)).collect()
    }

    /// What is missing of our rules by what somebody else has done, a family each; nothing: all is as it was written.
    /// Rules of others, and the place of our jumps among them, do not count.
    ///
    /// # Errors
    /// [`Error::Rules`] if they cannot be read.
    pub fn missing(&mut self) -> Result<Vec<Missing>, Error> {
        let mut all = Vec::new();
        for family in Family::ALL {
            let raw = look(&self.tools, family)?;
            all.extend(self.written[family as usize].missing(family, &self.rules, &raw.of(self.rules.base)));
        }
        Ok(all)
    }

    /// Packets in a backend's name that the rules, since they were written last, have taken for no reply.
    ///
    /// # Errors
    /// If the rules cannot be read.
    pub fn refused_replies(&self) -> Result<u64, Error> {
        let has_rules = |family: &Family| {
            let matches = self.written[*family as usize].matches;
            matches.is_some_and(|matches| !self.rules.chains(*family, matches).is_empty())
        };
        let listed = |family| self.tools.save_raw_with_counts(family).map_err(|error| wrap(family, "read them", error));
        let mut sum = 0_u64;
        for family in Family::ALL.into_iter().filter(has_rules) {
            let asked = self.is_nft().then(|| hits::refused(family, self.rules.base).ok()).flatten();
            sum = sum.saturating_add(match asked {
                Some(count) => count,
                None => counted(&listed(family)?, self.rules.base),
            });
        }
        Ok(sum)
    }

    /// Queue bases of other instances whose rules bring packets to a queue that somebody has.
    ///
    /// # Errors
    /// If the rules cannot be read.
    pub fn others(&self) -> Result<Vec<u16>, Error> {
        let states = queue_owners().unwrap_or_default();
        let is_bound = |queue: &u16| states.iter().any(|state| state.queue == *queue);
        let mut others = BTreeSet::new();
        for family in Family::ALL {
            let instances = look(&self.tools, family)?.instances().into_iter();
            let alive = instances.filter(|(base, queues)| *base != self.rules.base && queues.iter().any(is_bound));
            others.extend(alive.map(|(base, _)| base));
        }
        Ok(others.into_iter().collect())
    }

    /// Writes the rules again, whatever has become of them. As [`Installed::update`], loses no packet.
    ///
    /// # Errors
    /// [`Error::Rules`]
    pub fn put_back(&mut self) -> Result<(), Error> {
        let rules = self.rules.clone();
        let again = |family| {
            let Some(matches) = self.written[family as usize].matches else { return Ok(()) };
            self.write(family, &rules, matches).map_err(|error| wrap(family, "put them back", error))
        };
        Family::ALL.into_iter().try_for_each(again)
    }

    /// Whether iptables works on nftables, whose changes the kernel announces ([`crate::Events`]).
    #[must_use]
    pub fn is_nft(&self) -> bool {
        *self.nft.get_or_init(|| self.tools.is_nft())
    }

    fn apply(&mut self, family: Family, rules: &RuleSet, act: &'static str) -> Result<(), Error> {
        let wanted = rules.matches().next().unwrap_or(Matches::NONE);
        let first = match self.write(family, rules, wanted) {
            Ok(()) => return Ok(()),
            Err(error @ Error::Contested { .. }) => return Err(wrap(family, act, error)),
            Err(error) => error,
        };
        // Only a match that the kernel is seen to lack is left out: a failure of any other kind must not switch one off,
        // for packets are trusted by them. It may have passed, so the same is tried once more.
        let there = available(&self.tools, family, wanted);
        if self.write(family, rules, there).is_err() {
            return Err(wrap(family, act, first));
        }
        self.notes.extend(missing(family, wanted, there, &first.to_string()));
        Ok(())
    }

    /// Writes the rules with these matches, in one transaction. It is tried again while another program changes the table
    /// between our look and our write.
    fn write(&mut self, family: Family, rules: &RuleSet, matches: Matches) -> Result<(), Error> {
        let mut raw = look(&self.tools, family)?;
        for _ in 0..TRIES {
            let present = raw.of(rules.base);
            let nothing = rules.chains(family, matches).is_empty() && present.chains.is_empty();
            let done = if nothing { Ok(()) } else { self.restore(family, rules, &present, matches) };
            let Err(error) = done else {
                self.written[family as usize] = WrittenRules::new(matches);
                return Ok(());
            };
            let now = look(&self.tools, family)?;
            if now == raw {
                return Err(error);
            }
            raw = now;
        }
        Err(Error::Contested { tries: TRIES })
    }

    fn restore(&self, family: Family, rules: &RuleSet, present: &PresentRules, matches: Matches) -> Result<(), Error> {
        self.tools.restore(family, &rules.script(family, present, matches))
    }

    fn take_back(mut self) {
        if let Err(e) = self.remove() {
            log::error!("while removing rules after a failed install: {e}");
        }
        self.tidy().iter().for_each(|note| log::warn!("{note}"));
    }
}

/// These matches without those that the kernel lacks.
fn available(tools: &Tools, family: Family, wanted: Matches) -> Matches {
    let modules = [(wanted.socket, "xt_socket"), (wanted.rpfilter, "xt_rpfilter")];
    let modules: Vec<_> = modules.into_iter().filter_map(|(wanted, module)| wanted.then_some(module)).collect();
    let lacking = trial::lacking(tools, family, &modules).unwrap_or_else(|why| {
        log::warn!("{family}: which matches the kernel has could not be tried, so all are taken for there: {why}");
        Vec::new()
    });
    let is_there = |module| !lacking.contains(&module);
    Matches { socket: wanted.socket && is_there("xt_socket"), rpfilter: wanted.rpfilter && is_there("xt_rpfilter") }
}

/// What it means that these matches were wanted and only those are there.
fn missing(family: Family, wanted: Matches, there: Matches, error: &str) -> Vec<String> {
    let mut notes = Vec::new();
    if wanted.socket && !there.socket {
        notes.push(format!(
            "{family}: the kernel has no match xt_socket, so it does not reassemble fragments; the workers track \
             fragments themselves, as with defragment = false; load the module xt_socket ({error})"
        ));
    }
    if wanted.rpfilter && !there.rpfilter {
        notes.push(format!(
            "{family}: the kernel has no match xt_rpfilter, so packets in a backend's name are believed whatever interface \
             they come by, as with asymmetric = true; load the module xt_rpfilter and restart ({error})"
        ));
    }
    notes
}

/// A virtual IP of these that another instance serves in this network namespace, and the queue base of that instance. Rules of
/// dead ones count too: see [`super::clean_stale`].
///
/// # Errors
/// [`Error::Rules`] if the rules cannot be read.
pub fn served_by_another(tools: &Tools, base: u16, vips: &BTreeSet<IpAddr>) -> Result<Option<(IpAddr, u16)>, Error> {
    for family in Family::ALL {
        if let Some(taken) = look(tools, family)?.taken(vips, base) {
            return Ok(Some(taken));
        }
    }
    Ok(None)
}
