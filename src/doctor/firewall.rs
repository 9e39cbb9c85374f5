//! Firewall rules of others that see packets before ours do.

use super::finding::{Finding, sound, unseen, warning};
use super::{conntrack, errors};
use loaded_netfilter::{Family, Tools};
use nix::unistd::geteuid;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Priority of our rules: raw PREROUTING (NF_IP_PRI_RAW, include/uapi/linux/netfilter_ipv4.h).
const RAW: i32 = -300;

/// Checks connection tracking and rules of others that run before ours. Packets to `vips` must get through.
pub(super) fn findings(vips: &BTreeSet<IpAddr>) -> Vec<Finding> {
    if !geteuid().is_root() {
        return vec![unseen("firewall", "only root can see what is hooked in before us")];
    }
    let Ok(tools) = Tools::find() else { return Vec::new() };
    let saved = Family::ALL.map(|family| tools.save(family).unwrap_or_default());
    let mut findings = conntrack::findings(&saved);
    let programs = ["iptables", "ip6tables"].into_iter().zip(&saved);
    let mut foreign: Vec<String> = programs.flat_map(|(program, text)| before_ours(program, text)).collect();
    if let Some(Ok(ruleset)) = tools.nft(&["-s", "list", "ruleset"]) {
        foreign.extend(early_chains(&ruleset, vips));
    }
    match foreign.is_empty() {
        true => findings.push(sound("firewall", "no foreign rule takes packets before ours")),
        false => findings.extend(foreign.into_iter().map(|what| warning("firewall", what))),
    }
    findings.extend(errors::findings(&tools));
    findings
}

/// Rules in raw PREROUTING above our jump. None while our jump is missing: it will be inserted at the top.
fn before_ours(program: &str, saved: &str) -> Vec<String> {
    let raw = saved.lines().skip_while(|line| *line != "*raw").take_while(|line| *line != "COMMIT");
    let rules: Vec<_> = raw.filter_map(|line| line.strip_prefix("-A PREROUTING ")).collect();
    let ours = rules.iter().position(|rule| rule.starts_with("-j LOADED-")).unwrap_or(0);
    let text = |rule: &&str| {
        let raw = format!("{program} -t raw");
        format!(
            "rule `-A PREROUTING {rule}` of the table raw comes before ours, and no worker sees what it takes; to \
             move it behind ours: {raw} -D PREROUTING {rule} && {raw} -A PREROUTING {rule}"
        )
    };
    rules.iter().take(ours).map(text).collect()
}

/// nftables chains, from `nft list ruleset`, that are hooked into ingress or into prerouting before raw and may take packets
/// to a VIP, by policy or by a rule, unless an earlier rule accepts packets to every VIP.
fn early_chains(ruleset: &str, vips: &BTreeSet<IpAddr>) -> Vec<String> {
    let (mut table, mut chain, mut early) = ("", "", false);
    let (mut by_policy, mut taken) = (false, false);
    let mut accepted = BTreeSet::new();
    let mut named = Vec::new();
    for line in ruleset.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            (chain, early, taken) = (name.trim_end_matches(" {"), false, false);
            accepted.clear();
        } else if is_early(line) {
            (early, by_policy) = (true, line.contains("policy drop"));
        } else if line == "}" {
            let missing: Vec<_> = vips.iter().filter(|vip| !accepted.contains(*vip)).collect();
            if early && (by_policy || taken) && (!missing.is_empty() || vips.is_empty()) {
                named.push(early_chain(table, chain, &missing));
            }
            early = false;
        } else if early {
            match accepts(line) {
                // After a rule that takes packets an accept is too late; the policy comes last.
                Some(vip) if !taken => drop(accepted.insert(vip)),
                _ => taken |= takes_packets(line),
            }
        }
    }
    named
}

fn early_chain(table: &str, chain: &str, missing: &[&IpAddr]) -> String {
    let insert = missing.iter().map(|vip| {
        let family = if vip.is_ipv4() { "ip" } else { "ip6" };
        format!("nft insert rule {table} {chain} {family} daddr {vip} accept")
    });
    let insert: Vec<_> = insert.collect();
    let cure = if insert.is_empty() { format!("nft list chain {table} {chain}") } else { insert.join(" && ") };
    format!("chain {chain} of the nftables table {table} comes before ours and may take packets to a VIP: {cure}")
}

