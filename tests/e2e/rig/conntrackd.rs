//! What a pair of `loaded` is compared with: the kernel's own NAT (nft) on both, and conntrackd, which tells the other one over a
//! link of their own what connections there are (FTFW). keepalived moves the same addresses as for `loaded` and runs conntrackd's own
//! script (`primary-backup.sh` of its package), which takes those connections over.
//!
//! Both choose a client's backend alike, and both drop what belongs to no connection that they know, so that nothing goes wrong
//! before all have been taken over: the best that is known of such a pair.

use super::debian::{documents, installed};
use super::lab::{Lab, eventually};
use super::net::Family;
use super::pair::{LINK, address, run_keepalived, without_loaded};
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

const START: Duration = Duration::from_secs(10);

/// conntrackd's script; installs what is missing. `None` where that cannot be, unless LOADED_CI demands it.
pub(crate) fn script() -> Option<PathBuf> {
    installed("conntrackd")?;
    Some(documents("conntrackd")?.join("usr/share/doc/conntrackd/examples/sync/primary-backup.sh"))
}

/// Starts one of them: rules, conntrackd, keepalived.
#[track_caller]
pub(crate) fn serve(lab: &Lab, who: &str) {
    let script = script().unwrap();
    // What is in the middle of a connection that is not known begins none.
    lab.sh(who, "sysctl -qw net.netfilter.nf_conntrack_tcp_loose=0");
    let rules = lab.file(&format!("{who}.nft"), &Family::BOTH.map(rules).concat());
    lab.sh(who, &format!("nft -f {rules}"));
    let path = |name: &str| format!("{}/{who}.conntrackd.{name}", lab.state().display());
    let config = lab.file(&format!("{who}.conntrackd"), &config(who, path));
    let log = File::create(path("out")).unwrap();
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.namespace(who), "conntrackd", "-C", &config]).stdin(Stdio::null());
    let mut child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    std::thread::spawn(move || drop(child.wait()));
    let said = || fs::read_to_string(path("log")).unwrap_or_default() + &fs::read_to_string(path("out")).unwrap();
    assert!(eventually(START, || fs::exists(path("ctl")).unwrap()), "conntrackd does not start: {}", said());

    let moves = fs::read_to_string(&script).unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let moves = [("/etc/conntrackd/conntrackd.conf", &config), ("/var/lock/conntrack.lock", &path("lock"))]
        .into_iter()
        .fold(moves, |text, (theirs, ours)| exactly_once(&text, theirs, ours));
    run_keepalived(lab, who, &keepalived(&lab.file(&format!("{who}.primary-backup.sh"), &moves)));
}

/// DNAT of both services to three backends, by a hash of client and port that is the same on both.
fn rules(family: Family) -> String {
    let ip = if family == Family::V4 { "ip" } else { "ip6" };
    let backends = [1, 2, 3].map(|n| format!("{} : {}", n - 1, family.backend(n))).join(", ");
    let one = |protocol: &str, port: u16| {
        format!(
            "{ip} daddr {} {protocol} dport {port} \
             dnat to jhash {ip} saddr . {protocol} sport mod 3 seed 0x6c6f6164 map {{ {backends} }}\n",
            family.vip()
        )
    };
    format!(
        "table {ip} pair {{
            chain known {{
                type filter hook prerouting priority mangle;
                ct state invalid drop
            }}
            chain place {{
                type nat hook prerouting priority dstnat;
                {}{}
            }}
        }}\n",
        one("tcp", 80),
        one("udp", 7007)
    )
}

/// The values of the package's own example (`sync/ftfw/conntrackd.conf`), and UDP too.
fn config(who: &str, path: impl Fn(&str) -> String) -> String {
    let (own, log, lock, control) = (address(who), path("log"), path("lock"), path("ctl"));
    format!(
        "Sync {{
            Mode FTFW {{
            }}
            Multicast {{
                IPv4_address 225.0.0.50
                Group 3780
                IPv4_interface {own}
                Interface {LINK}
                SndSocketBuffer 1249280
                RcvSocketBuffer 1249280
                Checksum on
            }}
        }}
        General {{
            HashSize 32768
            HashLimit 131072
            LogFile {log}
            LockFile {lock}
            UNIX {{
                Path {control}
            }}
            NetlinkBufferSize 2097152
            NetlinkBufferSizeMaxGrowth 8388608
            Filter From Userspace {{
                Protocol Accept {{
                    TCP
                    UDP
                }}
                Address Ignore {{
                    IPv4_address 127.0.0.1
                    IPv4_address {own}
                    IPv6_address ::1
                }}
            }}
        }}
        "
    )
}

/// The shipped configuration, and conntrackd's script.
fn keepalived(script: &str) -> String {
    let notify = [("master", "primary"), ("backup", "backup"), ("fault", "fault")]
        .map(|(state, word)| format!("    notify_{state} \"/usr/bin/env sh {script} {word}\"\n"));
    let group = "vrrp_sync_group balancer {\n";
    exactly_once(&without_loaded(), group, &format!("{group}{}", notify.concat()))
}

#[track_caller]
fn exactly_once(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from} in\n{text}");
    text.replace(from, to)
}
