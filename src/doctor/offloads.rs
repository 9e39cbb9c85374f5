//! Network card offloads that change packets before netfilter sees them, from `ethtool -k`.

use super::finding::{Finding, sound, unseen, warning};
use super::interfaces::interfaces;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Not looked up in PATH: this runs as root.
const ETHTOOL: [&str; 3] = ["/usr/sbin/ethtool", "/sbin/ethtool", "/usr/bin/ethtool"];

/// Checks every interface with a device behind it; virtual ones (veth, bridges) for LRO only, because GRO gains nothing
/// without a wire.
pub(super) fn findings() -> Vec<Finding> {
    let Some(ethtool) = ETHTOOL.iter().find(|path| Path::new(path).is_file()) else {
        return vec![unseen(
            "offloads",
            "ethtool is not installed, and no file shows offloads: apt-get install ethtool",
        )];
    };
    let names = interfaces();
    let mut problems = Vec::new();
    for name in &names {
        let output = Command::new(ethtool).args(["-k", name]).env_clear().stdin(Stdio::null()).output();
        let Ok(output) = output else { continue };
        let real = fs::exists(format!("/sys/class/net/{name}/device")).unwrap_or(false);
        problems.extend(judge(name, &String::from_utf8_lossy(&output.stdout), real));
    }
    if problems.is_empty() {
        problems.push(sound("offloads", format!("none of {} merges packets irreversibly", listed(&names))));
    }
    problems
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "no interface".to_owned() } else { names.join(", ") }
}

/// Judges the output of `ethtool -k` for one interface.
fn judge(name: &str, features: &str, real: bool) -> Vec<Finding> {
    let is = |feature: &str, state: &str| {
        let value = features.lines().find_map(|line| line.trim().strip_prefix(feature)?.strip_prefix(": "));
        value.is_some_and(|value| value.split(' ').next() == Some(state) && !value.contains("[fixed]"))
    };
    let mut problems = Vec::new();
    // The kernel turns it off where packets are forwarded (dev_disable_lro, net/core/dev.c); somebody turned it on again.
    if is("large-receive-offload", "on") {
        problems.push(warning(
            "offloads",
            format!("{name} merges packets in a way that cannot be undone when they are forwarded (LRO): ethtool -K {name} lro off"),
        ));
    }
    if real && is("generic-receive-offload", "off") {
        problems.push(warning(
            "offloads",
            format!("{name} does not merge segments (GRO), so each costs a worker a verdict of its own: ethtool -K {name} gro on"),
        ));
    }
    if real && is("rx-checksumming", "off") {
        problems.push(warning(
            "offloads",
            format!(
                "{name} does not verify checksums, so the kernel does, and GRO merges less: ethtool -K {name} rx on"
            ),
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(features: &str, real: bool) -> Vec<String> {
        judge("eth0", features, real).into_iter().map(|finding| finding.text).collect()
    }

    #[test]
    fn what_can_be_mended_is_named_with_the_command() {
        let good = "Features for eth0:\nrx-checksumming: on\n\tgeneric-receive-offload: on\nlarge-receive-offload: off [fixed]\n";
        assert!(said(good, true).is_empty());
        let lro = said(&good.replace("offload: off [fixed]", "offload: on"), false);
        assert!(lro.len() == 1 && lro[0].ends_with(": ethtool -K eth0 lro off"), "{lro:?}");
        let bad = good.replace("offload: on", "offload: off").replace("checksumming: on", "checksumming: off");
        let commands: Vec<_> =
            said(&bad, true).into_iter().filter_map(|t| t.rsplit(": ").next().map(str::to_owned)).collect();
        assert_eq!(commands, ["ethtool -K eth0 gro on", "ethtool -K eth0 rx on"]);
        assert!(said(&bad, false).is_empty(), "no wire");
        assert!(said(&bad.replace("off\n", "off [fixed]\n"), true).is_empty(), "cannot be changed");
        assert!(said("", true).is_empty());
    }
}
