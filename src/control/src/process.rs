//! What the kernel reports about a process: /proc/PID/status, which the process itself cannot influence.

use super::status::Sandbox;
use caps::Capability;
use std::collections::BTreeMap;
use std::{fs, io};

/// Rights and memory of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRights {
    /// Its rights.
    pub sandbox: Sandbox,
    /// Resident memory, kB; `None` for a zombie.
    pub memory_kb: Option<u64>,
}

/// Processor time that a process has used, milliseconds; `None` if that cannot be read.
#[must_use]
pub fn cpu_ms(pid: u32) -> Option<u64> {
    parse_cpu(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The sum of utime and stime, the 14th and 15th field (proc_pid_stat(5)). The name before them may have any characters.
fn parse_cpu(text: &str) -> Option<u64> {
    /// Milliseconds of a tick: USER_HZ is 100 on every architecture that this runs on (include/asm-generic/param.h).
    const TICK: u64 = 10;
    let (_, behind) = text.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11).map(str::parse::<u64>);
    let (user, system) = (fields.next()?.ok()?, fields.next()?.ok()?);
    user.checked_add(system)?.checked_mul(TICK)
}

/// Reads a process. The pid must be our own or that of a child not yet waited for, so that it cannot have been reused.
///
/// # Errors
/// If it cannot be read, or does not match proc_pid_status(5).
pub fn look(pid: u32) -> io::Result<ProcessRights> {
    let path = format!("/proc/{pid}/status");
    parse(&fs::read_to_string(&path)?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not understood")))
}

/// Parses /proc/PID/status; `None` if a field is missing or malformed.
#[must_use]
pub fn parse(text: &str) -> Option<ProcessRights> {
    let fields: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let first = |key| fields.get(key)?.split_whitespace().next();
    // Real, effective, saved and file system uid.
    let uid = fields.get("Uid")?.split_whitespace().nth(1)?.parse().ok()?;
    let seccomp = match first("Seccomp") {
        None | Some("0") => "none",
        Some("1") => "strict",
        Some("2") => "filter",
        Some(_) => return None,
    };
    let sandbox = Sandbox {
        uid,
        seccomp_filters: first("Seccomp_filters").and_then(|count| count.parse().ok()),
        seccomp: seccomp.to_owned(),
        no_new_privs: first("NoNewPrivs")? == "1",
        capabilities: names(u64::from_str_radix(first("CapEff")?, 16).ok()?),
    };
    Some(ProcessRights { sandbox, memory_kb: first("VmRSS").and_then(|kb| kb.parse().ok()) })
}

/// Names of the capabilities in a mask, by number; unknown ones as `CAP_63`.
fn names(mask: u64) -> Vec<String> {
    let known: BTreeMap<u8, Capability> = caps::all().into_iter().map(|cap| (cap.index(), cap)).collect();
    let name = |bit: u8| known.get(&bit).map_or_else(|| format!("CAP_{bit}"), Capability::to_string);
    (0..64).filter(|bit| mask >> bit & 1 == 1).map(name).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    const WORKER: &str = "Name:\tworker[0]\nUmask:\t0022\nState:\tS (sleeping)\nPid:\t77\nUid:\t0\t65534\t0\t0\n\
        Gid:\t65534\t65534\t65534\t65534\nGroups:\t \nVmPeak:\t   50000 kB\nVmRSS:\t   41234 kB\nThreads:\t1\n\
        CapInh:\t0000000000000000\nCapEff:\t0000000000003000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";

    #[test]
    fn a_sealed_worker_is_described() {
        let seen = parse(WORKER).unwrap();
        let capabilities = vec!["CAP_NET_ADMIN".to_owned(), "CAP_NET_RAW".to_owned()];
        let sandbox = Sandbox {
            uid: 65534,
            seccomp_filters: Some(2),
            seccomp: "filter".to_owned(),
            no_new_privs: true,
            capabilities,
        };
        assert_eq!(seen, ProcessRights { sandbox, memory_kb: Some(41234) });
    }

    #[test]
    fn what_a_kernel_may_not_tell_is_left_out() {
        let old = WORKER.replace("Seccomp_filters:\t2\n", "").replace("VmRSS:\t   41234 kB\n", "");
        let seen = parse(&old).unwrap();
        assert_eq!((seen.sandbox.seccomp_filters, seen.memory_kb), (None, None));
        let weak = parse(&WORKER.replace("Seccomp:\t2", "Seccomp:\t0").replace("Privs:\t1", "Privs:\t0")).unwrap();
        assert_eq!((weak.sandbox.seccomp.as_str(), weak.sandbox.no_new_privs), ("none", false));
        assert_eq!(names(1 << 63 | 1), ["CAP_CHOWN", "CAP_63"]);
    }

    #[test]
    fn strange_text_is_no_description() {
        for (from, to) in [
            ("CapEff:", "CapXyz:"),
            ("0000000000003000", "x"),
            ("Seccomp:\t2", "Seccomp:\t9"),
            ("Uid:\t0\t65534", "Uid:\t0"),
            ("65534\t0\t0\n", "-1\t0\t0\n"),
        ] {
            let text = WORKER.replacen(from, to, 1);
            if from.starts_with("Uid") {
                assert_eq!(parse(&text).unwrap().sandbox.uid, 0);
            } else {
                assert_eq!(parse(&text), None, "{from} -> {to}");
            }
        }
        assert_eq!(parse(""), None);
    }

    #[test]
    fn processor_time_is_read_behind_any_name() {
        let stat = "77 (a) b (c)) S 1 77 77 0 -1 4194560 9 0 0 0 123 45 0 0 20 0 1 0 9 0 0";
        assert_eq!(parse_cpu(stat), Some(1680));
        for strange in ["", "77 (a) S 1", "77 (a) S 1 77 77 0 -1 4194560 9 0 0 0 -1 45 0"] {
            assert_eq!(parse_cpu(strange), None, "{strange}");
        }
        assert!(cpu_ms(std::process::id()).is_some());
    }

    #[test]
    fn the_kernel_describes_this_process() {
        let seen = look(std::process::id()).unwrap();
        assert_eq!(seen.sandbox.uid, nix::unistd::geteuid().as_raw());
        assert!(seen.memory_kb.unwrap() > 0);
        assert!(look(u32::MAX).is_err());
    }
}
