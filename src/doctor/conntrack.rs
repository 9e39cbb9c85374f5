//! Connection tracking: balanced packets are untracked, and a firewall must let them through.

use super::finding::{Finding, fatal, sound, warning};
use std::fs;

const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";
const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// Checks how full the table is, and whether untracked packets are forwarded. `saved` is the output of iptables-save and
/// ip6tables-save.
pub(super) fn findings(saved: &[String; 2]) -> Vec<Finding> {
    let number = |path| fs::read_to_string(path).ok()?.trim().parse().ok();
    let mut findings = vec![table(number(COUNT), number(MAX))];
    let programs = ["iptables", "ip6tables"].into_iter().zip(saved);
    findings.extend(programs.filter(|(_, text)| drops_untracked(text)).map(|(program, _)| {
        fatal(
            "conntrack",
            format!(
                "FORWARD has the policy DROP, and no rule of {program} accepts untracked packets, which balanced \
                 packets are: \
                 {program} -I FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT"
            ),
        )
    }));
    findings
}

/// Balanced packets need no entry; this host's other connections do, and are refused once the table is full.
fn table(count: Option<u64>, max: Option<u64>) -> Finding {
    match (count, max) {
        (None, _) => sound("conntrack", "is not loaded"),
        (Some(count), Some(max)) if max > 0 && count.saturating_mul(10) >= max.saturating_mul(9) => warning(
            "conntrack",
            format!(
                "its table is nearly full ({count} of {max}): balanced packets need no entry, but connections of backends, of \
                 the checks and of this host do: sysctl -w net.netfilter.nf_conntrack_max={}",
                max.saturating_mul(2)
            ),
        ),
        (Some(count), _) => {
            sound("conntrack", format!("is loaded ({count} entries); balanced packets are not tracked"))
        }
    }
}

/// FORWARD has the policy DROP, and none of its own rules accepts untracked packets. A rule that matches a connection
/// state never matches them.
fn drops_untracked(saved: &str) -> bool {
    let filter = || saved.lines().skip_while(|line| *line != "*filter").take_while(|line| *line != "COMMIT");
    let tracked = |rule: &str| {
        let states = rule.split(' ').skip_while(|word| !matches!(*word, "--ctstate" | "--state")).nth(1);
        states.is_some_and(|states| states.split(',').all(|state| state != "UNTRACKED"))
    };
    let accepts = |rule: &&str| {
        let jumps = ["-j ACCEPT", "-g "].iter().any(|jump| rule.contains(jump)) || is_to_a_chain(rule);
        rule.starts_with("-A FORWARD ") && jumps && !tracked(rule)
    };
    filter().any(|line| line.starts_with(":FORWARD DROP")) && !filter().any(|rule| accepts(&rule))
}

/// The operator's own chains are not followed: one may accept.
fn is_to_a_chain(rule: &str) -> bool {
    let target = rule.split(' ').skip_while(|word| *word != "-j").nth(1);
    target.is_some_and(|target| !matches!(target, "DROP" | "REJECT" | "LOG" | "NFLOG" | "RETURN" | "TCPMSS" | "MARK"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Grade;

    #[test]
    fn a_table_that_fills_up_is_named() {
        assert_eq!(table(None, None).grade, Grade::Sound);
        assert_eq!(table(Some(89_999), Some(100_000)).grade, Grade::Sound);
        let full = table(Some(90_000), Some(100_000));
        assert!(full.grade == Grade::Warning && full.text.ends_with("nf_conntrack_max=200000"), "{}", full.text);
    }

    #[test]
    fn a_firewall_that_forwards_only_what_is_tracked_is_named() {
        let with = |rules: &str| format!("*nat\n:FORWARD DROP\nCOMMIT\n*filter\n:FORWARD DROP [0:0]\n{rules}COMMIT\n");
        let established = "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n";
        assert!(drops_untracked(&with("")) && drops_untracked(&with(established)));
        assert!(drops_untracked(&with("-A INPUT -j ACCEPT\n-A FORWARD -j LOG\n")));
        for rule in [
            "-A FORWARD -m conntrack --ctstate UNTRACKED -j ACCEPT\n",
            "-A FORWARD -m conntrack --ctstate ESTABLISHED,UNTRACKED -j ACCEPT\n",
            "-A FORWARD -d 198.51.100.0/24 -j ACCEPT\n",
            "-A FORWARD -j ours\n",
        ] {
            assert!(!drops_untracked(&with(&format!("{established}{rule}"))), "{rule}");
        }
        assert!(!drops_untracked("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"));
    }
}
