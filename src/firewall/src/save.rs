//! Rules of iptables, from the text of iptables-save.

mod options;

use crate::rule::{Base, ChainOrder, Dialect, Hook, Rule, RuleName, Ruling, Table};
use loaded_netfilter::Family;
use options::matches;
pub(crate) use options::{flags, network, protocol_number};
use std::collections::BTreeMap;

/// The tables that balanced packets meet, with their priority (include/uapi/linux/netfilter_ipv4.h). Those of `nat` see
/// tracked connections alone.
const TABLES: [(&str, i32); 4] = [("raw", -300), ("mangle", -150), ("filter", 0), ("security", 50)];
const HOOKS: [(&str, Hook); 3] =
    [("PREROUTING", Hook::Prerouting), ("FORWARD", Hook::Forward), ("POSTROUTING", Hook::Postrouting)];
/// Chains of ours, and of other instances, start with this.
const OURS: &str = "LOADED-";

/// All tables of one family. `base`: the queue base of our instance, whose jump splits the chain PREROUTING of raw; while it
/// is missing it counts as the first rule, which is where it will be.
pub(crate) fn tables(family: Family, saved: &str, base: Option<u16>) -> Vec<Table> {
    let mut tables = Vec::new();
    for text in saved.split_inclusive("COMMIT\n") {
        let name = text.lines().find_map(|line| line.strip_prefix('*'));
        if let Some((name, priority)) = name.and_then(|name| TABLES.into_iter().find(|(known, _)| *known == name)) {
            tables.push(table(family, name, priority, text, base));
        }
    }
    tables
}

fn table(family: Family, name: &str, priority: i32, text: &str, base: Option<u16>) -> Table {
    let declared = text.lines().filter_map(|line| line.strip_prefix(':')?.split_once(' '));
    let declared: BTreeMap<_, _> = declared.collect();
    let mut chains: BTreeMap<String, Vec<Rule>> =
        declared.keys().map(|chain| ((*chain).to_owned(), Vec::new())).collect();
    for line in text.lines().filter(|line| line.starts_with("-A ")) {
        let words = words(line);
        let Some(chain) = words.get(1) else { continue };
        let rule = rule(line, &words[2..], &|target| declared.contains_key(target));
        chains.entry(chain.clone()).or_default().push(rule);
    }
    let mut bases = Vec::new();
    for (chain, hook) in HOOKS {
        let (Some(policy), Some(rules)) = (declared.get(chain), chains.get(chain)) else { continue };
        let whole = Base {
            chain: chain.to_owned(),
            hook,
            priority,
            drops: policy.starts_with("DROP"),
            devices: Vec::new(),
            rules: (0, rules.len()),
            order: ChainOrder::Behind,
        };
        if name == "raw" && hook == Hook::Prerouting {
            bases.extend(split(whole, rules, base));
        } else {
            bases.push(whole);
        }
    }
    Table { dialect: Dialect::Iptables(family), families: vec![family], name: name.to_owned(), chains, bases }
}

/// What is above our jump, and what is below it.
fn split(whole: Base, rules: &[Rule], base: Option<u16>) -> Vec<Base> {
    let is_ours = |rule: &Rule| match (&rule.name, base) {
        (RuleName::Text(text), Some(base)) => *text == format!("-A PREROUTING -j {OURS}{base}"),
        _ => false,
    };
    let jump = rules.iter().position(is_ours);
    // The policy is for what comes to the end of the chain: it is told once.
    let above = Base { rules: (0, jump.unwrap_or(0)), order: ChainOrder::Before, drops: false, ..whole.clone() };
    let below = Base { rules: (jump.map_or(0, |at| at + 1), rules.len()), order: ChainOrder::Below, ..whole };
    vec![above, below]
}

fn rule(line: &str, words: &[String], is_chain: &dyn Fn(&str) -> bool) -> Rule {
    let target = words.iter().position(|word| word == "-j" || word == "-g");
    let asked = matches(&words[..target.unwrap_or(words.len())]);
    let to = target.and_then(|at| words.get(at + 1)).map_or("", String::as_str);
    let goes = target.is_some_and(|at| words[at] == "-g");
    let ruling = match to {
        _ if to.starts_with(OURS) => Ruling::Nothing,
        _ if goes => Ruling::Goto(to.to_owned()),
        _ if is_chain(to) => Ruling::Jump(to.to_owned()),
        "NFQUEUE" => queues(words),
        _ => ruling(to),
    };
    Rule { matches: asked, ruling, name: RuleName::Text(line.to_owned()) }
}

/// What a target does; what is not known may do anything.
fn ruling(target: &str) -> Ruling {
    match target {
        "ACCEPT" => Ruling::Accept,
        // TPROXY gives a packet to a socket of this host, or drops it (xt_TPROXY.c): it does not go on.
        "DROP" | "REJECT" | "TARPIT" | "DELUDE" | "CHAOS" | "TPROXY" => Ruling::Drop,
        "RETURN" => Ruling::Return,
        "" | "AUDIT" | "CHECKSUM" | "CLASSIFY" | "CONNMARK" | "CONNSECMARK" | "CT" | "DNAT" | "DSCP" | "ECN" | "HL"
        | "IDLETIMER" | "LED" | "LOG" | "MARK" | "MASQUERADE" | "NETMAP" | "NFLOG" | "NOTRACK" | "RATEEST"
        | "REDIRECT" | "SECMARK" | "SET" | "SNAT" | "TCPMSS" | "TCPOPTSTRIP" | "TEE" | "TOS" | "TRACE" | "TTL"
        | "ULOG" => Ruling::Nothing,
        _ => Ruling::Hands,
    }
}

/// What `-j NFQUEUE` does: with `--queue-bypass` the kernel accepts what nobody reads.
fn queues(words: &[String]) -> Ruling {
    let of = |option: &str| words.iter().skip_while(|word| *word != option).nth(1).map(String::as_str);
    let span = of("--queue-balance").or_else(|| of("--queue-num")).unwrap_or("0");
    let (first, last) = span.split_once(':').unwrap_or((span, span));
    match (first.parse(), last.parse()) {
        (Ok(first), Ok(last)) if !words.iter().any(|word| word == "--queue-bypass") => Ruling::Queues(first, last),
        _ => Ruling::Hands,
    }
}

/// The words of a rule: between blanks, or in quotes with `\` before a quote (xtables_save_string).
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let (mut quoted, mut escaped) = (false, false);
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.get_or_insert_default().push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            ' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests;
