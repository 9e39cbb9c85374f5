//! Proves a sandbox from outside, in /proc/PID, where the process itself has no say.
//!
//! The pid must be a child not yet waited for, so that its number cannot have passed to another process.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use crate::identity::{CHROOT, Identity};
use crate::policy::Confinement;
use crate::role::Role;

/// What a sealed process of a role must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// All four uids.
    pub uid: u32,
    /// All four gids.
    pub gid: u32,
    /// CapEff, CapPrm and CapBnd. CapInh and CapAmb are always empty.
    pub caps: u64,
    /// The number of descriptors: exactly 0..fds.
    pub fds: usize,
    /// Its root directory.
    pub root: PathBuf,
    /// Whether it must have a filter of its own; not on a kernel without seccomp where that was allowed.
    pub seccomp: bool,
}

impl Expectation {
    /// For the prober that runs as `identity` and talks to this many workers.
    pub fn prober(identity: &Identity, workers: usize) -> Expectation {
        let all = Expectation::of(Role::Prober, identity);
        Expectation { fds: all.fds + workers, ..all }
    }

    /// For a child of this role that runs as `identity`. A prober has one more descriptor for each worker:
    /// [`Expectation::prober`].
    pub fn of(role: Role, identity: &Identity) -> Expectation {
        let confinement = Confinement::of(role);
        Expectation {
            uid: identity.uid,
            gid: identity.gid,
            caps: confinement.cap_mask(),
            fds: confinement.fds.len(),
            // /var/run is a symlink to /run on most systems, and /proc shows the real path.
            root: fs::canonicalize(CHROOT).unwrap_or_else(|_| CHROOT.into()),
            seccomp: true,
        }
    }
}

/// What was read; goes to the log when a child says Prepared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The process.
    pub pid: u32,
    /// The fields of /proc/PID/status that were compared, as read.
    pub status: BTreeMap<String, String>,
    /// The root directory, if examined.
    pub root: Option<PathBuf>,
    /// The descriptors and what they refer to, if examined.
    pub fds: Option<BTreeMap<i32, PathBuf>>,
}

/// Compares /proc/PID/status, which anyone may read. Each difference is one sentence.
pub fn prove(pid: u32, expected: &Expectation) -> Result<Proof, Vec<String>> {
    let path = format!("/proc/{pid}/status");
    let cannot_read = |e| vec![format!("read {path}: {e}")];
    let status = fs::read_to_string(&path).map_err(cannot_read)?;
    let owner = fs::metadata(&path).map_err(cannot_read)?.uid();
    let own = fs::read_to_string("/proc/self/status").map_err(|e| vec![format!("read /proc/self/status: {e}")])?;
    let unsealed = if expected.seccomp { no_filter_of_its_own(&status, &own) } else { None };
    let (status, mut differences) = compare(&status, expected);
    differences.extend(unsealed);
    // Files in /proc/PID belong to root exactly when the process is not dumpable (proc(5), /proc/pid). The directory
    // itself keeps the process's own user, so it would not do.
    if owner != 0 {
        differences.push(format!("{path} belongs to uid {owner}, so the process is dumpable"));
    }
    if differences.is_empty() { Ok(Proof { pid, status, root: None, fds: None }) } else { Err(differences) }
}

/// Also compares the root directory and the descriptors. Needs CAP_SYS_PTRACE to trace the process, which a trimmed
/// supervisor no longer has; for tests and for `--selftest`.
pub fn prove_deep(pid: u32, expected: &Expectation) -> Result<Proof, Vec<String>> {
    let proof = prove(pid, expected)?;
    let mut differences = Vec::new();
    let root = fs::read_link(format!("/proc/{pid}/root")).map_err(|e| vec![format!("read /proc/{pid}/root: {e}")])?;
    if root != expected.root {
        differences.push(format!("root is {}, not {}", root.display(), expected.root.display()));
    }
    let fds = descriptors(pid).map_err(|e| vec![format!("read /proc/{pid}/fd: {e}")])?;
    if !fds.keys().copied().eq((0..).take(expected.fds)) {
        differences.push(format!("descriptors are {fds:?}, not exactly 0..{}", expected.fds));
    }
    let proof = Proof { root: Some(root), fds: Some(fds), ..proof };
    if differences.is_empty() { Ok(proof) } else { Err(differences) }
}