/// The address in `ip daddr 192.0.2.1 accept`.
fn accepts(rule: &str) -> Option<IpAddr> {
    let &[_, "daddr", address, "accept"] = rule.split(' ').collect::<Vec<_>>().as_slice() else { return None };
    address.parse().ok()
}

/// Whether a rule has a statement that drops, queues or diverts packets.
fn takes_packets(rule: &str) -> bool {
    const TAKE: [&str; 11] =
        ["drop", "reject", "queue", "jump", "goto", "fwd", "tproxy", "dnat", "redirect", "vmap", "synproxy"];
    rule.split(' ').any(|word| TAKE.contains(&word))
}

fn is_early(line: &str) -> bool {
    let Some((_, hook)) = line.split_once(" hook ") else { return false };
    let mut words = hook.split([' ', ';']).filter(|word| !word.is_empty());
    match (words.next(), words.find(|word| *word == "priority").and_then(|_| words.next())) {
        (Some("ingress"), _) => true,
        // Named ones are raw (our own place) and later, `raw - 5` is written as a number by nft.
        (Some("prerouting"), Some(priority)) => match (priority, words.next(), words.next()) {
            ("raw", Some("-"), _) => true,
            (number, ..) => number.parse::<i32>().is_ok_and(|number| number < RAW),
        },
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_before_our_jump_is_named() {
        let saved = "*nat\n-A PREROUTING -j DNAT\nCOMMIT\n*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -s 192.0.2.9/32 -j DROP\n\
                     -A PREROUTING -j LOADED-0\n-A PREROUTING -p tcp -j ACCEPT\nCOMMIT\n";
        let named = before_ours("iptables", saved);
        let rule = "PREROUTING -s 192.0.2.9/32 -j DROP";
        let cure = format!(": iptables -t raw -D {rule} && iptables -t raw -A {rule}");
        assert!(
            named.len() == 1 && named[0].starts_with(&format!("rule `-A {rule}`")) && named[0].ends_with(&cure),
            "{named:?}"
        );
        assert!(before_ours("iptables", "*filter\nCOMMIT\n").is_empty());
        assert!(before_ours("iptables", &saved.replace("LOADED-0", "other")).is_empty(), "ours goes to the top");
    }

    #[test]
    fn chains_that_take_packets_before_raw_are_named() {
        let chain = |name: &str, hook: &str, policy: &str, rules: &str| {
            format!("\tchain {name} {{\n\t\ttype filter hook {hook}; policy {policy};\n{rules}\t}}\n")
        };
        let accept = "\t\tip daddr 192.0.2.1 accept\n\t\tip6 daddr 2001:db8::1 accept\n";
        let listed = [
            "table ip raw {\n".to_owned(),
            chain("PREROUTING", "prerouting priority raw", "drop", ""),
            "}\ntable inet mine {\n".to_owned(),
            chain("early", "prerouting priority -301", "drop", ""),
            chain("raw5", "prerouting priority raw - 5", "accept", "\t\tudp dport 53 queue to 7\n"),
            chain("late_accept", "prerouting priority -400", "accept", &format!("\t\ttcp dport 80 drop\n{accept}")),
            chain("counts", "prerouting priority -400", "accept", "\t\tcounter\n"),
            chain("lets", "prerouting priority -400", "drop", &format!("{accept}\t\tdrop\n")),
            "\tchain plain {\n\t\tdrop\n\t}\n}\ntable netdev n {\n".to_owned(),
            chain("in", "ingress device \"eth0\" priority filter", "accept", "\t\tip saddr 192.0.2.9 drop\n"),
            "}\n".to_owned(),
        ];
        let vips = ["192.0.2.1", "2001:db8::1"].map(|vip| vip.parse().unwrap()).into();
        let named = early_chains(&listed.concat(), &vips);
        let chains: Vec<_> = named.iter().map(|text| text.split(' ').nth(1).unwrap()).collect();
        assert_eq!(chains, ["early", "raw5", "late_accept", "in"]);
        let cure = ": nft insert rule inet mine early ip daddr 192.0.2.1 accept && \
                    nft insert rule inet mine early ip6 daddr 2001:db8::1 accept";
        assert!(named[0].ends_with(cure), "{}", named[0]);
        assert!(early_chains(&listed.concat(), &BTreeSet::new())[0].ends_with("nft list chain inet mine early"));
    }
}
