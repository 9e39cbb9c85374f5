//! An instance at rest: its rules, its open files, its processes.

use super::{Samples, role_of};
use crate::rig::lab::Lab;
use crate::rig::loaded::lives;
use nix::fcntl::OFlag;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long open files are counted, and how often.
const COUNTED: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);

/// All rules of the balancer, without counters, comments and this instance's secret: hash keys are drawn at each start.
pub(crate) fn rules(lab: &Lab) -> String {
    let text = lab.sh("lb", "iptables-save && ip6tables-save && nft -s list ruleset 2>/dev/null");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| without_key(&without_counters(line)) + "\n").collect()
}

/// Without " [packets:bytes]".
fn without_counters(line: &str) -> String {
    match line.rsplit_once(" [") {
        Some((rest, counters)) if counters.trim_end_matches(']').chars().all(|c| c.is_ascii_digit() || c == ':') => {
            rest.to_owned()
        }
        _ => line.to_owned(),
    }
}

fn without_key(line: &str) -> String {
    const OPTION: &str = "--bytecode \"";
    let Some((head, tail)) = line.split_once(OPTION) else { return line.to_owned() };
    let rest = tail.split_once('"').map_or("", |(_, rest)| rest);
    format!("{head}{OPTION}KEY\"{rest}")
}

/// Fails with the lines in which two texts differ.
pub(crate) fn same(before: &str, after: &str) -> Result<(), String> {
    if before == after {
        return Ok(());
    }
    let without = |all: &str, others: &str| {
        all.lines().filter(|line| !others.lines().any(|other| other == *line)).collect::<Vec<_>>().join("\n")
    };
    Err(format!("missing:\n{}\nadded:\n{}", without(before, after), without(after, before)))
}

/// Files a process keeps open, counted by kind. Files it opens for a moment do not count: a check's socket, a connection to
/// the control socket that it has yet to close. Nor do files inherited from the shell through us: a fresh supervisor has all
/// of them, but an upgrade hands over descriptors by number and replaces those in the way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Files {
    pub(crate) count: usize,
    kinds: BTreeMap<String, usize>,
}

impl Files {
    /// Of each of these processes the fewest in `COUNTED`, sorted. Nobody may ask them anything meanwhile.
    pub(crate) fn at_rest(pids: &[u32]) -> Vec<Self> {
        let mut fewest: BTreeMap<u32, Self> = BTreeMap::new();
        let passed_on = passed_on();
        let end = Instant::now() + COUNTED;
        while Instant::now() < end {
            for &pid in pids {
                let files = Self::now(pid, &passed_on);
                let known = fewest.entry(pid).or_insert_with(|| files.clone());
                if files.count < known.count {
                    *known = files;
                }
            }
            std::thread::sleep(LOOK);
        }
        let mut all: Vec<_> = fewest.into_values().collect();
        all.sort();
        all
    }

    fn now(pid: u32, passed_on: &[(OsString, PathBuf)]) -> Self {
        let mut kinds = BTreeMap::new();
        for file in open(&pid.to_string()).into_iter().filter(|file| !passed_on.contains(file)) {
            let target = file.1.display().to_string();
            *kinds.entry(target.split(":[").next().unwrap().to_owned()).or_default() += 1;
        }
        Self { count: kinds.values().sum(), kinds }
    }
}

/// Numbers and targets of a process's descriptors.
fn open(pid: &str) -> Vec<(OsString, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    // One that is closed just now still counts.
    entries.map(|entry| (entry.file_name(), fs::read_link(entry.path()).unwrap_or_default())).collect()
}

/// Descriptors our children inherit beside the standard three: those without close-on-exec.
fn passed_on() -> Vec<(OsString, PathBuf)> {
    let stays_open = |number: &OsString| {
        let text = fs::read_to_string(Path::new("/proc/self/fdinfo").join(number)).unwrap_or_default();
        let flags = text.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        flags.is_some_and(|flags| !OFlag::from_bits_retain(flags).contains(OFlag::O_CLOEXEC))
    };
    let is_standard = |number: &OsString| ["0", "1", "2"].iter().any(|standard| number == standard);
    open("self").into_iter().filter(|(number, _)| !is_standard(number) && stays_open(number)).collect()
}

/// Processes of the instance that were ever seen and still live.
pub(crate) fn alive(samples: &Samples) -> Vec<u32> {
    samples.known.iter().copied().filter(|pid| role_of(*pid).is_some() && lives(*pid)).collect()
}

/// Fails if a network namespace with this prefix exists.
pub(crate) fn no_namespace(prefix: &str) -> Result<(), String> {
    let names =
        fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let left: Vec<_> = names.filter(|name| name.starts_with(prefix)).collect();
    if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
}

#[test]
fn rules_are_compared_without_what_changes() {
    assert_eq!(without_counters(":INPUT ACCEPT [17:2040]"), ":INPUT ACCEPT");
    assert_eq!(without_counters("-A INPUT -j DROP"), "-A INPUT -j DROP");
    assert_eq!(without_key("-m bpf --bytecode \"3,1 2 3\" -j X"), "-m bpf --bytecode \"KEY\" -j X");
}
