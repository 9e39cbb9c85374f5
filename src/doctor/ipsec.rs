//! IPsec policies of this host: one that demands encryption drops whatever comes without it, balanced packets too.

use super::finding::{Finding, warning};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Not looked up in PATH: this runs as root.
const IP: [&str; 3] = ["/usr/sbin/ip", "/sbin/ip", "/bin/ip"];
/// Packets that policies have dropped (net/xfrm/xfrm_proc.c; Documentation/networking/xfrm/xfrm_proc.rst): no state that
/// a policy asks for, and a policy that says so.
const DROPS: [&str; 5] = ["XfrmInTmplMismatch", "XfrmInNoPols", "XfrmInPolBlock", "XfrmOutNoStates", "XfrmOutPolBlock"];

/// Policies, if there are any, and what such have dropped since this host started. Nothing tells which packets they meet:
/// their selectors may be anything.
pub(super) fn findings() -> Option<Finding> {
    let ip = IP.iter().find(|path| Path::new(path).is_file())?;
    let output = Command::new(ip).args(["xfrm", "policy"]).env_clear().stdin(Stdio::null()).output().ok()?;
    let policies = policies(&String::from_utf8_lossy(&output.stdout));
    let dropped = dropped(&fs::read_to_string("/proc/net/xfrm_stat").unwrap_or_default());
    (policies > 0).then(|| {
        let text = format!(
            "this host has IPsec policies ({policies}), which have dropped packets since it started ({dropped}); one that demands \
             encryption drops balanced packets that come without it: ip xfrm policy"
        );
        warning("ipsec", text)
    })
}

/// Policies in the output of `ip xfrm policy` but those of single sockets: each has a line with its direction.
fn policies(text: &str) -> usize {
    text.lines().filter(|line| line.trim_start().starts_with("dir ")).count()
}

fn dropped(text: &str) -> u64 {
    let of = |line: &str| {
        let (name, count) = line.split_once(char::is_whitespace)?;
        DROPS.contains(&name).then_some(count.trim().parse::<u64>().ok()?)
    };
    text.lines().filter_map(of).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_counted_and_what_they_have_dropped() {
        let text = "src 0.0.0.0/0 dst 198.51.100.99/32 \n\tdir out action block priority 0 \n\
                    src 192.0.2.0/24 dst 198.51.100.0/24 \n\tdir fwd priority 0 \n\ttmpl src 0.0.0.0 dst 0.0.0.0\n\
                    src 0.0.0.0/0 dst 0.0.0.0/0 \n\tsocket in priority 0 \n";
        assert_eq!((policies(text), policies("")), (2, 0));
        let text =
            "XfrmInError             \t7\nXfrmInTmplMismatch      \t3\nXfrmOutPolBlock         \t2\nXfrmInNoPols\t\n";
        assert_eq!((dropped(text), dropped("")), (5, 0));
    }
}
