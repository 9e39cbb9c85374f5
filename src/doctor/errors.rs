//! Rules that would drop the ICMP errors this host's kernel sends about balanced packets. Those packets are untracked, so
//! errors about them count as INVALID whatever the rules in raw say (`nf_conntrack_attach`,
//! net/netfilter/nf_conntrack_core.c). Without these errors path MTU discovery hangs.

use super::finding::{Finding, warning};
use loaded_netfilter::{Family, Tools};
use std::collections::BTreeSet;

const INVALID: &str = "invalid";

/// Rules of both families, reached from OUTPUT, that drop INVALID packets.
pub(super) fn findings(tools: &Tools) -> Vec<Finding> {
    let saved = Family::ALL.map(|family| tools.save(family).unwrap_or_default());
    let programs = [("iptables", "icmp"), ("ip6tables", "ipv6-icmp")].into_iter().zip(&saved);
    let mut rules: Vec<(String, String)> = programs
        .flat_map(|((program, icmp), text)| {
            let cure = move |rule: &String| {
                let chain = rule.split(' ').nth(1).unwrap_or_default().to_owned();
                format!("{program} -I {chain} -p {icmp} -j ACCEPT")
            };
            dropping(text, icmp).into_iter().map(move |rule| (format!("rule `{rule}`"), cure(&rule)))
        })
        .collect();
    if let Some(Ok(listed)) = tools.nft(&["-s", "list", "ruleset"]) {
        rules.extend(dropping_nft(&listed, &saved));
    }
    let text = |(rule, cure)| {
        format!(
            "{rule} drops this host's own ICMP errors about balanced packets, so transfers hang where one of its \
             links has a small MTU: {cure}"
        )
    };
    rules.into_iter().map(|rule| warning("firewall", text(rule))).collect()
}

/// Such rules in the output of iptables-save, also in chains that OUTPUT jumps to.
fn dropping(saved: &str, icmp: &str) -> Vec<String> {
    saved.split("COMMIT\n").flat_map(|table| in_table(table, icmp)).collect()
}

fn in_table(table: &str, icmp: &str) -> Vec<String> {
    let rules: Vec<Vec<&str>> = table.lines().map(|line| line.split(' ').collect()).collect();
    let mut chains = BTreeSet::from(["OUTPUT"]);
    loop {
        let inside = |rule: &&Vec<&str>| is_for_icmp(rule) && after(rule, "-A").is_some_and(|c| chains.contains(c));
        let targets = rules.iter().filter(inside).filter_map(|rule| after(rule, "-j").or(after(rule, "-g")));
        let found: BTreeSet<_> = targets.chain(chains.iter().copied()).collect();
        if found.len() == chains.len() {
            // What a chain has accepted does not reach its later rules.
            let passes =
                |chain: &str| rules.iter().position(|rule| rule[..] == ["-A", chain, "-p", icmp, "-j", "ACCEPT"]);
            let passed =
                |(at, rule): &(usize, &Vec<&str>)| after(rule, "-A").and_then(passes).is_some_and(|first| first < *at);
            let drops = |(_, rule): &(usize, &Vec<&str>)| inside(rule) && takes_invalid(rule);
            let rules = rules.iter().enumerate().filter(drops).filter(|rule| !passed(rule));
            return rules.map(|(_, rule)| rule.join(" ")).collect();
        }
        chains = found;
    }
}

/// The word that follows this one.
fn after<'r>(rule: &[&'r str], word: &str) -> Option<&'r str> {
    rule.iter().position(|other| *other == word).and_then(|at| rule.get(at + 1).copied())
}

fn is_for_icmp(rule: &[&str]) -> bool {
    after(rule, "-p").is_none_or(|protocol| protocol.contains("icmp"))
}

fn takes_invalid(rule: &[&str]) -> bool {
    let Some(at) = rule.iter().position(|word| matches!(*word, "--ctstate" | "--state")) else { return false };
    let named = rule.get(at + 1).is_some_and(|states| states.split(',').any(|s| s.eq_ignore_ascii_case(INVALID)));
    let negated = at > 0 && rule.get(at - 1) == Some(&"!");
    named != negated && matches!(after(rule, "-j"), Some("DROP" | "REJECT"))
}

