//! Programs of others at tcx ingress (Linux 6.6 and later). They run before every filter of tc and see packets before any rule
//! does. rtnetlink does not list them, and bpf(2) names them to CAP_SYS_ADMIN alone, so a running instance does not see them.

use super::finding::{Finding, warning};
use super::interfaces::interfaces;
use loaded_supervisor::conditions::tcx_programs;

/// One finding for each interface that has such programs.
pub(super) fn findings() -> Vec<Finding> {
    interfaces().iter().filter_map(|name| of(name, &tcx_programs(name))).collect()
}

fn of(interface: &str, programs: &[String]) -> Option<Finding> {
    (!programs.is_empty()).then(|| {
        let text = format!(
            "programs of others at tcx ingress of {interface} ({}) see packets before any rule does, and what they drop never comes \
             here: bpftool net show dev {interface}",
            programs.join(", ")
        );
        warning("hooks", text)
    })
}
