//! Where replies come from: what `asymmetric = true` opens, and whether packets in backends' names come by other interfaces
//! than the routes to the backends lead through.

use super::finding::{Finding, sound, warning};
use loaded_config::plan::{Plan, Service};
use loaded_ipc::Mode;
use loaded_netfilter::{Family, Tools};

/// Judges the services of a plan and, as root, what the rules of its instance have counted.
pub(super) fn findings(plan: &Plan) -> Vec<Finding> {
    let translating = || plan.services.iter().filter(|service| service.mode == Mode::Nat);
    let mut findings: Vec<_> = translating().filter(|service| service.policy.asymmetric).map(open).collect();
    let elsewhere = Tools::find().map_or(0, |tools| {
        let counted = |family| tools.save_with_counts(family).map_or(0, |saved| refused(&saved, plan.queue_base));
        Family::ALL.into_iter().map(counted).sum()
    });
    if elsewhere > 0 {
        findings.push(warning(
            "replies",
            format!(
                "{elsewhere} packets in a backend's name came by an interface that no route to the backend leads through, and were \
                 taken for no reply: they are forged, or backends answer by another way than they are asked; look: ip route get \
                 BACKEND; then mend the routes, or write asymmetric = true"
            ),
        ));
    }
    if findings.is_empty() && translating().next().is_some() {
        findings.push(sound("replies", "come only by an interface that the route to their backend leads through"));
    }
    findings
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

/// Packets that the rules of the instance with this queue base have not taken for replies. `saved` is the output of
/// `iptables-save -c`, where a rule is "[packets:bytes] -A CHAIN ...".
fn refused(saved: &str, base: u16) -> u64 {
    let chains = [format!("LOADED-{base}-F"), format!("LOADED-{base}-I")];
    let count = |line: &str| {
        let (counts, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
        let (chain, rest) = rule.split_once(' ')?;
        let ours = chains.iter().any(|name| name == chain) && rest.contains("-m rpfilter --invert ");
        if ours { counts.split(':').next()?.parse::<u64>().ok() } else { None }
    };
    saved.lines().filter_map(count).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_rules_of_this_instance_refused_is_counted() {
        let saved = "*raw\n:LOADED-3-F - [0:0]\n[7:420] -A LOADED-3-F -m rpfilter --invert -j RETURN\n\
                     [9:540] -A LOADED-3-F -g LOADED-3-R\n[2:80] -A LOADED-4-F -m rpfilter --invert -j RETURN\n\
                     [4:99] -A LOADED-3-I -m bpf --bytecode \"1,6 0 0 0\" -m rpfilter --invert -j RETURN\n\
                     [1:1] -A PREROUTING -m rpfilter --invert -j DROP\nCOMMIT\n";
        assert_eq!((refused(saved, 3), refused(saved, 4), refused(saved, 5)), (11, 2, 0));
    }
}
