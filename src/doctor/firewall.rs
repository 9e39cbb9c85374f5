//! Firewall rules of others: what they make of balanced packets, and of this host's own ICMP errors.

use super::finding::{Finding, of_problem, sound, unseen};
use super::{conntrack, errors};
use loaded_config::plan::Plan;
use loaded_firewall::{Firewall, judge};
use loaded_host::Paths;
use loaded_netfilter::Tools;
use loaded_queue::queue_owners;
use nix::unistd::geteuid;

/// Judges the rules that are there now, by the same list of conditions that the verdict of an instance goes by.
pub(super) fn findings(plan: Option<&Plan>) -> Vec<Finding> {
    if !geteuid().is_root() {
        return vec![unseen("firewall", "only root can see the rules of others")];
    }
    let Ok(tools) = Tools::find() else { return Vec::new() };
    let mut findings = vec![conntrack::finding()];
    match plan {
        None => {
            let why =
                "whether it lets balanced packets through depends on a configuration, and none was found (-c FILE)";
            findings.push(unseen("firewall", why));
        }
        Some(plan) => {
            let paths = match Paths::read() {
                Ok(paths) => paths,
                Err(error) => {
                    findings.push(unseen("firewall", format!("this host's addresses and routes: {error}")));
                    return findings;
                }
            };
            let owned = queue_owners().ok().map(|queues| queues.iter().map(|state| state.queue).collect());
            let problems = judge(&Firewall::read(&tools, Some(plan.queue_base), owned.as_ref()), plan, paths);
            findings.extend(problems.iter().map(of_problem));
            if problems.is_empty() {
                findings.push(sound("firewall", "no rule of others takes or drops balanced packets"));
            }
        }
    }
    findings.extend(errors::findings(&tools));
    findings
}
