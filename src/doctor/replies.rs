//! Where replies come from: what `asymmetric = true` opens, whether packets in backends' names come by other interfaces than
//! the routes to the backends lead through, and where clients come by the same.

use super::finding::{Finding, sound, unseen, warning};
use loaded_config::network::Network;
use loaded_config::plan::{Plan, Service};
use loaded_host::shared_interfaces;
use loaded_ipc::Mode;
use loaded_netfilter::{Tools, refused_replies, refused_replies_text};
use std::collections::BTreeSet;

/// So many backends of an interface are named.
const NAMED: usize = 4;

/// Judges the services of a plan and, as root, what the rules of its instance have counted.
pub(super) fn findings(plan: &Plan) -> Vec<Finding> {
    let translating = || plan.services.iter().filter(|service| service.mode == Mode::Nat);
    let mut findings: Vec<_> = translating().filter(|service| service.policy.asymmetric).map(open).collect();
    let elsewhere = Tools::find().map_or(0, |tools| refused_replies(&tools, plan.queue_base));
    if elsewhere > 0 {
        findings.push(warning("replies", refused_replies_text(elsewhere)));
    }
    match shared_interfaces(plan) {
        Ok(all) => findings.extend(all.iter().map(|(interface, backends)| shared(interface, backends))),
        Err(error) => {
            findings.push(unseen("replies", format!("which interfaces lead to clients and backends: {error}")));
        }
    }
    if findings.is_empty() && translating().next().is_some() {
        findings.push(sound("replies", "come only by an interface that the route to their backend leads through"));
    }
    findings
}

/// No route tells clients from backends where both come by one interface.
fn shared(interface: &str, backends: &BTreeSet<Network>) -> Finding {
    let name = |network: &Network| {
        let text = network.to_string();
        let whole = if text.contains(':') { "/128" } else { "/32" };
        text.strip_suffix(whole).map_or_else(|| text.clone(), ToOwned::to_owned)
    };
    let mut names: Vec<_> = backends.iter().take(NAMED).map(name).collect();
    if backends.len() > NAMED {
        names.push(format!("{} more", backends.len() - NAMED));
    }
    let text = format!(
        "clients come by {interface} too, through which the route to these backends leads: {}; so whoever can send \
         packets in their name there opens flows, and makes backends look as if they refused; give backends an \
         interface of their own, or drop packets with their addresses at the edge, where they come from outside: nft, \
         on the router, iifname OUTSIDE ip saddr BACKENDS drop",
        names.join(", ")
    );
    warning("replies", text)
}

fn open(service: &Service) -> Finding {
    let text = format!(
        "asymmetric = true in service {:?}: replies are believed by whatever interface they come, so whoever can send packets in \
         a backend's name opens flows, and makes backends look as if they refused; drop packets with backends' addresses where \
         clients come in: nft, priority -310, iifname CLIENTS ip saddr BACKENDS drop",
        service.name
    );
    warning("replies", text)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Grade;
    use super::*;

    #[test]
    fn an_interface_that_clients_share_with_backends_is_a_warning() {
        let network = |host: u8| Network::around([192, 0, 2, host].into(), 32);
        let said = |last| shared("eth0", &(50..=last).filter_map(network).collect());
        assert_eq!(said(50).grade, Grade::Warning);
        assert!(
            !said(51).text.contains("  ") && said(51).text.starts_with("clients come by eth0 too"),
            "{}",
            said(51).text
        );
        assert!(said(51).text.contains("leads: 192.0.2.50, 192.0.2.51; so whoever"), "{}", said(51).text);
        assert!(said(56).text.contains("192.0.2.53, 3 more; so whoever"), "{}", said(56).text);
    }
}
