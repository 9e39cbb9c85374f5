//! Installs, changes and removes the rules, in one transaction a family. The present state is read first, so one script can
//! add, replace or remove.
//!
//! Removal takes two steps, because removing a netfilter *hook* flushes the waiting packets of every queue in the network
//! namespace (nf_unregister_net_hook → nf_queue_nf_hook_drop → nfqnl_nf_hook_drop). Rules and chains can be removed at any
//! time, but two things hold a hook: the last xt_socket match (it enabled defragmentation) and the base chains that nft
//! makes for PREROUTING and OUTPUT. They go once no packet waits.

use super::chain;
use super::chain::Matches;
use super::hits;
use super::missing::{Missing, Written};
use super::present::{PresentRules, RawTable};
use super::refused::counted;
use super::rule_set::{RuleSet, transaction};
use crate::{Error, Family, Tools, trial};
use loaded_queue::queue_owners;
use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

/// How often [`Installed::tidy`] checks whether packets still wait: for half a second in all.
const DRAIN_LOOKS: u32 = 100;
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Our rules in the kernel. Dropping this leaves them in place.
#[derive(Debug)]
pub struct Installed {
    rules: RuleSet,
    tools: Tools,
    notes: Vec<String>,
    /// What was written of each family, for [`Installed::missing`].
    written: [Written; 2],
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
                self.written[family as usize] = Written::new(matches);
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

/// Removes the chains of instances that were killed before they could do it themselves. `owned` tells whether a queue is
/// bound ([`queue_owners`]) *or about to be ours*: an instance with one such queue is left alone, and
/// [`Installed::install`] replaces our own leftovers without a gap. Returns log lines of what was done.
///
/// # Errors
/// [`Error::Rules`] when something of a dead instance is there and cannot be removed.
pub fn clean_stale(tools: &Tools, owned: impl Fn(u16) -> bool) -> Result<Vec<String>, Error> {
    let mut notes = Vec::new();
    for family in Family::ALL {
        let instances = look(tools, family)?.instances().into_iter();
        for (base, queues) in instances.filter(|(_, queues)| !queues.iter().any(|queue| owned(*queue))) {
            remove(tools, family, base)?;
            let queues: BTreeSet<_> = queues.iter().collect();
            notes.push(format!("{family}: removed the chains LOADED-{base} of a dead instance (queues {queues:?})"));
            notes.extend(tidy(tools, family, base));
        }
    }
    Ok(notes)
}

/// A virtual IP of these that another instance serves in this network namespace, and the queue base of that instance. Rules of
/// dead ones count too: see [`clean_stale`].
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

fn remove(tools: &Tools, family: Family, base: u16) -> Result<(), Error> {
    let present = look(tools, family)?.of(base);
    if present.chains.is_empty() {
        return Ok(());
    }
    let nothing = RuleSet::nothing(base);
    let script = nothing.script(family, &present, Matches::NONE);
    tools.restore(family, &script).map_err(|e| {
        let kept = script.lines().filter(|line| !line.starts_with("-X"));
        let act = match tools.restore(family, &kept.map(|line| format!("{line}\n")).collect::<String>()) {
            Ok(()) => "delete our chains, which are cut off and empty now (does a foreign rule jump to one?)",
            Err(_) => "remove our chains",
        };
        wrap(family, act, e)
    })
}

fn tidy(tools: &Tools, family: Family, base: u16) -> Option<String> {
    let present = match look(tools, family) {
        Ok(raw) => raw.of(base),
        Err(e) => return Some(e.to_string()),
    };
    if present.chains.is_empty() || !present.jumps.is_empty() {
        return None;
    }
    if !drained() {
        return Some(format!(
            "{family}: the chains {} stay, without effect: packets wait in queues and would be lost; the next start of \
             an instance removes them",
            present.chains.join(" ")
        ));
    }
    let rest = chain::rest(base);
    let rest: Vec<_> = present.chains.iter().filter(|name| rest.contains(name)).collect();
    let lines = ["-F", "-X"].into_iter().flat_map(|act| rest.iter().map(move |name| format!("{act} {name}")));
    if let Err(e) = tools.restore(family, &transaction(lines)) {
        return Some(wrap(family, "delete the last of our chains", e).to_string());
    }
    if present.marked { delete_table(tools, family) } else { None }
}

/// On nft the table and its base chains come with the first rule and stay. Returns a note if they must be left.
fn delete_table(tools: &Tools, family: Family) -> Option<String> {
    let table = format!("table {} raw", family.nft());
    let leave = |why: String| Some(format!("{family}: the raw table that we made stays, empty: {why}"));
    let raw = match look(tools, family) {
        Ok(raw) if raw.exists && raw.is_bare() => raw,
        // Gone already, or in use by somebody else.
        Ok(_) => return None,
        Err(e) => return leave(e.to_string()),
    };
    if !raw.nft {
        return leave("the legacy back end keeps a table until its module is unloaded".into());
    }
    // Empty base chains go by -X, and the kernel refuses if they are not empty; `nft delete table` takes everything that
    // is in the table with it, so it is only used on one that was seen without any chain.
    if let Err(e) = tools.restore(family, "*raw\n-X PREROUTING\n-X OUTPUT\nCOMMIT\n") {
        return leave(e.to_string());
    }
    let Some(listed) = tools.nft(&["list", "table", family.nft(), "raw"]) else {
        return leave("nft is not installed".into());
    };
    match listed {
        Ok(text) if is_empty(&text, &table) => {}
        Ok(_) => return None,
        Err(e) => return leave(e.to_string()),
    }
    tools.nft(&["delete", "table", family.nft(), "raw"])?.err().and_then(|e| leave(e.to_string()))
}

fn is_empty(listed: &str, table: &str) -> bool {
    let lines = listed.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.collect::<Vec<_>>() == [&format!("{table} {{"), "}"]
}

/// Whether no packet waits in any queue, ours or not. Another program's queue may get one right afterwards; netfilter
/// offers no way to close that gap.
fn drained() -> bool {
    let idle = || queue_owners().is_ok_and(|queues| queues.iter().all(|queue| queue.waiting == 0));
    (0..DRAIN_LOOKS).any(|look| {
        if look > 0 {
            std::thread::sleep(DRAIN_LOOK_EVERY);
        }
        idle()
    })
}

fn look(tools: &Tools, family: Family) -> Result<RawTable, Error> {
    tools.save(family).map(|save| RawTable::parse(&save)).map_err(|e| wrap(family, "read them", e))
}

fn wrap(family: Family, act: &'static str, source: Error) -> Error {
    Error::Rules { family, act, source: Box::new(source) }
}
