//! Removes the rules of an instance that ends, and what dead ones have left.
//!
//! Removal takes two steps, because removing a netfilter *hook* flushes the waiting packets of every queue in the network
//! namespace (nf_unregister_net_hook → nf_queue_nf_hook_drop → nfqnl_nf_hook_drop). Rules and chains can be removed at any
//! time, but two things hold a hook: the last xt_socket match (it enabled defragmentation) and the base chains that nft
//! makes for PREROUTING and OUTPUT. They go once no packet waits.

use super::chain;
use super::chain::Matches;
use super::present::look;
use super::rule_set::{RuleSet, transaction};
use crate::error::wrap;
use crate::{Error, Family, Tools};
use loaded_queue::queue_owners;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often [`super::Installed::tidy`] checks whether packets still wait: for half a second in all.
const DRAIN_LOOKS: u32 = 100;
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(5);

/// Removes the chains of instances that were killed before they could do it themselves. `owned` tells whether a queue is
/// bound ([`queue_owners`]) *or about to be ours*: an instance with one such queue is left alone, and
/// [`super::Installed::install`] replaces our own leftovers without a gap. Returns log lines of what was done.
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

pub(super) fn remove(tools: &Tools, family: Family, base: u16) -> Result<(), Error> {
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

pub(super) fn tidy(tools: &Tools, family: Family, base: u16) -> Option<String> {
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