fn descriptors(pid: u32) -> std::io::Result<BTreeMap<i32, PathBuf>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        if let Some(number) = entry.file_name().to_str().and_then(|n| n.parse().ok()) {
            all.insert(number, fs::read_link(entry.path())?);
        }
    }
    Ok(all)
}

/// A child inherits its parent's filters, and with them "Seccomp: 2": only one more filter shows that it sealed itself.
/// The kernel reports the number since Linux 5.9.
fn no_filter_of_its_own(status: &str, parent: &str) -> Option<String> {
    let filters =
        |text: &str| text.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")?.trim().parse::<u32>().ok());
    let (found, inherited) = (filters(status)?, filters(parent)?);
    (found <= inherited).then(|| format!("Seccomp_filters is {found}, of which {inherited} are its parent's"))
}

fn compare(status: &str, expected: &Expectation) -> (BTreeMap<String, String>, Vec<String>) {
    let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join(" ");
    let mask = |caps: u64| format!("{caps:016x}");
    let wanted = [
        ("Seccomp", "2".to_owned()), // 2 is SECCOMP_MODE_FILTER
        ("NoNewPrivs", "1".to_owned()),
        ("Threads", "1".to_owned()),
        ("Uid", four(expected.uid)), // real, effective, saved, file system
        ("Gid", four(expected.gid)),
        ("Groups", String::new()),
        ("CapInh", mask(0)),
        ("CapPrm", mask(expected.caps)),
        ("CapEff", mask(expected.caps)),
        ("CapBnd", mask(expected.caps)),
        ("CapAmb", mask(0)),
    ];
    let fields: BTreeMap<&str, String> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect();
    let mut read = BTreeMap::new();
    let mut differences = Vec::new();
    for (key, wanted) in wanted.into_iter().filter(|(key, _)| expected.seccomp || *key != "Seccomp") {
        match fields.get(key) {
            Some(found) => {
                if *found != wanted {
                    differences.push(format!("{key} is \"{found}\", not \"{wanted}\""));
                }
                read.insert(key.to_owned(), found.clone());
            }
            None => differences.push(format!("{key} is not in the status file")),
        }
    }
    (read, differences)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SEALED: &str = "Name:\tloaded-worker\nUid:\t9\t9\t9\t9\nGid:\t8\t8\t8\t8\nGroups:\t \nThreads:\t1\n\
        CapInh:\t0000000000000000\nCapPrm:\t0000000000001000\nCapEff:\t0000000000001000\nCapBnd:\t0000000000001000\n\
        CapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";

    fn expected() -> Expectation {
        Expectation::of(Role::Worker, &Identity { uid: 9, gid: 8, name: "nine".to_owned() })
    }

    #[test]
    fn a_sealed_worker_passes() {
        let (read, differences) = compare(SEALED, &expected());
        assert_eq!(differences, Vec::<String>::new());
        assert_eq!(read["CapEff"], "0000000000001000");
    }

    #[test]
    fn a_parents_filter_is_not_the_childs_own() {
        let parent = |filters: &str| SEALED.replace("Seccomp_filters:\t2", filters);
        assert_eq!(no_filter_of_its_own(SEALED, &parent("Seccomp_filters:\t1")), None);
        assert_eq!(no_filter_of_its_own(SEALED, &parent("Seccomp_filters:\t0")), None);
        assert!(no_filter_of_its_own(SEALED, &parent("Seccomp_filters:\t2")).is_some());
        assert_eq!(no_filter_of_its_own(SEALED, &parent("")), None, "Linux before 5.9");
    }

    #[test]
    fn each_difference_is_found() {
        for (from, to) in [
            ("Seccomp:\t2", "Seccomp:\t0"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("Threads:\t1", "Threads:\t2"),
            ("9\t9\t9\t9", "9\t9\t0\t9"),
            ("8\t8\t8\t8", "8\t8\t8\t0"),
            ("Groups:\t ", "Groups:\t4 "),
            ("CapInh:\t0000000000000000", "CapInh:\t0000000000001000"),
            ("CapPrm:\t0000000000001000", "CapPrm:\t0000000000003000"),
            ("CapEff:\t0000000000001000", "CapEff:\t0000000000000000"),
            ("CapBnd:\t0000000000001000", "CapBnd:\t000001ffffffffff"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000001000"),
            ("CapAmb:", "CapXyz:"),
        ] {
            let (_, differences) = compare(&SEALED.replacen(from, to, 1), &expected());
            assert_eq!(differences.len(), 1, "{from} -> {to}: {differences:?}");
        }
    }
}
