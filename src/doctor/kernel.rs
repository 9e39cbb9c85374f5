//! What this kernel can do: layers of the sandbox, queues, NF_REPEAT, matches of iptables, the kernel path.

use super::finding::{Finding, fatal, of_problem, sound, unseen, warning};
use loaded_config::plan::{Fast, Plan};
use loaded_netfilter::trial::{self, Trial};
use loaded_queue::RepeatSupport;
use loaded_sandbox::{CHROOT, KernelSupport, Layer};
use loaded_supervisor::conditions;
use nix::unistd::geteuid;
use std::fs;

/// Layers of the sandbox.
pub(super) fn kernel() -> Vec<Finding> {
    let kernel = KernelSupport::probe();
    let mut findings: Vec<_> = (kernel.absent())
        .map(|layer| warning("kernel", format!("lacks {}: {}", layer.name(), layer.consequence())))
        .collect();
    if findings.is_empty() {
        // Each Landlock ABI adds rights that can be taken away, so its version is shown.
        let names = kernel.findings().iter().map(|finding| match finding.layer {
            Layer::Landlock => format!("Landlock ({})", finding.detail.split(',').next().unwrap_or_default()),
            layer => layer.name().to_owned(),
        });
        let names: Vec<_> = names.collect();
        findings.push(sound("kernel", format!("supports every layer of the sandbox: {}", names.join(", "))));
    }
    findings.push(kernel_queues());
    let sound_chroot = || sound("chroot", format!("{CHROOT} is empty and owned by root"));
    findings.push(conditions::chroot().map_or_else(sound_chroot, |problem| of_problem(&problem)));
    findings
}

/// Whether the kernel has queues: before anybody has asked for one, /proc has no word of them where they are a module.
fn kernel_queues() -> Finding {
    let has = || sound("kernel", "has netfilter queues");
    if !geteuid().is_root() {
        return match fs::exists("/proc/net/netfilter/nfnetlink_queue") {
            Ok(true) => has(),
            _ => unseen(
                "kernel",
                "shows no netfilter queues yet; only root can try whether it has them (module nfnetlink_queue)",
            ),
        };
    }
    trial::has_queues().map_or_else(
        |why| {
            let needs = "modprobe nfnetlink_queue, or a kernel with CONFIG_NETFILTER_NETLINK_QUEUE";
            fatal("kernel", format!("gives no netfilter queue ({why}): {needs}"))
        },
        |()| has(),
    )
}

/// What this kernel does with NF_REPEAT: tried out, as at every start.
pub(super) fn repeat() -> Finding {
    const LOST: &str = "packets that a killed worker holds would be dropped";
    if !geteuid().is_root() {
        return unseen("repeat", "only root can try whether this kernel repeats packets");
    }
    match Trial::begin().result() {
        RepeatSupport::Repeats => sound("repeat", "packets pass through the rules again on NF_REPEAT"),
        RepeatSupport::Accepts => warning(
            "repeat",
            format!(
                "this kernel accepts packets that it is told to repeat (NF_REPEAT): {LOST}, and a firewall that drops \
                 INVALID packets ends all connections; use another kernel (uname -r shows this one)"
            ),
        ),
        RepeatSupport::Unknown(why) => {
            warning("repeat", format!("could not be tried ({why}): {LOST}; try again: loaded doctor"))
        }
    }
}

/// The iptables matches and targets our rules need: each is tried in a separate network namespace.
pub(super) fn matches() -> Vec<Finding> {
    if !geteuid().is_root() {
        return vec![unseen("matches", "only root can try which matches iptables has")];
    }
    let missing = match trial::missing_parts() {
        Ok(missing) => missing,
        Err(why) => return vec![unseen("matches", format!("could not be tried: {why}"))],
    };
    judge_matches(&missing)
}

/// What it means that these are missing.
fn judge_matches(missing: &[&str]) -> Vec<Finding> {
    let without = |module: &str| match module {
        "xt_socket" => Some("the kernel does not reassemble fragments, so workers track fragments themselves"),
        "xt_rpfilter" => {
            Some("packets in a backend's name are believed whatever interface they come by, as with asymmetric = true")
        }
        _ => None,
    };
    let needed: Vec<_> = missing.iter().copied().filter(|module| without(module).is_none()).collect();
    let mut findings: Vec<_> = missing
        .iter()
        .filter_map(|module| Some(warning("matches", format!("{}: modprobe {module}, and restart", without(module)?))))
        .collect();
    if !needed.is_empty() {
        let text = format!("rules cannot be installed without these modules: modprobe {}", needed.join(" "));
        findings.push(fatal("matches", text));
    }
    if findings.is_empty() {
        let all = trial::PARTS.map(|part| part.0).join(", ");
        findings.push(sound("matches", format!("iptables has everything our rules need: {all}")));
    }
    findings
}

/// The kernel path, if it is wanted: tried out, as at every start.
pub(super) fn kernel_path(plan: &Plan) -> Option<Finding> {
    if plan.fast == Fast::Off {
        return None;
    }
    if !geteuid().is_root() {
        return Some(unseen("kernel path", "only root can try whether this kernel takes the program"));
    }
    let refused = |why| {
        let needs = "Linux 5.12 or later with CONFIG_BPF_SYSCALL and CONFIG_NET_CLS_BPF, CAP_BPF and CAP_PERFMON";
        warning("kernel path", format!("{why}; all packets would go by the queue. It needs {needs}"))
    };
    Some(conditions::kernel_path().map_or_else(refused, |()| sound("kernel path", "this kernel takes the program")))
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;

    #[test]
    fn rules_can_do_without_some_matches() {
        let grades = |missing| judge_matches(missing).iter().map(|finding| finding.grade).collect::<Vec<_>>();
        assert_eq!(grades(&[]), [Grade::Sound]);
        assert_eq!(grades(&["xt_socket", "xt_rpfilter"]), [Grade::Warning, Grade::Warning]);
        assert_eq!(grades(&["xt_bpf", "xt_rpfilter"]), [Grade::Warning, Grade::Fatal]);
        let found = judge_matches(&["xt_bpf", "xt_CT", "xt_socket"]);
        assert!(found[0].text.contains("modprobe xt_socket"), "{}", found[0].text);
        assert!(found[1].text.ends_with("modprobe xt_bpf xt_CT"), "{}", found[1].text);
    }
}
