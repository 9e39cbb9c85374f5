//! What else is hooked in where packets come in.

use super::{Finding, errors, sound, unseen, warning};
use crate::rules::{Family, Tools};
use nix::unistd::geteuid;
use std::fs;

/// Where our rules are: raw PREROUTING (NF_IP_PRI_RAW, include/uapi/linux/netfilter_ipv4.h).
const RAW: i32 = -300;

/// Connection tracking, and rules of others that see packets before ours.
pub(super) fn findings() -> Vec<Finding> {
    let mut findings =
        vec![conntrack(fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").ok().as_deref())];
    if !geteuid().is_root() {
        findings.push(unseen("firewall", "what is hooked in before us only root can see"));
        return findings;
    }
    let Ok(tools) = Tools::find() else { return findings };
    let saved = Family::ALL.map(|family| tools.save(family).map(|text| before_ours(&text)).unwrap_or_default());
    let mut foreign: Vec<String> = saved.concat();
    if let Some(Ok(chains)) = tools.nft(&["list", "chains"]) {
        foreign.extend(early_chains(&chains));
    }
    match foreign.is_empty() {
        true => findings.push(sound("firewall", "no rule of others comes before ours")),
        false => findings.extend(foreign.into_iter().map(|what| {
            warning("firewall", format!("{what}: packets it takes never reach a worker; see that it lets a VIP's pass"))
        })),
    }
    findings.extend(errors::findings(&tools));
    findings
}

fn conntrack(count: Option<&str>) -> Finding {
    match count.map(str::trim) {
        None => sound("conntrack", "is not loaded"),
        Some(count) => sound(
            "conntrack",
            format!(
                "is loaded ({count} entries); balanced packets are not tracked: a firewall that drops by default must \
                 accept the state UNTRACKED for them"
            ),
        ),
    }
}

/// Rules in raw PREROUTING above our jump; all of them while none of ours is there.
fn before_ours(saved: &str) -> Vec<String> {
    let raw = saved.lines().skip_while(|line| *line != "*raw").take_while(|line| *line != "COMMIT");
    let rules = raw.filter(|line| line.starts_with("-A PREROUTING "));
    let first = rules.take_while(|line| !line.starts_with("-A PREROUTING -j LOADED-"));
    first.map(|rule| format!("rule `{rule}` of the table raw")).collect()
}

/// Chains of nftables hooked into prerouting before raw, or into ingress, as `nft list chains` shows them.
fn early_chains(listed: &str) -> Vec<String> {
    let (mut table, mut chain) = ("", "");
    let mut early = Vec::new();
    for line in listed.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        } else if is_early(line) {
            early.push(format!("chain {chain} of the nftables table {table}"));
        }
    }
    early
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
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_before_our_jump_is_named() {
        let saved = "*nat\n-A PREROUTING -j DNAT\nCOMMIT\n*raw\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -s 192.0.2.9/32 -j DROP\n\
                     -A PREROUTING -j LOADED-0\n-A PREROUTING -p tcp -j ACCEPT\nCOMMIT\n";
        assert_eq!(before_ours(saved), ["rule `-A PREROUTING -s 192.0.2.9/32 -j DROP` of the table raw"]);
        assert!(before_ours("*filter\nCOMMIT\n").is_empty());
    }

    #[test]
    fn chains_hooked_in_before_raw_are_named() {
        let listed = "table ip raw {\n\tchain PREROUTING {\n\t\ttype filter hook prerouting priority raw; policy accept;\n\t}\n}\n\
                      table inet mine {\n\tchain early {\n\t\ttype filter hook prerouting priority -301; policy drop;\n\t}\n\
                      \tchain raw5 {\n\t\ttype filter hook prerouting priority raw - 5; policy accept;\n\t}\n\tchain plain {\n\t}\n}\n\
                      table netdev n {\n\tchain in {\n\t\ttype filter hook ingress device \"eth0\" priority filter; policy accept;\n\t}\n}\n";
        let expected = [
            "early of the nftables table inet mine",
            "raw5 of the nftables table inet mine",
            "in of the nftables table netdev n",
        ];
        assert_eq!(early_chains(listed), expected.map(|name| format!("chain {name}")));
    }
}