/// Such rules in nftables chains hooked into output, except tables that iptables-save has shown already.
fn dropping_nft(listed: &str, saved: &[String; 2]) -> Vec<(String, String)> {
    const PASSES: &str = "meta l4proto { icmp, ipv6-icmp } accept";
    let shown = |table: &str| {
        let (saved, name) = match table.split_once(' ') {
            Some(("ip", name)) => (&saved[0], name),
            Some(("ip6", name)) => (&saved[1], name),
            _ => return false,
        };
        saved.lines().any(|line| line.strip_prefix('*') == Some(name))
    };
    let (mut table, mut chain, mut hooked) = ("", "", false);
    let mut rules = Vec::new();
    for line in listed.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            (chain, hooked) = (name.trim_end_matches(" {"), false);
        } else if line.contains(" hook output ") {
            hooked = !shown(table);
        } else if line == PASSES {
            hooked = false;
        } else if hooked && takes_invalid_nft(line) {
            rules.push((
                format!("rule `{line}` in chain {chain} of the nftables table {table}"),
                format!("nft 'insert rule {table} {chain} {PASSES}'"),
            ));
        }
    }
    rules
}

/// As `ct state invalid drop`, or in a set or a map of verdicts.
fn takes_invalid_nft(line: &str) -> bool {
    let Some((_, states)) = line.split_once("ct state ") else { return false };
    let Some((before, rest)) = states.split_once(INVALID) else { return false };
    let rest = if before.contains("vmap") { rest.split(',').next().unwrap_or(rest) } else { rest };
    let of_others = ["meta l4proto tcp", "meta l4proto udp", "tcp ", "udp "].iter().any(|word| line.starts_with(word));
    !before.contains("!=") && !of_others && (rest.contains("drop") || rest.contains("reject"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_drop_what_is_invalid_on_its_way_out_are_named() {
        let saved = "*raw\n-A OUTPUT -j LOADED-0-O\nCOMMIT\n*filter\n:OUTPUT ACCEPT [0:0]\n\
                     -A INPUT -m conntrack --ctstate INVALID -j DROP\n\
                     -A OUTPUT -p tcp -m conntrack --ctstate INVALID -j DROP\n\
                     -A OUTPUT -m conntrack --ctstate INVALID -j ACCEPT\n\
                     -A OUTPUT -m conntrack ! --ctstate INVALID -j DROP\n\
                     -A OUTPUT -m state --state NEW,INVALID -j DROP\n\
                     -A OUTPUT -j out\n-A out -g out2\n-A out2 -g out\n\
                     -A out2 -m conntrack ! --ctstate RELATED,ESTABLISHED -j REJECT\n\
                     -A unused -m conntrack --ctstate INVALID -j DROP\nCOMMIT\n";
        let expected = [
            "-A OUTPUT -m state --state NEW,INVALID -j DROP",
            "-A out2 -m conntrack ! --ctstate RELATED,ESTABLISHED -j REJECT",
        ];
        assert_eq!(dropping(saved, "icmp"), expected);
        let passing = saved.replace(":OUTPUT ACCEPT [0:0]\n", "-A OUTPUT -p icmp -j ACCEPT\n");
        assert_eq!(dropping(&passing, "icmp"), expected[1..]);
        assert_eq!(dropping(&passing, "ipv6-icmp"), expected);
    }

    #[test]
    fn nftables_are_read_where_iptables_does_not_show_them() {
        let listed = "table inet mine {\n\tchain in {\n\t\ttype filter hook input priority filter; policy accept;\n\
                      \t\tct state invalid drop\n\t}\n\tchain out {\n\
                      \t\ttype filter hook output priority filter; policy accept;\n\
                      \t\tct state vmap { established : accept, invalid : drop, related : accept }\n\
                      \t\tct state vmap { invalid : accept, new : drop }\n\t\ttcp dport 80 ct state invalid drop\n\
                      \t\tct state != invalid drop\n\t\tct state { invalid, untracked } counter drop\n\t}\n}\n\
                      table ip filter {\n\tchain OUTPUT {\n\t\ttype filter hook output priority filter; policy accept;\n\
                      \t\tct state invalid counter drop\n\t}\n}\n";
        let saved = ["*filter\nCOMMIT\n".to_owned(), String::new()];
        let named = dropping_nft(listed, &saved);
        assert_eq!(named.len(), 2, "{named:?}");
        assert!(named.iter().all(|(rule, _)| rule.ends_with("in chain out of the nftables table inet mine")));
        assert!(named[0].0.starts_with("rule `ct state vmap { established"), "{named:?}");
        assert!(named[1].0.starts_with("rule `ct state { invalid, untracked }"), "{named:?}");
        assert_eq!(dropping_nft(listed, &[String::new(), String::new()]).len(), 3);
        let cure = "nft 'insert rule inet mine out meta l4proto { icmp, ipv6-icmp } accept'";
        assert_eq!(named[0].1, cure);
        let accept = "policy accept;\n\t\tmeta l4proto { icmp, ipv6-icmp } accept\n";
        assert!(dropping_nft(&listed.replace("policy accept;\n", accept), &saved).is_empty());
    }
}
