//! Everything that must prevent a start: a clear error, an exit code, and nothing changed on the host.

use crate::rig::lab::{Lab, binary, bounded, said, shipped};
use crate::rig::loaded::Loaded;
use std::fs;

/// What is wrong, and what the error must say.
struct Case {
    what: &'static str,
    /// Replacements in the shipped configuration, or a text of its own with a name.
    config: Config,
    arguments: &'static [&'static str],
    /// Words to put before the command.
    wrapper: &'static [&'static str],
    code: i32,
    says: &'static [&'static str],
}

enum Config {
    /// The shipped file of this name, one text replaced by another.
    Edited(&'static str, &'static str, &'static str),
    Text(&'static str, &'static str),
    Path(&'static str),
    Shipped,
}

use Config::{Edited, Path, Shipped, Text};

/// Runs the command after a shell script that changes the file system for it alone.
macro_rules! elsewhere {
    ($script:literal) => {
        &["unshare", "-m", "sh", "-c", concat!($script, " && exec \"$@\""), "sh"]
    };
}

const NOBODY: &[&str] = &["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"];

const fn case(what: &'static str, config: Config, says: &'static [&'static str]) -> Case {
    Case { what, config, arguments: &[], wrapper: &[], code: 1, says }
}

const fn with(
    what: &'static str,
    arguments: &'static [&'static str],
    code: i32,
    says: &'static [&'static str],
) -> Case {
    Case { what, config: Shipped, arguments, wrapper: &[], code, says }
}

const fn inside(what: &'static str, wrapper: &'static [&'static str], says: &'static [&'static str]) -> Case {
    Case { what, config: Shipped, arguments: &[], wrapper, code: 1, says }
}

const CLASSIC: &str = "loaded.config";
const TOML: &str = "loaded.toml";

const CASES: &[Case] = &[
    case("missing file", Path("nothing.config"), &["nothing.config: cannot read", "No such file"]),
    case("directory", Path("."), &["not a regular file"]),
    case("not text", Text("x.config", "VIP4=\0\n"), &["x.config: refused", "zero bytes"]),
    case("empty", Text("x.config", ""), &["x.config:1:1: ", "neither VIP4 nor VIP6"]),
    case(
        "malformed VIP",
        Edited(CLASSIC, "VIP4=192.0.2.100", "VIP4=192.0.2.1000"),
        &["loaded.config:", ":6: ", "not an IPv4 address"],
    ),
    case("VIP without dots", Text("x.config", "VIP4=localhost\n"), &["x.config:1:6: ", "\"localhost\""]),
    case("malformed prefix", Edited(CLASSIC, "VIP4net=24", "VIP4net=33"), &[":9: ", "1 to 32"]),
    case(
        "network with host bits",
        Edited(CLASSIC, "RIP4=198.51.100.0/24", "RIP4=198.51.100.1/24"),
        &[":6: ", "host bits"],
    ),
    case("number that is none", Edited(CLASSIC, "nfq_len=16384", "nfq_len=16k"), &[":9: ", "\"16k\""]),
    case("unknown strategy", Edited(CLASSIC, "strategy=rr", "strategy=random"), &[":10: ", "rr, weighted or maglev"]),
    case("near miss of a key", Edited(CLASSIC, "strategy=rr", "stratgy=rr"), &[":1: ", "did you mean strategy"]),
    case("digit at a key", Edited(CLASSIC, "NS=192.0.2.53 ", "NS1=192.0.2.53 "), &[":1: ", "did you mean NS"]),
    case("VIP is a backend", Text("x.config", "VIP4=192.0.2.1\nserver4=192.0.2.1\n"), &["x.config:2:9: ", "192.0.2.1"]),
    case(
        "family mixed up",
        Edited(CLASSIC, "server4=198.51.100.12", "server4=2001:db8:2::12"),
        &[":9: ", "not an IPv4 address"],
    ),
    case(
        "backend twice",
        Edited(CLASSIC, "server4=198.51.100.12", "server4=198.51.100.11"),
        &[":9: ", "198.51.100.11"],
    ),
    case(
        "backend elsewhere",
        Edited(CLASSIC, "server4=198.51.100.12", "server4=203.0.113.12"),
        &[":9: ", "outside of the network"],
    ),
    case("no backend", Text("x.config", "VIP4=192.0.2.100\n"), &["x.config:1:6: ", "no backend"]),
    case("no such core", Edited(CLASSIC, "LAST_CORE=1", "LAST_CORE=4095"), &["cores 0-4095", "available: "]),
    case("cores backwards", Edited(CLASSIC, "FIRST_CORE=0", "FIRST_CORE=2"), &["loaded.config:", "_CORE"]),
    case(
        "failover that is neither on nor off",
        Edited(CLASSIC, "strategy=rr", "failover=2"),
        &["loaded.config:", "failover"],
    ),
    case("no TOML", Text("x.toml", "[[service]\n"), &["x.toml:1:", "not TOML"]),
    case(
        "unknown TOML key",
        Edited(TOML, "weight = 3", "wieght = 3"),
        &["loaded.toml:", ":1: ", "did you mean weight"],
    ),
    case(
        "key of a later version",
        Edited(TOML, "mode = \"nat\"", "limit = 5"),
        &["loaded.toml:", ":1: ", "limit", "not part of this version"],
    ),
    case("check that lacks a field", Edited(TOML, "kind = \"dns\"", "kind = \"udp\""), &["loaded.toml:", "udp"]),
    case(
        "policy that is not there",
        Edited(TOML, "all_down = \"reject\"", "all_down = \"panic\""),
        &["loaded.toml:", "reject"],
    ),
    case(
        "discovery in a network wider than the private one",
        Text(
            "x.config",
            "VIP4=192.0.2.100\nRIP4=198.51.0.0/16\nprivate_GW=198.51.100.254/24\nserver4=198.51.100.11\n\
             failover=1\nbroadcast=198.51.255.255\n",
        ),
        &["x.config:", "198.51.0.0/16"],
    ),
    case("port out of range", Edited(TOML, "[80, 443, ", "[80, 70000, "), &["loaded.toml:", ":14: ", "65535"]),
    case("ports backwards", Edited(TOML, "8000-8010", "8010-8000"), &["loaded.toml:", "backwards"]),
    case("mode that is not there", Edited(TOML, "mode = \"nat\"", "mode = \"tun\""), &["loaded.toml:", ":8: ", "tun"]),
    case(
        "malformed TOML address",
        Edited(TOML, "address = \"198.51.100.11\"", "address = \"198.51.100\""),
        &["loaded.toml:", ":11: "],
    ),
    case("weight 0", Edited(TOML, "weight = 3", "weight = 0"), &["loaded.toml:", ":10: ", "256"]),
    case(
        "TOML backend is a VIP",
        Edited(TOML, "\"198.51.100.12\"", "\"192.0.2.100\""),
        &["loaded.toml:", ":11: ", "192.0.2.100"],
    ),
    case(
        "VIP of a family without backends",
        Edited(TOML, "\"198.51.100.13\"", "\"2001:db8:2::13\""),
        &["loaded.toml:", "dns"],
    ),
    case(
        "root in the file",
        Edited(TOML, "user = \"nobody\"", "user = \"root\""),
        &["loaded.toml:", ":8: ", "never run as root"],
    ),
    with("unknown user", &["-U", "nosuchuser"], 1, &["\"nosuchuser\"", "no such user"]),
    with("user root", &["-U", "root"], 1, &["-U", "never run as root"]),
    with("user 0", &["-U", "0"], 1, &["-U", "never run as root"]),
    with("both narrowings", &["-4", "-6"], 2, &["cannot be used with"]),
    with("no IPv6 in the file", &["-6"], 1, &["-6"]),
    with("queue length 0", &["-Q", "0"], 2, &["--queue-len"]),
    with("queue number too high", &["--queue-base", "65535"], 1, &["65535"]),
    with("unknown option", &["--fast"], 2, &["--fast"]),
    with("pid file in no directory", &["--pid-file", "/nonexistent/pid"], 1, &["pid file /nonexistent/pid"]),
    inside("not root", NOBODY, &["must be started as root"]),
    inside("no chroot directory", elsewhere!("mount -t tmpfs none /run"), &["/var/run/empty", "does not exist"]),
    inside(
        "chroot directory for all",
        elsewhere!("mount -t tmpfs -o mode=777 none /var/run/empty"),
        &["/var/run/empty", "mode 0777"],
    ),
    inside(
        "chroot directory with a file",
        elsewhere!("mount -t tmpfs -o mode=755 none /var/run/empty && touch /var/run/empty/x"),
        &["/var/run/empty", "not empty"],
    ),
    inside("no iptables", elsewhere!("mount -t tmpfs none /usr/sbin"), &["iptables-restore", "package iptables"]),
    inside(
        "iptables that fails",
        elsewhere!("mount --bind /bin/false \"$(readlink -f /usr/sbin/iptables-restore)\""),
        &["iptables", "exit status: 1"],
    ),
    inside("no forwarding", elsewhere!("sysctl -qw net.ipv4.ip_forward=0"), &["sysctl -w net.ipv4.ip_forward=1"]),
];

impl Case {
    fn config(&self, lab: &Lab) -> String {
        match self.config {
            Edited(name, from, to) => {
                let text = fs::read_to_string(shipped(&format!("scripts/{name}"))).unwrap();
                assert_eq!(text.matches(from).count(), 1, "{}: {from:?} stands once in {name}", self.what);
                lab.file(name, &text.replace(from, to))
            }
            Text(name, text) => lab.file(name, text),
            Path(name) => lab.state().join(name).to_str().unwrap().to_owned(),
            Shipped => shipped("scripts/loaded.config"),
        }
    }

    /// What is not as it must be.
    fn problems(&self, lab: &Lab) -> Vec<String> {
        let (binary, config, namespace) = (binary(), self.config(lab), lab.namespace("lb"));
        let inside = ["ip", "netns", "exec", &namespace];
        let command = [binary.to_str().unwrap(), "-D", "-c", &config];
        let words = [&inside, self.wrapper, &command, self.arguments].concat();
        let said = said(&bounded(&words).output().unwrap());
        let mut problems = Vec::new();
        if said.code != Some(self.code) {
            problems.push(format!("ended with {:?}, not {}", said.code, self.code));
        }
        let missing = self.says.iter().filter(|text| !said.err.contains(**text));
        problems.extend(missing.map(|text| format!("does not say {text:?}: {}", said.err.trim())));
        problems.iter().map(|problem| format!("{}: {problem}", self.what)).collect()
    }
}

#[test]
fn nothing_starts_and_nothing_changes() {
    let Some(lab) = Lab::up() else { return };
    let state = || {
        (
            lab.rules(),
            lab.queues(),
            lab.sh("lb", "sysctl -a 2>/dev/null | grep -E 'net.ipv[46].conf.*(forward|rp_filter|accept)'"),
        )
    };
    let before = state();
    let mut problems = Vec::new();
    for case in CASES {
        problems.extend(case.problems(&lab));
        if case.what == "no forwarding" {
            lab.sh("lb", "sysctl -qw net.ipv4.ip_forward=1");
        }
        if state() != before {
            problems.push(format!("{}: has changed rules, queues or settings", case.what));
        }
    }
    assert!(problems.is_empty(), "{} of {} cases:\n{}", problems.len(), CASES.len(), problems.join("\n"));
    // It was none of the lab's faults.
    Loaded::classic(&lab).stop();
}
